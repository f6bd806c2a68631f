package etcd_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/etcd"
)

// pageSize is how many objects are in one page of a listing.
const pageSize = 512

// fill puts sets of some names into an etcd.
func fill(t *testing.T, c *clientv3.Client, prefix string, names ...string) {
	t.Helper()
	for i := 0; i < len(names); i += 100 {
		var puts []clientv3.Op
		for _, name := range names[i:min(i+100, len(names))] {
			puts = append(puts, clientv3.OpPut(path(prefix, setKey(name)), textOf(name)))
		}
		if _, err := c.Txn(t.Context()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// textOf is a set as it is stored.
func textOf(name string) string {
	return fmt.Sprintf(`{"apiVersion":"projectcalico.org/v3","kind":"NetworkSet","metadata":{"name":%q,"namespace":"x"},"spec":{"nets":["10.0.0.0/8","fd00::/8"]}}`, name)
}

// many are names, in order.
func many(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("m%04d", i))
	}
	return names
}

// The next page begins right behind the last one, whatever follows: names that have
// the last one as their beginning, nothing, or a page that is just full.
func TestPages(t *testing.T) {
	dir := t.TempDir()
	endpoint, _ := serve(t, filepath.Join(dir, "data"), filepath.Join(dir, "etcd.sock"))
	client, stores := raw(t, endpoint), 0
	for name, names := range map[string][]string{
		"a beginning of others": append(many(pageSize-1), "n", "n-", "n-0", "n0", "nn", "nz", "o"),
		"just full":             many(pageSize),
		"one more":              many(pageSize + 1),
		"two pages":             many(2 * pageSize),
	} {
		t.Run(name, func(t *testing.T) {
			stores++
			prefix := fmt.Sprint("/o", stores)
			fill(t, client, prefix, names...)
			l, err := open(t, endpoint, prefix).List(t.Context(), datastore.Scope{})
			if err != nil || len(l.Objects)+len(l.Refused) != len(names) {
				t.Fatalf("%d are listed, %d refused, of %d: %v", len(l.Objects), len(l.Refused), len(names), err)
			}
			for i, r := range l.Refused { // "n-" is no name of an object
				if r.Key.Name != "n-" || i > 0 {
					t.Errorf("refused: %v", r)
				}
			}
		})
	}
}

// A listing is of one moment, however many pages it has: each is asked for at the
// revision of the first. One whose revision is compacted away is begun anew, but not for
// ever.
func TestPagesOfOneMoment(t *testing.T) {
	for forgets, want := range map[int]error{0: nil, 2: nil, 3: datastore.ErrUnavailable} {
		p := &puppet{beats: []beat{{at: 10, name: "s"}}, forgets: forgets, pages: 3}
		s, err := etcd.Open(etcd.Config{Endpoints: []string{p.serve(t)}})
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.List(t.Context(), datastore.Scope{})
		if !errors.Is(err, want) || want == nil && (err != nil || len(l.Refused) != 3) {
			t.Errorf("compacted %d times: %v, %v, want %v", forgets, l, err, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		for i, at := range p.listed {
			if at != 10 {
				t.Errorf("page %d of a listing at revision 10 is asked for at %d", i, at)
			}
		}
		p.mu.Unlock()
	}
}
