package resources

import (
	"encoding/json"
	"reflect"
	"testing"
)

// The cases of RFC 7386, appendix A, in which both are objects.
func TestMerge(t *testing.T) {
	for _, tt := range []struct{ into, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":"b"}`, `{"a":{"c":1}}`, `{"a":{"c":1}}`},
	} {
		object := func(text string) (fields map[string]any) {
			if err := json.Unmarshal([]byte(text), &fields); err != nil {
				t.Fatal(err)
			}
			return fields
		}
		if got := merge(object(tt.into), object(tt.patch)); !reflect.DeepEqual(got, object(tt.want)) {
			t.Errorf("%s with %s is %v, want %s", tt.into, tt.patch, got, tt.want)
		}
	}
}
