package plane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
	"margay.dev/margay/forwarder/policing"
	"margay.dev/margay/internal/hostnet"
)

// A dataplane is handed over to another process in these steps, all of them by
// whoever gives (giver) but those in brackets:
//
//	Offer ─► Estate, descriptors ─► [Inherit] ─► Freeze ─► Flight ─► [Land, Begin, Renew] ─► Cede, Forsake
//	  └─ Withdraw ◄─────────────────────────────────┴─ Unfreeze, Withdraw, when the other one failed
//
// From Offer on nothing is changed, but forwarding goes on; from Freeze on no
// worker runs.

// ErrBusy says that a dataplane cannot be handed over just now.
var ErrBusy = errors.New("the dataplane is changing")

// Place is the place of a descriptor among those that come with an Estate.
type Place int

// NoPlace is the place of a descriptor that there is none of.
const NoPlace Place = -1

// Estate is what another process must know to go on with a dataplane, as JSON,
// beside the state in force and the descriptors.
type Estate struct {
	Namespace  hostnet.Identity // that the forwarder runs in
	Generation uint64
	Memory     umem.Config
	Stock      int // which of the two caches of the planes is the giver's
	Arena      Place
	Flows      Place
	Anchor     Place // of the registration with AF_XDP, NoPlace before the first such port
	Steering   *SteeringEstate
	Ports      []PortEstate
	Neighbours []paths.Known
	Counted    policing.Counted
}

// SteeringEstate is what is ours on ports that are shared with the kernel.
type SteeringEstate struct {
	Prefixes []xsk.OwnedPrefix
	Services []xsk.Service
	Maps     xsk.SteeringFDs // places
}

// PortEstate is an open port: one of TUN and XSK is there.
type PortEstate struct {
	Name   string
	Index  uint16
	Link   int // index of the network interface
	Mode   string
	FDs    []Place
	TUN    *port.TUNState `json:",omitempty"`
	XSK    *port.XSKState `json:",omitempty"`
	Steers *ProgramEstate `json:",omitempty"`
}

// ProgramEstate is the steering program on a port, and what its rings may hold.
type ProgramEstate struct {
	State      xsk.ProgramState
	FDs        xsk.ProgramFDs // places
	Asked, Got int            // frames
	Fallbacks  []string
}

// Flight is what moved after the Estate was written, as it is while no worker runs.
type Flight struct {
	Engine     graph.Carried
	TUN        map[string]port.TUNFlight
	XSK        map[string]port.XSKFlight
	Neighbours []paths.Known
	Counted    policing.Counted // since the Estate was written
}

// descriptors collects what goes with an estate.
type descriptors []int

func (d *descriptors) add(fd int) Place {
	*d = append(*d, fd)
	return Place(len(*d) - 1)
}

func (d *descriptors) number(fd int) int { return int(d.add(fd)) }

func (d *descriptors) addAll(fds []int) []Place {
	out := make([]Place, len(fds))
	for i, fd := range fds {
		out[i] = d.add(fd)
	}
	return out
}

// steeringFDs is m with each descriptor or place turned to the other.
func steeringFDs(m xsk.SteeringFDs, turn func(int) int) xsk.SteeringFDs {
	return xsk.SteeringFDs{
		Prefix4: turn(m.Prefix4), Prefix6: turn(m.Prefix6), Services: turn(m.Services), Fragments: turn(m.Fragments),
	}
}

// programFDs is m with each descriptor or place turned to the other.
func programFDs(m xsk.ProgramFDs, turn func(int) int) xsk.ProgramFDs {
	return xsk.ProgramFDs{Link: turn(m.Link), Program: turn(m.Program), Sockets: turn(m.Sockets), Counters: turn(m.Counters)}
}

// Offer writes down what another process needs to take over, and keeps the
// dataplane from being changed until Withdraw or Forsake: commits wait. The
// descriptors stay ours. It fails with ErrBusy while a port is on its way out.
func (p *Plane) Offer() (*Estate, []int, error) {
	p.turn.Lock()
	p.mu.Lock()
	defer p.mu.Unlock()
	e, fds, err := p.estate()
	if err != nil {
		p.turn.Unlock()
		return nil, nil, err
	}
	p.layoutOffered = p.layout
	close(p.offers)
	return e, fds, nil
}

func (p *Plane) estate() (*Estate, []int, error) {
	if p.closed {
		return nil, nil, errClosed
	}
	d, ok := p.opener.(*devices)
	if !ok {
		return nil, nil, errors.New("ports of this kind cannot be handed over")
	}
	own, err := p.space("")
	if err != nil {
		return nil, nil, err
	}
	id, err := own.ns.Identity()
	if err != nil {
		return nil, nil, err
	}
	var fds descriptors
	e := &Estate{
		Namespace: id, Generation: p.generation, Memory: p.arena.Config(), Stock: p.stock,
		Arena: fds.add(p.arena.FD()), Flows: fds.add(p.connections.FD()), Anchor: NoPlace, Neighbours: p.paths.Export(),
		Counted: p.Ledger().Offer(),
	}
	if d.xsk.umem != nil {
		e.Anchor = fds.add(d.xsk.umem.Anchor())
	}
	if s := p.steering; s != nil {
		e.Steering = &SteeringEstate{Prefixes: s.Prefixes(), Services: s.Services(), Maps: steeringFDs(s.FDs(), fds.number)}
	}
	for _, one := range p.ports {
		switch {
		case one.lingers || one.leaves:
			return nil, nil, fmt.Errorf("port %s is on its way out: %w; try again", one.name, ErrBusy)
		case one.device != nil:
			e.Ports = append(e.Ports, d.estate(one, &fds))
		}
	}
	return e, fds, nil
}

