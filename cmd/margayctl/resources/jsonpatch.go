package resources

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// maxCopied is how many values the copies of one patch may make in all: a patch of
// a few lines could otherwise double a document again and again.
const maxCopied = 1 << 17

// operations is a patch of RFC 6902: changes of a document, made in their order,
// all of them or none.
type operations []operation

// operation is one change. Value is nothing where the patch does not say it, which
// is not null.
type operation struct {
	Op    string          `json:"op"`
	Path  *string         `json:"path"`
	From  *string         `json:"from"`
	Value json.RawMessage `json:"value"`

	path, from pointer
	value      any
}

// pointer is the way to a value in a document (RFC 6901): names of fields, and
// places in lists.
type pointer []string

// readOperations reads a patch, in JSON or YAML.
func readOperations(text string) (patch operations, err error) {
	if err := yaml.Unmarshal([]byte(text), &patch); err != nil {
		return nil, fmt.Errorf("patch is %q, want a list as [{op: replace, path: /spec/order, value: 5}]: %w", text, err)
	}
	if len(patch) == 0 {
		return nil, fmt.Errorf("patch is %q, want operations, as [{op: replace, path: /spec/order, value: 5}]", text)
	}
	for i := range patch {
		if err := patch[i].check(); err != nil {
			return nil, fmt.Errorf("operation %d of the patch: %w", i, err)
		}
	}
	return patch, nil
}

// needs are the members that operations have beside path.
var needs = map[string]string{"add": "value", "replace": "value", "test": "value", "remove": "", "move": "from", "copy": "from"}

// check reads the members of an operation.
func (o *operation) check() (err error) {
	need, known := needs[o.Op]
	switch {
	case !known:
		return fmt.Errorf("op is %q, want one of %s", o.Op, strings.Join(slices.Sorted(maps.Keys(needs)), ", "))
	case o.Path == nil:
		return fmt.Errorf("%s has no path", o.Op)
	case need == "value" && o.Value == nil:
		return fmt.Errorf("%s has no value", o.Op)
	case need == "from" && o.From == nil:
		return fmt.Errorf("%s has no from", o.Op)
	}
	if o.path, err = readPointer(*o.Path); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if need == "from" {
		if o.from, err = readPointer(*o.From); err != nil {
			return fmt.Errorf("from: %w", err)
		}
	}
	if need == "value" {
		return json.Unmarshal(o.Value, &o.value)
	}
	return nil
}

