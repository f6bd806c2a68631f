package v3

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"margay.dev/margay/api/v3/fabric"
	"margay.dev/margay/api/v3/felix"
	"margay.dev/margay/api/v3/qos"
)

// ErrForeign is what Decode says of an object that is not of the group.
var ErrForeign = errors.New("not of " + Group + "/" + Version)

// header is what every object of a manifest begins with.
type header struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
}

// DecodeAll reads a manifest, in YAML or JSON: documents, lists, and lists of
// Kubernetes (kind List, or one that ends so), one within the other as Split does.
// It reports everything that is wrong in any of them.
func DecodeAll(manifest []byte) ([]Object, error) {
	parts, err := Split(manifest)
	if err != nil {
		return nil, err
	}
	var objects []Object
	var faults []error
	for i, part := range parts {
		o, err := DecodeJSON(part)
		if err != nil {
			faults = append(faults, fmt.Errorf("read object %d of the manifest: %w", i+1, err))
			continue
		}
		objects = append(objects, o)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return objects, nil
}

// Decode reads one object, in YAML or JSON. It is strict: what the resource has no
// field for, and what is there twice, is an error that names it, and all of them
// are reported at once; so is a value of a wrong type, but only one of those. It
// fills nothing in and judges nothing else: that do Default and Validate. An object
// of another group is ErrForeign.
func Decode(document []byte) (Object, error) {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	return DecodeJSON(text)
}

// DecodeJSON is Decode of what is JSON already, a tenth of the work.
func DecodeJSON(text []byte) (Object, error) {
	var h header
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &h); err != nil {
		return nil, fmt.Errorf("read object: %w", mistaken(err))
	}
	if h.APIVersion != Group+"/"+Version {
		return nil, fmt.Errorf("read %q: apiVersion is %q: %w", cut(h.Metadata.Name), cut(h.APIVersion), ErrForeign)
	}
	o := New(h.Kind)
	if o == nil {
		return nil, fmt.Errorf("read %q: kind %q is none of %s: see the spelling, which minds capitals", cut(h.Metadata.Name), cut(h.Kind), h.APIVersion)
	}
	strict, err := kjson.UnmarshalStrict(text, o)
	if err != nil {
		strict = []error{mistaken(err)}
	}
	if len(strict) > 0 {
		return nil, fmt.Errorf("read %s %q: %w", h.Kind, cut(h.Metadata.Name), errors.Join(strict...))
	}
	return o, nil
}

// mistaken says in a manifest's words what a field has that it cannot.
func mistaken(err error) error {
	var e *json.UnmarshalTypeError
	if !errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("%s: got %s, want %s", inManifest(e.Field), e.Value, wanted(e.Type))
}

// inManifest is the path of a field as a manifest has it: without the names of
// types that stand in others, which alone begin with capitals.
func inManifest(path string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(path, "."), func(name string) bool {
		return name != "" && name[0] >= 'A' && name[0] <= 'Z'
	}), ".")
}

// wanted says what a field of a type is in a manifest.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Port]():
		return "a number from 0 to 65535, a range as 80:90, or a name"
	case reflect.TypeFor[felix.PortRange]():
		return "a number from 0 to 65535, or a range as 80:90"
	case reflect.TypeFor[fabric.ASNumber]():
		return "a number from 0 to 4294967295, or one as 1.10 in quotes"
	case reflect.TypeFor[Protocol](), reflect.TypeFor[qos.DSCP]():
		return "a name, or a number"
	}
	switch t.Kind() {
	case reflect.String:
		return "a text (in quotes, if it looks like something else)"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object of named fields"
	case reflect.Float64:
		return "a number"
	case reflect.Uint8:
		return "a whole number from 0 to 255"
	case reflect.Uint16:
		return "a whole number from 0 to 65535"
	}
	return "a whole number"
}

// Split takes a manifest apart into one JSON document for each object, also of
// other groups: YAML documents, JSON, lists of objects, and lists of Kubernetes.
// Empty documents are left out.
func Split(manifest []byte) ([][]byte, error) {
	var parts [][]byte
	for i, d := range Documents(manifest) {
		if len(bytes.TrimSpace(d)) == 0 {
			continue
		}
		text, err := yaml.YAMLToJSONStrict(d)
		if err != nil {
			return nil, fmt.Errorf("read document %d of the manifest: %w", i+1, err)
		}
		if parts, err = flatten(parts, text, 0); err != nil {
			return nil, fmt.Errorf("read document %d of the manifest: %w", i+1, err)
		}
	}
	return parts, nil
}

// maxNested is how many lists may be one in the other: each is read once more for
// every list around it.
const maxNested = 4

// flatten appends the objects of a JSON text, those of lists one by one.
func flatten(parts [][]byte, text []byte, depth int) ([][]byte, error) {
	text = bytes.TrimSpace(text)
	var items []json.RawMessage
	switch {
	case bytes.Equal(text, []byte("null")):
		return parts, nil
	case text[0] == '[':
		if err := json.Unmarshal(text, &items); err != nil {
			return nil, err
		}
	default:
		var h header
		if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &h); err != nil {
			return nil, mistaken(err)
		}
		if h.Items == nil {
			return append(parts, text), nil
		}
		items = h.Items
	}
	if depth == maxNested {
		return nil, fmt.Errorf("more than %d lists one in the other: write the objects in one list", maxNested)
	}
	var err error
	for _, item := range items {
		if parts, err = flatten(parts, item, depth+1); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// Documents cuts YAML at the lines that begin with three dashes. Put together again
// with three dashes between them, they are the manifest, byte for byte.
func Documents(manifest []byte) [][]byte {
	var all [][]byte
	begin := 0
	for at := 0; at < len(manifest); {
		end := len(manifest)
		if n := bytes.IndexByte(manifest[at:], '\n'); n >= 0 {
			end = at + n + 1
		}
		if line := manifest[at:end]; bytes.HasPrefix(line, []byte("---")) {
			if rest := line[3:]; len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0 {
				all = append(all, manifest[begin:at])
				begin = at + 3
			}
		}
		at = end
	}
	return append(all, manifest[begin:])
}
