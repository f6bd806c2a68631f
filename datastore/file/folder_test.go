package file_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/file"
)

// doc is a manifest of a network set.
func doc(name, nets string) string {
	return "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: " + name + ", namespace: x}\nspec: {nets: [" + nets + ", \"fd00::/8\"]}\n"
}

// set is the object of doc.
func set(name, nets string) *v3.NetworkSet {
	return &v3.NetworkSet{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Spec: v3.NetworkSetSpec{Nets: []string{nets, "fd00::/8"}}}
}

// key is that of set.
func key(name string) datastore.Key {
	return datastore.Key{Kind: v3.KindNetworkSet, Namespace: "x", Name: name}
}

// held is what a store lists, as name=address, and its refusals.
func held(t *testing.T, s datastore.Store) (string, []datastore.Refusal) {
	t.Helper()
	l, err := s.List(t.Context(), datastore.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range l.Objects {
		nets := ""
		if s, ok := o.(*v3.NetworkSet); ok {
			nets = s.Spec.Nets[0]
		}
		all = append(all, o.GetName()+"="+nets)
	}
	return strings.Join(all, " "), l.Refused
}

// Whatever lies in a folder, what can be used is used, the rest is told with its
// place, and nothing is waited for in vain.
func TestWhatLiesAround(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	tests := map[string]struct {
		files map[string]string
		want  string
		told  []string // parts of the refusals, in order
	}{
		"nothing":            {nil, "", nil},
		"empty files":        {map[string]string{"a.yaml": "", "b.yml": "---\n---\n# nothing\n", "c.json": "null"}, "", nil},
		"many to a file":     {map[string]string{"a.yaml": doc("a", "10.0.0.0/8") + "---\n" + doc("b", "10.1.0.0/16")}, "a=10.0.0.0/8 b=10.1.0.0/16", nil},
		"folders and lists":  {map[string]string{"a/b/c.yml": doc("a", "10.0.0.0/8"), "b.json": `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"t"}}]}`}, "a=10.0.0.0/8 t=", nil},
		"what is not ours":   {map[string]string{"README.md": "x", ".a.yaml": "{", ".git/b.yaml": "{", "a.yaml~": "{", "a.yaml": doc("a", "10.0.0.0/8")}, "a=10.0.0.0/8", nil},
		"no YAML":            {map[string]string{"a.yaml": "{", "b.yaml": doc("b", "10.0.0.0/8") + "---\n\t- x\n---\n" + doc("c", "10.0.0.0/8")}, "b=10.0.0.0/8 c=10.0.0.0/8", []string{"a.yaml, document 1", "b.yaml, document 2"}},
		"other kinds":        {map[string]string{"a.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n" + strings.Replace(doc("b", "10.0.0.0/8"), "NetworkSet", "Networkset", 1), "c.yaml": doc("c", "10.0.0.0/8")}, "c=10.0.0.0/8", []string{"not of projectcalico.org/v3", "minds capitals"}},
		"fields of tomorrow": {map[string]string{"a.yaml": doc("a", "10.0.0.0/8") + "status: {tomorrow: 1}\n", "b.yaml": doc("b", "10.0.0.0/8")}, "b=10.0.0.0/8", []string{`document 1: NetworkSet x/a: invalid: read NetworkSet "a": unknown field "status.tomorrow"`}},
		"names twice":        {map[string]string{"b.yaml": doc("a", "10.2.0.0/16"), "a.yaml": doc("a", "10.0.0.0/8") + "---\n" + doc("a", "10.1.0.0/16")}, "a=10.0.0.0/8", []string{"a.yaml, document 1 already", "b.yaml, document 1: "}},
		"keys twice":         {map[string]string{"a.yaml": doc("a", "10.0.0.0/8") + "spec: {nets: []}\n"}, "", []string{"already set"}},
		"a bomb":             {map[string]string{"a.yaml": bomb, "b.yaml": doc("b", "10.0.0.0/8")}, "b=10.0.0.0/8", []string{"a.yaml, document 1"}},
		"a deep one":         {map[string]string{"a.yaml": strings.Repeat("[", 1<<18), "b.json": strings.Repeat(`{"a":`, 1<<16)}, "", []string{"a.yaml", "b.json"}},
		"a long file":        {map[string]string{"a.yaml": strings.Repeat("# x\n", 5<<20), "b.yaml": doc("b", "10.0.0.0/8")}, "b=10.0.0.0/8", []string{"more than 16 MiB"}},
		"bytes":              {map[string]string{"a.yaml": "\x00\xff\xfe", "b.yaml": "\ufeff" + doc("b", "10.0.0.0/8")}, "b=10.0.0.0/8", []string{"a.yaml"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, text := range tt.files {
				path = filepath.Join(dir, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			got, refused := held(t, open(t, dir))
			if got != tt.want || len(refused) != len(tt.told) {
				t.Fatalf("holds %q and refuses %v, want %q and %d", got, refused, tt.want, len(tt.told))
			}
			for i, r := range refused {
				if text := fmt.Sprintf("%s: %v: %v", r.Where, r.Key, r.Err); !strings.Contains(text, tt.told[i]) || !errors.Is(r.Err, datastore.ErrInvalid) {
					t.Errorf("%.500s does not say %q", text, tt.told[i])
				}
			}
		})
	}
}

// What is no file is not opened: a pipe would have us wait.
func TestPipesAndLinks(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	var faults []error
	faults = append(faults,
		unix.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600),
		os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o700),
		os.Symlink("nowhere", filepath.Join(dir, "nowhere.yaml")),
		os.Symlink(".", filepath.Join(dir, "round")),
		os.WriteFile(filepath.Join(outside, "a.yaml"), []byte(doc("a", "10.0.0.0/8")), 0o600),
		os.Symlink(filepath.Join(outside, "a.yaml"), filepath.Join(dir, "a.yaml")),
		os.WriteFile(filepath.Join(dir, ".b"), []byte(doc("b", "10.0.0.0/8")), 0o600),
		os.Symlink(".b", filepath.Join(dir, "b.yaml")))
	if err := errors.Join(faults...); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if got, refused := held(t, s); got != "a=10.0.0.0/8 b=10.0.0.0/8" || refused != nil {
		t.Errorf("holds %q and refuses %v", got, refused)
	}
	if _, err := s.Update(t.Context(), set("a", "10.1.0.0/16")); !errors.Is(err, datastore.ErrDenied) {
		t.Errorf("wrote outside of the folder: %v", err)
	}
	if _, err := s.Update(t.Context(), set("b", "10.1.0.0/16")); err != nil {
		t.Error(err)
	}
	if st, err := os.Lstat(filepath.Join(dir, "b.yaml")); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Error("the link has become a file")
	}
	if got, _ := held(t, s); got != "a=10.0.0.0/8 b=10.1.0.0/16" {
		t.Errorf("holds %q", got)
	}
}

