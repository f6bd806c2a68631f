package dataplane

import (
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
)

const (
	// ChunkLimit is the most bytes of one message, by the contract.
	ChunkLimit = 1 << 20
	// wrapping is more than the tags and lengths take that a message has around
	// a chunk's objects and a chunk's columns.
	wrapping = 128
	// Bytes of a route in columns: address, length, and its next hop as a varint.
	route4, route6 = 4 + 1 + 5, 16 + 1 + 5
)

// packer cuts a change into chunks as large as may be, and hands each to send.
type packer struct {
	chunk *v1.Chunk
	size  int // bytes that the chunk's objects take, at most
	send  func(*v1.Chunk) error
}

// pack sends d as chunks. Routes come as columns.
func pack(d *Delta, send func(*v1.Chunk) error) error {
	p := &packer{chunk: &v1.Chunk{}, send: send}
	if err := p.objects(&d.Set); err != nil {
		return err
	}
	if err := p.removals(d); err != nil {
		return err
	}
	if p.size == 0 {
		return nil
	}
	return p.flush()
}

func (p *packer) objects(s *State) error {
	if s.HostPort != nil {
		if err := p.add(s.HostPort, "host port", func(c *v1.Chunk) { c.HostPort = s.HostPort }); err != nil {
			return err
		}
	}
	if s.Steering != nil {
		if err := p.add(s.Steering, "steering", func(c *v1.Chunk) { c.Steering = s.Steering }); err != nil {
			return err
		}
	}
	if err := p.policy(s); err != nil {
		return err
	}
	for _, x := range s.Ports {
		if err := p.add(x, "port "+x.GetName(), func(c *v1.Chunk) { c.Ports = append(c.Ports, x) }); err != nil {
			return err
		}
	}
	for _, x := range s.Addresses {
		if err := p.add(x, "address "+x.GetPrefix(), func(c *v1.Chunk) { c.Addresses = append(c.Addresses, x) }); err != nil {
			return err
		}
	}
	return p.paths(s)
}

// paths packs what says where packets go.
func (p *packer) paths(s *State) error {
	for _, x := range s.NextHops {
		name := fmt.Sprintf("next hop %d", x.GetId())
		if err := p.add(x, name, func(c *v1.Chunk) { c.NextHops = append(c.NextHops, x) }); err != nil {
			return err
		}
	}
	for _, x := range s.Endpoints {
		if err := p.add(x, "endpoint "+x.GetId(), func(c *v1.Chunk) { c.Endpoints = append(c.Endpoints, x) }); err != nil {
			return err
		}
	}
	for _, r := range s.Routes {
		err := p.route(r.Prefix, func(c *v1.Chunk) *v1.RouteColumns {
			if c.Routes == nil {
				c.Routes = &v1.RouteColumns{}
			}
			if r.Prefix.Addr().Is4() {
				c.Routes.NextHops4 = append(c.Routes.NextHops4, r.NextHop)
			} else {
				c.Routes.NextHops6 = append(c.Routes.NextHops6, r.NextHop)
			}
			return c.Routes
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) removals(d *Delta) error {
	for _, x := range d.RemovedAddresses {
		name := "address " + x.GetPrefix()
		if err := p.add(x, name, func(c *v1.Chunk) { c.RemovedAddresses = append(c.RemovedAddresses, x) }); err != nil {
			return err
		}
	}
	for _, r := range d.RemovedRoutes {
		err := p.route(r, func(c *v1.Chunk) *v1.RouteColumns {
			if c.RemovedRoutes == nil {
				c.RemovedRoutes = &v1.RouteColumns{}
			}
			return c.RemovedRoutes
		})
		if err != nil {
			return err
		}
	}
	return p.keys(d)
}

// keys packs removals by name or number.
func (p *packer) keys(d *Delta) error {
	if err := p.policyRemovals(d); err != nil {
		return err
	}
	for _, k := range d.RemovedPorts {
		if err := p.room(len(k)+wrapping/8, "removed port"); err != nil {
			return err
		}
		p.chunk.RemovedPorts = append(p.chunk.RemovedPorts, k)
	}
	for _, k := range d.RemovedEndpoints {
		if err := p.room(len(k)+wrapping/8, "removed endpoint"); err != nil {
			return err
		}
		p.chunk.RemovedEndpoints = append(p.chunk.RemovedEndpoints, k)
	}
	for _, k := range d.RemovedNextHops {
		if err := p.room(5, "removed next hop"); err != nil {
			return err
		}
		p.chunk.RemovedNextHops = append(p.chunk.RemovedNextHops, k)
	}
	if d.RemovedHostPort {
		if err := p.room(2, "removed host port"); err != nil {
			return err
		}
		p.chunk.RemovedHostPort = true
	}
	return nil
}

// add makes room for one object and puts it in.
func (p *packer) add(m proto.Message, name string, put func(*v1.Chunk)) error {
	if err := p.room(proto.Size(m)+wrapping/8, name); err != nil {
		return err
	}
	put(p.chunk)
	return nil
}

// route makes room for one route and fills the columns that columns picks.
func (p *packer) route(prefix netip.Prefix, columns func(*v1.Chunk) *v1.RouteColumns) error {
	a := prefix.Addr()
	if err := checkPrefix(prefix); err != nil {
		return fmt.Errorf("send route: %w", err)
	}
	need := route6
	if a.Is4() {
		need = route4
	}
	if err := p.room(need, "route"); err != nil {
		return err
	}
	c := columns(p.chunk)
	if a.Is4() {
		c.Addresses4 = append(c.Addresses4, a.AsSlice()...)
		c.Lengths4 = append(c.Lengths4, byte(prefix.Bits()))
	} else {
		c.Addresses6 = append(c.Addresses6, a.AsSlice()...)
		c.Lengths6 = append(c.Lengths6, byte(prefix.Bits()))
	}
	return nil
}

// room sends the chunk off if size more bytes would make it too large.
func (p *packer) room(size int, name string) error {
	const most = ChunkLimit - wrapping
	if size > most {
		return fmt.Errorf("send %s: %d bytes, at most %d fit into one message", name, size, most)
	}
	if p.size+size > most {
		if err := p.flush(); err != nil {
			return err
		}
	}
	p.size += size
	return nil
}

func (p *packer) flush() error {
	c := p.chunk
	p.chunk, p.size = &v1.Chunk{}, 0
	return p.send(c)
}
