package plane

import (
	"context"
	"fmt"
	"net/netip"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
)

// converge makes one pass towards the desired state, in dependency order: what
// is new before what names it, what goes after all that named it. changed are
// the client's routes to look at, nil for all. Failures of objects are noted
// and retried; an error means that the workers did not move on.
func (p *Plane) converge(ctx context.Context, changed *desired.Change) error {
	p.failures++ // taken back at the end, when all went well
	done := true
	opened := p.openPorts(ctx)
	done = p.noteTables("policy", p.police(changed)) && done
	p.publish() // before the first packet of a new port
	for _, e := range opened {
		if err := p.drive(ctx, e); err != nil {
			p.note(e.object(), ReasonDeviceFailed, err.Error())
			p.take(ctx, e)
		}
	}
	done = p.noteTables("tables", p.paths.Converge(p.pathsWanted(changed))) && done
	p.tables.Court.Moved()
	p.convergeHost(ctx)
	p.convergeSteering()
	done = p.removePorts(ctx) && done
	for _, e := range p.ports {
		p.portCondition(e)
		done = done && !e.lingers && (e.device != nil || p.awaited(e))
	}
	if err := p.engine.Quiesce(ctx); err != nil {
		return fmt.Errorf("wait for workers to leave the state before generation %d: %w", p.generation, err)
	}
	done = p.noteTables("policy", p.discharge(changed)) && done
	p.paths.Quiesced()
	p.indexes.release()
	p.engine.Kick()
	p.remindKernel(false)
	if done && p.conditions.now["host"].Reason == "" && p.conditions.now["steering"].Reason == "" {
		p.failures = 0
	}
	return nil
}

// awaited tells whether a missing device will be told of by an event, so that
// nothing needs to be tried again before.
func (p *Plane) awaited(e *portEntry) bool {
	return p.watching != nil && p.spaces[e.want.NetNS] != nil && p.conditions.now[e.object()].Reason == ReasonDeviceMissing
}

// pause lets those in who wait for the tables, in the middle of a pass: many
// routes take seconds, and a device that goes must not wait for them.
func (p *Plane) pause() {
	p.mu.Unlock()
	p.mu.Lock()
}

func (p *Plane) pathsWanted(changed *desired.Change) paths.Want {
	w := paths.Want{State: p.want, Ports: make(map[string]paths.Port, len(p.ports)), Pause: p.pause}
	if changed != nil {
		routes := changed.Routes()
		w.Changed = &routes
	}
	for name, e := range p.ports {
		if !e.leaves {
			w.Ports[name] = p.pathsPort(e)
		}
	}
	return w
}

// publish puts what the nodes read of ports and addresses in force.
func (p *Plane) publish() {
	s := &node.State{
		Answers: map[node.Answer]struct{}{}, SubPorts: map[node.SubPort]uint16{}, HostPort: graph.NoPort,
		Sources: map[node.Source]netip.Addr{},
	}
	for _, e := range p.ports {
		for int(e.index) >= len(s.Ports) {
			s.Ports = append(s.Ports, node.Port{})
		}
		s.Ports[e.index] = p.nodePort(e)
		p.Ledger().Name(e.index, e.name)
		if e.host {
			p.Ledger().Name(e.index, e.want.Device)
		}
		if e.host && e.device != nil && !e.leaves {
			s.HostPort = e.index
		}
	}
	p.policing.Begin()
	for _, endpoint := range p.want.Endpoints {
		if e := p.ports[endpoint.Port]; e != nil {
			guard(&s.Ports[e.index], endpoint)
			p.judge(s, e.index, endpoint)
		}
	}
	p.publishAddresses(s)
	p.tables.Publish(s)
}

// noteTables notes whether tables are as they should be, and says so.
func (p *Plane) noteTables(object string, err error) bool {
	if err != nil {
		p.note(object, ReasonTables, err.Error())
		return false
	}
	p.note(object, "", "")
	return true
}

// guard marks a port as a workload's. Several may share an L2 port; then no
// single station is behind it, and the least trusted decides.
func guard(port *node.Port, e *desired.Endpoint) {
	if e.Host {
		return
	}
	mac := node.MAC(e.MAC)
	if port.Flags&node.Workload != 0 && port.Peer != mac {
		mac = node.MAC{}
	}
	port.Peer = mac
	port.Flags |= node.Workload
	if e.Policy == desired.NoPolicy {
		port.Flags |= node.NoPolicyState
	}
}

func (p *Plane) nodePort(e *portEntry) node.Port {
	out := node.Port{MTU: uint16(min(p.mtuOf(e), 65535)), Main: e.index, MAC: node.MAC(e.mac)}
	if e.want.Kind == desired.XSK {
		out.Flags |= node.L2
		if e.want.Takeover {
			out.Flags |= node.Owned
		}
	} else {
		out.Flags |= node.GSO
		if !e.host {
			out.Flags |= node.Owned
		}
	}
	if e.host {
		out.Flags |= node.HostPort
	}
	if e.leaves {
		out.Flags |= node.NoPolicyState // its endpoint is gone already: nothing may slip through unjudged
	}
	return out
}

// publishAddresses fills in what we answer for and speak from.
func (p *Plane) publishAddresses(s *node.State) {
	for _, e := range p.ports {
		if e.want.Kind == desired.XSK && e.want.Takeover && !e.leaves {
			own := linkLocal(e.mac)
			s.Answers[node.Answer{Port: e.index, Addr: own}] = struct{}{}
			s.Sources[node.Source{Port: e.index, IPv6: true}] = own
		}
	}
	for a := range p.want.Addresses {
		e := p.ports[a.Port]
		if e == nil {
			continue
		}
		addr := a.Prefix.Addr()
		s.Answers[node.Answer{Port: e.index, Addr: addr}] = struct{}{}
		choose(s, node.Source{Port: e.index, IPv6: addr.Is6()}, addr)
		choose(s, node.Source{Port: graph.NoPort, IPv6: addr.Is6()}, addr)
	}
	if h := p.want.Host; h != nil {
		for _, a := range h.Addresses { // the node's own address is the best to be known by
			s.Sources[node.Source{Port: graph.NoPort, IPv6: a.Is6()}] = a
		}
	}
}

// choose takes the lowest of several addresses as the one to speak from, so
// that the choice does not depend on the order of a map; a link-local one only
// where there is no other.
func choose(s *node.State, at node.Source, addr netip.Addr) {
	if was, ok := s.Sources[at]; !ok || was.IsLinkLocalUnicast() || addr.Less(was) && !addr.IsLinkLocalUnicast() {
		s.Sources[at] = addr
	}
}

// linkLocal is the IPv6 link-local address that goes with a MAC (RFC 4291 appendix A).
func linkLocal(mac desired.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}
