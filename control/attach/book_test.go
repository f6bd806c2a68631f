package attach

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	agentv1 "margay.dev/margay/api/agent/v1"
)

var (
	ann = Key{"shop", "ann"}
	bob = Key{"shop", "bob"}
)

func tun(k Key) Attachment {
	return Attachment{Key: k, Kind: TUN, NetNS: "/run/netns/" + k.Name, Device: "eth0", Port: PortName(k), MTU: 1400}
}

func open(t *testing.T, dir string) *Book {
	t.Helper()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, b *Book, a Attachment) uint64 {
	t.Helper()
	v, err := b.Put(a)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestABookIsReadAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	b := open(t, dir)
	xsk := Attachment{Key: bob, Kind: XSK, Device: "p-bob", MAC: []byte{2, 0, 0, 0, 0, 1}, Queues: 2, Port: "bob"}
	put(t, b, tun(ann))
	put(t, b, tun(ann)) // once more is no change
	put(t, b, xsk)
	changed := tun(ann)
	changed.MTU = 9000
	put(t, b, changed)
	put(t, b, tun(Key{"shop", "eve"}))
	if _, err := b.Remove(Key{"shop", "eve"}); err != nil {
		t.Fatal(err)
	}
	want, _ := b.All()
	if err := os.WriteFile(b.path(Key{"shop", "half"})+newSuffix, []byte(`{"Key`), 0o600); err != nil { // of an agent killed there
		t.Fatal(err)
	}
	got, _ := open(t, dir).All()
	if !reflect.DeepEqual(got, want) || len(got) != 2 || got[ann].MTU != 9000 {
		t.Errorf("read again it is %+v, want %+v", got, want)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 2 {
		t.Errorf("there are files %v, want one for each attachment", files)
	}
}

func TestABookThatCannotBeReadIsNone(t *testing.T) {
	tests := map[string]struct{ text, says string }{
		"cut short":           {`{"Key":{"Namespace":"shop","Name":"ann"},"Ki`, "unexpected EOF"},
		"of a later version":  {`{"Key":{"Namespace":"shop","Name":"ann"},"Speed":3}`, "unknown field"},
		"empty":               {``, "EOF"},
		"with faults":         {`{"Key":{"Namespace":"shop","Name":"ann"},"Kind":"tun","NetNS":"here","Device":"eth0","Port":"p"}`, "netns is"},
		"of another workload": {`{"Key":{"Namespace":"shop","Name":"eve"},"Kind":"tun","NetNS":"/n","Device":"eth0","Port":"p"}`, "whose file is"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := open(t, dir)
			put(t, b, tun(bob))
			if err := os.WriteFile(b.path(ann), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "disconnects its workload") {
				t.Errorf("it says %v, want %q and what to do", err, tt.says)
			}
		})
	}
}

func TestWhatAnotherWorkloadHasIsRefused(t *testing.T) {
	b := open(t, t.TempDir())
	put(t, b, tun(ann))
	port, place := tun(bob), tun(bob)
	port.Port, place.NetNS = PortName(ann), "/run/netns/ann"
	for name, a := range map[string]Attachment{"port": port, "device": place} {
		if _, err := b.Put(a); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "shop/ann") {
			t.Errorf("%s of another workload: %v", name, err)
		}
	}
	if all, _ := b.All(); len(all) != 1 {
		t.Errorf("what is refused is kept: %v", all)
	}
}

func TestANodeHasOnlySoManyWorkloads(t *testing.T) {
	b := open(t, t.TempDir())
	for i := range maxAttachments {
		k := Key{"shop", strconv.Itoa(i)}
		b.entries[k] = tun(k) // Put would write each to the disk
	}
	if _, err := b.Put(tun(ann)); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := b.Remove(Key{"shop", "7"}); err != nil {
		t.Fatal(err)
	}
	put(t, b, tun(ann))
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, t.TempDir())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		before := put(t, b, tun(ann))
		b.Tell(before, map[Key]Status{ann: {InForce: true}})
		changed := tun(ann)
		changed.MTU = 9000
		v := put(t, b, changed)
		b.Tell(before, map[Key]Status{ann: {InForce: true}}) // of the former, late
		done := make(chan error, 1)
		go func() { _, err := b.Await(ctx, ann, v); done <- err }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("what was in force before counts: %v", err)
		default:
		}
		b.Tell(v, map[Key]Status{ann: {Reason: "no device"}})
		synctest.Wait()
		b.Tell(0, map[Key]Status{ann: {InForce: true}})
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.Tell(v, map[Key]Status{ann: {Reason: "no device"}})
		go func() { _, err := b.Await(ctx, ann, v); done <- err }()
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no device") {
			t.Errorf("it never comes: %v", err)
		}
	})
}

func TestWhoWaitsForWhatIsDetachedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, t.TempDir())
		v := put(t, b, tun(ann))
		done := make(chan error, 1)
		go func() { _, err := b.Await(t.Context(), ann, v); done <- err }()
		synctest.Wait()
		gone, err := b.Remove(ann)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), "detached meanwhile") {
			t.Errorf("it was detached, and who waits is told %v", err)
		}
		go func() { done <- b.Gone(t.Context(), ann, gone) }()
		synctest.Wait()
		select {
		case <-done:
			t.Error("it is gone before anybody has said so")
		default:
		}
		b.Tell(gone, nil)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRead(t *testing.T) {
	workload := &agentv1.Workload{Namespace: "shop", Name: "ann"}
	whole := &agentv1.Attachment{Workload: workload, Kind: agentv1.Attachment_KIND_TUN, Netns: "/n"}
	a, err := Read(whole)
	if err != nil || a.Device != "eth0" || a.Port != PortName(ann) || len(a.Port) != 15 || !strings.HasPrefix(a.Port, "cali") {
		t.Errorf("read as %+v, %v", a, err)
	}
	if b, err := Read(a.Proto()); err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("written and read again it is %+v, %v", b, err)
	}
	bad := &agentv1.Attachment{Workload: &agentv1.Workload{Namespace: "a/b", Name: strings.Repeat("n", 254)}, Netns: "/n", Device: "sixteen-letters-", Mac: []byte{1, 2}, Mtu: 10, Queues: 257, Port: "a port"}
	for _, tt := range []struct {
		kind agentv1.Attachment_Kind
		says []string
	}{
		{0, []string{"workload.namespace is", "workload.name is", "device is", "port is", "kind is missing", "mtu is 10", "queues is 257"}},
		{agentv1.Attachment_KIND_TUN, []string{"mac is set"}},
		{agentv1.Attachment_KIND_XSK, []string{"netns is", "mac is 01 02"}},
	} {
		bad.Kind = tt.kind
		_, err := Read(bad)
		for _, want := range tt.says {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %q is not told in %v", tt.kind, want, err)
			}
		}
	}
	if _, err := Read(nil); err == nil {
		t.Error("nothing at all is an attachment")
	}
}
