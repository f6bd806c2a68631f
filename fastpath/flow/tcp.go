package flow

import "sync/atomic"

// Of each direction the table keeps four numbers in two words. Each only grows, so
// that workers of both directions may write without a lock.
//
//	sent:  the number behind the last byte sent 32 | largest window offered 32
//	heard: highest acknowledgement sent 32         | right edge of the largest offer 32
//
// heard is in the other side's sequence space. Before the other side has sent its
// SYN, it holds what the first one's SYN lets us know: that nothing of it is
// acknowledged, and nothing beyond it granted.

// leastAckWindow is how far behind an acknowledgement may always be.
const leastAckWindow = 66000

// pair makes a word of two numbers.
//
//fastpath:hot
func pair(hi, lo uint32) uint64 { return uint64(hi)<<32 | uint64(lo) }

// after reports whether sequence number a lies behind b (RFC 9293 section 3.4).
//
//fastpath:hot
func after(a, b uint32) bool { return int32(a-b) > 0 }

// later is the one that lies behind the other.
//
//fastpath:hot
func later(a, b uint32) uint32 {
	if after(a, b) {
		return a
	}
	return b
}

// underWay reports whether a segment that begins at seq may have been sent in
// direction d and not arrived: only about those an ICMP error is believed
// (RFC 5927 section 4).
func (c *core) underWay(seq uint32, state word, d int) bool {
	last := uint32(atomic.LoadUint64(&c.sent[d]) >> 32)
	acked := uint32(atomic.LoadUint64(&c.heard[d^1]) >> 32)
	return state&synSeen.of(d) != 0 && !after(acked, seq) && !after(seq, last)
}

// numbers is both words of a direction, taken apart.
type numbers struct{ last, window, acked, edge uint32 }

func (c *core) numbers(d int) numbers {
	sent, heard := atomic.LoadUint64(&c.sent[d]), atomic.LoadUint64(&c.heard[d])
	return numbers{uint32(sent >> 32), uint32(sent), uint32(heard >> 32), uint32(heard)}
}

func (c *core) set(d int, n numbers) {
	atomic.StoreUint64(&c.sent[d], pair(n.last, n.window))
	atomic.StoreUint64(&c.heard[d], pair(n.acked, n.edge))
}

// segment is a TCP segment that may change the state of its connection, which the
// caller has claimed.
type segment struct {
	*Packet
	core    *core
	d       int  // its direction
	state   word // before, and after judge behind it
	liberal bool
}

// has reports whether a flag is set for this segment's side, or for the other.
func (s *segment) has(f word, other int) bool { return s.state&f.of(s.d^other) != 0 }

// own and their tell the sides apart where has is asked.
const own, their = 0, 1

// end is the sequence number behind the segment.
func (s *segment) end() uint32 {
	n := s.Seq + s.Length
	if s.Flags&SYN != 0 {
		n++
	}
	if s.Flags&FIN != 0 {
		n++
	}
	return n
}

// offer is the window that the segment offers; that of a SYN is never scaled.
func (s *segment) offer() uint32 {
	if s.Flags&SYN != 0 {
		return uint32(s.Window)
	}
	return uint32(s.Window) << s.state.shift(uint32(s.d))
}

// judge says what a segment is to its connection, and brings state and numbers up
// to date.
func (s *segment) judge() (Outcome, Reason) {
	if s.Kind == Followed {
		return s.part()
	}
	switch s.Flags & (SYN | ACK | RST | FIN | URG) {
	case SYN, SYN | URG:
		return s.syn()
	case SYN | ACK:
		return s.synAck()
	case RST, RST | ACK:
		return s.rst()
	case ACK, ACK | URG, FIN | ACK, FIN | ACK | URG:
		return s.ack()
	}
	return Refused, BadFlags
}

// syn is a segment that opens a connection, from either side.
func (s *segment) syn() (Outcome, Reason) {
	switch n := s.core.numbers(s.d); {
	case s.state.state() == Closed || s.state.state() == Reset:
		return Reopen, NoReason
	case s.has(synAcked, own):
		return s.askBack()
	case !s.has(synSeen, own):
		s.open()
		s.state |= crossed
	case n.last == s.end():
		// The same once more.
	case !s.has(synSeen, their):
		s.open() // given up, and tried anew with another number
	default:
		return s.askBack()
	}
	return Hit, NoReason
}

// askBack is for a SYN out of place. From who opened the connection, and may have
// forgotten it, it passes: its receiver asks back (RFC 5961 section 4), and by the
// reset that comes of it the old connection ends.
func (s *segment) askBack() (Outcome, Reason) {
	if s.d == 0 {
		return Stale, NoReason
	}
	return Refused, BadState
}

// open takes note of this side's SYN.
func (s *segment) open() {
	n, theirs := s.core.numbers(s.d), s.core.numbers(s.d^1)
	n.last, n.window = s.end(), max(s.offer(), 1)
	theirs.acked, theirs.edge = s.Seq, s.end()
	if !s.has(synSeen, their) {
		n.acked, n.edge, theirs.last, theirs.window = 0, 0, 0, 0
	} else {
		theirs.edge = s.Seq + 1 + theirs.window
	}
	s.core.set(s.d, n)
	s.core.set(s.d^1, theirs)
	s.state = s.state.withScale(s.d, s.Scale) | synSeen.of(s.d)
}

