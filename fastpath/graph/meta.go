// Package graph is the engine of the packet path: vectors of packets visit
// nodes along a forward-only graph, one worker per OS thread.
//
// A node is a function from (vector, tables) to one Edge per packet. It knows
// nothing of its neighbours: the graph is declared once (Spec), checked, and
// put in topological order, so that a worker walks it in one pass:
//
//	receive ► pending[node] ► Process ► edges ► pending[later nodes] ... ► transmit
//
// The engine also keeps the account: every packet that came in or was made
// leaves as transmitted, punted, dropped for one Reason, consumed, or is held.
package graph

import "margay.dev/margay/fastpath/umem"

// Meta is what the stops have learnt about one packet: 64 bytes, no pointers.
//
// The packet's bytes begin at Off in the arena; while it is in one buffer they
// are mem[Off:Off+Len], and headers always lie in the first buffer.
type Meta struct {
	Off  uint32   // arena offset of the first byte
	Len  uint32   // bytes of the packet, all buffers together
	Head uint32   // bytes of it in the first buffer; equals Len unless Bufs > 1
	Buf  umem.Buf // the first buffer

	InPort  uint16 // port it came in by, NoPort for one we made
	OutPort uint16 // port it leaves by, set by rewrite and by nodes that answer
	L3      uint16 // bytes from Off to the IP header
	L4      uint16 // bytes from Off to the transport header, 0 if there is none in this packet

	Flags    Flags
	GSOSize  uint16 // payload bytes per wire segment of a superpacket, else 0
	Segments uint16 // wire segments it stands for, at least 1
	GSO      GSOKind
	Proto    uint8 // IP protocol of the transport header, after extension headers

	CsumStart  uint16 // Partial: bytes from Off to where the checksum begins
	CsumOffset uint16 // Partial: bytes from there to the checksum field
	VLAN       uint16 // outermost VLAN id it came with, 0 if untagged
	Bufs       uint8  // buffers it fills
	Reason     Reason // why it is dropped, set with edge 0

	Adjacency uint32 // index into the FIB's adjacencies
	Hash      uint32 // of the flow, for ECMP; 0 until somebody needs it
	Aux       uint32 // from a stop to the next one it chose: ICMP type, code and MTU
	Trace     uint32 // by which a Tap knows it again, 0 while none follows it

	// To is the first 64 bits of the destination address, an IPv4 address in the
	// upper half. Stops that look it up need not touch the packet's bytes, which are
	// seldom near: all packets lie at one offset of their chunks and compete for the
	// same sets of the cache.
	To uint64
}

// NoPort is the port of packets that we made ourselves.
const NoPort uint16 = 1<<16 - 1

// Flags are facts about a packet.
type Flags uint16

// The facts a stop may note.
const (
	IPv6      Flags = 1 << iota // the IP header is version 6
	Partial                     // L4 checksum field holds the pseudo-header sum only (CHECKSUM_PARTIAL)
	Verified                    // L4 checksum was verified by a source we trust
	Fragment                    // part of a fragmented datagram
	FirstPart                   // the fragment at offset 0
	FromUs                      // we made it: its hop count is not taken down
	DontFrag                    // IPv4 DF, and every IPv6 packet
	Broadcast                   // its destination MAC was a group address
	Expiring                    // its TTL or hop limit is 1 or 0: it may not travel further
	Options                     // IPv4 options or IPv6 extension headers present
	Judged                      // policy has allowed it, as far as policy concerns it
	OnTrial                     // no flow speaks for it: whom policy concerns must judge it
	Told                        // who learns names from answers has been shown it
)

var flagNames = [...]string{
	"ipv6", "partial-checksum", "verified-checksum", "fragment", "first-fragment", "from-us", "dont-fragment", "group", "expiring", "options", "judged", "on-trial", "told",
}

// Names are the flags that are set, in the order of their bits.
func (f Flags) Names() (names []string) {
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// GSOKind is the kind of a superpacket, as virtio-net names them.
type GSOKind uint8

// The kinds of superpacket that ports exchange.
const (
	GSONone GSOKind = iota
	GSOTCP4
	GSOTCP6
	GSOUDP // UDP segmentation (USO), both families
)
