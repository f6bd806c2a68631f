package paths

import (
	"errors"
	"fmt"
	"net/netip"

	"margay.dev/margay/forwarder/desired"
)

// plan is what a state comes to, but for the client's routes.
type plan struct {
	hops         map[hopKey][]member
	strong, weak map[netip.Prefix]hopKey
}

// faults gathers errors, as many as anybody would read.
type faults struct {
	list []error
	more int
}

func (f *faults) add(err error) {
	switch {
	case err == nil:
	case len(f.list) < 20:
		f.list = append(f.list, err)
	default:
		f.more++
	}
}

func (f *faults) err() error {
	if f.more > 0 {
		return errors.Join(append(f.list, fmt.Errorf("and %d more", f.more))...)
	}
	return errors.Join(f.list...)
}

func (w *Writer) plan(want Want) *plan {
	p := &plan{hops: map[hopKey][]member{}, strong: map[netip.Prefix]hopKey{}, weak: map[netip.Prefix]hopKey{}}
	for _, h := range want.State.NextHops {
		for _, six := range []bool{false, true} {
			p.hops[hopKey{client: h.ID, six: six}] = w.membersOf(h, six)
		}
	}
	for a := range want.State.Addresses {
		addr := a.Prefix.Addr()
		host := netip.PrefixFrom(addr, addr.BitLen())
		p.single(p.strong, host, way{kind: local, port: a.Port})
		if !a.Prefix.IsSingleIP() {
			p.single(p.weak, a.Prefix.Masked(), w.onLink(a.Port, addr.Is6()))
		}
	}
	for _, e := range want.State.Endpoints {
		for _, prefix := range e.Addresses {
			if _, ours := p.strong[prefix]; !ours {
				p.single(p.strong, prefix, w.toEndpoint(e, prefix))
			}
		}
	}
	if h := want.State.Host; h != nil {
		for _, a := range h.Addresses {
			p.single(p.strong, netip.PrefixFrom(a, a.BitLen()), way{kind: punt})
		}
	}
	return p
}

// single routes prefix by a hop of one way.
func (p *plan) single(routes map[netip.Prefix]hopKey, prefix netip.Prefix, to way) {
	key := hopKey{way: to}
	p.hops[key] = []member{{to, 1}}
	routes[prefix] = key
}

// membersOf finds the ways of a client's next hop for packets of one family.
func (w *Writer) membersOf(h *desired.NextHop, six bool) []member {
	switch h.Kind {
	case desired.Blackhole:
		return []member{{way{kind: blackhole}, 1}}
	case desired.Prohibit:
		return []member{{way{kind: prohibit}, 1}}
	case desired.Punt:
		return []member{{way{kind: punt}, 1}}
	}
	var out []member
	at := map[way]int{}
	for _, m := range h.Members {
		to := w.onLink(m.Port, six)
		if w.ports[m.Port].L2 && m.Gateway.IsValid() {
			to = way{kind: gateway, port: m.Port, addr: m.Gateway, mac: m.MAC, six: six}
		}
		if i, twice := at[to]; twice { // gateways behind a TUN are all the same to us
			out[i].weight += min(m.Weight, 65535-out[i].weight)
			continue
		}
		at[to] = len(out)
		out = append(out, member{to, m.Weight})
	}
	return out
}

// onLink is the way to whatever is behind a port.
func (w *Writer) onLink(port string, six bool) way {
	if !w.ports[port].L2 {
		return way{kind: direct, port: port}
	}
	return way{kind: attached, port: port, six: six}
}

func (w *Writer) toEndpoint(e *desired.Endpoint, prefix netip.Prefix) way {
	six := prefix.Addr().Is6()
	switch {
	case !w.ports[e.Port].L2:
		return way{kind: direct, port: e.Port}
	case e.MAC != desired.MAC{}:
		return way{kind: station, port: e.Port, mac: e.MAC, six: six}
	case prefix.IsSingleIP():
		return way{kind: gateway, port: e.Port, addr: prefix.Addr(), six: six}
	}
	return way{kind: within, port: e.Port, six: six}
}
