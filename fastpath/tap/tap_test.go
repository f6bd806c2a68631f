package tap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/fastpath/filter"
	"margay.dev/margay/fastpath/graph"
	. "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/fastpath/tap"
)

// bench is a Lab and the taps of its engine.
type bench struct {
	*Lab
	taps *tap.Taps
}

func newBench(t testing.TB, cfg Config) *bench {
	l := StandardConfig(t, cfg)
	return &bench{l, tap.New(l.Engine, node.EntryL2)}
}

// watch begins a watch that ends with the test.
func (b *bench) watch(expr string, want tap.Want) *tap.Watch {
	b.TB.Helper()
	if expr != "" {
		f, err := filter.Parse(expr)
		if err == nil {
			want.Filter, err = f.Bind(func(name string) (uint16, bool) {
				i, ok := map[string]uint16{"up": Up, "pod": Pod, "veth": Veth, "host": Host}[name]
				return i, ok
			})
		}
		if err != nil {
			b.TB.Fatal(err)
		}
	}
	want.Events = 1000
	if want.Bytes == 0 {
		want.Bytes = 1 << 20
	}
	if want.Count == 0 {
		want.Count = 100
	}
	w, err := b.taps.Watch(context.Background(), want)
	if err != nil {
		b.TB.Fatal(err)
	}
	b.TB.Cleanup(func() {
		if err := w.Close(context.Background()); err != nil {
			b.TB.Error(err)
		}
	})
	return w
}

// told is every event so far in words, by packet.
func (b *bench) told(w *tap.Watch) map[uint32]string {
	out := map[uint32]string{}
	g := b.Engine.Graph()
	w.Read(func(e *tap.Event, data []byte) {
		var s string
		switch e.Kind {
		case tap.Received:
			s = fmt.Sprintf("in %d", e.Meta.InPort)
		case tap.Made:
			s = fmt.Sprintf("%s makes", g.Nodes()[e.Stop])
		case tap.Visited:
			to := "stays"
			if int(e.Edge) < len(g.Edges(int(e.Stop))) {
				to = g.Edges(int(e.Stop))[e.Edge]
			}
			s = g.Nodes()[e.Stop] + ">" + to
		case tap.Transmitted:
			s = fmt.Sprintf("out %d", e.Port)
		case tap.Dropped:
			s = "drop " + e.Reason.String()
		}
		out[e.Packet] = strings.TrimSpace(out[e.Packet] + " " + s)
	})
	return out
}

func TestThePacketsWholeWayIsTold(t *testing.T) {
	Families(t, func(t *testing.T, ipv6 bool) {
		up, remote := Addr(ipv6, NetUp, Station), Addr(ipv6, NetRemote, 9)
		pod, veth := Addr(ipv6, NetPods, PodHost), Addr(ipv6, NetPods, VethHost)
		tests := map[string]struct {
			port uint16
			ip   []byte
			want string
		}{
			"forwarded to a pod": {Up, UDP(remote, pod, 100), "in 1 eth-input>ip-input ip-input>route route>rewrite rewrite>tx out 2"},
			"forwarded by a pod": {Pod, UDP(pod, remote, 100), "in 2 ip-input>route route>rewrite rewrite>tx out 1"},
			"to us":              {Up, Echo(up, Addr(ipv6, NetUp, Ours), 50), "in 1 eth-input>ip-input ip-input>route route>icmp-echo icmp-echo>rewrite rewrite>tx out 1"},
			"punted":             {Up, UDP(up, Addr(ipv6, NetPunt, 9), 50), "in 1 eth-input>ip-input ip-input>route route>punt punt>tx out 4"},
			"no route":           {Veth, UDP(veth, Addr(ipv6, NetNowhere, 9), 50), "in 3 eth-input>ip-input ip-input>route route>icmp-error icmp-error>drop drop no-route"},
			"a hop too far":      {Up, UDPTTL(remote, pod, 50, 1), "in 1 eth-input>ip-input ip-input>route route>icmp-error icmp-error>drop drop ttl-spent"},
			"from somebody else": {Pod, UDP(veth, remote, 50), "in 2 ip-input>route route>drop drop spoofed-source"},
			"cut short":          {Pod, UDP(pod, remote, 50)[:12], "in 2 ip-input>drop drop ip-truncated"},
			"waits for its MAC":  {Pod, UDP(pod, Addr(ipv6, NetUp, Unknown), 50), "in 2 ip-input>route route>resolve resolve>stays"},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				b := newBench(t, Config{})
				w := b.watch("", tap.Want{Follow: true, Snap: 64})
				b.SendIP(tt.port, tt.ip)
				got := b.told(w)
				if len(got) != 1 || got[1] != tt.want {
					t.Errorf("told is %v, want %q", got, tt.want)
				}
				b.Advance(4 * time.Second) // what is held ends, so that the account is even
			})
		}
	})
}