// follow follows a store; the function waits until it holds what is wanted, as
// held gives it, and gives what was told since the last time.
func follow(t *testing.T, s datastore.Store) func(want string) []datastore.Event {
	var mu sync.Mutex
	var told []datastore.Event
	objects := make(map[string]string)
	more := make(chan struct{}, 1)
	f := &datastore.Follower{Store: s, Deliver: func(events []datastore.Event) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, events...)
		for _, e := range events {
			switch e.Type {
			case datastore.Changed:
				objects[e.Key.Name] = e.Key.Name + "=" + e.Object.(*v3.NetworkSet).Spec.Nets[0]
			case datastore.Deleted:
				delete(objects, e.Key.Name)
			}
		}
		select {
		case more <- struct{}{}:
		default:
		}
	}, Pause: func(ctx context.Context, _ int) error { time.Sleep(10 * time.Millisecond); return ctx.Err() }}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-end })
	return func(want string) []datastore.Event {
		t.Helper()
		for late := time.After(2 * time.Minute); ; {
			mu.Lock()
			var all []string
			for _, o := range objects {
				all = append(all, o)
			}
			slices.Sort(all)
			got, since := strings.Join(all, " "), told
			if got == want && len(told) > 0 {
				told = nil
				mu.Unlock()
				return since
			}
			mu.Unlock()
			select {
			case <-more:
			case <-late:
				t.Fatalf("waited in vain for %q, holds %q; told %+v", want, got, since)
			}
		}
	}
}

// has reports whether something of a type was told.
func has(events []datastore.Event, what datastore.Type) bool {
	return slices.ContainsFunc(events, func(e datastore.Event) bool { return e.Type == what })
}

