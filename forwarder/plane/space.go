package plane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
	"margay.dev/margay/internal/hostnet"
)

// space is a network namespace in which ports of ours have their devices. An
// open one keeps the namespace alive, so that it must be let go of as soon as
// its name is gone: see checkSpaces.
type space struct {
	path   string
	ns     *hostnet.Namespace
	host   *hostnet.Host
	file   os.FileInfo // of the name, to notice that it goes or is another namespace's
	cancel context.CancelFunc
	gone   bool
}

// space opens the namespace at path, or returns the one that is open.
func (p *Plane) space(path string) (*space, error) {
	if s := p.spaces[path]; s != nil {
		return s, nil
	}
	s := &space{path: path}
	var err error
	if path != "" {
		if s.file, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("namespace %s: %w", path, errNoDevice)
		}
	}
	if err == nil {
		s.ns, err = hostnet.OpenNamespace(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open namespace %q: %w", path, err)
	}
	if s.host, err = hostnet.NewHost(s.ns); err != nil {
		return nil, errors.Join(err, s.ns.Close())
	}
	p.spaces[path] = s
	if p.watching != nil {
		p.watch(s)
	}
	return s, nil
}

// watch hears of changes in a namespace until it is closed. A watch that breaks
// is begun anew, which tells everything there is.
func (p *Plane) watch(s *space) {
	ctx, cancel := context.WithCancel(p.watching)
	s.cancel = cancel
	const topics = hostnet.TopicLinks | hostnet.TopicNeighbours
	p.watchers.Go(func() {
		defer s.close()
		for {
			err := s.host.Subscribe(ctx, hostnet.Subscription{Topics: topics}, func(e hostnet.Event) { p.event(s, e) })
			if ctx.Err() != nil {
				return
			}
			p.log.Warn("watch of a namespace broke; beginning anew", "namespace", s.ns.String(), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(tick):
			}
		}
	})
}

// close gives the namespace up. A watched one closes itself when its watch ends.
func (s *space) close() {
	s.host.Close()
	_ = s.ns.Close() // nothing was written to it
}

func (p *Plane) closeSpace(path string) {
	s := p.spaces[path]
	delete(p.spaces, path)
	s.gone = true
	if s.cancel != nil {
		s.cancel()
	} else {
		s.close()
	}
}

// dropSpaces closes the namespaces in which no port is any more.
func (p *Plane) dropSpaces() {
	used := map[string]bool{"": true}
	for _, e := range p.ports {
		used[e.want.NetNS] = true
	}
	for path := range p.spaces {
		if !used[path] {
			p.closeSpace(path)
		}
	}
}

// checkSpaces notices namespaces whose name is gone, or names another one now,
// and lets go of them with all their ports; and names that came.
func (p *Plane) checkSpaces() {
	ctx, cancel := context.WithTimeout(context.Background(), tick)
	defer cancel()
	for path, s := range p.spaces {
		if path == "" {
			continue
		}
		now, err := os.Stat(path)
		if err == nil && os.SameFile(now, s.file) {
			continue
		}
		p.log.Warn("namespace is gone", "path", path)
		for _, e := range p.ports {
			if e.want.NetNS == path && e.device != nil {
				p.take(ctx, e)
			}
		}
		p.closeSpace(path)
		p.kick()
	}
	for _, e := range p.ports {
		if e.device != nil || p.spaces[e.want.NetNS] != nil {
			continue
		}
		if _, err := os.Stat(e.want.NetNS); err == nil {
			p.kick()
			return
		}
	}
}

// event acts on a change in a namespace at once where waiting would lose
// packets, and asks for a pass where it may have made something possible.
func (p *Plane) event(s *space, ev hostnet.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.gone || p.closed {
		return
	}
	switch ev.Kind {
	case hostnet.LinkSet:
		p.linkSet(s, ev.Link)
	case hostnet.LinkGone:
		p.linkGone(s, ev.Link)
	case hostnet.NeighbourSet:
		p.kernelNeighbour(s, ev.Neighbour, ev.Neighbour.State)
	case hostnet.NeighbourGone:
		p.kernelNeighbour(s, ev.Neighbour, hostnet.Failed)
	case hostnet.ResyncEnd:
		p.kick() // a device may have gone unheard of
	}
}

func (p *Plane) linkSet(s *space, l hostnet.Link) {
	for _, e := range p.ports {
		if e.want.NetNS != s.path || e.want.Device != l.Name {
			continue
		}
		switch {
		case e.device == nil:
			p.kick()
		case e.device.Index != l.Index: // another device of that name
			p.vanish(e)
		default:
			p.follow(e, l)
		}
	}
}

