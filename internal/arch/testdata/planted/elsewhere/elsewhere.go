// Package elsewhere writes a variable that is not its own.
package elsewhere

import "example.test/planted/vars"

func init() { vars.Shared = 2 }
