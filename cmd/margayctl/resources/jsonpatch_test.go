package resources

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// documentOf reads JSON.
func documentOf(t testing.TB, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// The cases of RFC 6902, appendix A, and those of its text.
func TestOperations(t *testing.T) {
	for name, tt := range map[string]struct{ document, patch, want string }{ // want is a document, or a part of the error
		"A.1 a field":                      {`{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux"}]`, `{"baz":"qux","foo":"bar"}`},
		"A.2 an element":                   {`{"foo":["bar","baz"]}`, `[{"op":"add","path":"/foo/1","value":"qux"}]`, `{"foo":["bar","qux","baz"]}`},
		"A.3 a field goes":                 {`{"baz":"qux","foo":"bar"}`, `[{"op":"remove","path":"/baz"}]`, `{"foo":"bar"}`},
		"A.4 an element goes":              {`{"foo":["bar","qux","baz"]}`, `[{"op":"remove","path":"/foo/1"}]`, `{"foo":["bar","baz"]}`},
		"A.5 another value":                {`{"baz":"qux","foo":"bar"}`, `[{"op":"replace","path":"/baz","value":"boo"}]`, `{"baz":"boo","foo":"bar"}`},
		"A.6 a field moves":                {`{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}`, `[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]`, `{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}`},
		"A.7 an element moves":             {`{"foo":["all","grass","cows","eat"]}`, `[{"op":"move","from":"/foo/1","path":"/foo/3"}]`, `{"foo":["all","cows","eat","grass"]}`},
		"A.8 tests that hold":              {`{"baz":"qux","foo":["a",2,"c"]}`, `[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]`, `{"baz":"qux","foo":["a",2,"c"]}`},
		"A.9 a test that does not":         {`{"baz":"qux"}`, `[{"op":"test","path":"/baz","value":"bar"}]`, `operation 0, test /baz: it is "qux", want "bar"`},
		"A.10 an object within":            {`{"foo":"bar"}`, `[{"op":"add","path":"/child","value":{"grandchild":{}}}]`, `{"foo":"bar","child":{"grandchild":{}}}`},
		"A.11 members nobody knows":        {`{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux","xyz":123}]`, `{"foo":"bar","baz":"qux"}`},
		"A.12 into nothing":                {`{"foo":"bar"}`, `[{"op":"add","path":"/baz/bat","value":"qux"}]`, `there is no "baz"`},
		"A.14 escapes":                     {`{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":10}]`, `{"/":9,"~1":10}`},
		"A.15 a number is no string":       {`{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":"10"}]`, `it is 10, want "10"`},
		"A.16 a list in a list":            {`{"foo":["bar"]}`, `[{"op":"add","path":"/foo/-","value":["abc","def"]}]`, `{"foo":["bar",["abc","def"]]}`},
		"a field that is there":            {`{"a":1}`, `[{"op":"add","path":"/a","value":null}]`, `{"a":null}`},
		"null is a value":                  {`{"a":null}`, `[{"op":"test","path":"/a","value":null}]`, `{"a":null}`},
		"numbers by their value":           {`{"a":100}`, `[{"op":"test","path":"/a","value":1e2}]`, `{"a":100}`},
		"objects in any order":             {`{"a":{"b":1,"c":[2]}}`, `[{"op":"test","path":"/a","value":{"c":[2],"b":1}}]`, `{"a":{"b":1,"c":[2]}}`},
		"lists in theirs":                  {`{"a":[1,2]}`, `[{"op":"test","path":"/a","value":[2,1]}]`, `it is [1,2], want [2,1]`},
		"the whole":                        {`{"a":1}`, `[{"op":"replace","path":"","value":{"b":2}},{"op":"add","path":"/c","value":3}]`, `{"b":2,"c":3}`},
		"the whole goes":                   {`{"a":1}`, `[{"op":"remove","path":""}]`, "delete it"},
		"a field without a name":           {`{"":1}`, `[{"op":"replace","path":"/","value":2}]`, `{"":2}`},
		"a copy is its own":                {`{"a":{"b":1}}`, `[{"op":"copy","from":"/a","path":"/c"},{"op":"replace","path":"/a/b","value":2}]`, `{"a":{"b":2},"c":{"b":1}}`},
		"a value put twice is its own":     {`{}`, `[{"op":"add","path":"/a","value":{}},{"op":"copy","from":"/a","path":"/b"},{"op":"add","path":"/b/x","value":1}]`, `{"a":{},"b":{"x":1}}`},
		"into itself":                      {`{"a":{"b":1}}`, `[{"op":"move","from":"/a","path":"/a/b"}]`, "within itself"},
		"to where it is":                   {`{"a":1}`, `[{"op":"move","from":"/a","path":"/a"}]`, `{"a":1}`},
		"to the place of the whole":        {`{"a":{"b":1}}`, `[{"op":"move","from":"/a","path":""}]`, `{"b":1}`},
		"behind the end":                   {`{"a":[1]}`, `[{"op":"add","path":"/a/1","value":2}]`, `{"a":[1,2]}`},
		"beyond the end":                   {`{"a":[1]}`, `[{"op":"add","path":"/a/2","value":2}]`, `there is no element "2"`},
		"nothing is behind all":            {`{"a":[1]}`, `[{"op":"remove","path":"/a/-"}]`, `there is no element "-"`},
		"an element has one name":          {`{"a":[1,2]}`, `[{"op":"remove","path":"/a/01"}]`, `there is no element "01"`},
		"an element before the first":      {`{"a":[1,2]}`, `[{"op":"remove","path":"/a/-1"}]`, `there is no element "-1"`},
		"what is not there is not put off": {`{"a":1}`, `[{"op":"replace","path":"/b","value":2}]`, `there is no "b"`},
		"a number has no fields":           {`{"a":1}`, `[{"op":"add","path":"/a/b","value":2}]`, `nothing that could have "b"`},
		"all or none":                      {`{"a":1}`, `[{"op":"add","path":"/b","value":2},{"op":"remove","path":"/c"}]`, "operation 1, remove /c"},
		"an operation nobody knows":        {`{}`, `[{"op":"spam","path":""}]`, "want one of add, copy, move, remove, replace, test"},
		"without a value":                  {`{}`, `[{"op":"add","path":"/a"}]`, "add has no value"},
		"without a path":                   {`{}`, `[{"op":"remove"}]`, "remove has no path"},
		"without a source":                 {`{}`, `[{"op":"copy","path":"/a"}]`, "copy has no from"},
		"no pointer":                       {`{}`, `[{"op":"remove","path":"a/b"}]`, "want /FIELD/FIELD"},
		"no escape":                        {`{}`, `[{"op":"remove","path":"/a~2"}]`, "write ~0 for ~"},
		"a source that is no pointer":      {`{}`, `[{"op":"move","from":"x","path":"/a"}]`, "from: it is"},
		"no operations":                    {`{}`, `[]`, "want operations"},
		"no list":                          {`{}`, `{"op":"remove","path":"/a"}`, "want a list"},
		"YAML":                             {`{"a":1}`, "- {op: remove, path: /a}\n- op: add\n  path: /b\n  value: [x]\n", `{"b":["x"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			patch, err := readOperations(tt.patch)
			var got any
			if err == nil {
				got, err = patch.apply(documentOf(t, tt.document))
			}
			if err != nil || !strings.HasPrefix(tt.want, "{") {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("it is %v, %v; want %s", got, err, tt.want)
				}
				return
			}
			if want := documentOf(t, tt.want); !reflect.DeepEqual(got, want) {
				t.Errorf("it is %v, want %v", got, want)
			}
		})
	}
}

// A patch that copies what it has copied ends before it fills memory.
func TestOperationsThatDouble(t *testing.T) {
	patch, err := readOperations("[" + strings.TrimSuffix(strings.Repeat(`{"op":"copy","from":"","path":"/a"},{"op":"copy","from":"","path":"/b"},`, 60), ",") + "]")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := patch.apply(documentOf(t, `{}`)); err == nil || !strings.Contains(err.Error(), "it grows beyond") {
		t.Errorf("it ended with %v", err)
	}
}

// FuzzOperations finds no patch that breaks what it is used on: whatever was added
// is there, and the document is one that can be written.
func FuzzOperations(f *testing.F) {
	for _, patch := range []string{`[{"op":"add","path":"/a/0","value":1}]`, `[{"op":"move","from":"/a/1","path":"/b/c"},{"op":"copy","from":"/b","path":"/a/-"}]`, `[{"op":"replace","path":"","value":[{}]},{"op":"remove","path":"/0"}]`} {
		f.Add(`{"a":[1,{"x":null}],"b":{"c":"d"}}`, patch)
	}
	f.Fuzz(func(t *testing.T, document, text string) {
		var v any
		if json.Unmarshal([]byte(document), &v) != nil {
			return
		}
		patch, err := readOperations(text)
		if err != nil {
			return
		}
		after, err := patch.apply(v)
		if err != nil {
			return
		}
		if _, err := json.Marshal(after); err != nil {
			t.Fatalf("%s with %s cannot be written: %v", document, text, err)
		}
		last := patch[len(patch)-1]
		if last.Op != "add" && last.Op != "replace" || strings.HasSuffix(*last.Path, "-") {
			return
		}
		if got, err := last.path.get(after); err != nil || !reflect.DeepEqual(got, last.value) {
			t.Errorf("%s with %s: what was put is %v, %v", document, text, got, err)
		}
	})
}