// answer is a neighbour's answer to a question of ours.
func answer(ipv6 bool) []byte {
	station := StationMAC(NetUp, Station)
	if ipv6 {
		return Ether(MAC(Up), station, Advertise(Addr(true, NetUp, Station), Addr(true, NetUp, Ours), Addr(true, NetUp, Station), 0x60, station))
	}
	return ARP(MAC(Up), station, 2, Addr(false, NetUp, Station), MAC(Up), Addr(false, NetUp, Ours))
}

func TestAPacketThatEndsWithUsIsConsumed(t *testing.T) {
	Families(t, func(t *testing.T, ipv6 bool) {
		b := newBench(t, Config{})
		w := b.watch("", tap.Want{Follow: true})
		b.Inject(Up, answer(ipv6))
		b.Run()
		want := "in 1 eth-input>arp arp>stays"
		if ipv6 {
			want = "in 1 eth-input>ip-input ip-input>nd nd>stays"
		}
		if got := b.told(w); len(got) != 1 || got[1] != want {
			t.Errorf("told is %v, want %q", got, want)
		}
	})
}

func TestAHeldPacketIsFollowedToItsEnd(t *testing.T) {
	Families(t, func(t *testing.T, ipv6 bool) {
		b := newBench(t, Config{})
		w := b.watch("udp", tap.Want{Follow: true})
		b.SendIP(Pod, UDP(Addr(ipv6, NetPods, PodHost), Addr(ipv6, NetUp, Unknown), 50))
		b.Advance(4 * time.Second)
		want := "in 2 ip-input>route route>resolve resolve>stays icmp-error>drop drop unresolved"
		if got := b.told(w); len(got) != 1 || got[1] != want {
			t.Errorf("told is %v, want %q", got, want)
		}
	})
}

func TestPacketsOfOursAreFollowedIfAsked(t *testing.T) {
	Families(t, func(t *testing.T, ipv6 bool) {
		for _, made := range []bool{false, true} {
			b := newBench(t, Config{})
			w := b.watch("icmp or icmp6", tap.Want{Follow: true, Made: made})
			b.SendIP(Pod, UDP(Addr(ipv6, NetPods, PodHost), Addr(ipv6, NetNowhere, 9), 50))
			want := map[uint32]string{}
			if made {
				want[1] = "icmp-error makes rewrite>tx out 2"
			}
			if got := b.told(w); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("made %v: told is %v, want %v", made, got, want)
			}
		}
	})
}

// A packet that one worker receives and another sends is told of by both.
func TestAPacketIsFollowedFromWorkerToWorker(t *testing.T) {
	b := newBench(t, Config{Workers: 2, Single: []uint16{Up}})
	w := b.watch("", tap.Want{Follow: true})
	src, dst := Addr(false, NetPods, PodHost), Addr(false, NetRemote, 9)
	b.Queue(Pod, 1).Inject(Packet{Bytes: UDP(src, dst, 10)})
	b.Run()
	workers := map[tap.Kind]uint8{}
	w.Read(func(e *tap.Event, _ []byte) { workers[e.Kind] = e.Worker })
	if workers[tap.Received] != 1 || workers[tap.Transmitted] != 0 || len(workers) != 3 {
		t.Errorf("moments by worker are %v, want reception by 1 and transmission by 0", workers)
	}
}

