package port

import (
	"math"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
	"margay.dev/margay/internal/pkt"
)

const (
	// maxCut is the most frames that one packet may become: a superpacket of
	// 64 KiB down to 128 bytes of payload a segment.
	maxCut = 512
	// chunkRoom is what a frame holds of a packet that we lay out.
	chunkRoom = umem.ChunkSize - umem.Headroom
)

// lowering makes descriptors of frames out of packets, for ports that take
// neither superpackets nor partial checksums.
type lowering struct {
	out    [2 * maxCut]xsk.Desc
	n      int // descriptors in out
	frames [maxCut]umem.Buf
	cut    superpacket
}

// full says that out might not take another packet.
//
//fastpath:hot
func (l *lowering) full() bool { return l.n+maxCut > len(l.out) }

// lower appends packet m to out, in at most room descriptors, and takes over its
// buffers. Else it says why not, and the caller keeps them. mtu is what a packet
// may have from the IP header on.
//
//fastpath:hot
func (l *lowering) lower(io *graph.IO, m *graph.Meta, room, mtu int) graph.Reason {
	switch {
	case m.GSO != graph.GSONone:
		return l.segments(io, m, room, mtu)
	case int(m.Len)-int(m.L3) > mtu:
		return graph.TxOversize
	case !io.Arena.IsFrame(m.Buf):
		return l.spread(io, m, room)
	case int(m.Bufs) > room:
		return graph.TxFull
	case m.Flags&graph.Partial != 0 && !completeChain(io, m):
		return graph.TxOffload
	}
	l.add(m.Off, m.Head)
	b := m.Buf
	for range m.Bufs - 1 {
		l.out[l.n-1].Options = xsk.PktContd
		b = io.Arena.Segment(b).Next
		s := io.Arena.Segment(b)
		l.add(io.Arena.Start(b)+uint32(s.Off), uint32(s.Len))
	}
	return graph.NoReason
}

//fastpath:hot
func (l *lowering) add(off, size uint32) {
	l.out[l.n] = xsk.Desc{Addr: uint64(off), Len: size}
	l.n++
}

// spread copies a packet that is no superpacket from a super to frames.
//
//fastpath:hot
func (l *lowering) spread(io *graph.IO, m *graph.Meta, room int) graph.Reason {
	p := io.Mem[m.Off : m.Off+m.Len]
	if m.Flags&graph.Partial != 0 && !complete(p, m) {
		return graph.TxOffload
	}
	need := (len(p) + chunkRoom - 1) / chunkRoom
	if need > room {
		return graph.TxFull
	}
	if !l.take(io, need) {
		return graph.TxNoBuffer
	}
	l.lay(io, l.frames[:need], 0, p)
	io.Free(m)
	return graph.NoReason
}

// segments cuts a superpacket.
//
//fastpath:hot
func (l *lowering) segments(io *graph.IO, m *graph.Meta, room, mtu int) graph.Reason {
	s := &l.cut
	*s = superpacket{}
	if !s.open(io.Mem[m.Off:m.Off+m.Head], m) {
		return graph.TxOffload
	}
	if s.largest()-s.l3 > mtu {
		return graph.TxOversize
	}
	each, need := s.frames()
	if need > maxCut {
		return graph.TxOffload
	}
	if need > room {
		return graph.TxFull
	}
	if !l.take(io, need) {
		return graph.TxNoBuffer
	}
	for i := range s.count() {
		frames := l.frames[i*each : min(i*each+each, need)]
		at := io.Arena.Start(frames[0]) + umem.Headroom
		payload := s.segment(io.Mem[at:at+uint32(len(s.head))], i)
		l.lay(io, frames, len(s.head), payload)
	}
	io.Free(m)
	return graph.NoReason
}

// take gets n frames, or none.
//
//fastpath:hot
func (l *lowering) take(io *graph.IO, n int) bool {
	got := io.Cache.Frames(l.frames[:n])
	if got == n {
		return true
	}
	for _, b := range l.frames[:got] {
		io.Cache.Free(b)
	}
	return false
}

// lay fills frames with p and appends them to out as one packet. The first
// frame has head bytes in it already.
//
//fastpath:hot
func (l *lowering) lay(io *graph.IO, frames []umem.Buf, head int, p []byte) {
	for i, b := range frames {
		at := io.Arena.Start(b) + umem.Headroom
		n := copy(io.Mem[at+uint32(head):at+chunkRoom], p)
		p = p[n:]
		l.add(at, uint32(head+n))
		if i+1 < len(frames) {
			l.out[l.n-1].Options = xsk.PktContd
		}
		head = 0
	}
}

// chain lays a packet that came in out over frames, and says where it is in m.
// It says false where there are not enough of them, or m cannot count so many.
//
//fastpath:hot
func (l *lowering) chain(io *graph.IO, p []byte, m *graph.Meta) bool {
	n := (len(p) + chunkRoom - 1) / chunkRoom
	if n > math.MaxUint8 || !l.take(io, n) {
		return false
	}
	m.Buf, m.Bufs = l.frames[0], uint8(n)
	m.Off, m.Head = io.Arena.Start(m.Buf)+umem.Headroom, uint32(min(len(p), chunkRoom))
	for i, b := range l.frames[:n] {
		at := io.Arena.Start(b) + umem.Headroom
		part := copy(io.Mem[at:at+chunkRoom], p)
		p = p[part:]
		*io.Arena.Segment(b) = umem.Segment{Next: umem.None, Off: umem.Headroom, Len: uint16(part)}
		if i > 0 {
			io.Arena.Segment(l.frames[i-1]).Next = b
		}
	}
	return true
}

// completeChain turns a partial checksum into a whole one, wherever the packet
// lies. It says false when the facts contradict the packet.
//
//fastpath:hot
func completeChain(io *graph.IO, m *graph.Meta) bool {
	p := io.Mem[m.Off : m.Off+m.Head]
	if m.Bufs == 1 {
		return complete(p, m)
	}
	start, at := int(m.CsumStart), int(m.CsumStart)+int(m.CsumOffset)
	if at+2 > len(p) || m.CsumOffset&1 != 0 {
		return false
	}
	putPartial(p[at:], sumChain(io, m, start), m)
	return true
}

// sumChain is the sum of a packet from byte from on, which lies in the first buffer.
//
//fastpath:hot
func sumChain(io *graph.IO, m *graph.Meta, from int) uint32 {
	sum := pkt.Sum(io.Mem[m.Off+uint32(from) : m.Off+m.Head])
	at, b := int(m.Head)-from, m.Buf
	for range m.Bufs - 1 {
		b = io.Arena.Segment(b).Next
		s := io.Arena.Segment(b)
		off := io.Arena.Start(b) + uint32(s.Off)
		sum += pkt.SumAt(io.Mem[off:off+uint32(s.Len)], at)
		at += int(s.Len)
	}
	return sum
}
