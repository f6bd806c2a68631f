package etcd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/etcd"
)

// set is a network set with addresses of both families.
func set(name, nets string) *v3.NetworkSet {
	return &v3.NetworkSet{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Spec: v3.NetworkSetSpec{Nets: []string{nets, "fd00::/8"}}}
}

// create creates an object that must be created.
func create(t *testing.T, s datastore.Store, o v3.Object) v3.Object {
	t.Helper()
	made, err := s.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// picture is what a follower has made of a store.
type picture struct {
	mu      sync.Mutex
	objects map[string]string // the first address of each set
	refused map[string]error
	lost    []error
	synced  int
	more    chan struct{}
}

// follow follows a store until the test ends, and asks again soon.
func follow(t *testing.T, s datastore.Store) *picture {
	p := &picture{objects: make(map[string]string), refused: make(map[string]error), more: make(chan struct{}, 1)}
	f := &datastore.Follower{Store: s, Deliver: p.take, Pause: func(ctx context.Context, _ int) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
			return nil
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-end })
	return p
}

// take hears what a follower tells.
func (p *picture) take(events []datastore.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		switch e.Type {
		case datastore.Changed:
			p.objects[e.Key.Name] = e.Object.(*v3.NetworkSet).Spec.Nets[0]
		case datastore.Deleted:
			delete(p.objects, e.Key.Name)
			delete(p.refused, e.Where)
		case datastore.Refusing:
			p.refused[e.Where] = e.Err
		case datastore.Lost:
			p.lost = append(p.lost, e.Err)
		case datastore.InSync:
			p.synced++
		}
	}
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// until waits until the picture is as it should be.
func (p *picture) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.After(2 * time.Minute); ; {
		p.mu.Lock()
		ok := is()
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-p.more:
		case <-late:
			t.Fatalf("waited in vain until %s: %v, refused %v, lost %v", what, p.objects, p.refused, p.lost)
		}
	}
}

// holds waits until the picture has these, as name=address.
func (p *picture) holds(t *testing.T, want string) {
	t.Helper()
	p.until(t, "it holds "+want, func() bool {
		var all []string
		for name, nets := range p.objects {
			all = append(all, name+"="+nets)
		}
		slices.Sort(all)
		return strings.Join(all, " ") == want
	})
}

// Followers live through an etcd that is down, one that comes back with its data,
// one that comes back with nothing, and one that has gone on meanwhile.
func TestOutages(t *testing.T) {
	dir := t.TempDir()
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "etcd.sock")
	p := follow(t, openFor(t, "unix://"+socket, "/o", 500*time.Millisecond))
	p.until(t, "it is told that there is none", func() bool { return len(p.lost) > 0 })
	p.mu.Lock()
	first := p.lost[0]
	p.mu.Unlock()
	if !errors.Is(first, datastore.ErrUnavailable) || !strings.Contains(first.Error(), "no such file") {
		t.Errorf("where there is no socket: %v", first)
	}
	endpoint, stop := serve(t, data, socket)
	p.until(t, "it is in sync", func() bool { return p.synced > 0 })
	s := open(t, endpoint, "/o")
	create(t, s, set("a", "10.0.0.0/8"))
	create(t, s, set("b", "10.1.0.0/16"))
	p.holds(t, "a=10.0.0.0/8 b=10.1.0.0/16")

	stop()
	p.mu.Lock()
	p.lost = nil
	p.mu.Unlock()
	p.until(t, "it is told that it is away", func() bool { return len(p.lost) > 0 })
	_, stop = serve(t, data, socket)
	if err := s.Delete(t.Context(), datastore.Key{Kind: v3.KindNetworkSet, Namespace: "x", Name: "b"}, datastore.Precondition{}); err != nil {
		t.Fatal(err)
	}
	p.holds(t, "a=10.0.0.0/8")

	stop()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.lost = nil
	p.mu.Unlock()
	_, stop = serve(t, data, socket)
	p.until(t, "it is told that it is empty", func() bool {
		return slices.ContainsFunc(p.lost, func(err error) bool { return strings.Contains(err.Error(), "is empty, and another one") })
	})
	p.holds(t, "a=10.0.0.0/8")
	for _, name := range []string{"a", "c"} {
		create(t, s, set(name, "10.3.0.0/16"))
	}
	p.holds(t, "a=10.3.0.0/16 c=10.3.0.0/16")
	stop()
}

