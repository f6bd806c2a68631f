package paths

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/forwarder/desired"
)

// wayKind is what a way does with a packet.
type wayKind uint8

const (
	direct    wayKind = iota + 1 // out of a port without link layer
	attached                     // on link: the graph resolves the destination
	within                       // the same for the prefix of an endpoint, whose packets it may send
	gateway                      // to a neighbour
	station                      // to a MAC address
	local                        // an address of ours on a port
	punt                         // to the host port
	blackhole                    // nowhere
	prohibit                     // nowhere, and the sender is told
)

// way is one way out, and the key of its adjacency.
type way struct {
	kind wayKind
	port string
	addr netip.Addr  // gateway
	mac  desired.MAC // station; gateway, where the client knows it
	six  bool        // family of the packets, where it shows in the link-layer header
}

// adjacency is a way in force.
type adjacency struct {
	id   fib.AdjacencyID
	way  way
	refs int
	down bool
	now  fib.Adjacency
}

// acquire puts a way in force, or counts one more user of it.
func (w *Writer) acquire(to way) (*adjacency, error) {
	a := w.ways[to]
	if a == nil {
		id, ok := w.adjIDs.take()
		if !ok {
			return nil, fmt.Errorf("all %d adjacencies are in use", w.adjIDs.max)
		}
		a = &adjacency{id: fib.AdjacencyID(id), way: to}
		w.ways[to] = a
		if to.kind == gateway {
			w.join(a)
		}
		if err := w.render(a); err != nil {
			w.forget(a)
			return nil, err
		}
	}
	a.refs++
	return a, nil
}

func (w *Writer) release(a *adjacency) {
	if a.refs--; a.refs == 0 {
		w.forget(a)
	}
}

func (w *Writer) forget(a *adjacency) {
	delete(w.ways, a.way)
	if a.way.kind == gateway {
		w.leave(a)
	}
	if a.down {
		w.fib.SetMemberDown(a.id, false)
	}
	_ = w.fib.SetAdjacency(a.id, fib.Adjacency{}) // an id that was taken is never refused
	w.adjIDs.retire(uint32(a.id))
}

// render brings the adjacency of a way up to date with its port and neighbour.
func (w *Writer) render(a *adjacency) error {
	want, down := w.picture(a.way)
	if want != a.now {
		if err := w.fib.SetAdjacency(a.id, want); err != nil {
			return err
		}
		a.now = want
	}
	if down != a.down {
		w.fib.SetMemberDown(a.id, down)
		a.down = down
	}
	return nil
}

// picture is what the FIB should hold for a way, and whether it is out of order.
func (w *Writer) picture(to way) (a fib.Adjacency, down bool) {
	port, known := w.ports[to.port]
	a.Port, a.MTU = port.Index, uint32(port.MTU)
	down = known && !port.Up
	switch to.kind {
	case direct:
		a.Kind = fib.Rewrite
	case attached:
		a.Kind = fib.Attached
	case within:
		a.Kind = fib.Incomplete
	case station:
		a.Kind = fib.Rewrite
		header(&a, to.mac, port.MAC, to.six)
	case gateway:
		a.Kind = fib.Incomplete
		a.SetGateway(to.addr)
		n := w.neigh[neighbourKey{to.port, to.addr}]
		if mac := n.addressFor(to); mac != (desired.MAC{}) {
			a.Kind = fib.Rewrite
			header(&a, mac, port.MAC, to.six)
		}
		down = down || n.failed && to.mac == desired.MAC{}
	case local:
		a.Kind = fib.Local
		down = false
	case punt:
		host := w.ports[HostName]
		a.Kind, a.Port, a.MTU = fib.Punt, host.Index, uint32(host.MTU)
	case blackhole:
		a.Kind = fib.Blackhole
	case prohibit:
		a.Kind = fib.Prohibit
	}
	return a, down
}

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// header writes the Ethernet header to prepend.
func header(a *fib.Adjacency, dst, src desired.MAC, six bool) {
	copy(a.Header[:], dst[:])
	copy(a.Header[6:], src[:])
	etherType := uint16(etherIPv4)
	if six {
		etherType = etherIPv6
	}
	binary.BigEndian.PutUint16(a.Header[12:], etherType)
	a.HeaderLen = 14
}

// SetPort brings every way out of a port up to date with it: its MTU or MAC has
// changed, it went down or came up. The host port is named HostName.
func (w *Writer) SetPort(p Port) {
	w.ports[p.Name] = p
	for _, a := range w.ways {
		if a.way.port == p.Name || p.Name == HostName && a.way.kind == punt {
			_ = w.render(a) // an id in use is never refused
		}
	}
}

// dropPort forgets a port that no way leads to any more, and its neighbours.
func (w *Writer) dropPort(name string) {
	w.Forget(name)
	delete(w.ports, name)
}
