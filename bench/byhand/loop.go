package byhand

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
)

// NextHops is how many neighbours the loop's routes lead to in turn.
const NextHops = 16

// Loop is a peer that does the least which could be called forwarding: a loop
// for each stage over the packets of a vector, without a graph, without counters,
// reasons or ports. It is the floor of what a vector costs in Go.
type Loop struct {
	Sent, Bad uint64 // frames

	ipv6  bool
	n     int
	meta  [graph.VectorMax]loopMeta
	good  [graph.VectorMax]bool
	table *loopTable
	hops  [NextHops + 1]loopHop
	out   []uint64 // transmit ring
}

// loopMeta fills a cache line, as graph.Meta does.
type loopMeta struct {
	off     uint32
	len, l3 uint16
	port    uint16
	hop     uint32
	_       [48]byte
}

type loopHop struct {
	header [14]byte
	port   uint16
	mtu    uint16
}

// NewLoop makes a loop over routes of one family, which lead to the next hops in
// turn: those whose MAC is to, but for its last byte, which is 16 and more.
func NewLoop(ipv6 bool, routes []netip.Prefix, from, to node.MAC) *Loop {
	p := &Loop{ipv6: ipv6, table: newLoopTable(routes), out: make([]uint64, graph.VectorMax)}
	for i := range p.hops {
		h := &p.hops[i]
		to[5] = byte(15 + i)
		copy(h.header[:], to[:])
		copy(h.header[6:], from[:])
		h.header[12] = 0x08
		if ipv6 {
			h.header[12], h.header[13] = 0x86, 0xdd
		}
		h.port, h.mtu = 1, 1514
	}
	return p
}

// Forward does with the frames of metas, which lie in mem, what the graph does,
// in vectors of vec.
func (p *Loop) Forward(mem []byte, metas []graph.Meta, vec int) {
	for rest := metas; len(rest) > 0; rest = rest[p.n:] {
		p.receive(rest[:min(vec, len(rest))])
		if p.ipv6 {
			p.ethernet(mem, 0x86dd)
			p.input6(mem)
			p.lookup(mem, 24, 16)
			p.rewrite6(mem)
		} else {
			p.ethernet(mem, 0x0800)
			p.input4(mem)
			p.lookup(mem, 16, 4)
			p.rewrite4(mem)
		}
		p.transmit()
	}
}

func (p *Loop) receive(from []graph.Meta) {
	p.n = len(from)
	for i := range from {
		m := &p.meta[i]
		m.off, m.len, m.port = from[i].Off, uint16(from[i].Len), 0
	}
}

func (p *Loop) ethernet(mem []byte, ether uint16) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		f := (*[14]byte)(mem[m.off:])
		m.l3 = 14
		p.good[i] = binary.BigEndian.Uint16(f[12:]) == ether
	}
}

// input4 checks version, length, TTL and checksum.
func (p *Loop) input4(mem []byte) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		f := (*[20]byte)(mem[m.off+uint32(m.l3):])
		a, b := binary.LittleEndian.Uint64(f[0:]), binary.LittleEndian.Uint64(f[8:])
		s := a>>32 + a&0xffffffff + b>>32 + b&0xffffffff + uint64(binary.LittleEndian.Uint32(f[16:]))
		s = s>>32 + s&0xffffffff
		s = s>>16 + s&0xffff
		s = s>>16 + s&0xffff
		s = s>>16 + s&0xffff
		ok := f[0] == 0x45 && f[8] > 1 && s == 0xffff && binary.BigEndian.Uint16(f[2:]) <= m.len-m.l3
		p.good[i] = p.good[i] && ok
	}
}

// input6 checks version, length and hop limit.
func (p *Loop) input6(mem []byte) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		f := (*[40]byte)(mem[m.off+uint32(m.l3):])
		ok := f[0]>>4 == 6 && f[7] > 1 && binary.BigEndian.Uint16(f[4:])+40 <= m.len-m.l3
		p.good[i] = p.good[i] && ok
	}
}

