package plane

import (
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
)

// eventBatch is how many events of the workers are dealt with under one lock.
const eventBatch = 256

// neighbourEvents deals with e and what else the workers have noticed.
func (p *Plane) neighbourEvents(e node.NeighbourEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.neighbourEvent(e)
	for range eventBatch {
		select {
		case e := <-p.tables.Events:
			changed = p.neighbourEvent(e) || changed
			continue
		default:
		}
		break
	}
	if changed {
		p.moved()
	}
}

// moved has the workers look again at flows whose way may have changed, and at
// packets that wait for one.
func (p *Plane) moved() {
	p.tables.Court.Moved()
	p.engine.Kick()
}

// neighbourEvent acts on what a worker noticed. On a port that the kernel
// shares with us its table is the truth, so that only it is asked.
func (p *Plane) neighbourEvent(ev node.NeighbourEvent) (changed bool) {
	e := p.byIndex[ev.Port]
	if e == nil || e.device == nil || e.want.Kind != desired.XSK {
		return false
	}
	if e.want.Takeover {
		if ev.Kind == node.Needed {
			p.paths.Needed(e.name, ev.Addr)
			return false
		}
		return p.paths.Reached(e.name, ev.Addr, desired.MAC(ev.MAC), paths.FromGraph)
	}
	if s := p.spaces[e.want.NetNS]; s != nil && ev.Kind == node.Needed {
		p.resolve(s, e, ev.Addr)
	}
	return false
}
