package plane

import (
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/connections"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
)

// Live is the dataplane as it is at a moment.
type Live struct {
	Tables     *node.Tables
	State      *desired.State
	Generation uint64 // of State
	Paths      *paths.Writer
	Ports      map[string]uint16 // indexes by name, of the host port by paths.HostName
	Now        flow.Tick
}

// Look shows the dataplane to fn, which changes and keeps nothing but Tables, and
// does not take long: nothing else can change meanwhile. It is false, and fn is
// not called, when the dataplane has ended, or is another process's: the memory of
// its flows may be gone.
func (p *Plane) Look(fn func(Live)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	l := Live{p.tables, p.want, p.generation, p.paths, map[string]uint16{}, flow.TickAt(connections.Now())}
	for name, e := range p.ports {
		l.Ports[name] = e.index
	}
	fn(l)
	return true
}

// HostAt is the endpoint of the node itself on the port of an index; nil for none.
func (l *Live) HostAt(index uint16) *desired.Endpoint {
	for _, e := range l.State.Endpoints {
		if at, ok := l.Ports[e.Port]; ok && e.Host && at == index {
			return e
		}
	}
	return nil
}
