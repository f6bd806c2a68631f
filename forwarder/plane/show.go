package plane

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
)

// PortState is a port as inspection shows it.
type PortState struct {
	Name      string
	Index     uint16
	Kind      string // xsk, tun, host
	Device    string
	NetNS     string
	State     string // up, down, missing
	Mode      string
	Queues    int
	MTU       int
	MAC       desired.MAC
	Counters  graph.PortCounters
	Fallbacks []string
	Driver    map[string]uint64
	Takeover  bool
	Program   uint32 // id of the steering program on the device, 0 for none
}

// Ports lists every port, by name.
func (p *Plane) Ports() []PortState {
	counters := p.portCounters()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []PortState
	for _, e := range p.ports {
		s := p.portState(e)
		if int(e.index) < len(counters) {
			s.Counters = counters[e.index]
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b PortState) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (p *Plane) portState(e *portEntry) PortState {
	s := PortState{
		Name: e.name, Index: e.index, Kind: e.want.Kind.String(), Device: e.want.Device, NetNS: e.want.NetNS,
		State: "missing", MTU: p.mtuOf(e), MAC: e.mac, Takeover: e.want.Takeover,
	}
	if e.host {
		s.Name, s.Kind = e.want.Device, "host"
	}
	if e.device == nil {
		return s
	}
	s.State = "down"
	if e.up && e.driven {
		s.State = "up"
	}
	s.Mode, s.Queues, s.Fallbacks = e.device.Mode, len(e.device.Port.Queues()), e.device.Port.Fallbacks()
	s.Program = e.device.Program
	s.Driver = map[string]uint64{}
	for _, n := range e.device.Port.Statistics() {
		s.Driver[n.Name] = n.Value
	}
	if e.device.Extra != nil {
		maps.Copy(s.Driver, e.device.Extra())
	}
	return s
}

// portCounters sums the counters of all workers by port index.
func (p *Plane) portCounters() []graph.PortCounters {
	var out []graph.PortCounters
	for _, w := range p.engine.Stats() {
		for i := range w.Ports {
			if i == len(out) {
				out = append(out, graph.PortCounters{})
			}
			out[i].Add(&w.Ports[i])
		}
	}
	return out
}

// Engine is the workers, for their counters.
func (p *Plane) Engine() *graph.Engine { return p.engine }

// Court is what judges packets, for what it counts.
func (p *Plane) Court() *judge.Court { return p.tables.Court }

// CPUs are those that workers are pinned to; none where the kernel chooses.
func (p *Plane) CPUs() []int { return p.cfg.CPUs }

// Frames counts the packet buffers there are, and those in no hand but the
// depots' and caches', as far as that can be told while workers run.
func (p *Plane) Frames() (all, free int) {
	free, _ = p.arena.Free()
	return p.arena.Frames(), min(free, p.arena.Frames())
}

// Supers counts the superpacket buffers there are, and the free ones, as Frames does.
func (p *Plane) Supers() (all, free int) {
	_, free = p.arena.Free()
	return p.arena.Supers(), min(free, p.arena.Supers())
}

// MemorySize is the size of packet memory in bytes.
func (p *Plane) MemorySize() int { return len(p.arena.Bytes()) }

// Fallbacks tells, a line each, what was asked for of packet memory and not had.
func (p *Plane) Fallbacks() []string { return p.arena.Fallbacks() }

// Covering is the route that decides for addr.
func (p *Plane) Covering(addr netip.Addr) (paths.Route, map[fib.NextHopID]paths.Hop, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.paths.Covering(addr)
	return r, p.paths.Hops(), ok
}
