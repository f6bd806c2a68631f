package felix

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/api/v3/felix"
)

func configuration(name, selector string, age time.Duration, action, prefix string) *v3.FelixConfiguration {
	c := &v3.FelixConfiguration{}
	c.Name, c.Spec.NodeSelector, c.CreationTimestamp = name, selector, metav1.NewTime(time.Unix(1e9, 0).Add(-age))
	c.Spec.DefaultEndpointToHostAction, c.Spec.LogPrefix = action, prefix
	return c
}

func TestPrecedence(t *testing.T) {
	fallback := configuration("default", "", 0, "default", "default")
	own, other := configuration("node.n0", "", 0, "own", ""), configuration("node.n1", "", 0, "other", "other")
	young, old := configuration("young", "rack == '1'", 1, "young", "young"), configuration("old", "rack == '1'", 2, "", "old")
	elsewhere, wrong, none := configuration("elsewhere", "rack == '2'", 9, "elsewhere", "elsewhere"), configuration("wrong", "rack = 1", 9, "wrong", "wrong"), configuration("none", "", 9, "none", "none")
	file := &felix.Settings{}
	file.LogPrefix = "file"
	tests := map[string]struct {
		file           *felix.Settings
		all            []*v3.FelixConfiguration
		action, prefix string
	}{
		"nothing is said":                      {nil, nil, "", ""},
		"the default alone":                    {nil, []*v3.FelixConfiguration{fallback, other, elsewhere, wrong, none}, "default", "default"},
		"the node's own, field by field":       {nil, []*v3.FelixConfiguration{fallback, own}, "own", "default"},
		"the oldest that picks the node":       {nil, []*v3.FelixConfiguration{young, fallback, old}, "default", "old"},
		"of one age the first by name":         {nil, []*v3.FelixConfiguration{configuration("b", "all()", 1, "b", "b"), configuration("a", "all()", 1, "a", "a")}, "a", "a"},
		"the node's own before a selected one": {nil, []*v3.FelixConfiguration{old, own}, "own", "old"},
		"the file before all":                  {file, []*v3.FelixConfiguration{old, own, fallback}, "own", "file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			local, faults := OnNode([]string{"HOME=/", "FELIXLOGPREFIX=x"}, tt.file)
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			got := Settings("n0", map[string]string{"rack": "1"}, local, tt.all)
			if got.DefaultEndpointToHostAction != tt.action || got.LogPrefix != tt.prefix || got.NodeSelector != "" {
				t.Errorf("got %q and %q, selector %q, want %q and %q", got.DefaultEndpointToHostAction, got.LogPrefix, got.NodeSelector, tt.action, tt.prefix)
			}
		})
	}
}

// TestAnEmptyListIsSaid wants [] to close what the default would leave open.
func TestAnEmptyListIsSaid(t *testing.T) {
	own, fallback := configuration("node.n0", "", 0, "", ""), configuration("default", "", 0, "", "")
	own.Spec.FailsafeInboundHostPorts = []felix.ProtoPort{}
	fallback.Spec.FailsafeInboundHostPorts = []felix.ProtoPort{{Protocol: "TCP", Port: 22}}
	got := Settings("n0", nil, Local{}, []*v3.FelixConfiguration{own, fallback})
	if got.FailsafeInboundHostPorts == nil || len(got.FailsafeInboundHostPorts) != 0 {
		t.Errorf("failsafe ports are %v, want an empty list", got.FailsafeInboundHostPorts)
	}
}

// TestNoFieldIsForgotten wants every field of the settings to be taken over.
func TestNoFieldIsForgotten(t *testing.T) {
	c := &v3.FelixConfiguration{}
	c.Name = "default"
	set(reflect.ValueOf(&c.Spec).Elem())
	got := Settings("n0", nil, Local{}, []*v3.FelixConfiguration{c})
	got.NodeSelector = c.Spec.NodeSelector
	if !reflect.DeepEqual(got, c.Spec) {
		t.Errorf("got %+v\nwant %+v", got, c.Spec)
	}
}

// set gives every field a value that is not zero.
func set(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				set(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(true)
	}
}

func TestWord(t *testing.T) {
	for said, want := range map[string]string{"": "Drop", "ACCEPT": "Accept", "accept": "Accept", "nonsense": "Drop"} {
		if got := Word(said, "Drop", "Accept"); got != want {
			t.Errorf("%q is %q, want %q", said, got, want)
		}
	}
}
