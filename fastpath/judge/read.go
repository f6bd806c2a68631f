package judge

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// Read takes from the packets of idx what the flow table must know, into packets,
// which is as long. now is the flows' time.
//
//fastpath:hot
func (d *Desk) Read(now flow.Tick, mem []byte, metas *graph.Slots, idx []uint16, packets []flow.Packet) {
	for {
		n := plain(mem, metas, idx, packets)
		if n == len(idx) {
			return
		}
		d.slow(now, mem, &metas[idx[n]&graph.SlotMask], &packets[n])
		idx, packets = idx[n+1:], packets[n+1:]
	}
}

// plainPortable reads packets from the front of idx, as long as they are whole segments that
// neither open nor end a connection, or of UDP, and returns how many. What it
// stops at, for whatever reason, is for slow, which would say the same of all
// that it reads. It calls nothing.
//
//fastpath:hot
func plainPortable(mem []byte, metas *graph.Slots, idx []uint16, packets []flow.Packet) int {
	const (
		size  = 20 // of a TCP header without options
		udp   = 8
		kinds = uint32(flow.SYN|flow.FIN|flow.RST|flow.ACK) << 16
	)
	packets = packets[:len(idx)]
	_ = metas[0] // not nil: asked once, not for each packet
	for i, slot := range idx {
		m, p := &metas[slot&graph.SlotMask], &packets[i]
		l3, l4, flags := uint32(m.L3), uint32(m.L4), m.Flags
		if l4 < l3+pkt.IPv4Size || l4+udp > m.Head || flags&graph.FromUs != 0 {
			return i
		}
		at, to, k := int(m.Off+l3), int(m.Off+l4), &p.Key
		tail := uint64(m.Proto)<<32 | uint64(binary.BigEndian.Uint32(mem[to:to+4]))
		if flags&graph.IPv6 == 0 {
			addrs := binary.BigEndian.Uint64(mem[at+12 : at+20])
			k.SrcHi, k.SrcLo, k.DstHi, k.DstLo, k.Tail = 0, addrs>>32, 0, addrs&0xffffffff, tail|flow.TailIPv4
		} else {
			a := (*[32]byte)(mem[at+8 : at+40])
			k.SrcHi, k.SrcLo = binary.BigEndian.Uint64(a[0:8]), binary.BigEndian.Uint64(a[8:16])
			k.DstHi, k.DstLo, k.Tail = binary.BigEndian.Uint64(a[16:24]), binary.BigEndian.Uint64(a[24:32]), tail|flow.TailIPv6
		}
		p.Kind, p.Flags = flow.Plain, 0
		if m.Proto == pkt.ProtoTCP {
			if l4+size > m.Head {
				return i
			}
			h := (*[size]byte)(mem[to : to+size])
			word := binary.BigEndian.Uint32(h[12:16]) // header's words 4, reserved 4, flags 8, window 16 bits
			own := word >> 28 * 4
			if word&kinds != uint32(flow.ACK)<<16 || own < size || own > m.Head-l4 {
				return i
			}
			p.Seq, p.Ack = binary.BigEndian.Uint32(h[4:8]), binary.BigEndian.Uint32(h[8:12])
			p.Window, p.Length, p.Kind, p.Flags = uint16(word), m.Len-l4-own, flow.Steady, uint8(word>>16)
		} else if m.Proto != pkt.ProtoUDP {
			return i
		}
		m.Flags = flags &^ (graph.Judged | graph.OnTrial)
		p.Bytes, p.Segments, p.Scale, p.Why = m.Len-l3, m.Segments, 0, flow.NoReason
	}
	return len(idx)
}

// slow takes it from any packet. A fragment without transport header gets the key of
// its datagram's first. One whose first is not known stays as it is: whether that
// matters is known when it is known where the packet goes.
//
//fastpath:hot
func (d *Desk) slow(now flow.Tick, mem []byte, m *graph.Meta, p *flow.Packet) {
	m.Flags &^= graph.Judged | graph.OnTrial
	headers, s := mem[m.Off+uint32(m.L3):m.Off+m.Head], ShapeOf(m)
	p.Read(headers, s)
	if m.Flags&graph.FromUs != 0 {
		p.Kind = flow.Untracked
	}
	var part flow.Part
	if p.Kind == flow.Later && part.Read(headers, s) {
		p.Why = d.Flows.Follow(now, &part, p)
	}
}