// estate is one open port's.
func (d *devices) estate(e *portEntry, fds *descriptors) PortEstate {
	out := PortEstate{Name: e.name, Index: e.index, Link: e.device.Index, Mode: e.device.Mode}
	switch t := e.device.Port.(type) {
	case *port.TUN:
		state, queues := t.Handover()
		out.TUN, out.FDs = &state, fds.addAll(queues)
	case *xskDevice:
		state, sockets := t.Handover()
		share := d.xsk.rings[t.holder]
		out.XSK, out.FDs = &state, fds.addAll(sockets)
		out.Steers = &ProgramEstate{
			State: t.program.State(), FDs: programFDs(t.program.FDs(), fds.number),
			Asked: share.asked, Got: share.got, Fallbacks: t.fallbacks,
		}
	}
	return out
}

// Offered shows the state that is on offer to look, who must not keep it.
func (p *Plane) Offered(look func(*desired.State)) { look(p.want) }

// Freeze stops the workers and tells what moved since Offer. It fails, and
// nothing is stopped, when a port was lost meanwhile or a worker hangs.
func (p *Plane) Freeze(ctx context.Context) ([]byte, error) {
	p.mu.Lock()
	if p.layout != p.layoutOffered {
		p.mu.Unlock()
		return nil, fmt.Errorf("a port went or came back while it was handed over: %w; try again", ErrBusy)
	}
	if err := p.engine.Halt(ctx); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	p.frozen = true // and mu stays locked: nobody may look at what another process has
	f, err := p.flight()
	if err != nil {
		return nil, err
	}
	return json.Marshal(f)
}

func (p *Plane) flight() (*Flight, error) {
	carried, err := p.engine.Carry()
	if err != nil {
		return nil, err
	}
	f := &Flight{
		Engine: carried, TUN: map[string]port.TUNFlight{}, XSK: map[string]port.XSKFlight{}, Neighbours: p.paths.Export(), Counted: p.Ledger().Rest(),
	}
	for name, e := range p.ports {
		if e.device == nil {
			continue
		}
		switch t := e.device.Port.(type) {
		case *port.TUN:
			t.Settle(p.cache())
			f.TUN[name] = t.Flight()
		case *xskDevice:
			f.XSK[name] = t.Flight()
		}
	}
	return f, nil
}

// Unfreeze has the workers run again after Freeze: the other process failed.
// touched says that it may have used memory and rings. Without a Freeze it does
// nothing.
func (p *Plane) Unfreeze(touched bool) {
	if !p.frozen {
		return
	}
	if touched {
		if err := p.recover(); err != nil {
			p.log.Error("make whole what another process has used; some packets and buffers are lost", "error", err)
		}
	}
	p.engine.Start()
	p.frozen = false
	p.mu.Unlock()
}

// Withdraw takes an Offer back: changes may be made again.
func (p *Plane) Withdraw() {
	p.mu.Lock()
	p.offers = make(chan struct{})
	p.mu.Unlock()
	p.turn.Unlock()
	p.kick()
}

// recover makes memory and rings whole that another process had used when it
// died. What was held may have been sent by it: those packets are dropped.
func (p *Plane) recover() error {
	errs := faults{}
	errs.add(p.engine.Forfeit())
	for _, e := range p.ports {
		if e.device == nil {
			continue
		}
		x, ok := e.device.Port.(*xskDevice)
		if !ok {
			continue
		}
		stranded, err := x.Recover()
		errs.add(err)
		if stranded > 0 {
			p.log.Warn("frames stay with the port until it is closed: nobody knows whether the kernel has them", "port", e.name, "frames", stranded)
		}
	}
	p.arena.Rebuild(nil)
	return errs.err()
}

// Cede leaves a frozen dataplane to the other process, which drives it from here
// on. Forsake is to follow, when nobody asks this one any more.
func (p *Plane) Cede() {
	p.closed, p.frozen = true, false
	p.mu.Unlock()
}

// Forsake ends the dataplane for this process only: another one drives it, or
// never stopped to. Nothing is removed and no setting is put back.
func (p *Plane) Forsake() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	errs := faults{}
	p.engine.Stop()
	for _, e := range p.ports {
		if e.device == nil {
			continue
		}
		if f, ok := e.device.Port.(interface{ Forsake() error }); ok {
			errs.add(f.Forsake())
		}
		e.device, e.driven = nil, false
	}
	for path := range p.spaces {
		p.closeSpace(path)
	}
	if c, ok := p.opener.(interface{ Close() error }); ok {
		errs.add(c.Close())
	}
	if p.steering != nil {
		errs.add(p.steering.Close())
	}
	errs.add(p.forget())
	errs.add(p.arena.Close())
	return errs.err()
}

// stateOf is the port that a state wants under a name.
func stateOf(wanted map[string]*desired.Port, name string) (*desired.Port, error) {
	want := wanted[name]
	if want == nil {
		return nil, fmt.Errorf("port %s is handed over, but the state does not want it", name)
	}
	return want, nil
}