func (p *Loop) lookup(mem []byte, at, size uint32) {
	t := p.table
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		from := m.off + uint32(m.l3) + at
		m.hop = t.lookup(mem[from : from+size])
		p.good[i] = p.good[i] && m.hop != 0
	}
}

func (p *Loop) rewrite4(mem []byte) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		h := &p.hops[m.hop%(NextHops+1)]
		f := (*[34]byte)(mem[m.off:])
		*(*[14]byte)(f[:]) = h.header
		f[22]--
		c := uint32(binary.LittleEndian.Uint16(f[24:])) + 1
		binary.LittleEndian.PutUint16(f[24:], uint16(c+c>>16))
		m.port = h.port
		p.good[i] = p.good[i] && m.len <= h.mtu
	}
}

func (p *Loop) rewrite6(mem []byte) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		h := &p.hops[m.hop%(NextHops+1)]
		f := (*[54]byte)(mem[m.off:])
		*(*[14]byte)(f[:]) = h.header
		f[21]--
		m.port = h.port
		p.good[i] = p.good[i] && m.len <= h.mtu
	}
}

func (p *Loop) transmit() {
	out := p.out[:graph.VectorMax]
	for i := range p.meta[:p.n] {
		if !p.good[i] {
			p.Bad++
			continue
		}
		m := &p.meta[i]
		out[i] = uint64(m.off)<<16 | uint64(m.len)
		p.Sent++
	}
}

// loopTable is a trie of 16 bits and then 8 at a step (16-8-8 for IPv4), with
// every shorter route written into all cells that it covers.
type loopTable struct {
	root  [1 << 16]uint32
	nodes [][256]uint32
}

const inner = 1 << 31 // a cell that leads on to nodes[cell&^inner]

func newLoopTable(routes []netip.Prefix) *loopTable {
	type entry struct {
		prefix netip.Prefix
		hop    uint32
	}
	order := make([]entry, len(routes))
	for i, p := range routes {
		order[i] = entry{p, uint32(i%NextHops + 1)}
	}
	slices.SortFunc(order, func(a, b entry) int { return a.prefix.Bits() - b.prefix.Bits() })
	t := &loopTable{}
	for _, e := range order { // short ones first: longer ones overwrite them
		t.insert(e.prefix, e.hop)
	}
	return t
}

func (t *loopTable) insert(p netip.Prefix, hop uint32) {
	b := p.Addr().AsSlice()
	first, bits := int(b[0])<<8|int(b[1]), p.Bits()
	if bits <= 16 {
		fill(t.root[first:first+1<<(16-bits)], hop)
		return
	}
	at := t.below(&t.root[first])
	bits -= 16
	for b = b[2:]; bits > 8; b, bits = b[1:], bits-8 {
		cell := t.nodes[at][b[0]]
		next := t.below(&cell)
		t.nodes[at][b[0]] = cell
		at = next
	}
	fill(t.nodes[at][b[0]:int(b[0])+1<<(8-bits)], hop)
}

func fill(cells []uint32, hop uint32) {
	for i := range cells {
		cells[i] = hop
	}
}

// below is the node that a cell leads to, made if there is none yet.
func (t *loopTable) below(cell *uint32) uint32 {
	if *cell&inner == 0 {
		var n [256]uint32
		fill(n[:], *cell)
		t.nodes = append(t.nodes, n)
		*cell = inner | uint32(len(t.nodes)-1)
	}
	return *cell &^ inner
}

// lookup is the hop of an address, 0 if there is none.
func (t *loopTable) lookup(addr []byte) uint32 {
	e := t.root[binary.BigEndian.Uint16(addr)]
	for _, b := range addr[2:] {
		if e&inner == 0 {
			return e
		}
		e = t.nodes[e&^inner][b]
	}
	return e
}