func TestStagesShowPacketsAsTheyAre(t *testing.T) {
	Families(t, func(t *testing.T, ipv6 bool) {
		b := newBench(t, Config{})
		pod, remote, nowhere := Addr(ipv6, NetPods, PodHost), Addr(ipv6, NetRemote, 9), Addr(ipv6, NetNowhere, 9)
		passes, fails := UDP(remote, pod, 30), UDP(remote, nowhere, 40)
		all := b.watch("udp", tap.Want{Stages: tap.RX | tap.PreTX | tap.Drop, Snap: 2000})
		out := b.watch("udp and to pod", tap.Want{Stages: tap.PreTX, Snap: 10})
		b.SendIP(Up, passes, fails)
		sent := b.Collect(Pod)
		type seen struct {
			kind   tap.Kind
			l2     bool
			reason graph.Reason
			bytes  string
		}
		var got []seen
		all.Read(func(e *tap.Event, data []byte) { got = append(got, seen{e.Kind, e.L2, e.Reason, string(data)}) })
		want := []seen{
			{tap.Received, true, 0, string(Framed(Up, passes))}, {tap.Received, true, 0, string(Framed(Up, fails))},
			{tap.Dropped, true, graph.NoRoute, string(Framed(Up, fails))}, {tap.Transmitted, false, 0, string(sent[0].Bytes)},
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("stages show\n%v, want\n%v", got, want)
		}
		if n := out.Read(func(e *tap.Event, data []byte) {
			if !bytes.Equal(data, sent[0].Bytes[:10]) {
				t.Errorf("cut bytes are %x", data)
			}
		}); n != 1 {
			t.Errorf("%d packets go to the pod, want 1", n)
		}
	})
}

// A superpacket, and a chain of buffers, are recorded whole; what a queue refuses
// is a drop.
func TestChainsAreGatheredAndRefusalsTold(t *testing.T) {
	b := newBench(t, Config{})
	w := b.watch("", tap.Want{Stages: tap.RX | tap.Drop, Snap: 1 << 16})
	big := UDP(Addr(false, NetRemote, 9), Addr(false, NetPods, PodHost), 6000)
	b.Queue(Pod, 0).Refuse(graph.TxDown)
	b.InjectPackets(Up, Packet{Bytes: Framed(Up, big), Pieces: []int{2000, 3000}})
	b.Run()
	var got []string
	w.Read(func(e *tap.Event, data []byte) {
		whole := bytes.Equal(data, Framed(Up, big))
		got = append(got, fmt.Sprintf("%d %v %d %v", e.Kind, whole, len(data), e.Reason))
	})
	if want := "[0 true 6042 none 4 false 6028 tx-down]"; fmt.Sprint(got) != want {
		t.Errorf("recorded is %v, want %v", got, want)
	}
}

