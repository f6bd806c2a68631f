package v3_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
)

// examples reads testdata/valid: objects as their manifests have them.
func examples(t testing.TB) (objects []v3.Object, documents [][]byte) {
	files, err := filepath.Glob("testdata/valid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all, err := v3.DecodeAll(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		parts, err := v3.Split(text)
		if err != nil || len(parts) != len(all) {
			t.Fatalf("%s has %d objects and %d parts: %v", name, len(all), len(parts), err)
		}
		objects, documents = append(objects, all...), append(documents, parts...)
	}
	return objects, documents
}

// What a manifest says is what comes out again, field by field, as JSON and as
// YAML, and nothing is added.
func TestRoundTrip(t *testing.T) {
	objects, documents := examples(t)
	for i, o := range objects {
		var want, got any
		if err := json.Unmarshal(documents[i], &want); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s came out as\n%s", documents[i], text)
		}
		text, err = yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		back, err := v3.Decode(text)
		if err != nil || !reflect.DeepEqual(back, o) {
			t.Errorf("by way of YAML, %s has become %#v (%v)", text, back, err)
		}
		if c := o.DeepCopyObject(); !reflect.DeepEqual(c, o) {
			t.Errorf("the copy of %s is %#v", documents[i], c)
		}
	}
}

// The examples use every field that there is, so that the tests of them see each.
func TestExamplesUseEveryField(t *testing.T) {
	used := make(map[string]bool)
	objects, _ := examples(t)
	var kinds []string
	for _, o := range objects {
		kind := o.GetObjectKind().GroupVersionKind().Kind
		kinds = append(kinds, kind)
		walk(reflect.ValueOf(o).Elem(), used)
	}
	for _, kind := range kinds {
		fields(reflect.TypeOf(v3.New(kind)).Elem(), func(name string) {
			if !used[name] {
				t.Errorf("no example uses %s", name)
			}
		})
	}
	scheme := runtime.NewScheme()
	if err := v3.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for kind := range scheme.KnownTypes(v3.GroupVersion()) {
		if o := v3.New(kind); o != nil && !slices.Contains(kinds, kind) {
			t.Errorf("no example is a %s", kind)
		}
	}
}

// ours reports whether a type is of this package, or of one below it.
func ours(t reflect.Type) bool {
	return strings.HasPrefix(t.PkgPath(), reflect.TypeFor[v3.Rule]().PkgPath())
}

// walk notes the fields of our types that hold something.
func walk(v reflect.Value, used map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			walk(v.Elem(), used)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), used)
		}
	case reflect.Struct:
		if !ours(v.Type()) {
			return
		}
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				used[v.Type().Name()+"."+v.Type().Field(i).Name] = true
			}
			walk(v.Field(i), used)
		}
	}
}

// fields calls yield with every field of our types from t on.
func fields(t reflect.Type, yield func(string)) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		fields(t.Elem(), yield)
	case reflect.Struct:
		if !ours(t) {
			return
		}
		for i := range t.NumField() {
			yield(t.Name() + "." + t.Field(i).Name)
			fields(t.Field(i).Type, yield)
		}
	}
}

// All that is wrong is told at once, with the place.
func TestDecodeIsStrict(t *testing.T) {
	policy := func(spec string) string {
		return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: " + spec
	}
	tests := map[string]struct {
		document string
		want     []string // parts of the error; none: no error
	}{
		"an empty spec is one":                 {policy("{}"), nil},
		"null is left out":                     {policy("{order: null, ingress: null, types: null}"), nil},
		"a field that is unknown":              {policy("{sellector: all()}"), []string{`NetworkPolicy "a"`, `unknown field "spec.sellector"`}},
		"an unknown field deep within":         {policy("{ingress: [{action: Allow}, {action: Deny, source: {net: []}}]}"), []string{`unknown field "spec.ingress[1].source.net"`}},
		"capitals matter":                      {policy("{Selector: all()}"), []string{`unknown field "spec.Selector"`}},
		"all unknown fields at once":           {policy("{a: 1, b: 2}"), []string{`"spec.a"`, `"spec.b"`}},
		"a text where a number belongs":        {policy("{order: first}"), []string{"spec.order: got string, want a number"}},
		"a port of more than 16 bits":          {policy("{ingress: [{action: Allow, source: {ports: [65536]}}]}"), []string{"spec.ingress.source.ports: got 65536, want a number from 0 to 65535"}},
		"a port with a fraction":               {policy("{ingress: [{action: Allow, source: {ports: [80.5]}}]}"), []string{"ports: got 80.5"}},
		"a port below zero":                    {policy("{ingress: [{action: Allow, source: {notPorts: [-1]}}]}"), []string{"notPorts: got -1"}},
		"a protocol of more than eight bits":   {policy("{ingress: [{action: Allow, protocol: 256}]}"), []string{"protocol: got 256, want a name, or a number"}},
		"a field of another kind":              {policy("{doNotTrack: true}"), []string{`"spec.doNotTrack"`}},
		"a commercial field":                   {policy("{egress: [{action: Allow, destination: {domains: [a.b]}}]}"), []string{`"spec.egress[0].destination.domains"`}},
		"a field that is there twice":          {policy("{order: 1, order: 2}"), []string{"order", "already"}},
		"a text where a list belongs":          {policy("{ingress: Allow}"), []string{"spec.ingress: got string, want a list"}},
		"an object where a text belongs":       {policy("{selector: {a: b}}"), []string{"spec.selector: got object, want a text"}},
		"a number where a text belongs":        {policy("{tier: 7}"), []string{"spec.tier: got number, want a text (in quotes"}},
		"truth where a port belongs":           {policy("{ingress: [{action: Allow, source: {ports: [yes]}}]}"), []string{"spec.ingress.source.ports: got true, want a number from 0 to 65535, a range"}},
		"an object where a protocol belongs":   {policy("{ingress: [{action: Allow, protocol: {name: TCP}}]}"), []string{"spec.ingress.protocol: got {\"name\":\"TCP\"}, want a name, or a number"}},
		"nothing where a protocol belongs":     {policy(`{ingress: [{action: Allow, protocol: ""}]}`), []string{"protocol: got an empty text"}},
		"a fraction of a version":              {policy("{ingress: [{action: Allow, ipVersion: 4.5}]}"), []string{"spec.ingress.ipVersion: got number 4.5, want a whole number"}},
		"a version beyond all":                 {policy("{ingress: [{action: Allow, ipVersion: 99999999999999999999}]}"), []string{"ipVersion"}},
		"an order beyond all":                  {policy("{order: 1e999}"), []string{"order"}},
		"an order that is no number":           {policy("{order: .nan}"), []string{"NaN"}},
		"an order without end":                 {policy("{order: -.inf}"), []string{"Inf"}},
		"another group":                        {"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}", []string{`"networking.k8s.io/v1"`, "not of projectcalico.org/v3"}},
		"another version":                      {"apiVersion: projectcalico.org/v4\nkind: Tier", []string{"not of projectcalico.org/v3"}},
		"a kind that is unknown":               {"apiVersion: projectcalico.org/v3\nkind: networkpolicy", []string{`kind "networkpolicy"`, "capitals"}},
		"no kind at all":                       {"{}", []string{`apiVersion is ""`}},
		"a text":                               {"hello", []string{"read object"}},
		"a tab":                                {"\tkind: Tier", []string{"read YAML"}},
		"nothing":                              {"", []string{"not of"}},
		"a port that is too high for its type": {"apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: a}\nspec: {ports: [{port: 65536}]}", []string{"spec.ports.port: got number 65536, want a whole number from 0 to 65535"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := v3.Decode([]byte(tt.document))
			if (err == nil) != (len(tt.want) == 0) || (err == nil) != (o != nil) {
				t.Fatalf("%v, %v", o, err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v\ndoes not say %s", err, part)
				}
			}
		})
	}
}

