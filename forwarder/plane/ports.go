package plane

import (
	"context"
	"errors"
	"fmt"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
)

// portEntry is a port from the moment a state wants it until nothing of it is left.
type portEntry struct {
	name    string
	index   uint16
	host    bool
	want    *desired.Port
	device  *Device // nil while there is none
	driven  bool    // the workers have its queues
	up      bool    // administratively, and with a carrier
	mtu     int
	mac     desired.MAC
	leaves  bool // no state wants it any more
	stale   bool // the device may not have what is wanted of it
	lingers bool // taken from the workers, but they may not have noticed
}

func (e *portEntry) object() string {
	if e.host {
		return "host-port"
	}
	return "port/" + e.name
}

// indexes hands out port indexes; a retired one waits for release.
type indexes struct {
	next          uint16
	free, retired []uint16
}

func (x *indexes) take() (uint16, bool) {
	if n := len(x.free); n > 0 {
		i := x.free[n-1]
		x.free = x.free[:n-1]
		return i, true
	}
	if x.next >= graph.MaxPorts {
		return 0, false
	}
	x.next++
	return x.next - 1, true
}

func (x *indexes) release() {
	x.free = append(x.free, x.retired...)
	x.retired = x.retired[:0]
}

// inherit goes on behind the indexes that are in use.
func (x *indexes) inherit(used map[uint16]*portEntry) {
	for i := range used {
		x.next = max(x.next, i+1)
	}
	for i := uint16(1); i < x.next; i++ {
		if used[i] == nil {
			x.free = append(x.free, i)
		}
	}
}

// wantedPorts is every port of the state, the host port among them.
func (p *Plane) wantedPorts() map[string]*desired.Port {
	all := make(map[string]*desired.Port, len(p.want.Ports)+1)
	for name, port := range p.want.Ports {
		all[name] = port
	}
	if h := p.want.Host; h != nil {
		all[paths.HostName] = &desired.Port{Name: paths.HostName, Device: h.Name, MTU: h.MTU, Kind: desired.TUN, Keep: true}
	}
	return all
}

// openPorts makes an entry for every port that is wanted and opens those that
// have no device yet. It marks those that nobody wants any more.
func (p *Plane) openPorts(ctx context.Context) (opened []*portEntry) {
	wanted := p.wantedPorts()
	for name, e := range p.ports {
		want := wanted[name]
		if e.leaves = want == nil; e.leaves {
			continue
		}
		if e.lingers || !e.want.SameDevice(want) {
			p.take(ctx, e)
		}
		e.stale = e.stale || p.verify || !e.want.Equal(want)
		e.want = want
	}
	for name, want := range wanted {
		e := p.ports[name]
		if e == nil {
			index, ok := p.indexes.take()
			if !ok {
				p.note("port/"+name, ReasonDeviceFailed, "all port indexes are in use")
				continue
			}
			e = &portEntry{name: name, index: index, want: want, host: name == paths.HostName}
			p.ports[name], p.byIndex[index] = e, e
		}
		switch {
		case e.lingers: // what is open is no longer what is wanted
		case e.device != nil && e.stale:
			p.adjust(e)
		case e.device == nil && !p.visiting && p.open(e):
			opened = append(opened, e)
		}
	}
	return opened
}

// open opens the device of a port. What it lacks becomes its condition.
func (p *Plane) open(e *portEntry) bool {
	s, err := p.space(e.want.NetNS)
	if err == nil {
		e.device, err = p.openDevice(e, s)
	}
	switch {
	case errors.Is(err, errNoDevice):
		p.note(e.object(), ReasonDeviceMissing, fmt.Sprintf("device %s is not there (it is taken up when it comes): %v", e.want.Device, err))
		return false
	case errors.Is(err, errFewFrames):
		p.note(e.object(), ReasonFewFrames, err.Error())
		return false
	case err != nil:
		p.note(e.object(), ReasonDeviceFailed, err.Error())
		return false
	}
	p.layout++
	d := e.device
	e.mtu, e.mac, e.up = d.Port.MTU(), d.MAC, d.Carrier
	for _, f := range d.Port.Fallbacks() {
		p.log.Warn("port runs with less than was asked for", "port", e.name, "fallback", f)
	}
	p.log.Info("port opened", "port", e.name, "device", e.want.Device, "index", e.index,
		"mode", d.Mode, "queues", len(d.Port.Queues()), "mtu", e.mtu)
	return true
}

func (p *Plane) openDevice(e *portEntry, s *space) (*Device, error) {
	if e.host {
		return p.openHost(e, s)
	}
	if e.want.BusyPoll && p.cfg.Journal != nil {
		if err := p.deferInterrupts(e.want, s); err != nil {
			p.log.Warn("busy polling works worse without deferred interrupts", "port", e.name, "error", err)
		}
	}
	return p.opener.Open(e.want, s.host, p.cfg.Workers, p.steeringSource)
}

