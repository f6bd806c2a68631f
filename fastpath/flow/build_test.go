package flow

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"margay.dev/margay/internal/pkt"
)

// ends are the addresses of a conversation, by family.
var ends = [2][2]netip.Addr{
	{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2")},
	{netip.MustParseAddr("fd01::2"), netip.MustParseAddr("fd02::2")},
}

// family names an index of ends.
func family(v6 int) string { return [2]string{"ipv4", "ipv6"}[v6] }

// ipPacket puts an IP header in front of a payload.
func ipPacket(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Is4() {
		b := make([]byte, pkt.IPv4Size, pkt.IPv4Size+len(payload))
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(payload)))
		s, d := src.As4(), dst.As4()
		copy(b[12:], s[:])
		copy(b[16:], d[:])
		binary.BigEndian.PutUint16(b[10:], ^pkt.Fold(pkt.Sum(b)))
		return append(b, payload...)
	}
	b := make([]byte, pkt.IPv6Size, pkt.IPv6Size+len(payload))
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}

// seg is a TCP segment.
type seg struct {
	flags    uint8
	seq, ack uint32
	window   uint16
	n        int    // bytes of payload
	options  []byte // a multiple of four bytes
}

// packet is the segment's IP packet.
func (s seg) packet(src, dst netip.AddrPort) []byte {
	b := make([]byte, 20, 20+len(s.options)+s.n)
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], s.seq)
	binary.BigEndian.PutUint32(b[8:], s.ack)
	b[12], b[13] = uint8(5+len(s.options)/4)<<4, s.flags
	binary.BigEndian.PutUint16(b[14:], s.window)
	b = append(append(b, s.options...), make([]byte, s.n)...)
	return ipPacket(src.Addr(), dst.Addr(), pkt.ProtoTCP, b)
}

// udpPacket is a datagram of n bytes of payload.
func udpPacket(src, dst netip.AddrPort, n int) []byte {
	b := make([]byte, 8+n)
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return ipPacket(src.Addr(), dst.Addr(), pkt.ProtoUDP, b)
}

// icmpPacket is a message of a kind, with what follows its first four bytes.
func icmpPacket(src, dst netip.Addr, kind, code uint8, rest []byte) []byte {
	proto := uint8(pkt.ProtoICMP)
	if src.Is6() {
		proto = pkt.ProtoICMPv6
	}
	return ipPacket(src, dst, proto, append([]byte{kind, code, 0, 0}, rest...))
}

// shapeOf is what an earlier stop would find out about a whole packet.
func shapeOf(b []byte) Shape {
	if b[0]>>4 == 4 {
		return Shape{L4: int(b[0]&15) * 4, Length: len(b), Proto: b[9], Segments: 1}
	}
	proto, rest, _ := extensions(b[6], b[pkt.IPv6Size:])
	return Shape{L4: len(b) - len(rest), Length: len(b), Proto: proto, IPv6: true, Segments: 1}
}

// read is the Packet of whole bytes.
func read(b []byte) (p Packet) {
	p.Read(b, shapeOf(b))
	return p
}

// newTable is a small table on the heap, where the race detector sees it.
func newTable(t testing.TB, change func(*Config)) *Table {
	t.Helper()
	cfg := Config{Workers: 4, Endpoints: 16, Timeouts: DefaultTimeouts()}
	if change != nil {
		change(&cfg)
	}
	table, err := New(make([]byte, MinBytes), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// pass gives a packet to the table as a node would that allows all, and reports
// what became of it.
func pass(w *Worker, now Tick, b []byte) Result {
	return passPacket(w, now, read(b))
}

func passPacket(w *Worker, now Tick, p Packet) Result {
	var r [1]Result
	w.Lookup(now, []Packet{p}, r[:])
	if r[0].Outcome == Miss && p.Kind == Untracked {
		return r[0]
	}
	if r[0].Outcome == Miss || r[0].Outcome == Reopen {
		return w.Insert(now, &p, &Start{Reverse: p.Key.Reverse(), Decision: Decision{Generation: 1}})
	}
	return r[0]
}

// passes reports whether a packet with this result goes on.
func passes(r Result) bool { return r.Outcome == Hit || r.Outcome == Stale || r.Outcome == Inserted }

// balanced fails the test unless every flow is accounted for.
func balanced(t testing.TB, table *Table) {
	t.Helper()
	s := table.Stats()
	if s.Inserted != uint64(s.Flows)+s.Expired+s.Retired {
		t.Errorf("%d flows were made, %d are there, %d expired, %d were retired", s.Inserted, s.Flows, s.Expired, s.Retired)
	}
	for state, n := range s.ByState {
		if n < 0 {
			t.Errorf("%d flows are %v", n, State(state))
		}
	}
	held := 0
	for i := range table.owned {
		held += table.Held(uint32(i))
	}
	if held != s.Flows {
		t.Errorf("%d flows are charged to endpoints, and there are %d", held, s.Flows)
	}
	if free := int(table.head.vacant); free+s.Flows+s.Waiting != s.Limit {
		t.Errorf("%d flows are vacant, %d there, %d wait, of %d", free, s.Flows, s.Waiting, s.Limit)
	}
}

// drain ends every flow, and checks that none is left anywhere.
func drain(t testing.TB, table *Table, now Tick) {
	t.Helper()
	for range 3 {
		now += wheelSlots
		for table.Advance(now, 1000) {
		}
		table.Quiesced(table.Generation())
	}
	if s := table.Stats(); s.Flows != 0 || s.Waiting != 0 || int(table.head.vacant) != s.Limit {
		t.Errorf("%d flows are left, %d wait, %d of %d are vacant", s.Flows, s.Waiting, table.head.vacant, s.Limit)
	}
	for i := range table.index {
		if b := &table.index[i]; b.tags != 0 || b.spill != 0 || b.lock != 0 {
			t.Fatalf("bucket %d holds tags %#x, spill %d, lock %d", i, b.tags, b.spill, b.lock)
		}
	}
	balanced(t, table)
}
