package flow

import (
	"encoding/binary"
	"sync/atomic"

	"margay.dev/margay/internal/pkt"
)

const (
	fragmentSets = 256 // by the hash of both addresses: a pair of hosts fills only its own
	fragmentWays = 16  // datagrams under way in a set
	fragmentGaps = 8   // separate pieces of a datagram
)

// Part is a fragment's place in its datagram.
type Part struct {
	Key      Key // both addresses and the zone, of IPv4 also the protocol
	ID       uint32
	From, To uint32 // bytes of the datagram's payload, To not included
	More     bool   // others follow behind it
	Apart    Apart  // First keeps it with the datagram, Follow tells it
}

// Apart is what a datagram's first fragment was let pass by, where that was decided for this
// datagram and its flow does not remember it; else zero.
type Apart struct {
	Generation uint64
	Asked      [2]uint32 // as Decision has it
}

// Read fills p from b, which begins with a checked IP header and holds the
// packet's first bytes. It is false where that is no fragment, or an empty one.
func (p *Part) Read(b []byte, s Shape) bool {
	var whole Packet
	if whole.Read(b, Shape{IPv6: s.IPv6, Zone: s.Zone, Length: s.Length}); whole.Kind == Unusable {
		return false
	}
	p.Key = whole.Key
	var place uint16
	var header int
	if s.IPv6 {
		_, rest, frag := extensions(b[6], b[pkt.IPv6Size:])
		if rest == nil || frag == nil {
			return false
		}
		p.ID, place = binary.BigEndian.Uint32(frag[4:8]), binary.BigEndian.Uint16(frag[2:4])
		p.From, p.More = uint32(place&^7), place&1 != 0
		header = fragmentEnd(b)
	} else {
		p.ID, place = uint32(binary.BigEndian.Uint16(b[4:6])), binary.BigEndian.Uint16(b[6:8])
		p.From, p.More = uint32(place&0x1fff)*8, place&0x2000 != 0
		p.Key.Tail |= uint64(b[9]) << 32
		header = int(b[0]&15) * 4
	}
	p.To = p.From + uint32(max(0, s.Length-header))
	return (p.More || p.From > 0) && p.To > p.From && p.To <= 65535
}

// fragmentEnd is where the first fragment header of an IPv6 packet ends that
// extensions has found.
func fragmentEnd(b []byte) int {
	proto, at := b[6], pkt.IPv6Size
	for {
		kind, size := proto, pkt.ExtensionSize(b[at:], proto)
		proto, at = b[at], at+size
		if kind == pkt.ProtoFragment {
			return at
		}
	}
}

// datagram is one whose first fragment has passed: 128 bytes.
type datagram struct {
	key     Key // its Tail is 0 in a record that is free
	tail    uint64
	id      uint32
	born    uint32
	seq     uint32 // of TCP: the first's sequence number
	total   uint16 // bytes in all, 0 until the last fragment tells
	data    uint16 // of TCP: where its payload begins
	flags   uint8
	pieces  uint8
	spoiled bool // fragments have overlapped: nothing more of it passes
	has     [fragmentGaps][2]uint16
	apart   Apart
	_       [8]uint8
}

// fragmentSet is the datagrams under way between some hosts.
type fragmentSet struct {
	lock uint32
	_    [15]uint32
	ways [fragmentWays]datagram
}

// First notes that a datagram's first fragment passes, so that others may follow
// it. p is the same packet, which belongs to a flow.
func (w *Worker) First(now Tick, part *Part, p *Packet) Reason {
	return w.fragment(part, func(s *fragmentSet) Reason {
		d := s.find(w.t, now, part)
		if d != nil {
			why := d.add(part)
			if d.tail != p.Key.Tail {
				d.spoiled, why = true, FragmentOverlap
			}
			return why
		}
		if d = s.vacant(w.t, now); d == nil {
			return FragmentFull
		}
		*d = datagram{key: part.Key, tail: p.Key.Tail, id: part.ID, born: uint32(now), apart: part.Apart}
		if p.Key.Proto() == pkt.ProtoTCP && part.To >= p.Length {
			d.seq, d.data, d.flags = p.Seq, uint16(part.To-p.Length), p.Flags&FIN
		}
		return d.add(part)
	})
}

