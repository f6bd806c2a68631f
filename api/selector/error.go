package selector

import "fmt"

// Error says why a selector was refused, where, and what would be right.
type Error struct {
	Pos     int    // bytes before the fault; the text's length where something is missing at its end
	Found   string // what stands there, in quotes, or in words
	Want    string // what would be right there
	Example string // a selector that has it right
}

// Error puts it all in one line; what was found is quoted, so that it cannot
// write to a terminal.
func (e *Error) Error() string {
	return fmt.Sprintf("read selector: at byte %d found %s, want %s, as in %q", e.Pos+1, e.Found, e.Want, e.Example)
}
