package plane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
	"margay.dev/margay/forwarder/connections"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
)

// Inherit makes a dataplane of what another process has offered, in the state s
// that it has in force, and takes up all its ports. No packet is touched before
// Begin. On an error nothing is changed; Forsake does the same later. The
// descriptors are the dataplane's in either case.
func Inherit(ctx context.Context, cfg Config, e *Estate, fds []int, s *desired.State) (*Plane, error) {
	if want := (umem.Config{Frames: cfg.Frames, Supers: cfg.Supers, Caches: cachesFor(cfg.Workers)}); e.Memory != want {
		return nil, fmt.Errorf("packet memory is of %+v, and this configuration wants %+v: a hand-over cannot change it", e.Memory, want)
	}
	h := &heritage{fds: fds}
	arena, err := umem.Attach(h.fd(e.Arena), e.Memory)
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	p := newPlane(cfg, arena)
	p.stock = 1 - e.Stock&1
	err = p.remember(connections.Take(h.fd(e.Flows), cfg.Workers))
	if err == nil {
		err = p.build()
	}
	if err != nil {
		return nil, errors.Join(err, p.forget(), arena.Close(), h.close())
	}
	if err := p.inherit(ctx, e, h, s); err != nil {
		return nil, errors.Join(err, p.Forsake(), h.close())
	}
	return p, h.close()
}

// heritage hands out the descriptors that came with an estate, each once.
type heritage struct {
	fds []int
	err error
}

// fd is the descriptor at a place; -1, and err is set, when there is none.
func (h *heritage) fd(at Place) int {
	if at < 0 || int(at) >= len(h.fds) || h.fds[at] < 0 {
		h.err = errors.Join(h.err, fmt.Errorf("descriptor %d is missing among the %d that came", at, len(h.fds)))
		return -1
	}
	fd := h.fds[at]
	h.fds[at] = -1
	return fd
}

// close closes what nobody asked for.
func (h *heritage) close() error {
	var errs []error
	for i, fd := range h.fds {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
			h.fds[i] = -1
		}
	}
	return errors.Join(errs...)
}

func (h *heritage) number(at int) int { return h.fd(Place(at)) }

func (h *heritage) all(places []Place) []int {
	out := make([]int, len(places))
	for i, at := range places {
		out[i] = h.fd(at)
	}
	return out
}

func (p *Plane) inherit(ctx context.Context, e *Estate, h *heritage, s *desired.State) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want, p.generation, p.changed, p.verify, p.visiting = s, e.Generation, p.cfg.Now(), true, true
	own, err := p.space("")
	if err != nil {
		return err
	}
	if id, err := own.ns.Identity(); err != nil || id != e.Namespace {
		return errors.Join(err, fmt.Errorf("the running forwarder is in another network namespace (%+v, this one is in %+v): start in the same", e.Namespace, id))
	}
	if err := p.inheritShared(e, h); err != nil {
		return err
	}
	wanted := p.wantedPorts()
	for i := range e.Ports {
		if err := p.inheritPort(ctx, &e.Ports[i], h, wanted); err != nil {
			return fmt.Errorf("take up port %s: %w", e.Ports[i].Name, err)
		}
	}
	p.indexes.inherit(p.byIndex)
	if err := p.converge(ctx, nil); err != nil {
		return err
	}
	p.paths.Import(e.Neighbours)
	p.Ledger().Adopt(e.Counted)
	return p.whole(e)
}

// inheritShared takes up what ports have in common.
func (p *Plane) inheritShared(e *Estate, h *heritage) (err error) {
	d := p.opener.(*devices)
	if e.Anchor != NoPlace {
		d.xsk.umem, err = xsk.AdoptCopyUMEM(p.arena.FrameArea(), umem.ChunkSize, umem.Headroom-xsk.KernelHeadroom, h.fd(e.Anchor))
		if err = errors.Join(h.err, err); err != nil {
			return err
		}
	}
	if s := e.Steering; s != nil {
		maps := steeringFDs(s.Maps, h.number)
		if h.err != nil {
			return h.err
		}
		p.steering, err = xsk.AdoptSteering(maps, s.Prefixes, s.Services)
	}
	return err
}

