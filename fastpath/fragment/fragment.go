// Package fragment is the stop that splits IPv4 packets which exceed the MTU of their
// way out and may be split (RFC 791 section 3.2).
package fragment

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/pkt"
)

// Uses: Off, Len, L3, L4, Adjacency, Aux (the MTU). It consumes each packet and
// emits its parts. Drops: too-big, when not one more byte fits a part.
const (
	fragmentDrop graph.Edge = iota
	fragmentRewrite
)

// Spec declares the stop.
func Spec() graph.Spec {
	return graph.Spec{
		Name:  "fragment",
		Edges: []string{fragmentDrop: graph.DropName, fragmentRewrite: "rewrite"},
		New:   func(int) graph.Node { return stop{} },
	}
}

type stop struct{}

// Process splits each packet.
func (stop) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	for i := range next {
		m := v.Meta(i)
		next[i] = graph.Gone
		if !split(w, m) {
			m.Reason, next[i] = graph.TooBig, graph.Drop
			continue
		}
		w.Used(graph.UsedSplit, m)
	}
}

// split emits the parts of m; false when its MTU leaves no room for them. When
// buffers run out the rest is missing, and the receiver will time out.
func split(w *graph.Worker, m *graph.Meta) bool {
	completeChecksum(w, m)
	ip := w.Packet(m)[m.L3:]
	header := int(ip[0]&15) * 4
	room := (min(int(m.Aux), umem.ChunkSize-umem.Headroom) - header) &^ 7
	if room < 8 {
		return false
	}
	word := binary.BigEndian.Uint16(ip[6:8])
	payload := int(m.Len) - int(m.L3) - header
	for at := 0; at < payload; at += room {
		n := min(room, payload-at)
		slot, f, ok := w.Make(graph.MadeFragment)
		if !ok {
			return true
		}
		more := word & 0x2000
		if at+n < payload {
			more = 0x2000
		}
		size := putPart(w, f, m, header, at, n)
		h := w.Mem[f.Off : int(f.Off)+size]
		binary.BigEndian.PutUint16(h[2:], uint16(size+n))
		binary.BigEndian.PutUint16(h[6:], word&0x1fff+uint16(at/8)|more)
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], ^pkt.Fold(pkt.Sum(h)))
		w.Emit(fragmentRewrite, slot)
	}
	return true
}

// putPart fills f with the header of m and n bytes of its payload from at on,
// and returns the size of the header. Later parts carry only those options
// that are marked to be copied.
func putPart(w *graph.Worker, f, m *graph.Meta, header, at, n int) int {
	*f = graph.Meta{Off: f.Off, Buf: f.Buf, Bufs: 1, Segments: 1, InPort: m.InPort, Proto: m.Proto,
		Flags: m.Flags&graph.Options | graph.Fragment, Adjacency: m.Adjacency, Hash: m.Hash}
	to := w.Mem[f.Off:]
	size := header
	copy(to[:header], w.Packet(m)[m.L3:])
	if at > 0 && header > pkt.IPv4Size {
		size = keepCopied(to[:header])
	}
	w.Gather(m, int(m.L3)+header+at, to[size:size+n])
	f.Len = uint32(size + n)
	f.Head = f.Len
	return size
}

// keepCopied removes the options without the copied flag from the header h and
// returns its new size. ip-input has checked that the list is well-formed.
func keepCopied(h []byte) int {
	to := pkt.IPv4Size
	for at := pkt.IPv4Size; at < len(h) && h[at] != 0; {
		n := 1
		if h[at] != 1 {
			n = int(h[at+1])
		}
		if h[at]&0x80 != 0 {
			to += copy(h[to:], h[at:at+n])
		}
		at += n
	}
	for to%4 != 0 {
		h[to] = 0
		to++
	}
	h[0] = 0x40 | uint8(to/4)
	return to
}

// completeChecksum finishes a partial transport checksum, which the parts of a
// datagram could not do any more. Such packets lie in one buffer.
func completeChecksum(w *graph.Worker, m *graph.Meta) {
	if m.Flags&graph.Partial == 0 {
		return
	}
	p := w.Packet(m)[m.CsumStart:]
	field := p[m.CsumOffset : m.CsumOffset+2]
	sum := ^pkt.Fold(pkt.Sum(p))
	if sum == 0 && m.Proto == pkt.ProtoUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
	m.Flags &^= graph.Partial
}
