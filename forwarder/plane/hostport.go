package plane

import (
	"context"
	"errors"
	"net/netip"

	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/forwarder/paths"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/journal"
)

// guardMetric is the metric of the blackhole routes behind the host port: worse
// than any that the host port's routes have, better than a default route of a
// less specific prefix can ever be.
const guardMetric = 4096

var errNoJournal = errors.New("there is no journal to note changes of the host in")

// hostRoutes is what we wrote to the host for the host port.
type hostRoutes struct {
	link      string
	addresses map[netip.Prefix]bool
	routes    []hostnet.Route
}

// openHost makes the host port's device, or takes it up, and notes it in the
// journal. Device, addresses and routes outlive us on purpose.
func (p *Plane) openHost(e *portEntry, s *space) (*Device, error) {
	if p.cfg.Journal == nil {
		return nil, errNoJournal
	}
	var t *port.TUN
	err := p.cfg.Journal.AddLink(s.ns, journal.UntilUninstall, e.want.Device, "tun", func() (err error) {
		t, err = openTUN(e.want, s.host, p.cfg.Workers)
		return err
	})
	if err == nil && t == nil { // it was there
		t, err = openTUN(e.want, s.host, p.cfg.Workers)
	}
	if err != nil {
		if t != nil {
			err = errors.Join(err, t.Close(p.cache()))
		}
		return nil, err
	}
	if err := s.host.SetUp(e.want.Device); err != nil {
		return nil, errors.Join(err, t.Close(p.cache()))
	}
	d, err := deviceOf(t, s.host)
	if err != nil {
		return nil, errors.Join(err, t.Close(p.cache()))
	}
	d.Remove = nil // removal goes by the journal
	return d, nil
}

// convergeHost brings addresses, routes and settings of the host port to what is wanted.
func (p *Plane) convergeHost(ctx context.Context) {
	if p.want.Host == nil && p.hostRoutes.link == "" || !p.verify && p.hostSeen.Equal(p.want.Host) {
		return
	}
	s, err := p.space("")
	if err == nil && p.cfg.Journal == nil {
		err = errNoJournal
	}
	if err == nil {
		err = p.writeHost(ctx, s)
	}
	if err != nil {
		p.note("host", ReasonHost, err.Error())
		return
	}
	p.hostSeen = p.want.Host
	p.note("host", "", "")
}

func (p *Plane) writeHost(ctx context.Context, s *space) error {
	j, h := p.cfg.Journal, p.want.Host
	if h == nil || p.hostRoutes.link != "" && p.hostRoutes.link != h.Name {
		if err := p.clearHost(ctx, s); err != nil || h == nil {
			return err
		}
	}
	errs := faults{}
	wanted := map[netip.Prefix]bool{}
	l, err := s.host.Link(h.Name)
	if err != nil {
		errs.add(err)
	} else {
		for _, a := range h.Addresses {
			wanted[netip.PrefixFrom(a, a.BitLen())] = true
		}
		errs.add(p.writeAddresses(s, h.Name, wanted))
		for _, kv := range hostSysctls(h.Name) {
			errs.add(j.SetSysctl(s.ns, kv[0], kv[1]))
		}
	}
	errs.add(p.writeRoutes(s, p.routesOfHost(l.Index)))
	p.hostRoutes.link = h.Name
	return errs.err()
}

// hostSysctls are the settings of the host port's device: replies of pods may
// come from anywhere (a loose reverse-path check), and what we hand over is for
// the node itself, so that the kernel forwards none of it.
func hostSysctls(device string) [][2]string {
	return [][2]string{
		{"net/ipv4/conf/" + device + "/rp_filter", "2"},
		{"net/ipv4/conf/" + device + "/forwarding", "0"},
		{"net/ipv6/conf/" + device + "/accept_ra", "0"},
	}
}

func (p *Plane) writeAddresses(s *space, device string, wanted map[netip.Prefix]bool) error {
	have, err := s.host.Addresses(device)
	if err != nil {
		return err
	}
	there := map[netip.Prefix]bool{}
	for _, a := range have {
		there[a.Prefix] = true
	}
	errs := faults{}
	for a := range wanted {
		if !there[a] || !p.hostRoutes.addresses[a] {
			errs.add(p.cfg.Journal.AddAddress(s.ns, journal.UntilUninstall, device, a, hostnet.NoDAD))
		}
	}
	for a := range p.hostRoutes.addresses {
		if !wanted[a] {
			errs.add(p.cfg.Journal.RemoveAddress(s.ns, device, a))
		}
	}
	p.hostRoutes.addresses = wanted
	return errs.err()
}

// routesOfHost are the kernel's routes to what is reached through us, and the
// blackholes behind them. Without a device only the blackholes stand.
func (p *Plane) routesOfHost(link int) []hostnet.Route {
	h := p.want.Host
	var out []hostnet.Route
	for _, dst := range h.Routes {
		if link == 0 {
			break
		}
		r := hostnet.Route{Dst: dst, Link: link}
		for _, a := range h.Addresses {
			if a.Is4() == dst.Addr().Is4() {
				r.Source = a
			}
		}
		out = append(out, r.Canonical())
	}
	for _, dst := range h.Guarded {
		out = append(out, hostnet.Route{Dst: dst, Kind: hostnet.Blackhole, Metric: guardMetric}.Canonical())
	}
	return out
}

// writeRoutes makes the kernel's routes of ours be these, whatever happened to
// them meanwhile: new ones first.
func (p *Plane) writeRoutes(s *space, want []hostnet.Route) error {
	have, err := s.host.Routes(hostnet.RouteFilter{Table: hostnet.TableMain, Protocol: hostnet.Protocol})
	if err != nil {
		return err
	}
	var missing, surplus []hostnet.Route
	for _, r := range want {
		if !contains(have, r) {
			missing = append(missing, r)
		}
	}
	for _, r := range have {
		if !contains(want, r) {
			surplus = append(surplus, r)
		}
	}
	errs := faults{}
	if len(missing) > 0 {
		errs.add(p.cfg.Journal.AddRoutes(s.ns, journal.UntilUninstall, missing...))
	}
	if len(surplus) > 0 {
		errs.add(p.cfg.Journal.RemoveRoutes(s.ns, surplus...))
	}
	p.hostRoutes.routes = want
	return errs.err()
}

func contains(routes []hostnet.Route, r hostnet.Route) bool {
	for _, o := range routes {
		if o.Equal(r) {
			return true
		}
	}
	return false
}

// clearHost takes the host port's routes, addresses and device away for good.
func (p *Plane) clearHost(ctx context.Context, s *space) error {
	errs := faults{}
	errs.add(p.writeRoutes(s, nil))
	errs.add(p.writeAddresses(s, p.hostRoutes.link, nil))
	if e := p.ports[paths.HostName]; e != nil && e.leaves {
		errs.add(p.detach(ctx, e))
	}
	errs.add(p.cfg.Journal.RemoveLink(s.ns, p.hostRoutes.link))
	p.hostRoutes = hostRoutes{}
	return errs.err()
}
