package port

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port/tundev"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
)

// bounce sends what comes in straight back, in bursts of n, until some packets did.
func bounce(t *testing.T, q graph.Queue, io *graph.IO, n, packets int) {
	t.Helper()
	ms := make([]graph.Meta, n)
	eventually(t, "packets", func() bool {
		got := q.RxBurst(io, ms)
		v := graph.NewVector(ms[:got]...)
		if q.TxBurst(io, v) > 0 {
			for i := range v.Len() {
				if v.Meta(i).Reason != graph.NoReason {
					io.Free(v.Meta(i))
				}
			}
		}
		q.Poll(io)
		packets -= got
		return packets <= 0
	})
}

// The taker dies at every place at once: with packets received and not walked,
// frames lent and not filled, sent and not freed, cached and held. The giver goes
// on, and of all frames none is lost.
func TestTheGiverGoesOnAfterADeadTaker(t *testing.T) {
	a := newArena(t, 2048, 4)
	l := newVethLab(t, a, 1500)
	for _, addr := range []string{"10.91.0.1", "fd91::1"} {
		flood := l.kernel.command("ping", "-q", "-i", "0.001", "-W", "1", "-w", "60", addr)
		if err := flood.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = flood.Process.Kill()
			_ = flood.Wait()
		}()
	}
	q := l.port.Queues()[0]
	giver := &forwarder{arena: a, umem: l.umem, xsk: l.port, lab: true}
	for range 3 {
		bounce(t, q, l.io, 64, 100)
		left := l.port.Flight()
		if err := l.port.Land(told(t, left)); err != nil {
			t.Fatalf("the giver cannot go on though nobody was there: %v", err)
		}
		eventually(t, "packets received and not walked", func() bool {
			bounce(t, q, l.io, 1, 1)
			return len(l.port.Flight().Queues[0].Received) > 0
		})
		giver.account(t)
		left = told(t, l.port.Flight())

		die(t, giver.adopt(t), left)
		if err := l.port.Land(left); err == nil {
			t.Fatal("the giver took rings that the taker had used for those it left")
		}
		stranded, err := l.port.Recover()
		if err != nil || stranded != 0 {
			t.Fatalf("%d frames are stranded, %v", stranded, err)
		}
		a.Rebuild(nil)
		giver.account(t)
	}
	bounce(t, q, l.io, 64, 100)
}

// die lands a taker, has it work, and leaves everything as a killed process does.
func die(t *testing.T, taker *forwarder, left XSKFlight) {
	t.Helper()
	if err := taker.xsk.Land(left); err != nil {
		t.Fatal(err)
	}
	taker.account(t)
	c := taker.arena.Cache(1)
	bounce(t, taker.xsk.Queues()[0], graph.NewIO(taker.arena, c), 3, 50)
	s := taker.xsk.Sockets()[0]
	eventually(t, "a packet that nobody walks", func() bool { return s.Receive(make([]xsk.Desc, 18)) > 0 })
	var bufs [20]umem.Buf
	for _, b := range bufs[:c.Frames(bufs[:])-5] {
		taker.arena.Lend(b, 1)
	}
	s.Complete(make([]uint64, 64))
	if _, ok := c.Super(); !ok {
		t.Fatal("no super is free")
	}
	if err := errors.Join(taker.xsk.Forsake(), taker.umem.Close(), taker.arena.Close()); err != nil {
		t.Fatal(err)
	}
}

