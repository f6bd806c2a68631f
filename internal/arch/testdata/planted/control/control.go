// Package control imports what only home may.
package control

import "encoding/xml"

// Name is a constant in the end.
func Name() string { return xml.Header }