// inheritPort takes up one port and gives its queues to workers that do not run yet.
func (p *Plane) inheritPort(ctx context.Context, one *PortEstate, h *heritage, wanted map[string]*desired.Port) error {
	want, err := stateOf(wanted, one.Name)
	if err != nil {
		return err
	}
	s, err := p.space(want.NetNS)
	if err != nil {
		return err
	}
	e := &portEntry{name: one.Name, index: one.Index, want: want, host: one.Name == paths.HostName}
	if p.byIndex[e.index] != nil || p.ports[e.name] != nil {
		return fmt.Errorf("index %d or the name is taken", e.index)
	}
	if e.device, err = p.opener.(*devices).inherit(one, h, s, p.steering); err != nil {
		return err
	}
	p.ports[e.name], p.byIndex[e.index] = e, e
	l, err := s.host.Link(want.Device)
	if err == nil && l.Index != one.Link {
		err = fmt.Errorf("device %s is another one now (index %d, was %d): %w; try again", want.Device, l.Index, one.Link, ErrBusy)
	}
	if err != nil {
		return err
	}
	e.mtu, e.up = e.device.Port.MTU(), e.device.Carrier
	e.mac = e.device.MAC
	return p.register(ctx, e)
}

// inherit makes a device of a port's descriptors.
func (d *devices) inherit(one *PortEstate, h *heritage, s *space, steering *xsk.Steering) (*Device, error) {
	switch {
	case one.TUN != nil:
		t, err := port.AdoptTUN(*one.TUN, h.all(one.FDs))
		if err = errors.Join(h.err, err); err != nil {
			return nil, err
		}
		device, err := deviceOf(t, s.host)
		if err == nil && one.Name == paths.HostName {
			device.Remove = nil
		}
		return device, err
	case one.XSK != nil && one.Steers != nil:
		return d.inheritXSK(one, h, s, steering)
	}
	return nil, errors.New("it is of a kind that this version does not know")
}

func (d *devices) inheritXSK(one *PortEstate, h *heritage, s *space, steering *xsk.Steering) (*Device, error) {
	fds, sockets := programFDs(one.Steers.FDs, h.number), h.all(one.FDs)
	if h.err != nil {
		return nil, h.err
	}
	holder := one.XSK.Holder
	if d.xsk.umem == nil || holder == umem.Graph || d.xsk.holders[holder] {
		return nil, fmt.Errorf("holder %d of its frames is taken, or there is no memory for it", holder)
	}
	program, err := xsk.AdoptProgram(one.Steers.State, fds, steering)
	if err != nil {
		return nil, err
	}
	x := &xskDevice{owner: d, program: program, holder: holder, fallbacks: one.Steers.Fallbacks}
	if x.XSK, err = port.AdoptXSK(*one.XSK, sockets, d.xsk.umem, d.arena); err != nil {
		return nil, errors.Join(err, program.Close())
	}
	d.xsk.holders[holder] = true
	d.xsk.rings.set(holder, share{one.Steers.Asked, one.Steers.Got})
	l, err := s.host.Link(x.Name())
	return x.device(l), err
}

// whole says that every port that was handed over is with the workers.
func (p *Plane) whole(e *Estate) error {
	for i := range e.Ports {
		if one := p.ports[e.Ports[i].Name]; one == nil || !one.driven || one.index != e.Ports[i].Index {
			return fmt.Errorf("port %s could not be kept as it was: %w; try again", e.Ports[i].Name, ErrBusy)
		}
	}
	return nil
}

// Land takes up what moved since the offer. The giver's workers have stopped.
func (p *Plane) Land(flight []byte) error {
	var f Flight
	if err := json.Unmarshal(flight, &f); err != nil {
		return fmt.Errorf("read what was in flight: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, e := range p.ports {
		if e.device == nil {
			continue
		}
		var err error
		switch t := e.device.Port.(type) {
		case *port.TUN:
			err = t.Land(f.TUN[name])
		case *xskDevice:
			err = t.Land(f.XSK[name])
		}
		if err != nil {
			return fmt.Errorf("take up port %s: %w", name, err)
		}
	}
	p.paths.Import(f.Neighbours)
	p.Ledger().Adopt(f.Counted)
	for _, line := range p.engine.Unknown(f.Engine) {
		p.log.Warn("the former forwarder counted what this version does not know", "counted", line)
	}
	return p.engine.Adopt(f.Engine)
}

// Begin lets the workers run: from here on the packets are ours. Ports that the
// giver had no device of are opened by the next pass.
func (p *Plane) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.visiting = false
	p.engine.Start()
}

// Renew puts our own steering programs in the place of the giver's, of another
// version perhaps, while frames pass.
func (p *Plane) Renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, e := range p.ports {
		if e.device == nil {
			continue
		}
		if x, ok := e.device.Port.(*xskDevice); ok {
			if err := x.program.Renew(); err != nil {
				p.log.Warn("keep the former steering program", "port", name, "error", err)
			}
		}
	}
	p.kick()
}
