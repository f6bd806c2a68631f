package desired

import (
	"fmt"
	"net/netip"

	pb "margay.dev/margay/api/dataplane/v1"
)

// Export yields the state as chunks of at most about half of MaxChunk, which
// applied to an empty state give it again.
func (s *State) Export() []*pb.Chunk {
	e := exporter{}
	for _, p := range s.Ports {
		e.with(64 + len(p.NetNS) + 24*(len(p.Addresses)+len(p.Routes))).Ports = append(e.now.Ports, p.proto())
	}
	for a := range s.Addresses {
		e.with(96).Addresses = append(e.now.Addresses, &pb.Address{Port: a.Port, Prefix: a.Prefix.String()})
	}
	for _, h := range s.NextHops {
		e.with(16 + 96*len(h.Members)).NextHops = append(e.now.NextHops, h.proto())
	}
	for p, hop := range s.Routes.All() {
		e.route(p, hop)
	}
	for _, p := range s.Endpoints {
		e.with(p.wireSize()).Endpoints = append(e.now.Endpoints, p.proto())
	}
	e.policy(s)
	if s.Host != nil {
		e.with(0).HostPort = s.Host.proto()
	}
	e.with(0).Steering = s.Steering.proto()
	return e.all
}

type exporter struct {
	all  []*pb.Chunk
	now  *pb.Chunk
	size int
}

// with makes room for some bytes: in the chunk at hand, or in a new one.
func (e *exporter) with(bytes int) *pb.Chunk {
	if e.now == nil || e.size+bytes > MaxChunk/2 {
		e.now, e.size = &pb.Chunk{}, 0
		e.all = append(e.all, e.now)
	}
	e.size += bytes
	return e.now
}

func (e *exporter) route(p netip.Prefix, hop uint32) {
	c := e.with(22)
	if c.Routes == nil {
		c.Routes = &pb.RouteColumns{}
	}
	if r := c.Routes; p.Addr().Is4() {
		b := p.Addr().As4()
		r.Addresses4, r.Lengths4, r.NextHops4 = append(r.Addresses4, b[:]...), append(r.Lengths4, byte(p.Bits())), append(r.NextHops4, hop)
	} else {
		b := p.Addr().As16()
		r.Addresses6, r.Lengths6, r.NextHops6 = append(r.Addresses6, b[:]...), append(r.Lengths6, byte(p.Bits())), append(r.NextHops6, hop)
	}
}

func prefixStrings[T fmt.Stringer](ps []T) (out []string) {
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

func (m MAC) bytes() []byte {
	if m == (MAC{}) {
		return nil
	}
	return m[:]
}

func (p *Port) proto() *pb.Port {
	m := &pb.Port{Name: p.Name, Device: p.Device, Netns: p.NetNS, Mtu: uint32(p.MTU), Queues: uint32(p.Queues)}
	if p.Kind == XSK {
		m.Kind = &pb.Port_Xsk{Xsk: &pb.XskPort{
			Takeover: p.Takeover, Mode: pb.XskPort_Mode(p.Mode), BusyPoll: p.BusyPoll, RingSize: uint32(p.RingSize),
		}}
	} else {
		m.Kind = &pb.Port_Tun{Tun: &pb.TunPort{
			Keep: p.Keep, Addresses: prefixStrings(p.Addresses), Routes: prefixStrings(p.Routes),
		}}
	}
	return m
}

func (h *NextHop) proto() *pb.NextHop {
	m := &pb.NextHop{Id: h.ID, Kind: pb.NextHop_Kind(h.Kind)}
	for _, w := range h.Members {
		member := &pb.NextHop_Member{Port: w.Port, Weight: uint32(w.Weight), Mac: w.MAC.bytes()}
		if w.Gateway.IsValid() {
			member.Gateway = w.Gateway.String()
		}
		m.Members = append(m.Members, member)
	}
	return m
}

func (e *Endpoint) proto() *pb.Endpoint {
	m := &pb.Endpoint{Id: e.ID, Port: e.Port, Addresses: prefixStrings(e.Addresses), Mac: e.MAC.bytes()}
	m.HostDenied, m.Host = e.HostDenied, e.Host
	m.Policy, m.Egress, m.Ingress = pb.Endpoint_Policy(e.Policy), stagesProto(e.Egress), stagesProto(e.Ingress)
	m.StagedEgress, m.StagedIngress = stagesProto(e.StagedEgress), stagesProto(e.StagedIngress)
	return m
}

// wireSize is about what proto takes, and not less.
func (e *Endpoint) wireSize() int {
	n := 64 + len(e.ID) + 48*len(e.Addresses)
	for s := range e.allStages() {
		n += 24 + len(s.Name)
	}
	return n
}

func (h *HostPort) proto() *pb.HostPort {
	return &pb.HostPort{
		Name: h.Name, Addresses: prefixStrings(h.Addresses), Routes: prefixStrings(h.Routes),
		Mtu: uint32(h.MTU), Guarded: prefixStrings(h.Guarded),
	}
}

func (s *Steering) proto() *pb.Steering {
	m := &pb.Steering{Prefixes: prefixStrings(s.Prefixes), Local: prefixStrings(s.Local)}
	for _, v := range s.Services {
		m.Services = append(m.Services, &pb.Steering_Service{Protocol: uint32(v.Protocol), First: uint32(v.First), Last: uint32(v.Last)})
	}
	return m
}
