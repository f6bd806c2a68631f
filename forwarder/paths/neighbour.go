package paths

import (
	"encoding/binary"
	"net/netip"
	"time"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/forwarder/desired"
)

const (
	// MaxLearned bounds the neighbours learnt on a port: a station that
	// claims every address of a large prefix must not fill the FIB.
	MaxLearned = 4096
	// learnedAge is how long a learnt neighbour is believed that is not
	// heard of again; the next packet to it then asks anew.
	learnedAge = 10 * time.Minute
	// answerTime is how long a neighbour may take to answer before it counts as failed.
	answerTime = 3 * time.Second
	// retryTime is how long one that failed is left alone before it is asked again.
	retryTime = 10 * time.Second
)

// Source is who knows a neighbour.
type Source string

// The sources, by rising authority.
const (
	FromGraph  Source = "graph"  // it was heard on a port that is all ours
	FromKernel Source = "kernel" // the kernel's table says so
	FromClient Source = "client" // the client said so
)

type neighbourKey struct {
	port string
	addr netip.Addr
}

// neighbour is a station on a port. It lives while a way leads to it.
type neighbour struct {
	key    neighbourKey
	mac    desired.MAC // zero while unknown
	source Source
	failed bool
	heard  time.Time // when mac was last told
	asked  time.Time // when packets began to wait for it; zero when none do
	learnt bool      // its host route is in glean
	ways   []*adjacency
}

func (n *neighbour) hopKey() hopKey {
	return hopKey{way: way{kind: gateway, port: n.key.port, addr: n.key.addr, six: n.key.addr.Is6()}, glean: true}
}

// addressFor is the MAC address that a way to n takes: the client's word first.
func (n *neighbour) addressFor(to way) desired.MAC {
	if to.mac != (desired.MAC{}) {
		return to.mac
	}
	return n.mac
}

// join makes a way one that leads to its neighbour.
func (w *Writer) join(a *adjacency) {
	key := neighbourKey{a.way.port, a.way.addr}
	n := w.neigh[key]
	if n == nil {
		n = &neighbour{key: key}
		w.neigh[key] = n
	}
	n.ways = append(n.ways, a)
}

func (w *Writer) leave(a *adjacency) {
	n := w.neigh[neighbourKey{a.way.port, a.way.addr}]
	for i, other := range n.ways {
		if other == a {
			n.ways = append(n.ways[:i], n.ways[i+1:]...)
			break
		}
	}
	if len(n.ways) == 0 {
		delete(w.neigh, n.key)
	}
}

// update renders every way to n anew and tells whether any changed.
func (w *Writer) update(n *neighbour) (changed bool) {
	for _, a := range n.ways {
		was, wasDown := a.now, a.down
		_ = w.render(a) // an id in use is never refused
		changed = changed || a.now != was || a.down != wasDown
	}
	return changed
}

// Reached tells that addr on port has this MAC address. It says whether packets
// may go another way now, so that those held should be looked at again. A
// neighbour that nothing leads to is taken up when its prefix is on link there.
func (w *Writer) Reached(port string, addr netip.Addr, mac desired.MAC, from Source) (changed bool) {
	key := neighbourKey{port, addr}
	n := w.neigh[key]
	if n == nil {
		if !w.onLinkAt(port, addr) || !w.learn(key) {
			return false
		}
		n = w.neigh[key]
		changed = true
	}
	n.mac, n.source, n.failed, n.heard, n.asked = mac, from, false, w.now(), time.Time{}
	return w.update(n) || changed
}

// Lost tells that addr on port cannot be reached any more: groups go without it
// at once, and the next packet to it asks again.
func (w *Writer) Lost(port string, addr netip.Addr) (changed bool) {
	n := w.neigh[neighbourKey{port, addr}]
	if n == nil {
		return false
	}
	if n.learnt {
		w.unlearn(netip.PrefixFrom(addr, addr.BitLen()))
		if w.neigh[n.key] == nil {
			return true
		}
	}
	n.mac, n.failed, n.asked = desired.MAC{}, true, w.now()
	return w.update(n)
}

// Forget drops what was heard of the stations on a port: its device is another
// one now, or what is plugged into it may be.
func (w *Writer) Forget(port string) {
	for prefix, n := range w.glean {
		if n.key.port == port {
			w.unlearn(prefix)
		}
	}
	for key, n := range w.neigh {
		if key.port == port {
			n.mac, n.failed, n.asked = desired.MAC{}, false, time.Time{}
			w.update(n)
		}
	}
}

// sweepLearned drops learnt neighbours whose prefix is not on link any more.
func (w *Writer) sweepLearned() {
	for prefix, n := range w.glean {
		if !w.coveredBy(prefix, n.key.port) {
			w.unlearn(prefix)
		}
	}
}

