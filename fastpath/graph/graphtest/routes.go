package graphtest

import (
	"encoding/binary"
	"net/netip"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/internal/pkt"
)

// Adjacency puts a in force under a new id.
func (l *Lab) Adjacency(a fib.Adjacency) fib.AdjacencyID {
	l.TB.Helper()
	l.adjs++
	l.SetAdjacency(l.adjs, a)
	return l.adjs
}

// SetAdjacency puts a in force under id.
func (l *Lab) SetAdjacency(id fib.AdjacencyID, a fib.Adjacency) {
	l.TB.Helper()
	if err := l.Tables.FIB.SetAdjacency(id, a); err != nil {
		l.TB.Fatal(err)
	}
}

// Route sends p to adjacencies in equal shares, by a next hop of its own.
func (l *Lab) Route(p netip.Prefix, adjs ...fib.AdjacencyID) fib.NextHopID {
	l.TB.Helper()
	l.hops++
	members := make([]fib.Member, len(adjs))
	for i, a := range adjs {
		members[i] = fib.Member{Adjacency: a, Weight: 1}
	}
	if err := l.Tables.FIB.SetNextHop(l.hops, members); err != nil {
		l.TB.Fatal(err)
	}
	if err := l.Tables.FIB.SetRoute(p, l.hops); err != nil {
		l.TB.Fatal(err)
	}
	return l.hops
}

// Rewrite is a complete adjacency out of port: with an Ethernet header for mac,
// and the tag of a sub-port, or none on an L3 port. gw may be the zero Addr.
func (l *Lab) Rewrite(port uint16, ipv6 bool, mac node.MAC, gw netip.Addr) fib.Adjacency {
	p := l.port(port)
	a := fib.Adjacency{Kind: fib.Rewrite, Port: port, MTU: uint32(p.MTU)}
	a.SetGateway(gw)
	if p.Flags&node.L2 == 0 {
		return a
	}
	copy(a.Header[:6], mac[:])
	copy(a.Header[6:12], p.MAC[:])
	a.HeaderLen = pkt.EthernetSize
	if p.VLAN != 0 {
		binary.BigEndian.PutUint16(a.Header[12:], pkt.EtherVLAN)
		binary.BigEndian.PutUint16(a.Header[14:], p.VLAN)
		a.HeaderLen += pkt.VLANSize
	}
	kind := uint16(pkt.EtherIPv4)
	if ipv6 {
		kind = pkt.EtherIPv6
	}
	binary.BigEndian.PutUint16(a.Header[a.HeaderLen-2:], kind)
	return a
}

// Incomplete is an adjacency out of port to a gateway that must be asked for.
func (l *Lab) Incomplete(port uint16, gw netip.Addr) fib.Adjacency {
	a := fib.Adjacency{Kind: fib.Incomplete, Port: port, MTU: uint32(l.port(port).MTU)}
	a.SetGateway(gw)
	return a
}

// Way is the adjacency that packets for addr go to with this flow hash.
func (l *Lab) Way(addr netip.Addr, hash uint32) fib.AdjacencyID {
	view := l.Tables.FIB.View()
	if addr.Is4() {
		b := addr.As4()
		return view.Resolve(view.Lookup4(binary.BigEndian.Uint32(b[:])), hash)
	}
	b := addr.As16()
	return view.Resolve(view.Lookup6(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])), hash)
}