// What a queue refuses to receive came in, and was dropped: who follows it is told
// both, and its bytes are those that came, if they are anywhere.
func TestWhatAQueueRefusesToReceiveIsTold(t *testing.T) {
	Families(t, func(t *testing.T, ipv6 bool) {
		ip := UDP(Addr(ipv6, NetRemote, 9), Addr(ipv6, NetPods, PodHost), 100)
		big := UDP(Addr(ipv6, NetPods, PodHost), Addr(ipv6, NetRemote, 9), 60_000)
		tests := map[string]struct {
			port   uint16
			p      Packet
			reason graph.Reason
			bytes  bool
		}{
			"with an Ethernet header": {Up, Packet{Bytes: Framed(Up, ip), Refuse: graph.RxOversize}, graph.RxOversize, true},
			"without":                 {Pod, Packet{Bytes: ip, Refuse: graph.RxOffload}, graph.RxOffload, true},
			"in pieces":               {Pod, Packet{Bytes: ip, Pieces: []int{30, 50}, Refuse: graph.RxRunt}, graph.RxRunt, true},
			"a superpacket":           {Pod, Packet{Bytes: big, Refuse: graph.RxOffload, Meta: graph.Meta{Segments: 42}}, graph.RxOffload, true},
			"without a buffer":        {Pod, Packet{Bytes: ip, Pieces: make([]int, 1<<15)}, graph.RxNoBuffer, false},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				b := newBench(t, Config{})
				follow := b.watch("", tap.Want{Follow: true})
				stages := b.watch("", tap.Want{Stages: tap.RX | tap.Drop, Snap: 1 << 16})
				drops := b.watch("on pod", tap.Want{Stages: tap.Drop, Snap: 10})
				b.InjectPackets(tt.port, tt.p)
				b.Run()
				want := map[uint32]string{1: fmt.Sprintf("in %d drop %v", tt.port, tt.reason)}
				if got := b.told(follow); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("told is %v, want %v", got, want)
				}
				var kinds []tap.Kind
				stages.Read(func(e *tap.Event, data []byte) {
					kinds = append(kinds, e.Kind)
					if whole := bytes.Equal(data, tt.p.Bytes); whole != tt.bytes || !whole && len(data) > 0 || int(e.Meta.Len) != len(tt.p.Bytes) || e.L2 != (tt.port == Up) {
						t.Errorf("%d bytes of %d are shown, all of them: %v, with Ethernet: %v", len(data), e.Meta.Len, whole, e.L2)
					}
				})
				if fmt.Sprint(kinds) != fmt.Sprint([]tap.Kind{tap.Received, tap.Dropped}) {
					t.Errorf("stages show %v", kinds)
				}
				if n := drops.Read(func(*tap.Event, []byte) {}); (n == 1) != (tt.port == Pod) {
					t.Errorf("%d drops on the pod's port", n)
				}
				if c := b.Change(); c.Dropped() != uint64(max(1, tt.p.Meta.Segments)) || c.In() != c.Out() {
					t.Errorf("the account is %+v", c)
				}
			})
		}
	})
}

func TestLimitsHold(t *testing.T) {
	b := newBench(t, Config{})
	few := b.watch("", tap.Want{Stages: tap.RX, Count: 1, Snap: 10})
	narrow := b.watch("", tap.Want{Stages: tap.RX, Count: 1 << 20, Snap: 1 << 20, Bytes: 1})
	follow := b.watch("", tap.Want{Follow: true, Count: 2})
	ip := UDP(Addr(false, NetRemote, 9), Addr(false, NetPods, PodHost), 1000)
	for range 1200 {
		b.SendIP(Up, ip)
	}
	if n := few.Read(func(*tap.Event, []byte) {}); n != 1 || !few.Done() {
		t.Errorf("one packet is wanted, %d came, done %v", n, few.Done())
	}
	if n := narrow.Read(func(*tap.Event, []byte) {}); n+int(narrow.Lost()) != 1200 || n == 0 || narrow.Lost() == 0 {
		t.Errorf("of 1200 packets %d were kept and %d lost", n, narrow.Lost())
	}
	if got := b.told(follow); len(got) != 2 {
		t.Errorf("two packets are wanted, told is %v", got)
	}
	for range 300 { // there is room again
		b.SendIP(Up, ip)
	}
	if n := narrow.Read(func(_ *tap.Event, data []byte) {
		if !bytes.Equal(data, Framed(Up, ip)) {
			t.Errorf("bytes are %x", data)
		}
	}); n != 300 {
		t.Errorf("of 300 packets %d were kept", n)
	}
}

