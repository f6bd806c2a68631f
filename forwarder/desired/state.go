// Package desired is what a client wants the forwarder to do: typed, checked
// and whole.
//
//	chunks ──Add──► Change ──Apply──► State     (or every fault at once, and the State as it was)
//
// A State that exists is consistent: each port, next hop and address that an
// object names is there, no two endpoints share an address, every prefix is
// masked. Nothing in this package knows how a state is put in force.
package desired

import (
	"fmt"
	"net/netip"
	"slices"
)

// Limits of a state.
const (
	MaxChunk   = 1 << 20   // bytes of one chunk on the wire
	MaxCommit  = 1 << 30   // bytes of all chunks of one commit
	MaxPorts   = 4000      // of the graph's 4096 indexes; the rest is the forwarder's own
	MaxNextHop = 1<<24 - 1 // highest id of a next hop
	MaxMembers = 128       // of one next hop
	maxName    = 32        // bytes of a port's name
	maxDevice  = 15        // bytes of a network device's name (IFNAMSIZ - 1)
)

// MAC is an Ethernet address; zero is none.
type MAC [6]byte

// PortKind says what a port is.
type PortKind uint8

// The kinds of port.
const (
	XSK PortKind = iota + 1 // AF_XDP on a network device
	TUN                     // a TUN device with offloads
)

// String is the kind as inspection shows it.
func (k PortKind) String() string {
	switch k {
	case XSK:
		return "xsk"
	case TUN:
		return "tun"
	}
	return "none"
}

// XDPMode says where the steering program of an XSK port runs.
type XDPMode uint8

// The modes, by the contract's numbers.
const (
	ModeAuto XDPMode = iota
	ModeNative
	ModeGeneric
)

// Port is a door of the graph.
type Port struct {
	Name   string
	Device string // never empty
	NetNS  string // path; empty is the forwarder's own
	MTU    int    // L3, bytes; 0 is the device's
	Queues int    // 0 is the default of the kind
	Kind   PortKind

	Takeover bool // XSK: all frames are ours
	Mode     XDPMode
	BusyPoll bool
	RingSize int // 0 is 2048

	Keep      bool           // TUN: the device outlives the forwarder
	Addresses []netip.Prefix // TUN: to put on the device, inside its namespace
	Routes    []netip.Prefix // TUN: to route to the device, inside its namespace
}

// Equal tells whether two ports are the same in every field.
func (p *Port) Equal(o *Port) bool {
	return p.SameDevice(o) && p.MTU == o.MTU && slices.Equal(p.Addresses, o.Addresses) && slices.Equal(p.Routes, o.Routes)
}

// SameDevice tells whether o can be had from p without opening it anew.
func (p *Port) SameDevice(o *Port) bool {
	return p.Name == o.Name && p.Device == o.Device && p.NetNS == o.NetNS && p.Queues == o.Queues && p.Kind == o.Kind &&
		p.Takeover == o.Takeover && p.Mode == o.Mode && p.BusyPoll == o.BusyPoll && p.RingSize == o.RingSize && p.Keep == o.Keep
}

// Address is an address of our own on a port that is all ours.
type Address struct {
	Port   string
	Prefix netip.Prefix // the address, with the length of its on-link prefix
}

// HopKind says what a next hop does.
type HopKind uint8

// The kinds of next hop, by the contract's numbers.
const (
	Forward HopKind = iota + 1
	Blackhole
	Prohibit
	Punt
)

// String is the kind in lower case.
func (k HopKind) String() string {
	return [...]string{"unspecified", "forward", "blackhole", "prohibit", "punt"}[k%5]
}

// Member is one way of a forwarding next hop.
type Member struct {
	Port    string
	Gateway netip.Addr // zero: the destination is on link
	Weight  uint16     // at least 1
	MAC     MAC        // of the gateway, if known
}