// Follow gives a later fragment the key of its first, to be looked up by, and tells
// what stands apart from that flow. One that is refused gets none: it belongs to no flow.
func (w *Worker) Follow(now Tick, part *Part, p *Packet) Reason {
	return w.fragment(part, func(s *fragmentSet) Reason {
		d := s.find(w.t, now, part)
		if d == nil {
			return FragmentUnknown
		}
		if why := d.add(part); why != NoReason {
			return why
		}
		p.Kind, p.Key.Tail, part.Apart = Followed, d.tail, d.apart
		p.Seq, p.Length, p.Flags = d.seq+part.From-uint32(d.data), part.To-part.From, 0
		if !part.More {
			p.Flags = d.flags
		}
		if d.total != 0 && d.pieces == 1 && d.has[0] == [2]uint16{0, d.total} {
			d.key.Tail = 0 // complete
		}
		return NoReason
	})
}

// fragment does something with the set of a datagram, under its lock.
func (w *Worker) fragment(part *Part, do func(*fragmentSet) Reason) Reason {
	k := part.Key
	k.Tail &= tailIPv6 | 0xffff<<48
	s := &w.t.fragments[w.t.seed.hash(&k)%fragmentSets]
	spinLock(&s.lock)
	why := do(s)
	atomic.StoreUint32(&s.lock, 0)
	if why != NoReason {
		w.add(countRefused+int(why), 1)
	}
	return why
}

// old reports whether a datagram has not become whole in time.
func (d *datagram) old(t *Table, now Tick) bool {
	return uint32(now)-d.born > t.timeouts[timeoutFragment]
}

func (s *fragmentSet) find(t *Table, now Tick, part *Part) *datagram {
	for i := range s.ways {
		if d := &s.ways[i]; d.key == part.Key && d.id == part.ID && !d.old(t, now) {
			return d
		}
	}
	return nil
}

func (s *fragmentSet) vacant(t *Table, now Tick) *datagram {
	for i := range s.ways {
		if d := &s.ways[i]; d.key.Tail == 0 || d.old(t, now) {
			return d
		}
	}
	return nil
}

// add notes that a fragment has come. Fragments of which one lies partly on another
// spoil the datagram (RFC 5722, RFC 8200 section 4.5); what has come before is not
// needed again.
func (d *datagram) add(part *Part) Reason {
	from, to := uint16(part.From), uint16(part.To)
	if d.spoiled || d.total != 0 && (to > d.total || !part.More && to != d.total) {
		d.spoiled = true
		return FragmentOverlap
	}
	before, behind := -1, -1 // pieces that it lies next to
	inside, overlaps := false, false
	for i, has := range d.has[:d.pieces] {
		switch {
		case !part.More && has[1] > to: // the last, and something lies behind it
			overlaps = true
		case from >= has[0] && to <= has[1]:
			inside = true
		case from < has[1] && has[0] < to:
			overlaps = true
		case has[1] == from:
			before = i
		case has[0] == to:
			behind = i
		}
	}
	if overlaps {
		d.spoiled = true
		return FragmentOverlap
	}
	if inside {
		return FragmentRepeated
	}
	if before < 0 && behind < 0 && d.pieces == fragmentGaps {
		return FragmentScatter
	}
	if !part.More {
		d.total = to
	}
	d.join(before, behind, from, to)
	return NoReason
}

// join makes a piece part of those before and behind it, where there are such.
func (d *datagram) join(before, behind int, from, to uint16) {
	switch {
	case before >= 0 && behind >= 0:
		d.has[before][1] = d.has[behind][1]
		d.pieces--
		d.has[behind] = d.has[d.pieces]
	case before >= 0:
		d.has[before][1] = to
	case behind >= 0:
		d.has[behind][0] = from
	default:
		d.has[d.pieces] = [2]uint16{from, to}
		d.pieces++
	}
}

// partial counts the datagrams of which fragments are awaited, those that have
// not become whole in time among them until their place is needed.
func (t *Table) partial() (n int) {
	for i := range t.fragments {
		s := &t.fragments[i]
		spinLock(&s.lock)
		for j := range s.ways {
			if s.ways[j].key.Tail != 0 {
				n++
			}
		}
		atomic.StoreUint32(&s.lock, 0)
	}
	return n
}
