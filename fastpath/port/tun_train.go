package port

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port/tundev"
	"margay.dev/margay/internal/pkt"
)

// flush writes a train and frees its packets, or says at each why it was refused.
//
//fastpath:hot
func (q *tunQueue) flush(io *graph.IO, v *graph.Vector, t *train) {
	if t.count == 0 {
		return
	}
	n := t.count
	t.count = 0
	q.gro.open--
	if n == 1 {
		q.write(io, v.Meta(int(t.first)))
		return
	}
	q.gro.made++
	q.gro.merged += uint64(n)
	first := v.Meta(int(t.first))
	headers := io.Mem[first.Off : first.Off+uint32(t.head)]
	copy(q.before[:], headers)
	b := q.lead(io, v, t, first)
	q.pieces[0] = tundev.PieceOf(b)
	at := 1 + q.rest(io, first, 1)
	for k, i := 1, t.first; k < n; k++ {
		i = q.gro.next[i]
		m := v.Meta(int(i))
		if int(m.Head) > t.head { // else the whole payload is in later buffers
			q.pieces[at] = tundev.PieceOf(io.Mem[m.Off+uint32(t.head) : m.Off+m.Head])
			at++
		}
		at += q.rest(io, m, at)
	}
	errno := tundev.WritePieces(q.fd, q.pieces[:at])
	var r graph.Reason
	if errno != 0 {
		r = q.refusal(errno)
		copy(headers, q.before[:]) // who looks at the refused packet sees what it was
	}
	for k, i := 0, t.first; k < n; k++ {
		m := v.Meta(int(i))
		if r == graph.NoReason {
			io.Free(m)
		} else {
			q.refuse(m, r)
		}
		i = q.gro.next[i]
	}
}

// lead turns the first packet's headers into those of the whole train, puts the
// vnet header in front, and returns what of it lies in the first buffer.
//
//fastpath:hot
func (q *tunQueue) lead(io *graph.IO, v *graph.Vector, t *train, first *graph.Meta) []byte {
	b := io.Mem[first.Off-vnetSize : first.Off+first.Head]
	p := b[vnetSize:]
	kind := byte(vnetTCP4)
	if t.v6 {
		kind = vnetTCP6
	}
	last := v.Meta(int(t.last))
	push := io.Mem[last.Off+uint32(t.l4)+tcpFlags] & tcpPSH
	leadHeaders(p, t.l4, t.len, push, t.v6)
	h := (*[vnetSize]byte)(b)
	h[0], h[1] = vnetNeedsCsum, kind
	binary.LittleEndian.PutUint16(h[2:], uint16(t.head))
	binary.LittleEndian.PutUint16(h[4:], uint16(t.size))
	binary.LittleEndian.PutUint16(h[6:], uint16(t.l4))
	binary.LittleEndian.PutUint16(h[8:], tcpCheck)
	return b
}

// leadHeaders turns the headers at the front of p into those of a superpacket
// of size bytes, with PSH as the last segment has it. The TCP checksum becomes
// partial.
//
//fastpath:hot
func leadHeaders(p []byte, l4, size int, push byte, v6 bool) {
	addrs := p[8:pkt.IPv6Size]
	if v6 {
		binary.BigEndian.PutUint16(p[ip6Length:], uint16(size-pkt.IPv6Size))
	} else {
		addrs = p[12:pkt.IPv4Size]
		binary.BigEndian.PutUint16(p[ip4Length:], uint16(size))
		binary.BigEndian.PutUint16(p[ip4Check:], 0)
		binary.BigEndian.PutUint16(p[ip4Check:], ^pkt.Fold(pkt.Sum(p[:l4])))
	}
	t := p[l4:]
	t[tcpFlags] |= push
	binary.BigEndian.PutUint16(t[tcpCheck:], pkt.Fold(pkt.PseudoSum(addrs, pkt.ProtoTCP, size-l4)))
}

// count publishes what GRO counted, once a burst.
//
//fastpath:hot
func (q *tunQueue) count() {
	g := &q.gro
	if g.made|g.bad == 0 {
		return
	}
	q.trains.Add(g.made)
	q.segments.Add(g.merged)
	q.badSums.Add(g.bad)
	g.made, g.merged, g.bad = 0, 0, 0
}