// openings are descriptors of many kinds, and none that a port could use.
func openings(t *testing.T) map[string]int {
	t.Helper()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	all := map[string]int{"a pipe": pipe[0], "a pipe's other end": pipe[1], "nothing": -1}
	for name, family := range map[string]int{"a UDP socket of IPv4": unix.AF_INET, "a UDP socket of IPv6": unix.AF_INET6} {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = fd
	}
	unused, err := unix.Open(tundev.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	all["a queue of no device"] = unused
	for name, fd := range all {
		t.Cleanup(func() {
			if err := unix.Close(fd); fd >= 0 && err != nil {
				t.Errorf("close %s, which a failed adoption left to us: %v", name, err)
			}
		})
	}
	return all
}

// odd is a queue of a TUN or TAP device called name with the flags given.
func (ns netns) odd(name string, flags uint16, mode int) (fd int) {
	ns.t.Helper()
	err := ns.do(func() (err error) {
		if fd, err = unix.Open(tundev.Path, unix.O_RDWR|unix.O_CLOEXEC|mode, 0); err != nil {
			return err
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	if err != nil {
		ns.t.Fatal(err)
	}
	ns.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestAdoptTUNRefuses(t *testing.T) {
	a := newArena(t, 64, 4)
	ns := newNetns(t)
	tun := ns.openTUN(TUNConfig{Name: "mg0", Queues: 2, MTU: 1400}, a)
	doomed := ns.openTUN(TUNConfig{Name: "mg1", Queues: 1, MTU: 1400}, a)
	ns.ip("link del mg1")
	const ours = unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE
	st, fds := tun.Handover()
	gone, goneFDs := doomed.Handover()
	slow := ns.odd("slow", unix.IFF_TUN|ours, 0)
	if err := tundev.SetHeader(slow, vnetSize); err != nil {
		t.Fatal(err)
	}
	type try struct {
		st   TUNState
		fds  []int
		want error // nil: any
	}
	tests := map[string]try{
		"no queues":           {st, nil, nil},
		"no name":             {TUNState{MTU: 1400}, fds, nil},
		"no MTU":              {TUNState{Name: "mg0"}, fds, nil},
		"another device":      {TUNState{Name: "mg", MTU: 1400}, fds, nil},
		"device that is gone": {gone, goneFDs, tundev.ErrGone},
		"TAP device":          {TUNState{Name: "tap", MTU: 1400}, []int{ns.odd("tap", unix.IFF_TAP|ours, unix.O_NONBLOCK)}, nil},
		"single queue":        {TUNState{Name: "one", MTU: 1400}, []int{ns.odd("one", unix.IFF_TUN|ours&^unix.IFF_MULTI_QUEUE, unix.O_NONBLOCK)}, nil},
		"no vnet header":      {TUNState{Name: "bare", MTU: 1400}, []int{ns.odd("bare", unix.IFF_TUN|ours&^unix.IFF_VNET_HDR, unix.O_NONBLOCK)}, nil},
		"queue that blocks":   {TUNState{Name: "slow", MTU: 1400}, []int{slow}, nil},
		"host byte order":     {TUNState{Name: "host", MTU: 1400}, []int{ns.odd("host", unix.IFF_TUN|ours, unix.O_NONBLOCK)}, nil},
	}
	for name, fd := range openings(t) {
		tests[name+" as second queue"] = try{st, []int{fds[0], fd}, nil}
	}
	descriptors, _ := held(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := AdoptTUN(tt.st, tt.fds)
			if got != nil || err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("adopted %v, and says %v; want %v", got, err, tt.want)
			}
			if d, _ := held(t); d != descriptors {
				t.Errorf("%d descriptors are held after a refusal, want %d", d, descriptors)
			}
		})
	}
	if err := tun.Land(TUNFlight{}); err == nil {
		t.Error("a flight of no queues was landed on")
	}
}

func TestAdoptXSKRefuses(t *testing.T) {
	a, other := newArena(t, 1024, 0), newArena(t, 1024, 0)
	l := newVethLab(t, a, 1500)
	st, fds := l.port.Handover()
	with := func(change func(*XSKState)) XSKState {
		st, _ := l.port.Handover()
		change(&st)
		return st
	}
	type try struct {
		st  XSKState
		fds []int
		a   *umem.Arena
	}
	tests := map[string]try{
		"no sockets":          {with(func(st *XSKState) { st.Sockets = nil }), nil, a},
		"a descriptor more":   {st, append(fds, fds[0]), a},
		"a socket more":       {with(func(st *XSKState) { st.Sockets = append(st.Sockets, st.Sockets[0]) }), fds, a},
		"queues out of order": {with(func(st *XSKState) { st.Sockets[0].Queue = 1 }), fds, a},
		"no MTU":              {with(func(st *XSKState) { st.MTU = 0 }), fds, a},
		"no MAC address":      {with(func(st *XSKState) { st.MAC = nil }), fds, a},
		"frames of the graph": {with(func(st *XSKState) { st.Holder = umem.Graph }), fds, a},
		"rings of odd size":   {with(func(st *XSKState) { st.Sockets[0].RingSize = 100 }), fds, a},
		"another arena":       {st, fds, other},
	}
	for name, fd := range openings(t) {
		two := with(func(st *XSKState) { st.Sockets = append(st.Sockets, st.Sockets[0]); st.Sockets[1].Queue = 1 })
		tests[name+" as second socket"] = try{two, []int{fds[0], fd}, a}
	}
	descriptors, mappings := held(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := AdoptXSK(tt.st, tt.fds, l.umem, tt.a)
			if got != nil || err == nil {
				t.Fatalf("adopted %v, and says %v", got, err)
			}
			if d, m := held(t); d != descriptors || m != mappings {
				t.Errorf("%d descriptors and %d mappings are held after a refusal, want %d and %d", d, m, descriptors, mappings)
			}
		})
	}
}

func TestLandRefusesFlightsThatCannotBe(t *testing.T) {
	a := newArena(t, 1024, 0)
	l := newVethLab(t, a, 1500)
	l.port.Queues()[0].Poll(l.io)
	var lent, free xsk.Desc
	for b := range umem.Buf(a.Frames()) {
		d := xsk.Desc{Addr: uint64(a.Start(b)) + 256, Len: 60}
		if a.Holder(b) == umem.Graph {
			free = d
		} else {
			lent = d
		}
	}
	long, beyond := lent, lent
	long.Len = umem.ChunkSize
	beyond.Addr = 1 << 63
	good := l.port.Flight()
	flights := map[string][]xsk.Desc{
		"a frame that was not lent":   {free},
		"a frame twice":               {lent, lent},
		"a packet over a frame's end": {long},
		"a frame that is not there":   {beyond},
		"more than a burst":           make([]xsk.Desc, ringBatch+xsk.MaxChunks+1),
	}
	for name, received := range flights {
		f := told(t, good)
		f.Queues[0].Received = received
		if err := l.port.Land(f); err == nil {
			t.Errorf("%s was landed on", name)
		}
	}
	if err := l.port.Land(XSKFlight{}); err == nil {
		t.Error("a flight of no queues was landed on")
	}
	f := told(t, good)
	f.Queues[0].Socket.Filled++
	if err := l.port.Land(f); err == nil {
		t.Error("a flight of other rings was landed on")
	}
	if err := l.port.Land(good); err != nil {
		t.Error(err)
	}
}