// NextHop is where routes lead.
type NextHop struct {
	ID      uint32
	Kind    HopKind
	Members []Member
}

// Endpoint is a workload behind a port, or the node itself on one of its ports.
type Endpoint struct {
	ID        string
	Port      string
	Addresses []netip.Prefix
	MAC       MAC
	Policy    Policy
	Egress    []Stage // judge what it sends, in this order
	Ingress   []Stage // judge what it is sent
	// StagedEgress and StagedIngress would judge in their place, if policies that
	// are staged were in force: they are asked for counters alone. None: nothing is staged.
	StagedEgress, StagedIngress []Stage
	// HostDenied drops what it sends to its own node, whatever Egress says.
	HostDenied bool
	// Host is set for the node itself: Ingress judges what it forwards that comes by the
	// port, Egress what leaves by it, and what goes past all stages is allowed.
	Host bool
}

// Policy is the state of an endpoint's policy.
type Policy uint8

// The states, by the contract's numbers.
const (
	NoPolicy       Policy = iota // not known yet: it forwards nothing
	PolicyOff                    // forwards everything
	PolicyEnforced               // forwards what its stages allow
)

// HostPort is the way to and from the node's own stack.
type HostPort struct {
	Name      string       // device
	Addresses []netip.Addr // at most one per family
	Routes    []netip.Prefix
	MTU       int
	Guarded   []netip.Prefix
}

// Equal tells whether two host ports are the same; either may be nil.
func (h *HostPort) Equal(o *HostPort) bool {
	if h == nil || o == nil {
		return h == o
	}
	return h.Name == o.Name && h.MTU == o.MTU && slices.Equal(h.Addresses, o.Addresses) &&
		slices.Equal(h.Routes, o.Routes) && slices.Equal(h.Guarded, o.Guarded)
}

// Service is ports or echo ids of a protocol that are ours on the node's addresses.
type Service struct {
	Protocol    uint8
	First, Last uint16
}

// Steering says which packets on bifurcated ports are ours.
type Steering struct {
	Prefixes []netip.Prefix
	Local    []netip.Addr
	Services []Service
}

// State is everything a client wants, by key. Only Apply changes it.
type State struct {
	Ports     map[string]*Port
	Addresses map[Address]struct{}
	NextHops  map[uint32]*NextHop
	Routes    Routes
	Endpoints map[string]*Endpoint
	Host      *HostPort // nil for none
	Steering  Steering
	Sets      map[uint32]Routes // members, each with the number 1
	Programs  map[uint32]*Program
	Rules     map[uint32]*RuleName

	setNames map[uint32]string       // of Sets, of those that have one
	owners   map[netip.Prefix]string // endpoint that has the address
	lengths  [2][129]int             // of owners, by family and length
	devices  map[device]string       // port that has the device
	routed   map[uint32]int          // routes by next hop
	stages   map[uint32]int          // stages of endpoints by program
}

type device struct{ netns, name string }

func (p *Port) device() device { return device{p.NetNS, p.Device} }

// Empty is the state in which nothing is wanted.
func Empty() *State {
	return &State{
		Ports: map[string]*Port{}, Addresses: map[Address]struct{}{}, NextHops: map[uint32]*NextHop{},
		Routes: NewRoutes(), Endpoints: map[string]*Endpoint{},
		Sets: map[uint32]Routes{}, Programs: map[uint32]*Program{}, Rules: map[uint32]*RuleName{}, stages: map[uint32]int{},
		setNames: map[uint32]string{}, owners: map[netip.Prefix]string{}, devices: map[device]string{}, routed: map[uint32]int{},
	}
}

// Summary tells the size of a state in a line, for logs.
func (s *State) Summary() string {
	return fmt.Sprintf("%d ports, %d addresses, %d next hops, %d routes, %d endpoints",
		len(s.Ports), len(s.Addresses), len(s.NextHops), s.Routes.Len(), len(s.Endpoints))
}