// coveredBy tells whether the longest route above a host prefix is on link at port.
func (w *Writer) coveredBy(host netip.Prefix, port string) bool {
	for n := host.Bits() - 1; n >= 0; n-- {
		above, err := host.Addr().Prefix(n)
		if err != nil {
			return false
		}
		h := w.wanted(above)
		if h == nil {
			continue
		}
		for _, a := range h.adjs {
			if a.way.port == port && (a.way.kind == attached || a.way.kind == within) {
				return true
			}
		}
		return false
	}
	return false
}

// Needed tells that packets wait for addr on port.
func (w *Writer) Needed(port string, addr netip.Addr) {
	if n := w.neigh[neighbourKey{port, addr}]; n != nil && n.asked.IsZero() && n.mac == (desired.MAC{}) {
		n.asked = w.now()
	}
}

// Age forgets learnt neighbours that were not heard of for long, fails those
// that did not answer, and has failed ones asked again.
func (w *Writer) Age() {
	now := w.now()
	for prefix, n := range w.glean {
		if n.source == FromGraph && now.Sub(n.heard) > learnedAge {
			w.unlearn(prefix)
		}
	}
	for _, n := range w.neigh {
		owned := w.ports[n.key.port].Owned
		switch waited := now.Sub(n.asked); {
		case !owned || n.asked.IsZero():
		case !n.failed && waited > answerTime:
			n.failed, n.asked = true, now
			w.update(n)
		case n.failed && waited > retryTime:
			n.failed, n.asked = false, time.Time{}
			w.update(n)
		}
	}
}

// onLinkAt tells whether addr is routed to an attached prefix of port.
func (w *Writer) onLinkAt(port string, addr netip.Addr) bool {
	v := w.fib.View()
	var nh fib.NextHopID
	if addr.Is4() {
		b := addr.As4()
		nh = v.Lookup4(binary.BigEndian.Uint32(b[:]))
	} else {
		b := addr.As16()
		nh = v.Lookup6(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
	}
	a := v.Adjacency(v.Resolve(nh, 0))
	open := a.Kind == fib.Attached || a.Kind == fib.Incomplete && !a.GatewayAddr().IsValid()
	p, known := w.ports[port]
	return known && open && a.Port == p.Index
}

// learn gives a neighbour below an attached prefix a host route of its own.
func (w *Writer) learn(key neighbourKey) bool {
	if w.learnt[key.port] >= MaxLearned {
		return false
	}
	hop := (&neighbour{key: key}).hopKey()
	if w.setHop(hop, []member{{hop.way, 1}}) != nil {
		return false
	}
	n := w.neigh[key] // made by the way that leads to it
	n.learnt = true
	prefix := netip.PrefixFrom(key.addr, key.addr.BitLen())
	w.glean[prefix] = n
	w.learnt[key.port]++
	return w.settle(prefix) == nil
}

// unlearn takes the host route away again.
func (w *Writer) unlearn(prefix netip.Prefix) {
	n := w.glean[prefix]
	n.learnt = false
	delete(w.glean, prefix)
	if w.learnt[n.key.port]--; w.learnt[n.key.port] == 0 {
		delete(w.learnt, n.key.port)
	}
	_ = w.settle(prefix)      // the deletion of a route is never refused
	_ = w.dropHop(n.hopKey()) // nor that of a next hop in use
}

// Neighbour is a station as inspection shows it.
type Neighbour struct {
	Port   string
	Addr   netip.Addr
	MAC    desired.MAC
	State  string // reachable, incomplete, failed, static
	Source Source
}

// Neighbours lists every station that a way leads to.
func (w *Writer) Neighbours() []Neighbour {
	var out []Neighbour
	for _, n := range w.neigh {
		out = append(out, n.show())
	}
	return out
}

// NeighbourStates counts the neighbours in each state there is, also in those
// that none is in.
func (w *Writer) NeighbourStates() map[string]int {
	out := map[string]int{"reachable": 0, "incomplete": 0, "failed": 0, "static": 0}
	for _, n := range w.neigh {
		out[n.show().State]++
	}
	return out
}

func (n *neighbour) show() Neighbour {
	o := Neighbour{Port: n.key.port, Addr: n.key.addr, MAC: n.mac, State: "incomplete", Source: n.source}
	switch {
	case n.ways[0].way.mac != desired.MAC{}:
		o.MAC, o.State, o.Source = n.ways[0].way.mac, "static", FromClient
	case n.failed:
		o.State = "failed"
	case n.mac != desired.MAC{}:
		o.State = "reachable"
	}
	return o
}

// Kernel lists the neighbours whom the kernel must keep known: those on ports
// that it shares with us and whose address no client gave.
func (w *Writer) Kernel() []Neighbour {
	var out []Neighbour
	for key, n := range w.neigh {
		if p := w.ports[key.port]; p.L2 && !p.Owned && n.ways[0].way.mac == (desired.MAC{}) {
			out = append(out, Neighbour{Port: key.port, Addr: key.addr, MAC: n.mac})
		}
	}
	return out
}