func TestDecodeAll(t *testing.T) {
	tier := func(name string) string {
		return "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: " + name + "}\n"
	}
	list := "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}\n"
	tests := map[string]struct {
		manifest string
		want     string // names, or a part of the error
	}{
		"nothing":                              {"", ""},
		"comments alone":                       {"# nothing\n---\n# here\n", ""},
		"one":                                  {tier("a"), "a"},
		"documents":                            {"---\n" + tier("a") + "--- # next\n" + tier("b") + "---\r\n" + tier("c") + "---", "a b c"},
		"dashes within a text":                 {tier("a") + "  # ---\n" + "status: {conditions: [{message: '\n ---'}]}", "a"},
		"a list":                               {list, "a"},
		"a list that is empty":                 {"apiVersion: v1\nkind: List\nitems: []", ""},
		"a list of YAML":                       {"- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}\n- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: b}}", "a b"},
		"JSON":                                 {`{"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "a"}}`, "a"},
		"lists in lists":                       {"[[[[{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}]]]]", "a"},
		"one list more than may be nested":     {"[[[[[{apiVersion: projectcalico.org/v3, kind: Tier}]]]]]", "more than 4 lists one in the other"},
		"lists in lists without end":           {strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "more than 4 lists"},
		"another group":                        {tier("a") + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}", `object 2 of the manifest: read "p"`},
		"what is wrong in several":             {tier("a") + "spec: {x: 1}\n---\n" + tier("b") + "spec: {z: 1}", `object 2 of the manifest: read Tier "b": unknown field "spec.z"`},
		"a document that is no YAML":           {tier("a") + "---\n{", "document 2"},
		"a document that is a text":            {"hello", "document 1"},
		"a list that holds a number":           {"[1]", "document 1"},
		"items that are no list":               {"items: 1", "items: got number, want a list"},
		"aliases that grow without end":        {bomb(), "document 1"},
		"an object as deep as no object is":    {strings.Repeat("{a: ", 20000) + strings.Repeat("}", 20000), "document 1"},
		"a byte order mark and other rubbish":  {"\x00\xff\xfe", "document 1"},
		"a hundred thousand empty documents":   {strings.Repeat("---\n", 100_000), ""},
		"a name that is longer than a message": {"apiVersion: x\nmetadata: {name: " + strings.Repeat("n", 1<<16) + "}", "nnn...\""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			objects, err := v3.DecodeAll([]byte(tt.manifest))
			var names []string
			for _, o := range objects {
				names = append(names, o.GetName())
			}
			got := strings.Join(names, " ")
			if err != nil {
				if got = err.Error(); !strings.Contains(got, tt.want) || tt.want == "" || len(got) > 2000 {
					t.Errorf("%.2000s\nwant %q", got, tt.want)
				}
				return
			}
			if got != tt.want {
				t.Errorf("names are %q, want %q", got, tt.want)
			}
		})
	}
	if _, err := v3.Decode([]byte("apiVersion: v1\nkind: Pod")); !errors.Is(err, v3.ErrForeign) {
		t.Errorf("a pod is %v, want ErrForeign", err)
	}
}

// bomb is a small document that would be 9^9 values.
func bomb() string {
	s := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'j'; c++ {
		alias := "*" + string(c-1)
		s += string(c) + ": &" + string(c) + " [" + strings.Repeat(alias+",", 8) + alias + "]\n"
	}
	return s
}
