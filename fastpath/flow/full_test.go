package flow

import (
	"net/netip"
	"testing"
	"time"

	"margay.dev/margay/internal/pkt"
)

// opener is the n-th packet of a family that opens a flow.
func opener(v6 int, proto uint8, n uint32) Packet {
	src, dst := netip.AddrFrom4([4]byte{10, byte(n >> 24), byte(n >> 16), 1}), ends[0][1]
	if v6 == 1 {
		src, dst = netip.AddrFrom16([16]byte{0xfd, 7, 14: byte(n >> 24), 15: byte(n >> 16)}), ends[1][1]
	}
	p := Packet{Key: NewKey(src, dst, proto, uint16(n), 80, 0), Segments: 1}
	if proto == pkt.ProtoTCP {
		p.Flags, p.Seq, p.Window = SYN, n, 1000
	}
	return p
}

// open inserts a flow for an endpoint.
func open(w *Worker, now Tick, p Packet, endpoint uint32) Result {
	return w.Insert(now, &p, &Start{Reverse: p.Key.Reverse(), Endpoint: endpoint, Decision: Decision{Generation: 1}})
}

// TestFloodAtOneEndpointLeavesTheOthersAlone: 20 SYNs for each flow that there may
// be come for endpoint 1, while others open flows and use those they have.
func TestFloodAtOneEndpointLeavesTheOthersAlone(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		before := opener(v6, pkt.ProtoUDP, 1<<31)
		open(w, 0, before, 2)
		n, refused, others, lost := uint32(0), 0, 0, 0
		for now := range Tick(20) {
			for range table.Limit() {
				n++
				if r := open(w, now, opener(v6, pkt.ProtoTCP, n), 1); r.Outcome == Refused {
					if refused++; r.Reason != OverShare {
						t.Fatalf("%s: the flood is refused for %v", family(v6), r.Reason)
					}
				}
			}
			for endpoint := range uint32(8) {
				others++
				if r := open(w, now, opener(v6, pkt.ProtoTCP, 1<<30|uint32(others)), 3+endpoint); r.Outcome != Inserted {
					lost++
				}
			}
			table.Advance(now, 1<<20)
			table.Quiesced(table.Generation())
			if r := passPacket(w, now, before); r.Outcome != Hit {
				t.Errorf("%s: a flow that there was is %v", family(v6), r.Outcome)
			}
		}
		if held := table.Held(1); held > table.Limit()*4/5+1 || held < table.Limit()*3/4 {
			t.Errorf("%s: endpoint 1 has %d of %d flows, want four fifths", family(v6), held, table.Limit())
		}
		if lost > 0 || refused == 0 {
			t.Errorf("%s: %d of %d new flows of others are refused, and %d of the flood's", family(v6), lost, others, refused)
		}
		if s := table.Stats(); s.Refused[OverShare] != uint64(refused) || s.ByState[Opening] != s.Flows-1 {
			t.Errorf("%s: %d are counted, of %d; %v", family(v6), s.Refused[OverShare], refused, s.ByState)
		}
		balanced(t, table)
		drain(t, table, 20)
	}
}

// TestSharesUnderPressure: endpoints that want all they can get end with equal
// shares, and one that comes late finds room.
func TestSharesUnderPressure(t *testing.T) {
	table := newTable(t, nil)
	w := table.Worker(0)
	const greedy = 8
	n := uint32(0)
	for range table.Limit() {
		for e := range uint32(greedy) {
			n++
			open(w, 0, opener(int(n%2), pkt.ProtoUDP, n), e)
		}
	}
	share := table.Limit() * 4 / (4*greedy + 1)
	for e := range uint32(greedy) {
		if held := table.Held(e); held < share-greedy || held > share+greedy {
			t.Errorf("endpoint %d has %d flows, want %d", e, held, share)
		}
	}
	late := 0
	for open(w, 0, opener(0, pkt.ProtoTCP, n), greedy).Outcome == Inserted {
		n++
		late++
	}
	if late < share/10 {
		t.Errorf("who comes late gets %d flows, and the others have %d each", late, share)
	}
	balanced(t, table)
	drain(t, table, 0)
}

// TestFullTable: when every endpoint has flows and none is vacant, a new flow is
// refused and those that there are go on.
func TestFullTable(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Endpoints = 1 << 14 })
	w := table.Worker(0)
	n := 0
	for ; n < table.Limit(); n++ {
		if r := open(w, 0, opener(n%2, pkt.ProtoTCP, uint32(n)), uint32(n)); r.Outcome != Inserted {
			t.Fatalf("flow %d of %d: %v", n, table.Limit(), r.Reason)
		}
	}
	if r := open(w, 0, opener(0, pkt.ProtoTCP, uint32(n)), uint32(n)); r.Reason != TableFull {
		t.Errorf("one more is %v (%v), want %v", r.Outcome, r.Reason, TableFull)
	}
	for i := range n {
		if r := passPacket(w, 1, opener(i%2, pkt.ProtoTCP, uint32(i))); r.Outcome != Hit {
			t.Fatalf("flow %d is %v (%v)", i, r.Outcome, r.Reason)
		}
	}
	balanced(t, table)
	drain(t, table, 0)
}

