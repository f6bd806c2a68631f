package flow

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/mem"
	"margay.dev/margay/internal/pkt"
)

// TestAttach: another mapping of the memory is the same table, which goes on as if
// nothing had been.
func TestAttach(t *testing.T) {
	region, err := mem.Create("margay-flows", mem.KindFlows, LayoutVersion, 3<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer region.Close()
	cfg := Config{Workers: 2, Endpoints: 5, Liberal: true, Timeouts: DefaultTimeouts()}
	cfg.Timeouts.UDPOneWay = 7 * time.Second
	first, err := New(region.Payload(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(100) {
		open(first.Worker(0), 4, opener(int(i%2), pkt.ProtoUDP, i), i%5)
	}
	first.Advance(4, 50) // half of them are still on the intake
	fd, err := unix.Dup(region.FD())
	if err != nil {
		t.Fatal(err)
	}
	again, err := mem.Attach(fd, mem.KindFlows, LayoutVersion)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	second, err := Attach(again.Payload())
	if err != nil {
		t.Fatal(err)
	}
	if second.Limit() != first.Limit() || second.Workers() != 2 || len(second.owned) != 5 || !second.liberal || second.timeouts != first.timeouts {
		t.Errorf("it has become another table: %+v", second.Stats())
	}
	for i := range uint32(100) {
		if r := passPacket(second.Worker(1), 4, opener(int(i%2), pkt.ProtoUDP, i)); r.Outcome != Hit {
			t.Fatalf("flow %d is %v", i, r.Outcome)
		}
	}
	balanced(t, second)
	second.Advance(4+28, 1<<20)
	if s := second.Stats(); s.Expired != 100 {
		t.Errorf("%d flows have ended in time, want all 100", s.Expired)
	}
	drain(t, second, 40)
}

func TestAttachRefuses(t *testing.T) {
	good := make([]byte, MinBytes)
	if _, err := New(good, Config{Workers: 1, Endpoints: 1, Timeouts: DefaultTimeouts()}); err != nil {
		t.Fatal(err)
	}
	for name, memory := range map[string][]byte{
		"nothing":        nil,
		"a page":         make([]byte, 4096),
		"no table":       make([]byte, MinBytes),
		"part of one":    append([]byte(nil), append(good, good...)...),
		"not aligned":    append([]byte{0}, good...)[1:],
		"one cut short ": good[:MinBytes-8],
	} {
		if _, err := Attach(memory); err == nil {
			t.Errorf("%s was attached to", name)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for want, change := range map[string]func(*Config, *int){
		"workers is 0":                 func(c *Config, _ *int) { c.Workers = 0 },
		"workers is 257":               func(c *Config, _ *int) { c.Workers = 257 },
		"endpoints is 0":               func(c *Config, _ *int) { c.Endpoints = 0 },
		"endpoints is 65537":           func(c *Config, _ *int) { c.Endpoints = 1<<16 + 1 },
		"memory is 1048576 bytes":      func(_ *Config, n *int) { *n = 1 << 20 },
		"timeout ICMP is 0s":           func(c *Config, _ *int) { c.Timeouts.ICMP = 0 },
		"timeout TCPEstablished is 2h": func(c *Config, _ *int) { c.Timeouts.TCPEstablished = 2 * time.Hour },
	} {
		cfg, size := Config{Workers: 1, Endpoints: 1, Timeouts: DefaultTimeouts()}, MinBytes
		change(&cfg, &size)
		if _, err := New(make([]byte, size), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want it to say %q", err, want)
		}
	}
}

// TestSizeInMiB: what a table of a size holds is what its documentation says.
func TestSizeInMiB(t *testing.T) {
	for _, mib := range []int{2, 3, 16, 64, 300, 1 << 10, 1 << 18} {
		l, err := layoutOf(mib<<20, Config{Workers: 4, Endpoints: 4096})
		if err != nil {
			t.Fatal(err)
		}
		if end := l.entry + l.flows*entrySize; end > mib<<20 || l.flows > 2*l.buckets {
			t.Errorf("%d MiB: %d flows and %d buckets end at %d", mib, l.flows, l.buckets, end)
		}
		if per := float64(l.flows) / float64(mib); mib >= 16 && (per < 3000 || per > 4096) {
			t.Errorf("%d MiB hold %.0f flows each", mib, per)
		}
	}
}

// TestRebuild spoils all that Rebuild makes anew, as processes that die anywhere
// would, and goes on.
func TestRebuild(t *testing.T) {
	table := newTable(t, nil)
	w := table.Worker(0)
	for i := range uint32(1000) {
		open(w, 0, opener(int(i%2), pkt.ProtoTCP, i), i%16)
	}
	table.Advance(0, 1<<20)
	for f := range table.All(0) { // some end, and wait
		if _, port := f.Key[1].Ports(); port%10 == 0 {
			table.Retire(f)
		}
	}
	table.Advance(0, 1<<20)
	claimed, half := &table.entries[17].core, &table.entries[18].core
	claimed.state |= uint64(busy)
	half.stamp |= 1
	for i := range table.index {
		table.index[i] = bucket{tags: 0xffff_0101_0180_8190, lock: 1, spill: 3}
	}
	for i := range table.wheel {
		table.wheel[i] = uint32(i)
	}
	table.head.intake, table.head.freed, table.head.due = 5, 5<<32|9, 77
	clear(table.owned)
	table.fragments[3].lock = 1
	if n := table.Rebuild(); n != 900 {
		t.Errorf("%d flows are left, want 900", n)
	}
	balanced(t, table)
	for i := range uint32(1000) {
		want := Hit
		if i%10 == 0 {
			want = Inserted
		}
		if r := passPacket(w, 0, opener(int(i%2), pkt.ProtoTCP, i)); r.Outcome != want {
			t.Fatalf("flow %d is %v, want %v", i, r.Outcome, want)
		}
	}
	if half.stamp != 0 {
		t.Errorf("a flow that was half decided is of generation %d", half.stamp>>1)
	}
	balanced(t, table)
	drain(t, table, 0)
}

// TestDecisionsAreWhole: while workers stamp a flow one generation after the other,
// nobody sees parts of two.
func TestDecisionsAreWhole(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		p := opener(v6, pkt.ProtoUDP, 1)
		of := func(g uint32) Decision {
			return Decision{Verdict: [2]uint32{g, g + 1}, Class: [2]uint32{g + 2, g + 3}, NextHop: [2]uint32{g + 4, g + 5},
				Asked: [2]uint32{g + 6, g + 7}, Generation: uint64(g)}
		}
		ref := table.Worker(0).Insert(0, &p, &Start{Reverse: p.Key.Reverse(), Decision: of(1)}).Ref
		const last = 3000
		var stamped atomic.Int64
		var wg sync.WaitGroup
		for i := range 3 {
			w := table.Worker(i)
			wg.Go(func() {
				var out [1]Result
				for g := uint64(0); g < last; {
					w.Lookup(0, []Packet{p}, out[:])
					if g = out[0].Generation; g == 0 {
						continue
					}
					if d := of(uint32(g)); out[0].Verdict != pair(d.Verdict[1], d.Verdict[0]) || out[0].NextHop != d.NextHop[0] {
						t.Errorf("%s: of generation %d: %+v", family(v6), g, out[0])
						return
					}
					if d, ok := table.Decision(ref); ok && d != of(uint32(d.Generation)) {
						t.Errorf("%s: of generation %d: %+v", family(v6), d.Generation, d)
						return
					}
					if g < last && table.Stamp(ref, g, of(uint32(g+1))) {
						stamped.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if stamped.Load() != last-1 {
			t.Errorf("%s: %d generations were stamped, want %d", family(v6), stamped.Load(), last-1)
		}
	}
}

// TestLiberal: what is out of its window passes and changes nothing; resets are
// checked all the same.
func TestLiberal(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, func(c *Config) { c.Liberal = true })
		at := port80(v6, 999)
		for i, s := range opened(l(Stale, ACK, 100_000, 1, 10), l(Stale, ACK, 1, 5000, 0), l(Refused, RST, 100_000, 0, 0), l(Hit, ACK, 1, 1, 5)) {
			if got := pass(table.Worker(0), 0, s.seg.packet(at[s.from], at[1-s.from])); got.Outcome != s.want {
				t.Errorf("%s: segment %d is %v (%v), want %v", family(v6), i, got.Outcome, got.Reason, s.want)
			}
		}
	}
}

// TestSuperpacket: one packet of many segments is one long segment, and counts as
// what it stands for.
func TestSuperpacket(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		at := port80(v6, 999)
		scale := []byte{1, 3, 3, 8}
		for _, s := range []step{l(Inserted, SYN, 0, 0, 0, scale...), r(Hit, SYN|ACK, 0, 1, 0, scale...), l(Hit, ACK, 1, 1, 0), r(Hit, ACK, 1, 1, 0)} {
			pass(w, 0, s.seg.packet(at[s.from], at[1-s.from]))
		}
		p := read(l(Hit, ACK, 1, 1, 60_000).seg.packet(at[0], at[1]))
		p.Segments = 42
		if r := passPacket(w, 0, p); r.Outcome != Hit {
			t.Errorf("%s: %v (%v)", family(v6), r.Outcome, r.Reason)
		}
		if r := pass(w, 0, r(Hit, ACK, 1, 60_001, 0).seg.packet(at[1], at[0])); r.Outcome != Hit {
			t.Errorf("%s: its acknowledgement is %v (%v)", family(v6), r.Outcome, r.Reason)
		}
		for f := range table.All(0) {
			if f.Packets != [2]uint64{44, 3} || f.Bytes[0] < 60_000 {
				t.Errorf("%s: %d packets, %d bytes", family(v6), f.Packets, f.Bytes)
			}
		}
	}
}
