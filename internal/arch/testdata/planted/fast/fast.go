// Package fast must not log, nor know of control; it does both.
package fast

import (
	"strings"

	"example.test/planted/control"
	"example.test/planted/middle"
)

// Work uses both.
func Work() string { return strings.ToUpper(middle.Name() + control.Name()) }
