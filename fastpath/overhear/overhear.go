// Package overhear shows packets between endpoints and servers of names to who
// learns names from them, and holds answers until what they say is in force.
//
//	flow ─┬─ query ──────── a copy ──────────────────────► as before
//	      └─ answer ─► overhear (holds) ─ a copy             ▲
//	                       ▲                                 │
//	                       └── Read: its id, or holdFor is over
//
// While nobody listens nothing is copied or held. Nothing is ever dropped here: what
// finds no room goes on, and is counted.
package overhear

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// Port is where servers of names listen, by UDP and TCP (RFC 1035 section 4.2).
const Port = 53

// Room is the longest payload in bytes that is copied.
const Room = 4096

const (
	places    = 64                     // packets that a worker holds
	shares    = 16                     // of them for one endpoint's address
	holdFor   = 500 * time.Millisecond // a stub resolver asks again after seconds
	unheard   = 256                    // copies that may wait for who listens
	seqBits   = 48                     // of an id: the packet's number
	placeBits = 8                      // then its place, and its worker
)

// Of headers: bytes of the shortest, and a flag of TCP (RFC 768, 9293).
const (
	udpSize = 8
	tcpSize = 20
	synFlag = 2
)

// Heard is a copy of a packet.
type Heard struct {
	ID             uint64     // of a packet that is held, for Read; 0 for one that is not
	Client, Server netip.Addr // who asks, and whom
	ClientPort     uint16
	Query          bool // from client to server
	TCP            bool
	Begins         bool   // TCP: SYN is set
	Sequence       uint32 // TCP
	Size           int    // of the payload
	Payload        [Room]byte
}

// Post is where workers leave copies and a listener finds them.
type Post struct {
	ear atomic.Pointer[ear]

	mu    sync.Mutex
	stops []*stop // by worker
	queries
}

// ear is a listener.
type ear struct{ heard chan Heard }

// queries counts copies of what is not held, by all workers.
type queries struct{ shown, lost, unreadable atomic.Uint64 }

// Stats count packets of flows to servers of names, while somebody listened.
type Stats struct {
	Shown      uint64 // copied to who listens
	Lost       uint64 // passed on without: who listens is behind, or no place was free
	Unreadable uint64 // passed on without: fragments, and what is longer than Room
	Read       uint64 // held until what they say was in force
	Overdue    uint64 // held until holdFor was over
}

// NewPost makes one that nobody listens at.
func NewPost() *Post { return &Post{} }

// Listen has what is heard from now on sent to one listener, in the place of the one
// before, who hears nothing more. stop ends that; what is held then goes on.
func (p *Post) Listen() (heard <-chan Heard, stop func()) {
	e := &ear{heard: make(chan Heard, unheard)}
	p.ear.Store(e)
	return e.heard, func() { p.ear.CompareAndSwap(e, nil) }
}

// Read lets held packets go on with the next pass: see graph.Engine.Kick. Ids of
// packets that went on already do nothing. Any goroutine may call it.
func (p *Post) Read(ids []uint64) {
	p.mu.Lock()
	stops := p.stops
	p.mu.Unlock()
	for _, id := range ids {
		if w := int(id >> (seqBits + placeBits)); w < len(stops) && stops[w] != nil {
			stops[w].read[id>>seqBits%places].Store(id)
		}
	}
}

// Stats sums over workers.
func (p *Post) Stats() Stats {
	s := Stats{Shown: p.shown.Load(), Lost: p.lost.Load(), Unreadable: p.unreadable.Load()}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.stops {
		if n != nil {
			s.Read += n.onTime.Load()
			s.Overdue += n.overdue.Load()
		}
	}
	return s
}

// Question shows a packet of a flow to a server of names to who listens if it is for
// the server. It says true for a reply, which is to be shown, and perhaps held, by the
// stop of this package, if it has not been before.
func (p *Post) Question(w *graph.Worker, m *graph.Meta, reply bool) (answer bool) {
	e := p.ear.Load()
	if e == nil || m.Flags&graph.Told != 0 || m.L4 == 0 || m.Proto != pkt.ProtoUDP && m.Proto != pkt.ProtoTCP {
		return false
	}
	if !reply && m.Proto == pkt.ProtoUDP {
		h := Heard{Query: true}
		p.show(e, w.Mem, m, &h)
	}
	return reply
}

// show copies a packet for who listens. It says whether there is anything in it that is
// worth waiting for.
func (p *Post) show(e *ear, mem []byte, m *graph.Meta, h *Heard) bool {
	switch {
	case !h.fill(mem, m):
		p.unreadable.Add(1)
		return false
	case h.Size == 0 && !h.Begins: // TCP acknowledges
		return false
	}
	select {
	case e.heard <- *h:
		p.shown.Add(1)
		return h.Size > 0
	default:
		p.lost.Add(1)
		return false
	}
}

// fill takes from a packet all but its id and way. It is false for one whose payload is
// not all there, more than one datagram, or too long.
func (h *Heard) fill(mem []byte, m *graph.Meta) bool {
	p, l4 := mem[m.Off+uint32(m.L3):m.Off+m.Head], int(m.L4-m.L3)
	h.TCP, h.Begins, h.Sequence = m.Proto == pkt.ProtoTCP, false, 0
	switch {
	case m.Flags&graph.Fragment != 0 || m.Head != m.Len || m.GSO == graph.GSOUDP:
		return false
	case len(p) < l4+udpSize || h.TCP && len(p) < l4+tcpSize:
		return false
	}
	from, to := addresses(p, m.Flags&graph.IPv6 != 0)
	h.Client, h.Server, h.ClientPort = to, from, binary.BigEndian.Uint16(p[l4+2:])
	if h.Query {
		h.Client, h.Server, h.ClientPort = from, to, binary.BigEndian.Uint16(p[l4:])
	}
	payload := p[l4+udpSize:]
	if h.TCP {
		size := int(p[l4+12]>>4) * 4
		if size > len(p)-l4 {
			return false
		}
		payload = p[l4+size:]
		h.Sequence, h.Begins = binary.BigEndian.Uint32(p[l4+4:]), p[l4+13]&synFlag != 0
	}
	if len(payload) > Room {
		return false
	}
	h.Size = copy(h.Payload[:], payload)
	return true
}

// addresses are source and destination of an IP header.
func addresses(p []byte, ipv6 bool) (from, to netip.Addr) {
	if ipv6 {
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
}