// TestIndexFull: where neither key, or only the first, finds room in the index, the
// flow is refused and its entry comes back.
func TestIndexFull(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		p := opener(v6, pkt.ProtoTCP, 1)
		back := p.Key.Reverse()
		for _, room := range []*Key{nil, &p.Key} {
			for i := range table.index {
				table.index[i].tags = tagClaimed * everyByte
			}
			if room != nil {
				table.chain(table.seed.hash(room), 0).tags = tagClaimed * everyByte >> 8
				if table.chain(table.seed.hash(&back), 0) == table.chain(table.seed.hash(room), 0) {
					continue // by chance there is room for neither
				}
			}
			if r := open(table.Worker(0), 0, p, 1); r.Reason != IndexFull {
				t.Errorf("%s: %v (%v), want %v", family(v6), r.Outcome, r.Reason, IndexFull)
			}
			if r := passPacket(table.Worker(0), 0, Packet{Key: p.Key, Flags: ACK, Kind: Steady}); r.Reason != MidFlow {
				t.Errorf("%s: what was refused is found: %v (%v)", family(v6), r.Outcome, r.Reason)
			}
			table.Advance(0, 1000)
			table.Quiesced(table.Generation())
			for i := range table.index {
				table.index[i].tags = 0
			}
			balanced(t, table)
			drain(t, table, 0)
		}
	}
}

// TestTranslated: the replies of a flow may have another tuple, and no two flows
// the same.
func TestTranslated(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		first, second := opener(v6, pkt.ProtoTCP, 1), opener(v6, pkt.ProtoTCP, 2)
		reply := NewKey(ends[v6][1], ends[v6][0], pkt.ProtoTCP, 8080, 5555, 0)
		d := Decision{NextHop: [2]uint32{7, 9}, Verdict: [2]uint32{1, 2}, Generation: 5}
		if r := w.Insert(0, &first, &Start{Reverse: reply, Decision: d}); r.Outcome != Inserted || r.NextHop != 7 {
			t.Errorf("%s: %+v", family(v6), r)
		}
		if r := w.Insert(0, &second, &Start{Reverse: reply, Decision: d}); r.Reason != TupleTaken {
			t.Errorf("%s: a second flow with these replies is %v (%v)", family(v6), r.Outcome, r.Reason)
		}
		back := Packet{Key: reply, Flags: SYN | ACK, Seq: 9, Ack: first.Seq + 1}
		r := passPacket(w, 0, back)
		if r.Outcome != Hit || r.NextHop != 9 || r.Verdict != 1|2<<32 || r.Generation != 5 || table.Original(r.Ref) != first.Key {
			t.Errorf("%s: the reply is %+v", family(v6), r)
		}
		untranslated := Packet{Key: first.Key.Reverse(), Flags: SYN | ACK, Seq: 9, Ack: first.Seq + 1}
		if r := passPacket(w, 0, untranslated); r.Reason != MidFlow {
			t.Errorf("%s: a reply that nobody translated is %v (%v)", family(v6), r.Outcome, r.Reason)
		}
		balanced(t, table)
		drain(t, table, 0)
	}
}

