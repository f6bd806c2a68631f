package felix

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"margay.dev/margay/api/v3/felix"
)

// EnvironmentPrefix stands before the names of variables that are settings, as
// Felix has them: FELIX_LOGPREFIX is the field logPrefix.
const EnvironmentPrefix = "FELIX_"

// Local is what is said of settings on the node itself, above all that is in the
// store. The zero value says nothing.
type Local struct {
	Settings felix.Settings
	// Refused are fields, by their names in JSON, of which something was said that
	// cannot be used: they have the built-in value, as in Felix, whatever else says.
	Refused map[string]bool
}

// Fault is a variable that cannot be used.
type Fault struct {
	Variable string
	Err      error // what is wrong with it, and what to do
}

// Error implements error.
func (f *Fault) Error() string { return f.Variable + ": " + f.Err.Error() }

// Unwrap is what is wrong.
func (f *Fault) Unwrap() error { return f.Err }

// OnNode joins what variables say, each as NAME=VALUE, with what a configuration file
// does, which may be nil; variables come first. Those that are not Felix's are passed
// over. The faults are of those that are, sorted.
func OnNode(environ []string, file *felix.Settings) (Local, []*Fault) {
	l := Local{Refused: map[string]bool{}}
	said := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if name = strings.ToUpper(name); strings.HasPrefix(name, EnvironmentPrefix) {
			said[name] = strings.TrimSpace(value)
		}
	}
	var faults []*Fault
	known := variables()
	for _, name := range slices.Sorted(maps.Keys(said)) {
		v, ok := known[strings.TrimPrefix(name, EnvironmentPrefix)]
		if !ok {
			faults = append(faults, &Fault{name, fmt.Errorf("is no setting of a FelixConfiguration: it is passed over; the node's name, the store and logs are in margay-agent's own configuration")})
			continue
		}
		if err := l.take(v, said[name]); err != nil {
			l.Refused[v.field] = true
			faults = append(faults, &Fault{name, fmt.Errorf("is %.80q: %w: %s has its built-in value until this is mended", said[name], err, v.field)})
		}
	}
	if file != nil {
		fill(reflect.ValueOf(&l.Settings).Elem(), reflect.ValueOf(file).Elem(), l.Refused)
	}
	return l, faults
}

// take takes a value if it can be used.
func (l *Local) take(v variable, text string) error {
	var one felix.Settings
	to := reflect.ValueOf(&one).Elem().FieldByIndex(v.index)
	if err := parse(to, text, v.unit); err != nil {
		return err
	}
	if faults := one.Validate(nil); len(faults) > 0 {
		return fmt.Errorf("%s", faults[0].Detail)
	}
	reflect.ValueOf(&l.Settings).Elem().FieldByIndex(v.index).Set(to)
	return nil
}

// variable is one that says a field.
type variable struct {
	field string // its name in JSON
	index []int
	unit  string // of durations that are numbers
}

// former are Felix's names of variables that are not those of fields.
var former = map[string]string{
	"IPINIPENABLED": "ipipEnabled", "IPINIPMTU": "ipipMTU", "WIREGUARDPERSISTENTKEEPALIVE": "wireguardKeepAlive",
}

// variables are those of all fields, by their names without prefix: those of the
// fields in capitals; of durations also with the unit in which Felix counts them.
func variables() map[string]variable {
	out, fields := map[string]variable{}, map[string]variable{}
	each(reflect.TypeFor[felix.Settings](), nil, func(name string, index []int, t reflect.Type) {
		if name == "nodeSelector" { // says whom settings are for
			return
		}
		v := variable{name, index, "s"}
		fields[name] = v
		out[strings.ToUpper(name)] = v
		if t == duration {
			out[strings.ToUpper(name)+"SECS"] = v
			v.unit = "ms"
			out[strings.ToUpper(name)+"MILLIS"] = v
		}
	})
	for name, field := range former {
		out[name] = fields[field]
	}
	return out
}

// each calls f with every field of a struct of settings, by its name in JSON and its
// place.
func each(t reflect.Type, at []int, f func(name string, index []int, t reflect.Type)) {
	for i := range t.NumField() {
		field, index := t.Field(i), append(slices.Clone(at), i)
		if field.Anonymous {
			each(field.Type, index, f)
			continue
		}
		f(nameOf(field), index, field.Type)
	}
}

func nameOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