// A watch that waits at an etcd made anew, which has not come as far as the former,
// would wait until it has, and then miss what happened: the heartbeat finds it.
func TestWatchOfAnother(t *testing.T) {
	dir := t.TempDir()
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "etcd.sock")
	endpoint, stop := serve(t, data, socket)
	s := open(t, endpoint, "/o")
	create(t, s, set("a", "10.0.0.0/8"))
	for range 20 {
		put(t, raw(t, endpoint), "/elsewhere", "x") // so that revisions go up
	}
	l, err := s.List(t.Context(), datastore.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	serve(t, data, socket)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Watch(ctx, datastore.Scope{}, l.Revision, func([]datastore.Event) {}); !errors.Is(err, datastore.ErrCompacted) {
		t.Errorf("watched an etcd that is behind: %v", err)
	}
	create(t, s, set("b", "10.0.0.0/8"))
	for range 40 {
		put(t, raw(t, endpoint), "/elsewhere", "x")
	}
	if err := s.Watch(ctx, datastore.Scope{}, l.Revision, func([]datastore.Event) {}); !errors.Is(err, datastore.ErrCompacted) {
		t.Errorf("watched another etcd that is ahead: %v", err)
	}
}

// What has no place below our prefix is told, and keeps nothing back.
func TestForeignKeys(t *testing.T) {
	dir := t.TempDir()
	endpoint, _ := serve(t, filepath.Join(dir, "data"), filepath.Join(dir, "etcd.sock"))
	client, s := raw(t, endpoint), open(t, endpoint, "/o")
	foreign := []string{"/o/v3/", "/o/v3/x", "/o/v3/NetworkSet/x", "/o/v3/NetworkSet/x/", "/o/v3/NetworkSet/x/a/b", "/o/v3/NetworkSet/-/a", "/o/v3/Tier/x/a", "/o/v3/Later/-/a", "/o/v3/\xff\xfe/-/\x00"}
	for _, key := range foreign[:5] {
		put(t, client, key, "x")
	}
	p := follow(t, s)
	p.until(t, "it is in sync", func() bool { return p.synced > 0 })
	for _, key := range foreign[5:] {
		put(t, client, key, strings.Repeat("{", 1<<20))
	}
	put(t, client, "/o/v3/NetworkSet/x/long", strings.Repeat(" ", 3<<19-1000))
	put(t, client, "/o/v3x", "not ours")
	create(t, s, set("a", "10.0.0.0/8"))
	p.holds(t, "a=10.0.0.0/8")
	p.until(t, "all are refused", func() bool { return len(p.refused) == len(foreign)+1 })
	for _, key := range foreign {
		if _, err := client.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	p.until(t, "they are gone", func() bool { return len(p.refused) == 1 })
}

// An etcd that takes connections and says nothing is away, in the time that a
// request has, and so is one that says something else.
func TestDeafAndStrange(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){
		"deaf": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"strange": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			_ = c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "etcd.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			var conns []net.Conn
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					mu.Lock()
					conns = append(conns, c)
					mu.Unlock()
					wg.Go(func() { answer(c) })
				}
			})
			s, err := etcd.Open(etcd.Config{Endpoints: []string{"unix://" + socket}, Timeout: metav1.Duration{Duration: 100 * time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.List(t.Context(), datastore.Scope{}); !errors.Is(err, datastore.ErrUnavailable) {
				t.Errorf("listed: %v", err)
			}
			if _, err := s.Create(t.Context(), set("a", "10.0.0.0/8")); !errors.Is(err, datastore.ErrUnavailable) {
				t.Errorf("created: %v", err)
			}
			if err := s.Watch(t.Context(), datastore.Scope{}, "1/x", func([]datastore.Event) {}); !errors.Is(err, datastore.ErrUnavailable) {
				t.Errorf("watched: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := s.List(ctx, datastore.Scope{}); !errors.Is(err, context.Canceled) {
				t.Errorf("listed after the end: %v", err)
			}
			if err := errors.Join(s.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			mu.Lock()
			for _, c := range conns {
				_ = c.Close()
			}
			mu.Unlock()
			wg.Wait()
		})
	}
}

// An etcd that was set back to a copy of its data has the same name, and has
// forgotten something: a watch says so.
func TestRestored(t *testing.T) {
	dir := t.TempDir()
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "etcd.sock")
	endpoint, stop := serve(t, data, socket)
	s := open(t, endpoint, "/o")
	create(t, s, set("a", "10.0.0.0/8"))
	stop()
	if err := os.CopyFS(data+".copy", os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	_, stop = serve(t, data, socket)
	create(t, s, set("b", "10.0.0.0/8"))
	create(t, s, set("c", "10.0.0.0/8"))
	l, err := s.List(t.Context(), datastore.Scope{})
	if err != nil || len(l.Objects) != 3 {
		t.Fatalf("%+v is listed: %v", l, err)
	}
	stop()
	serve(t, data+".copy", socket)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Watch(ctx, datastore.Scope{}, l.Revision, func([]datastore.Event) {}); !errors.Is(err, datastore.ErrCompacted) {
		t.Errorf("watched an etcd that is behind: %v", err)
	}
}
