package forward

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"margay.dev/margay/fastpath/graph"
)

// plain is a peer that does the least which could be called forwarding: a loop
// for each stage over the packets of a vector, without a graph, without counters,
// reasons or ports. It is the floor of what a vector costs in Go.
type plain struct {
	n     int
	meta  [graph.VectorMax]plainMeta
	good  [graph.VectorMax]bool
	table *plainTable
	hops  [nextHops + 1]plainHop
	out   []uint64 // transmit ring
	sent  uint64
	bad   uint64
}

// plainMeta fills a cache line, as graph.Meta does.
type plainMeta struct {
	off     uint32
	len, l3 uint16
	port    uint16
	hop     uint32
	_       [48]byte
}

type plainHop struct {
	header [14]byte
	port   uint16
	mtu    uint16
}

func newPlain(ipv6 bool, routes []netip.Prefix) *plain {
	p := &plain{table: newPlainTable(routes), out: make([]uint64, graph.VectorMax)}
	from, to := ourMAC(), peerMAC()
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

// round is what bed.round is.
func (p *plain) round(s *stream, vec int) time.Duration {
	s.write()
	start := time.Now()
	for rest := s.metas; len(rest) > 0; rest = rest[p.n:] {
		p.receive(rest[:min(vec, len(rest))])
		if s.ipv6 {
			p.ethernet(s.mem, 0x86dd)
			p.input6(s.mem)
			p.lookup(s.mem, 24, 16)
			p.rewrite6(s.mem)
		} else {
			p.ethernet(s.mem, 0x0800)
			p.input4(s.mem)
			p.lookup(s.mem, 16, 4)
			p.rewrite4(s.mem)
		}
		p.transmit()
	}
	return time.Since(start)
}

func (p *plain) nanos(s *stream, vec int, d time.Duration) float64 {
	return nanos(len(s.metas), d, func() time.Duration { return p.round(s, vec) })
}

func (p *plain) receive(from []graph.Meta) {
	p.n = len(from)
	for i := range from {
		m := &p.meta[i]
		m.off, m.len, m.port = from[i].Off, uint16(from[i].Len), 0
	}
}

func (p *plain) ethernet(mem []byte, ether uint16) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		f := (*[14]byte)(mem[m.off:])
		m.l3 = 14
		p.good[i] = binary.BigEndian.Uint16(f[12:]) == ether
	}
}

// input4 checks version, length, TTL and checksum.
func (p *plain) input4(mem []byte) {
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
func (p *plain) input6(mem []byte) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		f := (*[40]byte)(mem[m.off+uint32(m.l3):])
		ok := f[0]>>4 == 6 && f[7] > 1 && binary.BigEndian.Uint16(f[4:])+40 <= m.len-m.l3
		p.good[i] = p.good[i] && ok
	}
}

func (p *plain) lookup(mem []byte, at, size uint32) {
	t := p.table
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		from := m.off + uint32(m.l3) + at
		m.hop = t.lookup(mem[from : from+size])
		p.good[i] = p.good[i] && m.hop != 0
	}
}

func (p *plain) rewrite4(mem []byte) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		h := &p.hops[m.hop%(nextHops+1)]
		f := (*[34]byte)(mem[m.off:])
		*(*[14]byte)(f[:]) = h.header
		f[22]--
		c := uint32(binary.LittleEndian.Uint16(f[24:])) + 1
		binary.LittleEndian.PutUint16(f[24:], uint16(c+c>>16))
		m.port = h.port
		p.good[i] = p.good[i] && m.len <= h.mtu
	}
}

func (p *plain) rewrite6(mem []byte) {
	for i := range p.meta[:p.n] {
		m := &p.meta[i]
		h := &p.hops[m.hop%(nextHops+1)]
		f := (*[54]byte)(mem[m.off:])
		*(*[14]byte)(f[:]) = h.header
		f[21]--
		m.port = h.port
		p.good[i] = p.good[i] && m.len <= h.mtu
	}
}

func (p *plain) transmit() {
	out := p.out[:graph.VectorMax]
	for i := range p.meta[:p.n] {
		if !p.good[i] {
			p.bad++
			continue
		}
		m := &p.meta[i]
		out[i] = uint64(m.off)<<16 | uint64(m.len)
		p.sent++
	}
}

// plainTable is a trie of 16 bits and then 8 at a step (16-8-8 for IPv4), with
// every shorter route written into all cells that it covers.
type plainTable struct {
	root  [1 << 16]uint32
	nodes [][256]uint32
}

const inner = 1 << 31 // a cell that leads on to nodes[cell&^inner]

func newPlainTable(routes []netip.Prefix) *plainTable {
	type entry struct {
		prefix netip.Prefix
		hop    uint32
	}
	order := make([]entry, len(routes))
	for i, p := range routes {
		order[i] = entry{p, uint32(i%nextHops + 1)}
	}
	slices.SortFunc(order, func(a, b entry) int { return a.prefix.Bits() - b.prefix.Bits() })
	t := &plainTable{}
	for _, e := range order { // short ones first: longer ones overwrite them
		t.insert(e.prefix, e.hop)
	}
	return t
}

func (t *plainTable) insert(p netip.Prefix, hop uint32) {
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
func (t *plainTable) below(cell *uint32) uint32 {
	if *cell&inner == 0 {
		var n [256]uint32
		fill(n[:], *cell)
		t.nodes = append(t.nodes, n)
		*cell = inner | uint32(len(t.nodes)-1)
	}
	return *cell &^ inner
}

// lookup is the hop of an address, 0 if there is none.
func (t *plainTable) lookup(addr []byte) uint32 {
	e := t.root[binary.BigEndian.Uint16(addr)]
	for _, b := range addr[2:] {
		if e&inner == 0 {
			return e
		}
		e = t.nodes[e&^inner][b]
	}
	return e
}
