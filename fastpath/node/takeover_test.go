package node_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/fastpath/umem"
)

// standard makes a Lab with the standard ports, nets and hosts.
func standard(tb testing.TB, cfg gt.Config) *gt.Lab { return gt.StandardConfig(tb, cfg) }

// What one forwarder holds for a neighbour is delivered by the next one, by tables
// of its own: the adjacency that the first one knew does not exist there.
func TestNextForwarderDeliversWhatIsHeld(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, a := range askings {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 2)
				for range 100 {
					l.Adjacency(fib.Adjacency{Kind: fib.Blackhole})
				}
				dst := gt.Addr(ipv6, a.net, a.host)
				if a.net != a.link {
					l.Route(gt.Net(ipv6, a.net), l.Adjacency(l.Incomplete(a.out, gt.Addr(ipv6, a.link, a.via))))
				}
				ip := gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), dst, 100)
				l.SendIP(gt.Pod, ip, ip, ip)
				l.Collect(a.main())
				was := l.Engine.Total()
				next := l.HandOver(standard)
				if c := next.Engine.Total(); c != was || c.Held != 3 {
					t.Fatalf("the next one begins with %+v, want %+v", c, was)
				}
				next.Run()
				wantBytes(t, wantOne(t, next, a.main()).Bytes, a.question(ipv6))
				next.Even(t)
				mac := gt.StationMAC(a.link, a.via)
				a.answer(next, ipv6, mac)
				next.Engine.Kick()
				next.Run()
				out := next.Collect(a.main())
				if len(out) != 3 {
					t.Fatalf("%d packets left, want 3", len(out))
				}
				header := 14
				if a.out == gt.Tag {
					header = 18
				}
				for _, p := range out {
					wantBytes(t, p.Bytes[:6], mac[:])
					wantBytes(t, p.Bytes[header:], older(t, ip))
				}
				if c := next.Engine.Total(); c.Held != 0 || c.Rx != was.Rx || c.Tx != was.Tx+4 {
					t.Errorf("in the end %+v", c)
				}
			})
		}
	})
}

// The neighbour became known while nobody forwarded: what was held leaves at
// once, also superpackets and packets of several frames, and nothing is asked.
func TestNextForwarderDeliversAtOnceWhatItKnows(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		a := askings["behind a gateway"]
		l := gt.Standard(t, 1)
		src, dst := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, a.net, a.host)
		small := gt.UDP(src, dst, 1000)
		l.InjectPackets(gt.Pod, gt.Packet{Bytes: small}, gt.Packet{Bytes: small, Pieces: []int{100, 400}})
		super := superpacket(ipv6, false, 3000, 1000)
		super.Bytes = gt.TCP(src, dst, 3000)
		l.InjectPackets(gt.Pod, super)
		l.Run()
		l.Collect(gt.Up)
		was := l.Engine.Total()
		bufs, err := l.Engine.Held()
		if err != nil || len(bufs) != 5 {
			t.Errorf("held are %d buffers, want 5 (%v)", len(bufs), err)
		}
		next := l.HandOver(func(tb testing.TB, cfg gt.Config) *gt.Lab {
			next := standard(tb, cfg)
			a.answer(next, ipv6, gt.StationMAC(a.link, a.via))
			return next
		})
		next.Run()
		out := next.Collect(gt.Up)
		if len(out) != 3 || len(events(next)) != 0 {
			t.Fatalf("%d packets left, want 3, and nothing to be asked", len(out))
		}
		for i, want := range [][]byte{small, small, super.Bytes} {
			wantBytes(t, out[i].Bytes[14:], older(t, want))
		}
		if m := out[2].Meta; m.GSO != super.Meta.GSO || m.Segments != super.Meta.Segments || m.Flags&graph.Partial == 0 {
			t.Errorf("of the superpacket is known %+v", m)
		}
		if c := next.Engine.Total(); c.Tx != was.Tx+was.Held || c.Held != 0 {
			t.Errorf("counters are %+v, before %+v", c, was)
		}
	})
}

// A hand-over that fails leaves the first forwarder with all that it held.
func TestForwarderGoesOnAfterAHandOverThatFailed(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		a := askings["a station on the link"]
		l := gt.Standard(t, 1)
		ip := gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, a.net, a.host), 100)
		l.SendIP(gt.Pod, ip)
		l.Collect(gt.Up)
		if err := l.Engine.Halt(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Engine.Carry(); err != nil {
			t.Fatal(err)
		}
		a.answer(l, ipv6, gt.StationMAC(a.link, a.via))
		l.Engine.Kick()
		l.Run()
		wantBytes(t, wantOne(t, l, gt.Up).Bytes[14:], older(t, ip))
	})
}