// People write files in place, break them, mend them, move and delete them: half a
// file takes nothing away.
func TestEditedByHand(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	rest := "---\n" + doc("b", "10.1.0.0/16")
	save := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	save(doc("a", "10.0.0.0/8") + rest)
	until := follow(t, open(t, dir))
	until("a=10.0.0.0/8 b=10.1.0.0/16")

	save(doc("a", "10.2.0.0/16") + "---\napiVersion: projectcalico.org/v3\nkind: Netw{")
	if events := until("a=10.2.0.0/16 b=10.1.0.0/16"); !has(events, datastore.Refusing) {
		t.Errorf("told nothing of half a document: %+v", events)
	}
	save(doc("a", "10.3.0.0/16") + strings.Replace(rest, "spec:", "spex:", 1))
	until("a=10.3.0.0/16 b=10.1.0.0/16")
	save(doc("a", "10.4.0.0/16") + "---\n" + strings.Replace(doc("c", "10.1.0.0/16"), "spec:", "spex:", 1)) // b is gone for certain
	until("a=10.4.0.0/16")
	save(doc("a", "10.5.0.0/16") + rest)
	until("a=10.5.0.0/16 b=10.1.0.0/16")
	save(doc("a", "10.7.0.0/16") + strings.Replace(rest, "spec:", "spex:", 1))
	until("a=10.7.0.0/16 b=10.1.0.0/16")
	save(doc("a", "10.5.0.0/16") + rest) // back to what it was
	told := func(e datastore.Event) bool { return e.Type == datastore.Changed && e.Key == key("b") }
	if events := until("a=10.5.0.0/16 b=10.1.0.0/16"); !slices.ContainsFunc(events, told) {
		t.Errorf("b can be used again, as it was, and nobody is told: %+v", events)
	}
	save("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n" + rest)
	until("b=10.1.0.0/16")
	if err := os.Rename(path, filepath.Join(dir, "moved.yaml")); err != nil {
		t.Fatal(err)
	}
	save("{")
	write(t, filepath.Join(dir, "moved.yaml"), doc("b", "10.6.0.0/16"))
	until("b=10.6.0.0/16")
	if err := os.Remove(filepath.Join(dir, "moved.yaml")); err != nil {
		t.Fatal(err)
	}
	until("b=10.1.0.0/16") // it may be in what is half a file
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until("")
}

// A file that is being written is not read before it was left alone, though what is
// there of it could be read; one from the future is not waited for.
func TestHalfWritten(t *testing.T) {
	dir := t.TempDir()
	s, err := file.Open(file.Config{Dir: dir, Settle: metav1.Duration{Duration: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	path := filepath.Join(dir, "a.yaml")
	save := func(text string, written time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, written, written)); err != nil {
			t.Fatal(err)
		}
	}
	for name, step := range map[string]struct {
		written time.Time
		read    bool
	}{
		"a moment ago": {time.Now(), false},
		"long ago":     {time.Now().Add(-2 * time.Hour), true},
		"tomorrow":     {time.Now().Add(24 * time.Hour), true},
	} {
		save(doc("a", "10.0.0.0/8")+"# "+name, step.written)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if !step.read {
			cancel()
		}
		l, err := s.List(ctx, datastore.Scope{})
		if step.read && (err != nil || len(l.Objects) != 1) || !step.read && !errors.Is(err, datastore.ErrUnavailable) {
			t.Errorf("written %s: %+v, %v", name, l, err)
		}
		cancel()
	}
}

// What a folder had is not deleted, if it is taken away while a file in it is
// waited for.
func TestFolderGoneWhileItIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policy")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a.yaml"), doc("a", "10.0.0.0/8"))
	s := open(t, dir)
	until := follow(t, s)
	until("a=10.0.0.0/8")
	write(t, filepath.Join(dir, "b.yaml"), doc("b", "10.0.0.0/8")) // is not believed at once
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	for events := until("a=10.0.0.0/8"); !has(events, datastore.Lost); events = until("a=10.0.0.0/8") {
		if has(events, datastore.Deleted) {
			t.Fatalf("told %+v", events)
		}
	}
}

