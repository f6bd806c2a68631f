package cluster_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/cluster"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/file"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// listing is a store that is listed, and takes nothing.
type listing struct {
	unused
	datastore.Listing
}

// unused is what of a store is not called.
type unused struct{ datastore.Store }

func (l *listing) List(context.Context, datastore.Scope) (*datastore.Listing, error) {
	return &l.Listing, nil
}

func (l *listing) Create(_ context.Context, o v3.Object) (v3.Object, error) {
	l.Objects = append(l.Objects, o)
	return o, nil
}

// with are objects: a name of a cluster, "node", "tier", and "garbage", which is refused.
func with(store string, what ...string) *listing {
	l := &listing{Listing: datastore.Listing{Store: store}}
	for _, w := range what {
		switch w {
		case "node":
			l.Objects = append(l.Objects, &v3.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		case "tier":
			l.Objects = append(l.Objects, &v3.Tier{ObjectMeta: metav1.ObjectMeta{Name: "t"}})
		case "garbage":
			l.Refused = append(l.Refused, datastore.Refusal{Where: "x", Err: datastore.ErrInvalid})
		default:
			c := &v3.ClusterInformation{ObjectMeta: metav1.ObjectMeta{Name: v3.Default}}
			c.Spec.ClusterGUID = w
			l.Objects = append(l.Objects, c)
		}
	}
	return l
}

// Which store is believed, after which.
func TestTrust(t *testing.T) {
	tests := map[string]struct {
		known    string // the file; "" for none
		replaced bool   // a folder
		l        *listing
		believed bool
		after    string // part of the file
	}{
		"the first":                          {"", false, with("a", "tier"), true, `"store":"a"`},
		"the first, without a name":          {"", false, with(""), true, ""},
		"the same":                           {`{"store":"a"}`, false, with("a", "tier", "g"), true, `"cluster":"g"`},
		"the same, emptied":                  {`{"store":"a","cluster":"g"}`, false, with("a"), true, `"cluster":"g"`},
		"the same, of another name":          {`{"store":"a","cluster":"g"}`, false, with("a", "h"), true, `"cluster":"h"`},
		"made anew":                          {`{"store":"a"}`, false, with(""), false, `"store":"a"`},
		"made anew, and filled":              {`{"store":"a"}`, false, with("b", "tier"), false, `"store":"a"`},
		"made anew, filled, of that cluster": {`{"store":"a","cluster":"g"}`, false, with("b", "g", "tier"), false, `"store":"a"`},
		"another folder":                     {`{"store":"a","cluster":"g"}`, true, with("b", "tier"), true, `"store":"b","cluster":"g"`},
		"another folder with garbage":        {`{"store":"a"}`, true, with("b", "garbage"), true, `"store":"b"`},
		"another folder of that cluster":     {`{"store":"a","cluster":"g"}`, true, with("b", "g", "tier"), true, `"store":"b"`},
		"another folder of another cluster":  {`{"store":"a","cluster":"g"}`, true, with("b", "h", "tier"), false, `"store":"a"`},
		"another folder, empty":              {`{"store":"a"}`, true, with("b"), false, `"store":"a"`},
		"another folder that agents wrote":   {`{"store":"a","cluster":"g"}`, true, with("b", "g", "node"), false, `"store":"a"`},
		"a file of nothing":                  {`{}`, false, with("a", "tier"), false, `{}`},
		"a file of garbage":                  {"\x00{{", false, with("a", "tier"), false, "\x00{{"},
		"an endless file":                    {strings.Repeat("[", 1<<17), false, with("a"), false, "[[["},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.json")
			if tt.known != "" {
				if err := os.WriteFile(path, []byte(tt.known), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			trust := cluster.New(tt.l, cluster.Options{Path: path, Replaced: tt.replaced, Log: quiet})
			_, err := trust.List(t.Context(), datastore.Scope{})
			switch {
			case tt.believed && (err != nil || trust.Refused() != nil || trust.Wait(t.Context()) != nil):
				t.Errorf("not believed: %v", err)
			case !tt.believed && (!errors.Is(err, datastore.ErrUnavailable) || !strings.Contains(err.Error(), "margay-agent accept") || trust.Refused() == nil):
				t.Errorf("believed, or refused without a way out: %v", err)
			}
			if _, err := trust.Writer().Create(t.Context(), with("", "tier").Objects[0]); tt.believed != (err == nil) {
				t.Errorf("a write ends with %v", err)
			}
			text, err := os.ReadFile(path)
			if !strings.Contains(string(text), tt.after) || (tt.after == "") != errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is %.99q, %v", text, err)
			}
			if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// folder is a store of a folder.
func folder(t *testing.T, dir string) datastore.Store {
	t.Helper()
	s, err := file.Open(file.Config{Dir: dir, Settle: metav1.Duration{Duration: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Nothing is written before a store was judged, nor after a watch has ended: it may
// have become another one meanwhile.
func TestWriter(t *testing.T) {
	trust := cluster.New(folder(t, t.TempDir()), cluster.Options{Path: filepath.Join(t.TempDir(), "store.json"), Log: quiet})
	w := trust.Writer()
	ctx := t.Context()
	n := &v3.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	key := datastore.KeyOf(n)
	refused := func(when string) {
		t.Helper()
		_, listed := w.List(ctx, datastore.Scope{})
		_, created := w.Create(ctx, n)
		_, updated := w.Update(ctx, n)
		_, judged := w.UpdateStatus(ctx, n)
		for _, err := range []error{listed, created, updated, judged, w.Delete(ctx, key, datastore.Precondition{})} {
			if !errors.Is(err, datastore.ErrUnavailable) {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	refused("before it was listed")
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := trust.Wait(short); !errors.Is(err, context.Canceled) {
		t.Errorf("waited: %v", err)
	}
	l, err := trust.List(ctx, datastore.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	_, created := w.Create(ctx, n)
	_, updated := w.Update(ctx, n)
	_, judged := w.UpdateStatus(ctx, n)
	listed, err := w.List(ctx, datastore.Scope{})
	if err := errors.Join(created, updated, judged, err, w.Delete(ctx, key, datastore.Precondition{})); err != nil || len(listed.Objects) != 1 {
		t.Errorf("a store that is believed: %v", err)
	}
	if err := trust.Watch(short, datastore.Scope{}, l.Revision, func([]datastore.Event) {}); err == nil {
		t.Error("a watch that was ended did not end")
	}
	refused("after a watch")
	if trust.Refused() != nil {
		t.Errorf("a store that is away counts as refused: %v", trust.Refused())
	}
}

// Agents that begin at once make one cluster, and all of them know it.
func TestInform(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	const agents = 5
	file := func(i int) string { return filepath.Join(state, string(rune('a'+i))) }
	for i := range agents {
		trust := cluster.New(folder(t, dir), cluster.Options{Path: file(i), Version: "v1", Log: quiet})
		wg.Go(func() { _ = trust.Run(ctx) })
		wg.Go(func() { _ = (&datastore.Follower{Store: trust, Deliver: func([]datastore.Event) {}}).Run(ctx) })
	}
	s := folder(t, dir)
	key := datastore.Key{Kind: v3.KindClusterInformation, Name: v3.Default}
	information := func() *v3.ClusterInformation {
		o, _ := s.Get(ctx, key)
		c, _ := o.(*v3.ClusterInformation)
		return c
	}
	known := func() bool {
		c := information()
		for i := range agents {
			is, err := cluster.Read(file(i))
			if err != nil || c == nil || is.Cluster == "" || is.Cluster != c.Spec.ClusterGUID {
				return false
			}
		}
		return true
	}
	eventually(t, "all know one cluster", known)
	first := information()
	if len(first.Spec.ClusterGUID) != 32 || first.Spec.CalicoVersion != "v1" || first.Spec.DatastoreReady == nil || !*first.Spec.DatastoreReady {
		t.Errorf("the cluster is %+v", first.Spec)
	}
	// Whoever deletes it gets it back, and it is the same cluster.
	if err := s.Delete(ctx, key, datastore.Precondition{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is there again", func() bool { c := information(); return c != nil && c.Spec.ClusterGUID == first.Spec.ClusterGUID })
	// What others say of it stays; only what is missing comes.
	no := false
	theirs := &v3.ClusterInformation{ObjectMeta: metav1.ObjectMeta{Name: v3.Default}, Spec: v3.ClusterInformationSpec{ClusterType: "k8s", CalicoVersion: "v3", DatastoreReady: &no}}
	if _, err := s.Update(ctx, theirs); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is whole again", func() bool { return information().Spec.ClusterGUID == first.Spec.ClusterGUID })
	if c := information(); c.Spec.ClusterType != "k8s" || c.Spec.CalicoVersion != "v3" || *c.Spec.DatastoreReady {
		t.Errorf("what others said of the cluster has become %+v", c.Spec)
	}
}

// eventually waits until what is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

// Another store is followed where people say so, and an empty one where they mean it.
func TestAccept(t *testing.T) {
	s := folder(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "store.json")
	o := cluster.Options{Path: path, Where: "folder x", Version: "v1", Log: quiet}
	before := cluster.Identity{Store: "a", Cluster: "g"}
	if err := cluster.Write(path, before); err != nil {
		t.Fatal(err)
	}
	trust := cluster.New(s, o)
	if _, err := trust.List(t.Context(), datastore.Scope{}); !errors.Is(err, datastore.ErrUnavailable) {
		t.Fatalf("another store is listed: %v", err)
	}
	if _, err := cluster.Accept(t.Context(), s, o, false); !errors.Is(err, cluster.ErrBare) {
		t.Errorf("an empty store is accepted: %v", err)
	}
	if is, err := cluster.Read(path); err != nil || is != before {
		t.Errorf("what was refused has become %v, %v", is, err)
	}
	is, err := cluster.Accept(t.Context(), s, o, true)
	if err != nil || is.Store == "" || is.Cluster == "" || is.Cluster == "g" || !strings.Contains(is.String(), is.Cluster+" (folder x)") {
		t.Errorf("accepted is %v, %v", is, err)
	}
	if _, err := trust.List(t.Context(), datastore.Scope{}); err != nil {
		t.Errorf("what was accepted is not believed: %v", err)
	}
	if _, err := s.Create(t.Context(), with("", "tier").Objects[0]); err != nil {
		t.Fatal(err)
	}
	if again, err := cluster.Accept(t.Context(), s, o, false); err != nil || again != is {
		t.Errorf("accepted again is %v, %v; was %v", again, err, is)
	}
	// Another one is accepted while this one is followed, before the agent is told where it is.
	if err := cluster.Write(path, before); err != nil {
		t.Fatal(err)
	}
	if _, err := trust.List(t.Context(), datastore.Scope{}); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("what is not accepted any more is listed: %v", err)
	}
	if err := trust.Writer().Delete(t.Context(), datastore.Key{Kind: v3.KindTier, Name: "t"}, datastore.Precondition{}); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("written to what is not accepted any more: %v", err)
	}
}

// racing is a store in which another agent is faster, once.
type racing struct {
	datastore.Store
	faster func()
}

func (r *racing) other() {
	if r.faster != nil {
		r.faster()
		r.faster = nil
	}
}

func (r *racing) Create(ctx context.Context, o v3.Object) (v3.Object, error) {
	r.other()
	return r.Store.Create(ctx, o)
}

func (r *racing) Update(ctx context.Context, o v3.Object) (v3.Object, error) {
	r.other()
	return r.Store.Update(ctx, o)
}

// Who comes second takes the name that the first has given, whether he would have
// created the information or made it whole, and creates it if it goes meanwhile.
func TestInformRaces(t *testing.T) {
	information := func(guid string) *v3.ClusterInformation { return with("", guid).Objects[0].(*v3.ClusterInformation) }
	key := datastore.KeyOf(information(""))
	tests := map[string]struct {
		before *v3.ClusterInformation
		faster func(ctx context.Context, s datastore.Store) error
		want   string
	}{
		"another creates": {nil, func(ctx context.Context, s datastore.Store) error {
			_, err := s.Create(ctx, information("theirs"))
			return err
		}, "theirs"},
		"another makes whole": {information(""), func(ctx context.Context, s datastore.Store) error {
			_, err := s.Update(ctx, information("theirs"))
			return err
		}, "theirs"},
		"another deletes": {information(""), func(ctx context.Context, s datastore.Store) error {
			return s.Delete(ctx, key, datastore.Precondition{})
		}, "ours"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			s := folder(t, t.TempDir())
			if tt.before != nil {
				if _, err := s.Create(ctx, tt.before); err != nil {
					t.Fatal(err)
				}
			}
			r := &racing{s, func() {
				if err := tt.faster(ctx, s); err != nil {
					t.Error(err)
				}
			}}
			got, err := cluster.Inform(ctx, r, "ours", "v1")
			if err != nil || got.Spec.ClusterGUID != tt.want || got.Spec.CalicoVersion != "v1" {
				t.Errorf("it ends with %+v, %v", got, err)
			}
			o, err := s.Get(ctx, key)
			if err != nil || o.(*v3.ClusterInformation).Spec.ClusterGUID != tt.want {
				t.Errorf("it is %+v, %v", o, err)
			}
		})
	}
}
