// Package node holds the stops of the packet path, one file each, and the
// tables they read. The walk:
//
//	         ┌► arp ► tx
//	L2 rx ► eth-input ► ip-input ► nd ► tx
//	              L3 rx ┘  └────► route ─────────────► rewrite ► tx
//	                               ├► icmp-echo ───────┤
//	                               ├► icmp-error ──────┤
//	                               ├► fragment ────────┤
//	                               ├► resolve (holds) ─┘ ► tx
//	                               └► punt ► tx (host port)
//
// Every stop can also drop. Each file opens with what its node uses and sets.
package node

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/label"
)

// Entry nodes for ports: L2 ports deliver Ethernet frames, L3 ports IP packets.
const (
	EntryL2 = "eth-input"
	EntryL3 = "ip-input"
)

// MAC is an Ethernet address.
type MAC [6]byte

// PortFlags say how packets of a port are treated.
type PortFlags uint16

// The ways a port may differ from a plain L3 port.
const (
	L2            PortFlags = 1 << iota // carries Ethernet frames
	Owned                               // all frames are ours: we answer ARP, ND and echo
	Workload                            // an endpoint is behind it: strict source checks
	NoPolicyState                       // endpoint without policy state: forwards nothing
	HostPort                            // leads to the node's own stack
	GSO                                 // takes superpackets and packets with partial checksums
)

// Port is what the nodes know of a port. It holds no pointers.
type Port struct {
	Flags PortFlags
	MTU   uint16 // L3, bytes; 0 if the index is unused
	VLAN  uint16 // of a sub-port, else 0
	Main  uint16 // port whose queues a sub-port uses; its own index otherwise
	MAC   MAC    // ours on it
	Peer  MAC    // of the only station behind it, zero if it is not known

	mac, peer uint64 // the same as words
}

// State is what the nodes read besides the FIB. A published State is never
// changed; Ports is indexed by port index, and a lookup beyond it is "no port".
type State struct {
	Ports []Port
	// Answers are the addresses that we answer ARP and neighbour
	// discovery for, by port.
	Answers map[Answer]struct{}
	// SubPorts finds the port of a VLAN on a main port.
	SubPorts map[SubPort]uint16
	// HostPort is the index of the host port, graph.NoPort without one.
	HostPort uint16
	// Sources are our own addresses to send ICMP errors and requests from,
	// by port, and of last resort at graph.NoPort.
	Sources map[Source]netip.Addr
	// Policy is what judges the packets of who is behind a port, by its index; nil
	// where nobody's policy does. It is empty while none has any.
	Policy []*judge.Endpoint

	since []uint64 // generation in which each of Policy was put in force
}

// policy is what judges the packets of who is behind port i, or nil.
//
//fastpath:hot
func (s *State) policy(i uint16) *judge.Endpoint {
	if int(i) < len(s.Policy) {
		return s.Policy[i]
	}
	return nil
}

// bench is who judges what goes from one port to another.
type bench struct {
	by    [2]*judge.Endpoint
	asked [2]uint32 // their ports plus 1, 0 for nobody
	since uint64    // generation in which the younger of them was put in force
}

// bench is whose policy concerns packets between two ports. What a node sends to its
// own endpoints is not judged there (Calico: traffic from the endpoint's own node is
// always allowed), and host endpoints are not asked about the node's own traffic.
//
//fastpath:hot
func (s *State) bench(from, to uint16) (b bench) {
	if e := s.policy(from); e != nil && (!e.Host || to != s.HostPort) {
		b.by[0], b.asked[0], b.since = e, uint32(from)+1, s.since[from]
	}
	if e := s.policy(to); e != nil && from != s.HostPort {
		b.by[1], b.asked[1], b.since = e, uint32(to)+1, max(b.since, s.since[to])
	}
	return b
}

// concerned says whether connections between two ports are to be known: somebody's
// policy is about those of one direction at least.
//
//fastpath:hot
func (s *State) concerned(in, out uint16) bool {
	e, f := s.policy(in), s.policy(out)
	through := in != s.HostPort && out != s.HostPort
	return e != nil && (through || !e.Host) || f != nil && (through || !f.Host)
}

// Answer is an address of ours on a port.
type Answer struct {
	Port uint16
	Addr netip.Addr
}

// SubPort is a VLAN on a main port.
type SubPort struct{ Main, VLAN uint16 }

// Source asks for our address of a family on a port.
type Source struct {
	Port uint16
	IPv6 bool
}

// WorkloadGateways are the addresses that every workload port answers for, as
// Calico does: pods route by them whatever node they are on.
var WorkloadGateways = [2]netip.Addr{
	netip.AddrFrom4([4]byte{169, 254, 1, 1}),
	netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1}),
}

// NeighbourEvent is what a worker noticed of a neighbour and cannot act on:
// tables have one writer, and that is not a worker.
type NeighbourEvent struct {
	Kind NeighbourKind
	Port uint16
	Addr netip.Addr
	MAC  MAC // Learned only
}

// NeighbourKind is what happened.
type NeighbourKind uint8

// The events of neighbours.
const (
	// Needed: packets wait for the address. On a bifurcated port ask the
	// kernel; on an owned port the node itself is already asking.
	Needed NeighbourKind = iota
	// Learned: the address was seen with MAC, by an answer or a request.
	Learned
)

// Tables is all that the nodes of one forwarder read, and where they report.
type Tables struct {
	FIB    *fib.Table
	Events chan NeighbourEvent // never blocks a worker: a full one loses the event, and it comes again
	state  atomic.Pointer[State]
	Court  *judge.Court // judges over the same FIB
}

// NewTables makes empty tables: no port, no route.
func NewTables() *Tables {
	return NewTablesOver(label.New(nil))
}

// NewTablesOver is NewTables with a label table that somebody writes.
func NewTablesOver(labels *label.Table) *Tables {
	t := &Tables{FIB: fib.New(), Events: make(chan NeighbourEvent, 1024)}
	t.Court = judge.NewCourt(t.FIB, labels)
	t.state.Store(&State{HostPort: graph.NoPort})
	return t
}

// Publish puts s in force from the next vector on; s must not change any more.
func (t *Tables) Publish(s *State) {
	for i := range s.Ports {
		p := &s.Ports[i]
		p.mac, p.peer = p.MAC.word(), p.Peer.word()
		if p.MTU == 0 {
			p.Main = graph.NoPort // or an adjacency older than s would lead to port 0
		}
	}
	was := t.state.Load()
	s.since = make([]uint64, len(s.Policy))
	for i, e := range s.Policy {
		s.since[i] = t.Court.Coming()
		if i < len(was.Policy) && was.Policy[i] == e {
			s.since[i] = was.since[i]
		}
	}
	t.state.Store(s)
	if s.HostPort != was.HostPort || !slices.Equal(s.Policy, was.Policy) {
		t.Court.Begin()
	}
	t.Court.Moved()
}

// word is the address as the low six bytes of a little-endian load.
func (m MAC) word() uint64 {
	var b [8]byte
	copy(b[:], m[:])
	return binary.LittleEndian.Uint64(b[:])
}

// port is what is known of port i; the zero Port where there is none.
//
//fastpath:hot
func (s *State) port(i uint16) *Port {
	if int(i) < len(s.Ports) {
		return &s.Ports[i]
	}
	return &noPort
}

// noPort is what a stale index sees.
//
// arch:var its address is given out, but nobody writes through it
var noPort = Port{Main: graph.NoPort}

// State is what is in force.
func (t *Tables) State() *State { return t.state.Load() }

func (t *Tables) tell(e NeighbourEvent) {
	select {
	case t.Events <- e:
	default:
	}
}
