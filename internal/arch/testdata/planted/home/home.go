// Package home is the one that may import encoding/xml.
package home

import "encoding/xml"

// Header is what xml says it is.
const Header = xml.Header