// Some packets were about to be given up, and the pass was full: the next
// forwarder hears nothing of that.
func TestHeldPacketsAreCarriedWithoutAVerdict(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		for host := range 20 {
			ip := gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetUp, 100+host), 10)
			for range 16 {
				l.Inject(gt.Pod, ip)
			}
		}
		l.Run()
		l.Engine.Advance(4 * time.Second)
		l.Engine.Step()
		if err := l.Engine.Halt(context.Background()); err != nil {
			t.Fatal(err)
		}
		c, err := l.Engine.Carry()
		if err != nil {
			t.Fatal(err)
		}
		held := c.Workers[0].Held
		if len(held) != 20*16-graph.VectorMax {
			t.Errorf("%d packets are held, want %d", len(held), 20*16-graph.VectorMax)
		}
		for _, p := range held {
			if p.Node != "resolve" || p.At != "flow" || p.Meta.Reason != graph.NoReason || p.Meta.Adjacency != 0 {
				t.Errorf("carried is %+v", p)
			}
		}
	})
}

// What was forfeited is forgotten: the same neighbour is waited for anew.
func TestForfeitedNeighboursAreAskedForAnew(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		a := askings["a station on the link"]
		l := gt.Standard(t, 1)
		ip := gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, a.net, a.host), 100)
		l.SendIP(gt.Pod, ip)
		wantBytes(t, wantOne(t, l, gt.Up).Bytes, a.question(ipv6))
		bufs, err := l.Engine.Held()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Engine.Forfeit(); err != nil {
			t.Fatal(err)
		}
		for _, b := range bufs { // as whoever rebuilds the free lists does
			l.Arena.Cache(0).Free(b)
		}
		l.SendIP(gt.Pod, ip)
		wantBytes(t, wantOne(t, l, gt.Up).Bytes, a.question(ipv6))
		if c := l.Engine.Total(); c.Held != 1 || c.Drops[graph.HandedOver] != 1 {
			t.Errorf("counters are %+v", c)
		}
	})
}

// inherited is an arena that a giver filled: UDP packets to neighbours that are
// known and unknown, one for each buffer, and some buffers free.
func inherited(t testing.TB) (*umem.Arena, []graph.CarriedPacket) {
	t.Helper()
	a, err := umem.New(umem.Config{Frames: 64, Supers: 4, Caches: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	var frames [48]umem.Buf
	bufs := frames[:a.Cache(1).Frames(frames[:])]
	for range a.Supers() {
		b, _ := a.Cache(1).Super()
		bufs = append(bufs, b)
	}
	var held []graph.CarriedPacket
	for i, b := range bufs {
		ipv6 := i%2 == 1
		ip := gt.UDP(gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetUp, gt.Station+i/2%2), 100)
		m := graph.Meta{Buf: b, Bufs: 1, Segments: 1, Off: a.Start(b) + umem.Headroom, Len: uint32(len(ip)), Head: uint32(len(ip)),
			InPort: gt.Up, L4: uint16(len(ip) - 108), Proto: 17}
		if ipv6 {
			m.Flags = graph.IPv6
		}
		copy(a.Bytes()[m.Off:], ip)
		if a.IsFrame(b) { // should somebody say that it is the first of a chain
			*a.Segment(b) = umem.Segment{Next: bufs[i+1], Off: umem.Headroom, Len: uint16(len(ip))}
		}
		held = append(held, graph.CarriedPacket{Node: "resolve", At: []string{"flow", "icmp-error"}[i/4%2], Meta: m})
	}
	return a, held
}

// Whatever a giver says, the next forwarder takes nothing that it cannot walk:
// it refuses and has changed nothing, or its account stays as even as it was told.
func FuzzAdopt(f *testing.F) {
	_, held := inherited(f)
	for _, c := range []graph.CarriedWorker{
		{Held: held[:2]},
		{Held: held[6:7]},
		{Held: held[50:]},
		{Rx: 1<<64 - 1, Drops: map[string]uint64{"": 1, "none": 2}, Ports: map[uint16]graph.PortCounters{4095: {}}},
	} {
		seed, err := json.Marshal(graph.Carried{Workers: []graph.CarriedWorker{c}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	tables := gt.Standard(f, 1).Tables
	f.Fuzz(func(t *testing.T, in []byte) {
		var c graph.Carried
		if json.Unmarshal(in, &c) == nil {
			adopt(t, tables, c)
		}
	})
}

// adopt lets an engine with two ports go on from c.
func adopt(t *testing.T, tables *node.Tables, c graph.Carried) {
	a, _ := inherited(t)
	g, err := graph.Build(node.Specs(tables)...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := graph.NewEngine(g, a, graph.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Stop()
	for port, entry := range map[uint16]string{gt.Up: node.EntryL2, gt.Pod: node.EntryL3} {
		p := graph.Port{Index: port, Entry: entry, Queues: []graph.Queue{gt.NewQueue()}}
		if err := e.AddPort(context.Background(), p); err != nil {
			t.Fatal(err)
		}
	}
	e.Unknown(c)
	was := e.Total()
	refused := e.Adopt(c) != nil
	told := e.Total()
	if refused && told != was {
		t.Errorf("refused, and counts %+v", told)
	}
	for range 3 {
		e.Step()
		e.Advance(4 * time.Second)
	}
	if c := e.Total(); c.In()-c.Out() != told.In()-told.Out() || c.Held > told.Held {
		t.Errorf("the account was %+v, and is %+v", told, c)
	}
}
