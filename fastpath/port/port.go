package port

import (
	"net"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

// Kind is what a port is made of.
type Kind string

// The kinds of port.
const (
	KindTUN    Kind = "tun"    // no link layer: packets begin at the IP header
	KindXSK    Kind = "xsk"    // Ethernet
	KindMemory Kind = "memory" // as its configuration says
	KindPcap   Kind = "pcap"   // as its configuration says
)

// Port is a door of the graph as its owner sees it. Its methods are safe for
// concurrent use, but Close must wait until no worker drives the queues.
type Port interface {
	// Name is what the port is called in messages: its device, where it has one.
	Name() string
	// Kind is what the port is made of.
	Kind() Kind
	// Queues are what the workers drive, in the order of the device's queues.
	Queues() []graph.Queue
	// MTU is the most bytes of a packet from the IP header on.
	MTU() int
	// SetMTU follows a change of the device's MTU, in bytes from the IP header
	// on. It does not change the device.
	SetMTU(mtu int)
	// MAC is the port's address; nil where there is no link layer.
	MAC() net.HardwareAddr
	// Fallbacks tells, a line each, what was asked for and is not in force.
	Fallbacks() []string
	// Statistics is what the port counted beyond the engine's counters.
	Statistics() []Statistic
	// Close gives the port's device back and its buffers to c, which nobody
	// else may use meanwhile.
	Close(c *umem.Cache) error
}

// Statistic is one named running total.
type Statistic struct {
	Name  string // words joined by dashes
	Value uint64
}

// refuseAll leaves a whole vector to the caller, for one reason.
//
//fastpath:hot
func refuseAll(v *graph.Vector, r graph.Reason) int {
	for i := range v.Len() {
		v.Meta(i).Reason = r
	}
	return v.Len()
}
