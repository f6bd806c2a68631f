package resources

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/render"
)

// wantFormat is what -o may be.
const wantFormat = "ps (a table), wide, yaml, json, name, custom-columns=HEAD,..., go-template=TEXT or go-template-file=FILE"

// listing is objects to be printed.
type listing struct {
	objects []v3.Object
	kinds   []v3.Kind
	named   int // how many were asked for by name; 0: all there are
}

// format is a way to print objects.
type format struct {
	write    func(*Tool, format, listing) error
	wide     bool               // a table with all columns
	heads    []string           // a table's columns; none: those of the kind
	template *template.Template // of what is printed by one
}

// readFormat reads a word of -o, and what stands behind its equals sign. Columns must
// be those of the kinds.
func readFormat(output string, kinds []v3.Kind) (f format, err error) {
	word, value, valued := strings.Cut(output, "=")
	plain := map[string]format{
		"ps": {write: (*Tool).tables}, "table": {write: (*Tool).tables}, "wide": {write: (*Tool).tables, wide: true},
		"yaml": {write: (*Tool).yaml}, "json": {write: (*Tool).json}, "name": {write: (*Tool).names},
	}
	if f, ok := plain[word]; ok && !valued {
		return f, nil
	}
	if valued && value != "" {
		switch word {
		case "custom-columns":
			return customColumns(value, kinds)
		case "go-template":
			return templated(value)
		case "go-template-file":
			text, err := os.ReadFile(value)
			if err != nil {
				return f, fmt.Errorf("read template: %w", err)
			}
			return templated(string(text))
		}
	}
	return f, fmt.Errorf("output format is %q, want %s", output, wantFormat)
}

// formats are the words of -o, as a shell completes them.
func formats() []string {
	return []string{"ps", "wide", "yaml", "json", "name", "custom-columns=", "go-template=", "go-template-file="}
}

// customColumns is a table of some columns, in their order.
func customColumns(list string, kinds []v3.Kind) (format, error) {
	f := format{write: (*Tool).tables, wide: true}
	for head := range strings.SplitSeq(list, ",") {
		f.heads = append(f.heads, strings.ToUpper(strings.TrimSpace(head)))
	}
	for _, k := range kinds {
		there, _ := columns(k, true)
		for _, head := range f.heads {
			if !slices.Contains(there, head) {
				return f, fmt.Errorf("%s has no column %q, want some of %s", k.Name, head, strings.Join(there, ", "))
			}
		}
	}
	return f, nil
}

// templated is what a template makes of objects.
func templated(text string) (format, error) {
	made, err := template.New("output").Funcs(template.FuncMap{"join": join}).Parse(text)
	if err != nil {
		return format{}, fmt.Errorf("read template: %w", err)
	}
	return format{write: (*Tool).executed, template: made}, nil
}

// join writes values with something between them: of a list, of labels, or one.
func join(values any, between string) string {
	var parts []string
	v := reflect.ValueOf(values)
	switch v.Kind() {
	case reflect.Invalid:
		return ""
	case reflect.Map:
		for key, value := range v.Seq2() {
			parts = append(parts, fmt.Sprintf("%v=%v", key, value))
		}
		slices.Sort(parts)
	case reflect.Slice:
		for _, value := range v.Seq2() {
			parts = append(parts, fmt.Sprint(value))
		}
	default:
		return fmt.Sprint(values)
	}
	return strings.Join(parts, between)
}

// print writes objects.
func (t *Tool) print(f format, l listing) error { return f.write(t, f, l) }

// names writes kinds and names.
func (t *Tool) names(_ format, l listing) error {
	for _, o := range l.objects {
		key := datastore.KeyOf(o)
		fmt.Fprintf(t.Out, "%s/%s\n", key.Kind, key.Name)
	}
	return nil
}

// tables writes a table of each kind.
func (t *Tool) tables(f format, l listing) error {
	for i, k := range l.kinds {
		if i > 0 {
			fmt.Fprintln(t.Out)
		}
		heads, cells := columns(k, f.wide)
		shown := heads
		if f.heads != nil {
			shown = f.heads
		}
		spaced := k.Namespaced && t.all
		if spaced {
			shown = append([]string{"NAMESPACE"}, shown...)
		}
		table := render.NewTable(shown...)
		for _, o := range l.objects {
			if datastore.KeyOf(o).Kind != k.Name {
				continue
			}
			all, row := cells(o), make([]string, len(shown))
			for i, head := range shown {
				if at := slices.Index(heads, head); at >= 0 {
					row[i] = all[at]
				} else {
					row[i] = o.GetNamespace()
				}
			}
			table.Row(row...)
		}
		if err := table.Write(t.Out); err != nil {
			return err
		}
	}
	return nil
}

// list is what several objects are printed as.
type list struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Items      []v3.Object `json:"items"`
}

// executed writes what a template makes of objects. It is given what calicoctl's
// templates are: each object that was named, or a list of each kind.
func (t *Tool) executed(f format, l listing) error {
	var data []any
	for _, o := range l.objects {
		data = append(data, o)
	}
	if l.named == 0 {
		data = nil
		for _, k := range l.kinds {
			data = append(data, listOf(k.Name, l.objects))
		}
	}
	if err := f.template.Execute(t.Out, data); err != nil {
		return fmt.Errorf("print by template: %w", err)
	}
	return nil
}

// listOf is those of a kind.
func listOf(kind string, objects []v3.Object) list {
	l := list{v3.Group + "/" + v3.Version, kind + "List", []v3.Object{}}
	for _, o := range objects {
		if datastore.KeyOf(o).Kind == kind {
			l.Items = append(l.Items, o)
		}
	}
	return l
}

// applicable is objects as they can be applied again, as JSON: one that was named
// stands by itself, others in a list.
func applicable(l listing) ([]byte, error) {
	var what any
	switch {
	case l.named == 1 && len(l.objects) == 0:
		return nil, nil
	case l.named == 1:
		what = l.objects[0]
	case len(l.kinds) == 1:
		what = listOf(l.kinds[0].Name, l.objects)
	default:
		what = list{"v1", "List", append([]v3.Object{}, l.objects...)}
	}
	text, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write objects: %w", err)
	}
	return append(text, '\n'), nil
}

func (t *Tool) json(_ format, l listing) error {
	text, err := applicable(l)
	if err == nil {
		_, err = t.Out.Write(text)
	}
	return err
}

func (t *Tool) yaml(_ format, l listing) error {
	text, err := applicable(l)
	if err != nil || text == nil {
		return err
	}
	if text, err = yaml.JSONToYAML(text); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	_, err = t.Out.Write(text)
	return err
}