func TestOnlySoManyMayWatch(t *testing.T) {
	b := newBench(t, Config{})
	var all []*tap.Watch
	for range tap.Most {
		all = append(all, b.watch("", tap.Want{Follow: true}))
	}
	if _, err := b.taps.Watch(context.Background(), tap.Want{Follow: true}); !errors.Is(err, tap.ErrBusy) {
		t.Errorf("one more may watch: %v", err)
	}
	b.SendIP(Up, UDP(Addr(false, NetRemote, 9), Addr(false, NetPods, PodHost), 10))
	for i, w := range all {
		if got := b.told(w); len(got) != 1 || !strings.HasSuffix(got[1], "out 2") {
			t.Errorf("watcher %d is told %v", i, got)
		}
	}
	// Who comes to a place does not see what the one before it followed.
	b.SendIP(Pod, UDP(Addr(false, NetPods, PodHost), Addr(false, NetUp, Unknown), 10))
	if err := all[1].Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	next := b.watch("", tap.Want{Follow: true})
	b.Advance(4 * time.Second)
	if got := b.told(next); len(got) != 0 {
		t.Errorf("the next one is told of another's packet: %v", got)
	}
	for _, w := range append(all, next) {
		if err := w.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if n := b.taps.Watchers(); n != 0 {
		t.Errorf("%d watch after all have closed", n)
	}
}

func TestWatchingAllocatesNothing(t *testing.T) {
	Families(t, func(t *testing.T, ipv6 bool) {
		b := newBench(t, Config{})
		ip := Framed(Up, UDP(Addr(ipv6, NetRemote, 9), Addr(ipv6, NetPods, PodHost), 100))
		b.Queue(Up, 0).Loop(Packet{Bytes: ip})
		b.Queue(Pod, 0).Loop()
		pass := func() { b.Engine.Step() }
		want := func(how string) {
			t.Helper()
			pass()
			if n := testing.AllocsPerRun(200, pass); n != 0 {
				t.Errorf("%s: %v allocations per pass, want 0", how, n)
			}
		}
		want("nobody watches")
		follow := b.watch("udp and net 10.0.0.0/8 or ip6", tap.Want{Follow: true, Count: 1 << 30, Snap: 64, Made: true})
		stages := b.watch("udp", tap.Want{Stages: tap.RX | tap.PreTX | tap.Drop, Count: 1 << 30, Snap: 200})
		want("two watch")
		if follow.Read(func(*tap.Event, []byte) {}) == 0 || stages.Read(func(*tap.Event, []byte) {}) == 0 {
			t.Error("nothing was recorded")
		}
		b.Queue(Up, 0).End()
		b.Run()
	})
}

// Watchers come and go under the traffic of two workers that hand over to each
// other; the account stays even, and nobody sees half an event.
func TestWatchersComeAndGoUnderTraffic(t *testing.T) {
	b := newBench(t, Config{Workers: 2, Single: []uint16{Pod}, Running: true})
	var frames []Packet
	for _, ipv6 := range []bool{false, true} {
		for _, dst := range []int{PodHost, 200} { // the latter is blackholed
			frames = append(frames, Packet{Bytes: Framed(Up, UDP(Addr(ipv6, NetRemote, 9), Addr(ipv6, NetPods, dst), 100))})
		}
	}
	for i := range 2 {
		b.Queue(Up, i).Loop(frames...)
	}
	b.Queue(Pod, 0).Loop()
	seen := 0
	for round := range 60 {
		want := tap.Want{Follow: round%2 == 0, Stages: tap.RX | tap.PreTX | tap.Drop, Snap: 200, Count: 1 << 20}
		w := b.watch("", want)
		for range 3 {
			time.Sleep(time.Millisecond)
			seen += w.Read(func(e *tap.Event, data []byte) {
				if len(data) == 0 && e.Edge != graph.Gone || e.Time == 0 || len(data) > 0 && len(data) != int(e.Meta.Len) {
					t.Errorf("event %+v has %d bytes", e, len(data))
				}
			})
		}
		if err := w.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.Read(func(*tap.Event, []byte) {})
		time.Sleep(200 * time.Microsecond)
		if n := w.Read(func(*tap.Event, []byte) {}); n != 0 {
			t.Fatalf("%d events came after the watch was closed", n)
		}
	}
	if seen == 0 {
		t.Error("nothing was seen")
	}
	for i := range 2 {
		b.Queue(Up, i).End()
	}
}