// deferInterrupts has a device leave its queues to those who poll them, until exit.
func (p *Plane) deferInterrupts(want *desired.Port, s *space) error {
	if _, err := s.host.Link(want.Device); err != nil {
		return nil // opening the port will say so
	}
	for attribute, value := range map[string]string{"napi_defer_hard_irqs": "2", "gro_flush_timeout": "200000"} {
		if err := p.cfg.Journal.SetSysfs(s.ns, want.Device, attribute, value); err != nil {
			return err
		}
	}
	return nil
}

// drive gives a port's queues to the workers, then lets frames in.
func (p *Plane) drive(ctx context.Context, e *portEntry) error {
	if err := p.register(ctx, e); err != nil {
		return err
	}
	if e.device.Admit != nil {
		return e.device.Admit()
	}
	return nil
}

// register gives a port's queues to the workers.
func (p *Plane) register(ctx context.Context, e *portEntry) error {
	entry := node.EntryL3
	if e.device.L2 {
		entry = node.EntryL2
	}
	queues := e.device.Port.Queues()
	err := p.engine.AddPort(ctx, graph.Port{Index: e.index, Name: e.name, Entry: entry, Queues: queues, Host: e.host})
	if err != nil {
		e.lingers = true // some worker may have had its queues for a pass
		return err
	}
	e.driven = true
	return nil
}

// portCondition notes how a port fares whose device is open.
func (p *Plane) portCondition(e *portEntry) {
	_, told := p.conditions.now[e.object()]
	switch {
	case e.device == nil: // noted when it could not be opened
	case e.lingers && told: // why it had to be taken from the workers
	case e.lingers:
		p.note(e.object(), ReasonDeviceFailed, fmt.Sprintf("device %s stays open until workers that hang have let go of its queues; this is tried again by itself", e.want.Device))
	case !e.up:
		p.note(e.object(), ReasonDeviceDown, fmt.Sprintf("device %s is down or has no carrier", e.want.Device))
	default:
		p.note(e.object(), "", "")
	}
}

// detach takes a port from the workers and closes its device. Its index stays.
func (p *Plane) detach(ctx context.Context, e *portEntry) error {
	if e.device == nil {
		return nil
	}
	p.layout++
	errs := faults{}
	if e.driven && e.device.Shut != nil {
		errs.add(e.device.Shut())
	}
	if err := p.release(ctx, e); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if e.leaves && e.device.Remove != nil {
		errs.add(e.device.Remove(p.cache()))
	} else {
		errs.add(e.device.Port.Close(p.cache()))
	}
	p.cache().Flush()
	e.device = nil
	return errs.err()
}

// release has the workers let go of a port's queues. When they do not in time
// they may still use them: closing a queue now could hand its descriptor to
// somebody else, so the device waits for the next try.
func (p *Plane) release(ctx context.Context, e *portEntry) error {
	switch {
	case e.driven:
		e.driven, e.lingers = false, true
		if err := p.engine.RemovePort(ctx, e.index); err != nil {
			return err
		}
	case e.lingers:
		if err := p.engine.Quiesce(ctx); err != nil {
			return err
		}
	}
	e.lingers, e.up = false, false
	return nil
}

// take detaches a port whose device is gone or is to be opened anew, and has
// its ways leave their groups at once.
func (p *Plane) take(ctx context.Context, e *portEntry) {
	e.up = false
	p.paths.SetPort(p.pathsPort(e))
	p.paths.Forget(e.name)
	p.moved()
	if err := p.detach(ctx, e); err != nil {
		p.log.Warn("close port", "port", e.name, "error", err)
	}
}

// removePorts ends the ports that no state wants any more, and tells whether it could.
func (p *Plane) removePorts(ctx context.Context) (done bool) {
	removed := false
	done = true
	for name, e := range p.ports {
		if !e.leaves {
			continue
		}
		if err := p.detach(ctx, e); err != nil {
			p.log.Warn("close port", "port", name, "error", err)
		}
		if e.device != nil { // workers would not let go: next time
			done = false
			continue
		}
		p.note(e.object(), "", "")
		p.log.Info("port removed", "port", name)
		delete(p.ports, name)
		delete(p.byIndex, e.index)
		p.indexes.retired = append(p.indexes.retired, e.index)
		removed = true
	}
	if removed {
		p.publish()
		p.dropSpaces()
	}
	return done
}

// pathsPort is what paths must know of a port.
func (p *Plane) pathsPort(e *portEntry) paths.Port {
	return paths.Port{
		Name: e.name, Index: e.index, L2: e.want.Kind == desired.XSK,
		Owned: e.want.Kind == desired.TUN || e.want.Takeover,
		MTU:   p.mtuOf(e), MAC: e.mac, Up: e.driven && e.up,
	}
}

// mtuOf is a port's L3 MTU in bytes: the smaller of what is wanted and what is.
func (p *Plane) mtuOf(e *portEntry) int {
	switch {
	case e.mtu == 0 && e.want.MTU == 0:
		return 1500
	case e.mtu == 0 || e.want.MTU != 0 && e.want.MTU < e.mtu:
		return e.want.MTU
	}
	return e.mtu
}
