package plane

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "margay.dev/margay/api/dataplane/v1"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// realPlane is a dataplane of real devices.
func realPlane(t *testing.T) (*Plane, Config) {
	t.Helper()
	cfg := Config{Workers: 1, Frames: 8192, Supers: 64, Log: slog.New(slog.DiscardHandler)}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p, cfg
}

// duplicates are descriptors as another process would have them.
func duplicates(t *testing.T, fds []int) (out []int) {
	t.Helper()
	for _, fd := range fds {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// A device that comes while a dataplane is on offer is opened by whoever goes on
// with it, and not before: whoever gives knows nothing of it, and may yet go on.
func TestNothingIsOpenedBeforeTheBeginning(t *testing.T) {
	ns := Namespace(t)
	p, cfg := realPlane(t)
	chunk := &pb.Chunk{Ports: []*pb.Port{{Name: "x", Device: "vx", Netns: ns.Path(), Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: true}}}}}
	if faults, err := p.Apply(t.Context(), 1, changeOf(chunk), true); faults != nil || err != nil {
		t.Fatal(faults, err)
	}
	for _, goesOn := range []bool{false, true} {
		_, free := p.Frames()
		e, fds, err := p.Offer()
		if err != nil {
			t.Fatal(err)
		}
		if !goesOn {
			Run(t, ns, "ip", "link", "add", "vx", "type", "veth", "peer", "name", "vy")
		}
		q, err := Inherit(t.Context(), cfg, e, duplicates(t, fds), p.want)
		if err != nil {
			t.Fatal(err)
		}
		if _, left := p.Frames(); left != free {
			t.Errorf("%d frames are free when another process has taken up the dataplane, %d before", left, free)
		}
		if !goesOn {
			if err := q.Forsake(); err != nil {
				t.Error(err)
			}
			p.Withdraw()
			continue
		}
		flight, err := p.Freeze(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Land(flight); err != nil {
			t.Fatal(err)
		}
		q.Begin()
		p.Cede()
		if err := p.Forsake(); err != nil {
			t.Error(err)
		}
		q.pass(t.Context())
		if ports := q.Ports(); len(ports) != 1 || ports[0].State == "missing" {
			t.Errorf("after the first pass of whoever went on the ports are %+v", ports)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A pass that is due while an offer waits for its turn behind a commit must not
// wait for as long as the hand-over takes, which may end with this process.
func TestPassesDoNotWaitForAnOfferThatCameFirst(t *testing.T) {
	p, _ := realPlane(t)
	ctx, end := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- p.Run(ctx) }()
	p.turn.Lock() // as a commit does
	offered := make(chan error, 1)
	go func() {
		_, _, err := p.Offer()
		offered <- err
	}()
	time.Sleep(50 * time.Millisecond) // until it waits
	p.kick()
	time.Sleep(50 * time.Millisecond)
	p.turn.Unlock()
	if err := <-offered; err != nil {
		t.Fatal(err)
	}
	if _, err := p.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Cede()
	end()
	select {
	case <-ran:
	case <-time.After(10 * time.Second):
		t.Fatal("the dataplane was ceded, and its passes do not end")
	}
	if err := p.Forsake(); err != nil {
		t.Error(err)
	}
}
