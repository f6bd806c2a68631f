// Package plain accepts the IP headers of plain packets, in as few steps as that takes.
//
// Most packets are: whole in one buffer, no work left to an offload, an IP header
// without options or extensions between addresses that may be forwarded, UDP or TCP
// behind it. What is not plain is not judged here: ip-input has a function for a packet of
// any kind, which would say and note the same of all that is accepted.
package plain

import (
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// Unplain are the flags of packets that need a longer look.
const Unplain = graph.Partial | graph.Broadcast

// IPv4 accepts plain IPv4 packets from the front of idx and returns how many. Their edge
// is edge; next is as long as idx. It sets L4, Proto, Len, Head, To and flag DontFrag of Meta.
//
//fastpath:hot
func IPv4(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int {
	return accept4(mem, metas, idx, next[:len(idx)], edge)
}

// IPv6 is IPv4 for IPv6 packets; it sets flag IPv6 as well.
//
//fastpath:hot
func IPv6(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int {
	return accept6(mem, metas, idx, next[:len(idx)], edge)
}

const (
	window4 = pkt.IPv4Size + 8 // up to where UDP and TCP differ
	window6 = pkt.IPv6Size + 8

	mask4 = 0xff3f<<48 | 0xff // of an IPv4 header's first word: version, header length, and what fragments have

	// n is a multiple of 0xffff exactly if n*inverse, modulo 2^64, is not above multiples.
	inverse   = 0xfffefffefffeffff
	multiples = 0x0001000100010001
)

// What the first octet of an IPv4 address says about it.
const (
	Unicast4   uint8 = iota // may be source and destination
	Multicast4              // destination only, and not ours to forward
	Martian4                // 0/8, 127/8 and 240/4 never appear on a wire
)

// Class4 is what each first octet says.
var Class4 = func() (c [256]uint8) {
	c[0], c[127] = Martian4, Martian4
	for i := 224; i < 240; i++ {
		c[i] = Multicast4
	}
	for i := 240; i < 256; i++ {
		c[i] = Martian4
	}
	return c
}()

// What the first octet of an IPv6 address says about it.
const (
	unicast6 uint8 = iota // may be source and destination
	unsure6               // multicast, or in a prefix of which some may not
)

var class6 = [256]uint8{0x00: unsure6, 0xfe: unsure6, 0xff: unsure6}
