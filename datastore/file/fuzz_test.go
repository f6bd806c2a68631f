package file

import (
	"bytes"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Whatever a manifest is, putting an object into it leaves every other object as it
// was, and so does taking it out again.
func FuzzEdit(f *testing.F) {
	const a = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: a}\n"
	for _, text := range []string{"", a, "---\n" + a, a + "---\n" + a + "---", "# x\n--- # y\n" + a + "spec: {order: 2}\n---\nkind: [\n", "- {}\n- " + `{"apiVersion": projectcalico.org/v3, kind: Tier, metadata: {name: a}}`,
		`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"b"}},{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"a"}}]}`} {
		f.Add([]byte(text), false)
		f.Add([]byte(text), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, json bool) {
		if len(text) > 1<<14 {
			return
		}
		path := "a.yaml"
		if json {
			path = "a.json"
		}
		key := datastore.Key{Kind: v3.KindTier, Name: "a"}
		order := 7.0
		o := &v3.Tier{TypeMeta: metav1.TypeMeta{Kind: v3.KindTier, APIVersion: "projectcalico.org/v3"}, ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: v3.TierSpec{Order: &order}}
		next, placed, err := edit(path, text, key, o)
		if err != nil {
			t.Fatalf("put into %q: %v", text, err)
		}
		if !placed && !bytes.Equal(next, text) {
			t.Errorf("nothing was put into %q, and it is %q", text, next)
		}
		before, after := parse(path, text), parse(path, next)
		others(t, before, after, key)
		if n := count(after, key); placed && n != 1 || !placed && n != count(before, key) {
			t.Errorf("put %v into %q: %d of it are in %q", placed, text, n, next)
		}
		bare, _, err := edit(path, next, key, nil)
		if err != nil {
			t.Fatalf("take out of %q: %v", next, err)
		}
		gone := parse(path, bare)
		others(t, before, gone, key)
		if n := count(gone, key); n != 0 {
			t.Errorf("%d of it are left in %q, which was %q", n, bare, text)
		}
	})
}

// count is how often a key is in a manifest, usable or not.
func count(m *manifest, key datastore.Key) (n int) {
	for _, it := range m.items {
		if it.key == key {
			n++
		}
	}
	for _, r := range m.refused {
		if r.Key == key {
			n++
		}
	}
	return n
}

// others wants what is not of a key to be in both manifests, in the same order.
func others(t *testing.T, before, after *manifest, key datastore.Key) {
	t.Helper()
	texts := func(m *manifest) (all []string) {
		for _, it := range m.items {
			if it.key != key {
				text, err := datastore.Text(it.written)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, string(text))
			}
		}
		for _, r := range m.refused {
			if r.Key != key {
				all = append(all, r.Key.String())
			}
		}
		return all
	}
	x, y := texts(before), texts(after)
	if len(x) != len(y) {
		t.Fatalf("%q has become %q", x, y)
	}
	for i := range x {
		if x[i] != y[i] {
			t.Errorf("%s has become %s", x[i], y[i])
		}
	}
}