// TestTimeouts: each kind of flow ends when it has been idle for its time, and not
// a tick before; a packet on the way keeps it.
func TestTimeouts(t *testing.T) {
	d := DefaultTimeouts()
	d.UDPOneWay = 30 * time.Second
	for name, tt := range map[string]struct {
		steps   []step
		proto   uint8
		replied bool
		want    time.Duration
	}{
		"TCP opening":     {[]step{l(Inserted, SYN, 0, 0, 0)}, 0, false, d.TCPOpening},
		"TCP answered":    {[]step{l(Inserted, SYN, 0, 0, 0), r(Hit, SYN|ACK, 0, 1, 0)}, 0, false, d.TCPOpening},
		"TCP established": {opened(), 0, false, d.TCPEstablished},
		"TCP half closed": {opened(l(Hit, FIN|ACK, 1, 1, 0)), 0, false, d.TCPEstablished},
		"TCP closed":      {opened(l(Hit, FIN|ACK, 1, 1, 0), r(Hit, FIN|ACK, 1, 2, 0)), 0, false, d.TCPClosed},
		"TCP reset":       {opened(l(Hit, RST, 1, 1, 0)), 0, false, d.TCPReset},
		"UDP one way":     {nil, pkt.ProtoUDP, false, d.UDPOneWay},
		"UDP":             {nil, pkt.ProtoUDP, true, d.UDP},
		"ICMP":            {nil, pkt.ProtoICMP, true, d.ICMP},
		"SCTP":            {nil, pkt.ProtoSCTP, true, d.Generic},
		"GRE":             {nil, 47, false, d.Generic},
	} {
		for v6 := range ends {
			table := newTable(t, func(c *Config) { c.Timeouts = d })
			w := table.Worker(0)
			at, now := port80(v6, 999), Tick(0)
			send := func(now Tick) {
				p := Packet{Key: NewKey(ends[v6][0], ends[v6][1], tt.proto, 999, 80, 0), Segments: 1}
				if tt.proto == pkt.ProtoICMP {
					p.Key = NewKey(ends[v6][0], ends[v6][1], [2]uint8{pkt.ProtoICMP, pkt.ProtoICMPv6}[v6], 999, uint16([2]int{8, 128}[v6])<<8, 0)
				}
				passPacket(w, now, p)
				if tt.replied {
					p.Key = p.Key.Reverse()
					passPacket(w, now, p)
				}
			}
			for _, s := range tt.steps {
				now += 3
				table.Advance(now, 1000)
				pass(w, now, s.seg.packet(at[s.from], at[1-s.from]))
			}
			if tt.steps == nil {
				send(now)
				now += Tick(ticks(tt.want)) - 1
				table.Advance(now, 1<<20)
				send(now) // and it begins anew
			}
			table.Advance(now+Tick(ticks(tt.want))-1, 1<<20)
			if n := table.Stats().Flows; n != 1 {
				t.Errorf("%s, %s: it has ended too early", name, family(v6))
			}
			table.Advance(now+Tick(ticks(tt.want)), 1<<20)
			if n := table.Stats().Flows; n != 0 {
				t.Errorf("%s, %s: it goes on", name, family(v6))
			}
			balanced(t, table)
		}
	}
}

// TestOwnerWorksWithinItsBudget: whatever ends at once, one call does no more than
// it may, and all of it is done in the end.
func TestOwnerWorksWithinItsBudget(t *testing.T) {
	table := newTable(t, nil)
	w := table.Worker(0)
	const n = 1000
	for i := range uint32(n) {
		open(w, 0, opener(int(i%2), pkt.ProtoUDP, i), i%16)
	}
	end := Tick(ticks(DefaultTimeouts().UDP))
	calls := 0
	for more := true; more; calls++ {
		before := table.Stats().Expired
		more = table.Advance(end, 100)
		if did := table.Stats().Expired - before; did > 100 {
			t.Fatalf("one call has ended %d flows", did)
		}
	}
	if s := table.Stats(); s.Expired != n || calls < n/100 {
		t.Errorf("%d flows have ended in %d calls", s.Expired, calls)
	}
	if s := table.Stats(); s.Waiting != n {
		t.Errorf("%d flows wait for the workers, want %d", s.Waiting, n)
	}
	table.Quiesced(table.Generation() - 1)
	if s := table.Stats(); s.Waiting == 0 || s.Waiting == n {
		t.Errorf("%d flows wait for the workers, who have not seen the last call", s.Waiting)
	}
	table.Quiesced(table.Generation())
	balanced(t, table)
}

// TestClockJumps: forth by hours or back by hours, no flow stays for good, and none
// ends that is in use.
func TestClockJumps(t *testing.T) {
	for name, jump := range map[string]int32{"an hour on": 14_400, "a day on": 345_600, "a minute back": -240, "an hour back": -14_400, "a day back": -345_600} {
		for v6 := range ends {
			table := newTable(t, nil)
			w := table.Worker(0)
			now := Tick(1_000_000)
			table.Advance(now, 1<<20)
			idle, used := opener(v6, pkt.ProtoUDP, 1), opener(v6, pkt.ProtoUDP, 2)
			passPacket(w, now, idle)
			passPacket(w, now, used)
			table.Advance(now, 1000)
			now += Tick(jump)
			passPacket(w, now, used)
			for range 3 * wheelSlots / 100 {
				now += 100
				passPacket(w, now, used)
				table.Advance(now, 1000)
			}
			if s := table.Stats(); s.Flows != 1 || s.Expired != 1 || s.Inserted != 2 {
				t.Errorf("%s, %s: %d flows are there of %d, %d have ended", name, family(v6), s.Flows, s.Inserted, s.Expired)
			}
			balanced(t, table)
		}
	}
}

// TestNothingIsAllocated on the packet path, by hits, misses, and insertions.
func TestNothingIsAllocated(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		packets, out := make([]Packet, 256), make([]Result, 256)
		n := uint32(0)
		if got := testing.AllocsPerRun(5, func() {
			for i := range packets {
				n++
				packets[i] = opener(v6, pkt.ProtoTCP, n)
			}
			for range 2 {
				w.Lookup(0, packets, out)
				for i := range out {
					if out[i].Outcome == Miss {
						p := &packets[i]
						w.Insert(0, p, &Start{Reverse: p.Key.Reverse(), Endpoint: n % 16})
					}
				}
			}
			w.t.Advance(0, 1000)
		}); got != 0 {
			t.Errorf("%s: %v allocations per vector", family(v6), got)
		}
	}
}
