package node

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// icmp-error ends packets that cannot go on and tells their senders (RFC 792,
// RFC 1812 section 4.3, RFC 4443), where that is due and within a rate.
//
// Uses: Reason, Aux (the MTU), InPort, Flags, Off, Head, L3, L4. It drops every
// packet for the Reason it came with, and emits errors of its own.
func icmpErrorSpec(t *Tables) graph.Spec {
	return graph.Spec{Name: "icmp-error", Edges: replyEdges(), New: func(int) graph.Node { return &icmpError{Tables: t} }}
}

// Errors a worker may send in a second, and at once: enough for every pod's
// path MTU and traceroute, too few to be an amplifier (RFC 4443 section 2.4 f).
const (
	errorsPerSecond = 1000
	errorBurst      = 200
)

type icmpError struct {
	*Tables
	limit bucket
}

// Process answers and drops each packet.
func (n *icmpError) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	for i := range next {
		m := v.Meta(i)
		next[i] = replyDrop
		if !errorDue(w.Packet(m), m) {
			continue
		}
		if !n.limit.take(w.Now) {
			w.Refused()
			continue
		}
		n.answer(w, m)
	}
}

// errorDue says whether the sender of m may be told: never about an error, a
// later part of a datagram, or to somebody who is not one (RFC 1812 section
// 4.3.2.7, RFC 4443 section 2.4 e).
func errorDue(p []byte, m *graph.Meta) bool {
	if m.Flags&(graph.Broadcast|graph.FromUs) != 0 || m.Flags&(graph.Fragment|graph.FirstPart) == graph.Fragment {
		return false
	}
	ipv6 := m.Flags&graph.IPv6 != 0
	if ipv6 && m.Proto != pkt.ProtoICMPv6 || !ipv6 && m.Proto != pkt.ProtoICMP {
		return true
	}
	if m.L4 == 0 || len(p) <= int(m.L4) {
		return false
	}
	kind := p[m.L4]
	if ipv6 {
		return kind >= 128 && kind != pkt.ICMP6Redirect
	}
	return kind == pkt.ICMPEcho || kind == pkt.ICMPEchoReply || kind >= 13 && kind <= 18
}

// answer makes the error that belongs to m and sends it on its way.
func (n *icmpError) answer(w *graph.Worker, m *graph.Meta) {
	ipv6 := m.Flags&graph.IPv6 != 0
	src, ok := n.state.Load().source(m.InPort, ipv6)
	if !ok {
		w.Refused() // no address of ours in that family to speak from
		return
	}
	slot, e, ok := w.Make(graph.MadeICMPError)
	if !ok {
		return
	}
	quoted := w.Packet(m)[m.L3:]
	if ipv6 {
		quoted = quoted[:min(len(quoted), pkt.MinMTU6-pkt.IPv6Size-pkt.ICMPHeaderSize)]
		e.Flags |= graph.IPv6
		e.L4, e.Proto = pkt.IPv6Size, pkt.ProtoICMPv6
	} else {
		quoted = quoted[:min(len(quoted), 576-pkt.IPv4Size-pkt.ICMPHeaderSize)]
		e.L4, e.Proto = pkt.IPv4Size, pkt.ProtoICMP
	}
	size := pkt.ICMPHeaderSize + len(quoted)
	e.Len = uint32(e.L4) + uint32(size)
	e.Head = e.Len
	p := w.Packet(e)
	if ipv6 {
		putIPv6(p, pkt.ProtoICMPv6, 64, src.AsSlice(), quoted[8:24], size)
	} else {
		putIPv4(p, pkt.ProtoICMP, src.AsSlice(), quoted[12:16], size)
	}
	msg := p[e.L4:]
	putError(msg, m, ipv6)
	copy(msg[pkt.ICMPHeaderSize:], quoted)
	finishICMP(msg, pkt.AddressBytes(p, ipv6), ipv6)
	w.Emit(n.sendBack(w.Mem, e), slot)
}

// putError writes the header of the error that tells of m.Reason.
func putError(msg []byte, m *graph.Meta, ipv6 bool) {
	clear(msg[:pkt.ICMPHeaderSize])
	switch {
	case m.Reason == graph.TooBig && ipv6:
		msg[0] = pkt.ICMP6TooBig
		binary.BigEndian.PutUint32(msg[4:], m.Aux)
	case m.Reason == graph.TooBig:
		msg[0], msg[1] = pkt.ICMPUnreachable, pkt.ICMP4FragNeeded
		binary.BigEndian.PutUint16(msg[6:], uint16(m.Aux)) // RFC 1191
	case m.Reason == graph.TTLSpent && ipv6:
		msg[0] = pkt.ICMP6TimeExceeded
	case m.Reason == graph.TTLSpent:
		msg[0] = pkt.ICMPTimeExceeded
	case m.Reason == graph.Prohibited && ipv6:
		msg[0], msg[1] = pkt.ICMP6Unreachable, pkt.ICMP6Prohibited
	case m.Reason == graph.Prohibited:
		msg[0], msg[1] = pkt.ICMPUnreachable, pkt.ICMP4Prohibited
	case m.Reason == graph.Unresolved && ipv6:
		msg[0], msg[1] = pkt.ICMP6Unreachable, pkt.ICMP6AddrUnreached
	case m.Reason == graph.Unresolved:
		msg[0], msg[1] = pkt.ICMPUnreachable, pkt.ICMP4HostUnreached // also where a gateway is silent, as Linux has it
	case ipv6:
		msg[0] = pkt.ICMP6Unreachable // no route
	default:
		msg[0] = pkt.ICMPUnreachable // network unreachable
	}
}

// bucket is a token bucket over the worker's clock.
type bucket struct {
	tokens, last int64 // tokens in billionths
}

func (b *bucket) take(now int64) bool {
	const one = 1_000_000_000
	if b.last == 0 {
		b.tokens = errorBurst * one
	}
	elapsed := min(now-b.last, one)
	b.tokens = min(b.tokens+elapsed*errorsPerSecond, errorBurst*one)
	b.last = max(now, 1)
	if b.tokens < one {
		return false
	}
	b.tokens -= one
	return true
}
