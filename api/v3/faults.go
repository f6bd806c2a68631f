package v3

import (
	"fmt"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MaxFaults is how many faults of one object are told: the more there are, the
// less they are read.
const MaxFaults = 100

// faults collects what is wrong with an object.
type faults struct {
	list field.ErrorList
	more bool // beyond MaxFaults
}

// full reports whether no more faults will be told, so that the readers of long
// lists may stop.
func (f *faults) full() bool { return f.more }

// add tells of faults, with a value of each no longer than a line.
func (f *faults) add(faults ...*field.Error) {
	for _, e := range faults {
		if len(f.list) == MaxFaults {
			f.more = true
			return
		}
		if s, ok := e.BadValue.(string); ok {
			e.BadValue = cut(s)
		}
		f.list = append(f.list, e)
	}
}

// invalid says what a value must be instead.
func (f *faults) invalid(p *field.Path, value any, want string) { f.add(field.Invalid(p, value, want)) }

// invalidf is invalid with a format.
func (f *faults) invalidf(p *field.Path, value any, format string, args ...any) {
	f.invalid(p, value, fmt.Sprintf(format, args...))
}

// forbidden says why a field must go, or what must go with it.
func (f *faults) forbidden(p *field.Path, why string) { f.add(field.Forbidden(p, why)) }

// required says what a missing field must be.
func (f *faults) required(p *field.Path, want string) { f.add(field.Required(p, want)) }

// messages are what a check of Kubernetes has to say of a value.
func (f *faults) messages(p *field.Path, value string, messages []string) {
	for _, m := range messages {
		f.invalid(p, value, m)
	}
}

// atMost refuses a list that is too long.
func (f *faults) atMost(p *field.Path, n, most int) bool {
	if n > most {
		f.add(field.TooMany(p, n, most))
	}
	return n <= most
}

// all is every fault, or MaxFaults and one that says that there are more.
func (f *faults) all() field.ErrorList {
	if f.more {
		return append(f.list, field.Forbidden(nil, fmt.Sprintf("there are more faults than these %d: mend these first", MaxFaults)))
	}
	return f.list
}

// cut shortens what someone wrote to what fits a message.
func cut(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}
