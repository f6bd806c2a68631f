//go:build linux

package hostnet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestNamespacesAreThoseOfIPNetns(t *testing.T) {
	ns := hostnettest.Namespace(t)
	name := hostnettest.Name(ns)
	own, err := hostnet.OpenNamespace("")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if out := hostnettest.Run(t, own, "ip", "netns", "list"); !strings.Contains(out, name) {
		t.Errorf("ip netns list does not tell %s:\n%s", name, out)
	}
	if out := hostnettest.Run(t, own, "ip", "netns", "exec", name, "ip", "-br", "link"); !strings.HasPrefix(out, "lo") {
		t.Errorf("ip netns exec shows %q, want only lo", out)
	}
	names, err := hostnet.NamedNamespaces()
	if err != nil || !slices.Contains(names, name) {
		t.Errorf("NamedNamespaces tells %v (%v), want %s among them", names, err, name)
	}
	if _, err := hostnet.CreateNamespace(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("second CreateNamespace: %v, want that it exists", err)
	}
	hostnettest.Run(t, own, "ip", "netns", "delete", name)
	for range 2 { // it is gone, and gone is no error
		if err := hostnet.DeleteNamespace(name); err != nil {
			t.Error(err)
		}
	}
	hostnettest.Run(t, own, "ip", "netns", "add", name)
	theirs, err := hostnet.OpenNamespace("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if err := hostnet.DeleteNamespace(name); err != nil {
		t.Error(err)
	}
	if out := hostnettest.Run(t, own, "ip", "netns", "list"); strings.Contains(out, name) {
		t.Errorf("%s is still in ip netns list:\n%s", name, out)
	}
}

func TestNamesThatAreNoFileNamesAreRefused(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b", strings.Repeat("x", 256)} {
		if _, err := hostnet.CreateNamespace(name); err == nil {
			t.Errorf("CreateNamespace took %q", name)
		}
		if err := hostnet.DeleteNamespace(name); err == nil {
			t.Errorf("DeleteNamespace took %q", name)
		}
	}
	if _, err := hostnet.OpenNamespace("/proc/self/status"); err == nil {
		t.Error("OpenNamespace took a file that is no namespace")
	}
}

func TestLeftoverNameIsDeleted(t *testing.T) {
	name := hostnettest.Name(hostnettest.Namespace(t)) + "x"
	path, _ := hostnet.NamespacePath(name)
	if err := os.WriteFile(path, nil, 0); err != nil { // as a crash between the file and the mount leaves it
		t.Fatal(err)
	}
	if err := hostnet.DeleteNamespace(name); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

func inode(t *testing.T) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	home := inode(t)
	list := []*hostnet.Namespace{hostnettest.Namespace(t), hostnettest.Namespace(t), hostnettest.Namespace(t)}
	var wg sync.WaitGroup
	for i := range 60 {
		ns := list[i%len(list)]
		wg.Go(func() {
			id, err := ns.Identity()
			if err != nil {
				t.Error(err)
			}
			err = ns.Do(func() error {
				runtime.Gosched()
				if got := inode(t); got != id.Inode {
					t.Errorf("inside is namespace %d, want %d", got, id.Inode)
				}
				return errors.New("mine")
			})
			if err == nil || err.Error() != "mine" {
				t.Errorf("Do returned %v, want what the function did", err)
			}
			if got := inode(t); got != home {
				t.Errorf("outside is namespace %d, want %d", got, home)
			}
		})
	}
	wg.Wait()
	ids := map[hostnet.Identity]bool{}
	for _, ns := range list {
		id, _ := ns.Identity()
		ids[id] = true
	}
	if len(ids) != len(list) {
		t.Errorf("%d namespaces have %d identities", len(list), len(ids))
	}
}

func TestThreadThatCannotReturnIsDiscarded(t *testing.T) {
	ns := hostnettest.Namespace(t)
	home := inode(t)
	for range 20 {
		err := ns.Do(func() error { // a thread without capabilities cannot enter the namespace it came from
			var none [2]unix.CapUserData
			return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that ended its goroutine was no error")
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if got := inode(t); got != home {
				t.Errorf("a thread was left in namespace %d", got)
			}
			if err := ns.Do(func() error { return nil }); err != nil {
				t.Errorf("a thread was left without capabilities: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestNothingIsLeaked(t *testing.T) {
	ns := hostnettest.Namespace(t)
	cycle := func() {
		n, err := hostnet.OpenNamespace(ns.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		h, err := hostnet.NewHost(n)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		ctx, cancel := context.WithCancelCause(context.Background())
		stop := errors.New("enough")
		err = h.Subscribe(ctx, hostnet.Subscription{}, func(e hostnet.Event) {
			if e.Kind == hostnet.ResyncEnd {
				cancel(stop)
			}
		})
		if !errors.Is(err, stop) {
			t.Fatalf("Subscribe returned %v, want its context's cause", err)
		}
		for _, call := range []func() error{
			func() error { return h.AddVeth(hostnet.VethConfig{Name: "a", Peer: "b"}) },
			func() error { _, err := h.Features("a"); return err },
			func() error { _, err := n.Sysctl("net.ipv4.ip_forward"); return err },
			func() error { _, err := n.Sysfs("a", "mtu"); return err },
			func() error { _, err := h.Link("nosuch"); return errorUnless(errors.Is(err, hostnet.ErrNoLink), err) },
			func() error { return h.DeleteLink("a") },
		} {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 5 {
		cycle()
	}
	descriptors, threads := hostnettest.Descriptors(t), hostnettest.Threads(t)
	for range 50 {
		cycle()
	}
	if got := hostnettest.Descriptors(t); got > descriptors {
		t.Errorf("%d descriptors before, %d after 50 rounds", descriptors, got)
	}
	if got := hostnettest.Threads(t); got > threads+3 { // the runtime may start a few of its own
		t.Errorf("%d threads before, %d after 50 rounds", threads, got)
	}
}

func errorUnless(ok bool, err error) error {
	if ok {
		return nil
	}
	return fmt.Errorf("unexpected: %w", err)
}