// synAck is the answer to the other side's SYN.
func (s *segment) synAck() (Outcome, Reason) {
	n, theirs := s.core.numbers(s.d), s.core.numbers(s.d^1)
	switch {
	case !s.has(synSeen, their), s.state&rstSeen != 0, s.d == 0 && s.state&crossed == 0:
		return Refused, BadState
	case s.has(synAcked, own) && s.has(synAcked, their):
		return Stale, NoReason
	case !after(s.Ack, n.acked) && !s.has(synAcked, their) || after(s.Ack, theirs.last):
		return Refused, BadAck
	case !s.has(synSeen, own) || !s.has(synAcked, own) && n.last != s.end(): // its first, or anew with another number
		s.open()
		n = s.core.numbers(s.d)
	}
	n.acked, n.edge = later(s.Ack, n.acked), later(s.Ack+s.offer(), n.edge)
	s.core.set(s.d, n)
	s.state |= synAcked.of(s.d ^ 1)
	return Hit, NoReason
}

// rst ends the connection if its sequence number is exactly what the receiver
// expects. Within the window its receiver asks back (RFC 5961 section 3.2).
func (s *segment) rst() (Outcome, Reason) {
	n, theirs := s.core.numbers(s.d), s.core.numbers(s.d^1)
	switch {
	case s.state&rstSeen != 0:
		return Stale, NoReason
	case !s.has(synSeen, own): // it refuses the connection
		if s.Flags&ACK == 0 || !after(s.Ack, n.acked) || after(s.Ack, theirs.last) {
			return Refused, BadReset
		}
	case !s.has(synSeen, their):
		if s.Seq == theirs.last && theirs.window == asked {
			return Stale, NoReason
		}
		if s.Seq != n.last {
			return Refused, BadReset
		}
	case s.Flags&ACK != 0 && after(s.Ack, theirs.last):
		return Refused, BadReset
	case s.Seq != theirs.acked && s.Seq != n.last:
		if !after(s.Seq, theirs.acked) || after(s.Seq, theirs.edge) {
			return Refused, BadReset
		}
		return Stale, NoReason
	}
	s.state |= rstSeen
	return Hit, NoReason
}

// asked stands in place of the window of a side that has not sent a SYN, but
// answered one by an ACK of another connection that it believes in. The number
// beside it is what a reset must have to convince it (RFC 9293 section 3.5.1).
const asked = 1

// ack is any other segment.
func (s *segment) ack() (Outcome, Reason) {
	n, theirs := s.core.numbers(s.d), s.core.numbers(s.d^1)
	switch {
	case !s.has(synSeen, own):
		if s.Flags&FIN != 0 || s.state&rstSeen != 0 {
			return Refused, BadState
		}
		s.core.set(s.d, numbers{last: s.Ack, window: asked, acked: n.acked, edge: n.edge})
		return Stale, NoReason
	case !s.has(synSeen, their):
		return Refused, BadState
	case !s.has(synAcked, their) && !after(s.Ack, n.acked): // not even that there was a SYN
		return Refused, BadAck
	}
	if o, why := s.window(n, theirs); o != Hit {
		return o, why
	}
	s.state |= synAcked.of(s.d ^ 1)
	n.last, n.window = later(s.end(), n.last), max(n.window, s.offer())
	n.acked, n.edge = later(s.Ack, n.acked), later(s.Ack+s.offer(), n.edge)
	s.core.set(s.d, n)
	if s.Flags&FIN != 0 {
		s.state |= finSeen.of(s.d)
	}
	if s.has(finSeen, their) && n.acked == theirs.last {
		s.state |= finAcked.of(s.d ^ 1)
	}
	return Hit, NoReason
}

// part is what a later fragment carries of a segment whose first was good.
func (s *segment) part() (Outcome, Reason) {
	n, theirs := s.core.numbers(s.d), s.core.numbers(s.d^1)
	if after(s.Seq, theirs.edge) && !s.liberal {
		return Refused, OutOfWindow
	}
	n.last = later(s.end(), n.last)
	s.core.set(s.d, n)
	if s.Flags&FIN != 0 {
		s.state |= finSeen.of(s.d)
	}
	return Hit, NoReason
}

// window holds a segment against what both sides have sent and offered. What lies
// too far back is an old duplicate: harmless, and it says nothing new. A connection
// that is only being opened has none.
func (s *segment) window(n, theirs numbers) (Outcome, Reason) {
	outcome, why := Hit, NoReason
	switch {
	case after(s.Seq, theirs.edge): // begins behind what the other side has room for
		outcome, why = Refused, OutOfWindow
	case after(s.Ack, theirs.last): // acknowledges what the other side has not sent
		outcome, why = Refused, BadAck
	case after(n.last-theirs.window, s.end()), after(theirs.last-max(n.window, leastAckWindow), s.Ack):
		if s.has(synAcked, own) && s.has(synAcked, their) {
			return Stale, NoReason
		}
		outcome, why = Refused, BadAck
	}
	if s.liberal && outcome == Refused {
		return Stale, NoReason
	}
	return outcome, why
}