// A folder that is gone is an outage, one that is another and empty too: nothing is
// taken away until there is something in it.
func TestFolderGone(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "policy")
	make := func() {
		t.Helper()
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	make()
	write(t, filepath.Join(dir, "a.yaml"), doc("a", "10.0.0.0/8"))
	s := open(t, dir)
	until := follow(t, s)
	until("a=10.0.0.0/8")
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	lost := func(events []datastore.Event) bool { return has(events, datastore.Lost) }
	for !lost(until("a=10.0.0.0/8")) {
	}
	if _, err := s.Create(t.Context(), set("b", "10.0.0.0/8")); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("created in a folder that is gone: %v", err)
	}
	make()
	for !slices.ContainsFunc(until("a=10.0.0.0/8"), func(e datastore.Event) bool {
		return e.Type == datastore.Lost && strings.Contains(e.Err.Error(), "is empty, and another one")
	}) {
	}
	write(t, filepath.Join(dir, "b.yaml"), doc("b", "10.0.0.0/8"))
	until("b=10.0.0.0/8")
}

// What we write leaves everything else in a file as it was, comments too.
func TestWritesBesideOthers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "all.yaml")
	head, tail := "# kept\n"+doc("a", "10.0.0.0/8"), "--- # kept too\n"+doc("c", "10.2.0.0/16")+"---\nkind: [\n"
	write(t, path, head+"---\n# not kept\n"+doc("b", "10.1.0.0/16")+tail)
	list := filepath.Join(dir, "list.json")
	write(t, list, `[{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"t"}},{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"u"}}]`)
	s := open(t, dir)
	if _, err := s.Update(t.Context(), set("b", "10.9.0.0/16")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(text), head) || !strings.HasSuffix(string(text), tail) || !strings.Contains(string(text), "10.9.0.0/16") || strings.Contains(string(text), "resourceVersion") {
		t.Errorf("has become\n%s", text)
	}
	if err := s.Delete(t.Context(), key("a"), datastore.Precondition{}); !errors.Is(err, datastore.ErrUnavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("deleted from what cannot be read: %v", err)
	}
	text = []byte(strings.TrimSuffix(string(text), "---\nkind: [\n"))
	tail = strings.TrimSuffix(tail, "---\nkind: [\n")
	write(t, path, string(text))
	for _, name := range []string{"a", "b"} {
		if err := s.Delete(t.Context(), key(name), datastore.Precondition{}); err != nil {
			t.Error(err)
		}
	}
	if text, err = os.ReadFile(path); err != nil || string(text) != strings.TrimPrefix(tail, "---") {
		t.Errorf("has become %v\n%s", err, text)
	}
	order := 5.0
	tier := &v3.Tier{ObjectMeta: metav1.ObjectMeta{Name: "u"}, Spec: v3.TierSpec{Order: &order}}
	if _, err := s.Update(t.Context(), tier); err != nil {
		t.Fatal(err)
	}
	if got, refused := held(t, open(t, dir)); got != "c=10.2.0.0/16 t= u=" || refused != nil {
		t.Errorf("holds %q, refuses %v", got, refused)
	}
	for _, name := range []string{"t", "u"} {
		if err := s.Delete(t.Context(), datastore.Key{Kind: v3.KindTier, Name: name}, datastore.Precondition{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(list); err == nil {
		t.Error("a file is left in which nothing is")
	}
}

// Names that are too long for a file, and files that are there already, are in
// nobody's way.
func TestNamesOfFiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	long := strings.Repeat(strings.Repeat("a", 49)+".", 5)
	write(t, filepath.Join(dir, "networkset.x.b.yaml"), "# mine\n")
	for _, name := range []string{long + "a", long + "b", "b"} {
		if _, err := s.Create(t.Context(), set(name, "10.0.0.0/8")); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := held(t, open(t, dir)); strings.Count(got, "=") != 3 {
		t.Errorf("holds %q", got)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "networkset.x.b.yaml")); err != nil || string(text) != "# mine\n" {
		t.Errorf("somebody's file is %q now: %v", text, err)
	}
}

// Who may not write is told so, and may read.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), doc("a", "10.0.0.0/8"))
	if err := os.WriteFile(filepath.Join(dir, ".margay"), nil, 0o600); err != nil { // in the way of our folder
		t.Fatal(err)
	}
	s := open(t, dir)
	if got, _ := held(t, s); got != "a=10.0.0.0/8" {
		t.Errorf("holds %q", got)
	}
	if _, err := s.Create(t.Context(), set("b", "10.0.0.0/8")); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("created: %v", err)
	}
}
