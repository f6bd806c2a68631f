package datastore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Every object that a manifest may hold is kept whole, whatever its kind.
func TestEveryExampleIsKept(t *testing.T) {
	files, err := filepath.Glob("../api/v3/testdata/valid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range files {
		manifest, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := v3.DecodeAll(manifest)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.GetName() == "" { // a generated name is the API server's to give
				continue
			}
			made, err := datastore.Admit(o)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			datastore.Begun(made, time.Now())
			text, err := datastore.Text(made)
			if err != nil {
				t.Fatal(err)
			}
			key := datastore.KeyOf(made)
			back, err := datastore.Read(key, text, "7")
			if err != nil || back.GetResourceVersion() != "7" {
				t.Errorf("%v: %v", key, err)
				continue
			}
			if again, err := datastore.Text(back); err != nil || !bytes.Equal(again, text) {
				t.Errorf("%s\nhas become %v\n%s", text, err, again)
			}
			if spaced, ok := datastore.Namespaced(key.Kind); !ok || spaced != (key.Namespace != "") {
				t.Errorf("%v is of a kind with namespaces: %v, %v", key, spaced, ok)
			}
		}
	}
}

// What replaces an object keeps what is the store's, and the status.
func TestReplaced(t *testing.T) {
	before := at("a", "5").(*v3.Tier)
	before.UID, before.Generation = "u", 3
	before.Status.Conditions = []metav1.Condition{{Type: "Ready"}}
	for name, tt := range map[string]struct {
		change     func(*v3.Tier)
		generation int64
		want       error
	}{
		"nothing":         {func(*v3.Tier) {}, 3, nil},
		"what it wants":   {func(o *v3.Tier) { o.Spec.Order = new(float64) }, 4, nil},
		"a label":         {func(o *v3.Tier) { o.Labels = map[string]string{"a": "b"} }, 3, nil},
		"the status":      {func(o *v3.Tier) { o.Status.Conditions = nil }, 3, nil},
		"another version": {func(o *v3.Tier) { o.ResourceVersion = "6" }, 0, datastore.ErrConflict},
		"another uid":     {func(o *v3.Tier) { o.UID = "v" }, 0, datastore.ErrConflict},
		"no version":      {func(o *v3.Tier) { o.ResourceVersion, o.UID = "", "" }, 3, nil},
	} {
		o := before.DeepCopy()
		tt.change(o)
		if err := datastore.Replaced(o, before); !errors.Is(err, tt.want) || tt.want == nil && (err != nil || o.Generation != tt.generation || o.UID != "u" || o.ResourceVersion != "5" || len(o.Status.Conditions) != 1) {
			t.Errorf("%s: %v, %+v", name, err, o.ObjectMeta)
		}
	}
}

// Keys and scopes are what they say.
func TestKeys(t *testing.T) {
	for name, tt := range map[string]struct {
		key datastore.Key
		ok  bool
	}{
		"NetworkSet x/a":   {datastore.Key{Kind: v3.KindNetworkSet, Namespace: "x", Name: "a"}, true},
		"Tier a":           {datastore.Key{Kind: v3.KindTier, Name: "a"}, true},
		"Tier x/a":         {datastore.Key{Kind: v3.KindTier, Namespace: "x", Name: "a"}, false},
		"NetworkSet a":     {datastore.Key{Kind: v3.KindNetworkSet, Name: "a"}, false},
		"NetworkSet x/":    {datastore.Key{Kind: v3.KindNetworkSet, Namespace: "x"}, false},
		"NetworkSet x/a/b": {datastore.Key{Kind: v3.KindNetworkSet, Namespace: "x", Name: "a/b"}, false},
		"Pod x/a":          {datastore.Key{Kind: "Pod", Namespace: "x", Name: "a"}, false},
	} {
		if err := tt.key.Check(); (err == nil) != tt.ok || err != nil && !errors.Is(err, datastore.ErrInvalid) || tt.key.String() != name {
			t.Errorf("%v, want %s: %v", tt.key, name, err)
		}
	}
	all := []datastore.Scope{{}, {Kind: v3.KindTier}, {Namespace: "x"}, {Kind: v3.KindNetworkSet, Namespace: "x"}}
	for key, want := range map[datastore.Key]string{
		{Kind: v3.KindTier, Name: "x"}:                                "yes yes no no",
		{Kind: v3.KindNetworkSet, Namespace: "x", Name: "a"}:          "yes no yes yes",
		{Kind: v3.KindNetworkSet, Namespace: "xy", Name: "a"}:         "yes no no no",
		{Kind: v3.KindStagedNetworkPolicy, Namespace: "x", Name: "a"}: "yes no yes no",
	} {
		var got []string
		for _, s := range all {
			got = append(got, map[bool]string{true: "yes", false: "no"}[s.Holds(key)])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v is in scope: %v, want %s", key, got, want)
		}
	}
}