func (p *Plane) linkGone(s *space, l hostnet.Link) {
	for _, e := range p.ports {
		if e.want.NetNS == s.path && e.device != nil && e.device.Index == l.Index {
			p.vanish(e)
		}
	}
}

// vanish takes a port off whose device is gone. It comes back by itself.
func (p *Plane) vanish(e *portEntry) {
	ctx, cancel := context.WithTimeout(context.Background(), tick)
	defer cancel()
	p.log.Warn("device is gone", "port", e.name, "device", e.want.Device)
	p.take(ctx, e)
	p.publish()
	p.note(e.object(), ReasonDeviceMissing, fmt.Sprintf("device %s has gone; the port is taken up again when it returns", e.want.Device))
	p.kick()
}

// follow takes over what has changed of a device: MTU, MAC, carrier.
func (p *Plane) follow(e *portEntry, l hostnet.Link) {
	up, mac := l.Up && l.Carrier, desired.MAC(l.MAC)
	if e.want.Kind == desired.TUN {
		mac = desired.MAC{}
	}
	if e.up == up && e.mtu == l.MTU && e.mac == mac {
		return
	}
	p.log.Info("device changed", "port", e.name, "up", up, "mtu", l.MTU, "mac", hostnet.MAC(mac).String())
	readdressed, returned := e.mtu != l.MTU || e.mac != mac, up && !e.up
	e.up, e.mtu, e.mac = up, l.MTU, mac
	e.device.Port.SetMTU(l.MTU)
	if readdressed {
		p.publish()
	}
	p.paths.SetPort(p.pathsPort(e))
	if !up && e.want.Takeover { // the kernel forgets by itself what it has heard
		p.paths.Forget(e.name)
	}
	p.portCondition(e)
	p.moved()
	if returned { // going down it lost its routes, and its IPv6 addresses
		p.kick()
	}
}

// adjust brings an open device to its port's wishes that need no reopening.
func (p *Plane) adjust(e *portEntry) {
	s := p.spaces[e.want.NetNS]
	if s == nil || e.want.Kind != desired.TUN {
		return
	}
	if err := dressTUN(s.host, e.want, e.host); err != nil {
		p.note(e.object(), ReasonDeviceFailed, err.Error())
		return
	}
	e.stale = false
}

// kernelNeighbour follows the kernel's table on the ports that it shares with us.
func (p *Plane) kernelNeighbour(s *space, n hostnet.Neighbour, state hostnet.NeighbourState) {
	for _, e := range p.ports {
		if e.device == nil || e.want.NetNS != s.path || e.device.Index != n.Link || e.want.Kind != desired.XSK || e.want.Takeover {
			continue
		}
		changed := false
		switch {
		case state.Usable() && !n.MAC.IsZero():
			changed = p.paths.Reached(e.name, n.Addr, desired.MAC(n.MAC), paths.FromKernel)
		case state == hostnet.Failed:
			changed = p.paths.Lost(e.name, n.Addr)
		}
		if changed {
			p.moved()
		}
	}
}

// remindKernel has the kernel resolve the neighbours that our frames use: those
// it does not know yet, or all of them, so that none looks idle to it. Those that
// we miss it may know for long, and tells nothing of.
func (p *Plane) remindKernel(all bool) {
	missing := map[*space][]netip.Addr{}
	for _, n := range p.paths.Kernel() {
		e, unknown := p.ports[n.Port], n.MAC == desired.MAC{}
		if e == nil || e.device == nil || !all && !unknown {
			continue
		}
		if s := p.spaces[e.want.NetNS]; s != nil {
			if unknown {
				missing[s] = append(missing[s], n.Addr)
			}
			p.resolve(s, e, n.Addr)
		}
	}
	for s, addrs := range missing {
		p.hearKernel(s, addrs)
	}
}

// hearKernel takes up what the kernel knows of neighbours that we miss.
func (p *Plane) hearKernel(s *space, missing []netip.Addr) {
	known, err := s.host.Neighbours()
	if err != nil {
		p.log.Debug("read the kernel's neighbours", "namespace", s.path, "error", err)
	}
	slices.SortFunc(missing, netip.Addr.Compare)
	for _, n := range known {
		if _, ok := slices.BinarySearchFunc(missing, n.Addr, netip.Addr.Compare); ok && n.State.Usable() {
			p.kernelNeighbour(s, n, n.State)
		}
	}
}

func (p *Plane) resolve(s *space, e *portEntry, addr netip.Addr) {
	if err := s.host.ResolveNeighbour(e.want.Device, addr); err != nil {
		p.log.Debug("ask the kernel for a neighbour", "port", e.name, "address", addr, "error", err)
	}
}
