package flow

import "math/rand/v2"

// talk makes up the segments of two sides who mostly do as they should.
type talk struct {
	begun [2]bool
	first [2]uint32 // the number of each side's SYN
	sent  [2]uint32 // what each side sends next
	fin   [2]bool
}

// next is a segment, and who sends it.
func (t *talk) next(r *rand.Rand) (from int, s seg) {
	from = r.IntN(2)
	if !t.begun[0] {
		from = 0
	}
	s = seg{flags: ACK, seq: t.sent[from], ack: t.sent[1-from], window: uint16(500 + r.IntN(1000))}
	switch dice := r.IntN(20); {
	case !t.begun[from]:
		t.begun[from], t.first[from] = true, r.Uint32()
		s.seq, s.flags = t.first[from], SYN|ACK
		if !t.begun[1-from] {
			s.flags = SYN
		}
		t.sent[from] = s.seq + 1
	case dice < 8 && !t.fin[from]:
		s.n = r.IntN(400)
		t.sent[from] += uint32(s.n)
	case dice == 8:
		s.flags, t.fin[from] = FIN|ACK, true
		t.sent[from]++
	case dice == 9:
		s.flags = RST
	case dice == 10:
		s.flags, s.seq = SYN, r.Uint32()
	case dice == 11:
		s.flags, s.seq = SYN|ACK, t.first[from]
	case dice == 12:
		s.flags = uint8(r.Uint32())
	}
	switch r.IntN(16) { // and something goes wrong
	case 0:
		s.seq += uint32(r.IntN(4000)) - 2000
	case 1:
		s.ack += uint32(r.IntN(4000)) - 2000
	case 2:
		s.seq = r.Uint32()
	case 3:
		s.ack = r.Uint32()
	}
	return from, s
}
