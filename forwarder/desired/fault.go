package desired

import "fmt"

// maxFaults is how many faults one refusal tells; a client that sends a
// million bad routes needs no million lines.
const maxFaults = 100

// faults gathers what is wrong with a commit, each naming object and field.
type faults struct {
	list []string
	more int
}

// add notes one fault: the object's field is value, and what was wanted.
func (f *faults) add(object, field string, value any, want string) {
	f.say("%s: %s is %v, want %s", object, field, value, want)
}

func (f *faults) say(format string, args ...any) {
	if len(f.list) >= maxFaults {
		f.more++
		return
	}
	f.list = append(f.list, fmt.Sprintf(format, args...))
}

func (f *faults) any() bool { return len(f.list) > 0 }

// all returns every fault told, with a last line for those left out.
func (f *faults) all() []string {
	if f.more == 0 {
		return f.list
	}
	return append(f.list[:len(f.list):len(f.list)], fmt.Sprintf("and %d more", f.more))
}