// readPointer reads a pointer: nothing is the whole document.
func readPointer(text string) (p pointer, err error) {
	if text == "" {
		return nil, nil
	}
	if text[0] != '/' {
		return nil, fmt.Errorf("it is %q, want /FIELD/FIELD, or nothing for all of it", text)
	}
	for _, step := range strings.Split(text[1:], "/") {
		if plain := strings.NewReplacer("~0", "", "~1", "").Replace(step); strings.Contains(plain, "~") {
			return nil, fmt.Errorf("it is %q: write ~0 for ~ and ~1 for /", text)
		}
		p = append(p, strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
	}
	return p, nil
}

// apply makes all changes of a document. The document is not to be used any more,
// also where that fails.
func (patch operations) apply(document any) (any, error) {
	copied := 0
	for i, o := range patch {
		var err error
		switch o.Op {
		case "add":
			document, err = o.path.put(document, clone(o.value, &copied))
		case "remove":
			document, _, err = o.path.take(document)
		case "replace":
			document, err = o.replace(document, clone(o.value, &copied))
		case "move":
			document, err = o.move(document)
		case "copy":
			var v any
			if v, err = o.from.get(document); err == nil {
				document, err = o.path.put(document, clone(v, &copied))
			}
		case "test":
			err = o.test(document)
		}
		if err == nil && copied > maxCopied {
			err = fmt.Errorf("it grows beyond %d values", maxCopied)
		}
		if err != nil {
			return nil, fmt.Errorf("operation %d, %s %s: %w", i, o.Op, *o.Path, err)
		}
	}
	return document, nil
}

// replace is to put a value where there is one.
func (o operation) replace(document, value any) (any, error) {
	if len(o.path) == 0 {
		return value, nil
	}
	return o.path.parent(document, func(in any, last string) (any, error) {
		if _, err := child(in, last); err != nil {
			return nil, err
		}
		return set(in, last, value), nil
	})
}

// move is to take a value from where it is, and to put it elsewhere.
func (o operation) move(document any) (any, error) {
	if len(o.from) < len(o.path) && slices.Equal(o.from, o.path[:len(o.from)]) {
		return nil, errors.New("what is moved would be within itself")
	}
	if slices.Equal(o.from, o.path) {
		_, err := o.from.get(document)
		return document, err
	}
	document, v, err := o.from.take(document)
	if err != nil {
		return nil, err
	}
	return o.path.put(document, v)
}

// test fails where a value is not the one that is asked for.
func (o operation) test(document any) error {
	v, err := o.path.get(document)
	if err != nil || reflect.DeepEqual(v, o.value) {
		return err
	}
	is, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return fmt.Errorf("it is %s, want %s", is, o.Value)
}

// get gives the value at a pointer.
func (p pointer) get(document any) (any, error) {
	for _, step := range p {
		v, err := child(document, step)
		if err != nil {
			return nil, err
		}
		document = v
	}
	return document, nil
}

// put adds a value: a field, in the place of one that is there, or an element of a
// list, before the one with that number, or behind all for -.
func (p pointer) put(document, value any) (any, error) {
	if len(p) == 0 {
		return value, nil
	}
	return p.parent(document, func(in any, last string) (any, error) {
		switch in := in.(type) {
		case map[string]any:
			return set(in, last, value), nil
		case []any:
			if last == "-" {
				return append(in, value), nil
			}
			n, err := element(last, len(in)+1)
			if err != nil {
				return nil, err
			}
			return slices.Insert(in, n, value), nil
		}
		return nil, fmt.Errorf("there is nothing that could have %q", last)
	})
}

// take removes a value, and gives it.
func (p pointer) take(document any) (rest, value any, err error) {
	if len(p) == 0 {
		return nil, nil, errors.New("the whole object cannot be taken away: delete it")
	}
	rest, err = p.parent(document, func(in any, last string) (any, error) {
		if value, err = child(in, last); err != nil {
			return nil, err
		}
		if list, ok := in.([]any); ok {
			n, _ := element(last, len(list))
			return slices.Delete(list, n, n+1), nil
		}
		delete(in.(map[string]any), last)
		return in, nil
	})
	return rest, value, err
}

// parent changes the object or list that a pointer's last step is in, and gives the
// document with what it has become.
func (p pointer) parent(document any, change func(in any, last string) (any, error)) (any, error) {
	if len(p) == 1 {
		return change(document, p[0])
	}
	v, err := child(document, p[0])
	if err != nil {
		return nil, err
	}
	if v, err = p[1:].parent(v, change); err != nil {
		return nil, err
	}
	return set(document, p[0], v), nil
}

// child is a field of an object, or an element of a list.
func child(in any, step string) (any, error) {
	switch in := in.(type) {
	case map[string]any:
		if v, ok := in[step]; ok {
			return v, nil
		}
	case []any:
		n, err := element(step, len(in))
		if err != nil {
			return nil, err
		}
		return in[n], nil
	}
	return nil, fmt.Errorf("there is no %q", step)
}

// set puts a value in the place of a child that is there, or a new field.
func set(in any, step string, value any) any {
	switch in := in.(type) {
	case map[string]any:
		in[step] = value
	case []any:
		n, _ := element(step, len(in))
		in[n] = value
	}
	return in
}

// element is the number of an element, below end.
func element(step string, end int) (int, error) {
	n, err := strconv.Atoi(step)
	if err != nil || strconv.Itoa(n) != step || n < 0 || n >= end {
		return 0, fmt.Errorf("there is no element %q: it is a number, and below %d here", step, end)
	}
	return n, nil
}

// clone is a value that shares nothing with another, and counts what is in it; it
// ends early where that is too much.
func clone(v any, count *int) any {
	if *count++; *count > maxCopied {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		all := make(map[string]any, len(v))
		for name, inner := range v {
			all[name] = clone(inner, count)
		}
		return all
	case []any:
		all := make([]any, len(v))
		for i, inner := range v {
			all[i] = clone(inner, count)
		}
		return all
	}
	return v
}
