package plane

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/internal/mem"
)

// makeFlows makes the table of connections, in memory that another process can
// take over.
func (p *Plane) makeFlows() error {
	region, err := mem.Create("margay-flows", mem.KindFlows, flow.LayoutVersion, max(p.cfg.FlowBytes, flow.MinBytes))
	if err != nil {
		return err
	}
	table, err := flow.New(region.Payload(), flow.Config{Workers: p.cfg.Workers, Endpoints: maxEndpoints, Timeouts: flow.DefaultTimeouts()})
	if err != nil {
		_ = region.Close()
		return err
	}
	p.keepFlows(region, table)
	return nil
}

// closeFlows gives the memory of connections back, if there is any.
func (p *Plane) closeFlows() error {
	if p.flowMemory == nil {
		return nil
	}
	return p.flowMemory.Close()
}

// maxEndpoints is how many endpoints flows can be charged to: one for each port.
const maxEndpoints = 4096

// takeFlows goes on with the connections of another process.
func (p *Plane) takeFlows(fd int) error {
	region, err := mem.Attach(fd, mem.KindFlows, flow.LayoutVersion)
	if err != nil {
		return err
	}
	table, err := flow.Attach(region.Payload())
	if err == nil && table.Workers() != p.cfg.Workers {
		err = fmt.Errorf("the table of connections is for %d workers, and this configuration has %d", table.Workers(), p.cfg.Workers)
	}
	if err != nil {
		_ = region.Close()
		return err
	}
	p.keepFlows(region, table)
	return nil
}

func (p *Plane) keepFlows(region *mem.Region, table *flow.Table) {
	p.flowMemory, p.flows = region, table
	p.tables.Court.Flows, p.tables.Court.FlowsSince = table, monotonic()
}

// monotonic is the clock that connections age by: the workers', but from a
// beginning that is the same for every process.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0 // it cannot fail: every kernel has the clock, and t is ours
	}
	return time.Duration(t.Nano())
}

// police takes up what is new of policy. Where that fails nobody's policy can be
// told, and publish lets nothing pass that needs it.
func (p *Plane) police(changed *desired.Change) error {
	var sets desired.SetChanges
	if changed != nil && p.unpoliced == nil {
		sets = changed.Sets()
	}
	p.unpoliced = p.policing.Join(p.want, sets)
	return p.unpoliced
}

// discharge lets go what no worker judges by any more.
func (p *Plane) discharge(changed *desired.Change) error {
	if p.unpoliced != nil {
		return p.unpoliced // the next pass looks at everything
	}
	p.policing.Quiesced(p.policing.Generation())
	var sets desired.SetChanges
	if changed != nil {
		sets = changed.Sets()
	}
	p.unpoliced = p.policing.Leave(p.want, sets)
	p.tables.Court.Moved()
	return p.unpoliced
}

// judge puts an endpoint's policy in force for its port.
func (p *Plane) judge(s *node.State, index uint16, e *desired.Endpoint) {
	if e.Policy != desired.PolicyEnforced {
		return
	}
	j, err := p.policing.Endpoint(e, uint32(index))
	if err != nil {
		p.unpoliced = err
	}
	if p.unpoliced != nil {
		s.Ports[index].Flags |= node.NoPolicyState
		return
	}
	for len(s.Policy) <= int(index) {
		s.Policy = append(s.Policy, nil)
	}
	s.Policy[index] = j
}

// ageFlows ends connections that have been idle for too long, unless the
// dataplane is being changed or handed over: then the next beat will do.
func (p *Plane) ageFlows(ctx context.Context) {
	select {
	case p.turn <- struct{}{}:
	default:
		return
	}
	defer p.turn.Unlock()
	const most = 1 << 16 // looked at between two looks at ctx
	now := flow.TickAt(monotonic())
	for p.flows.Advance(now, most) && ctx.Err() == nil {
	}
	g := p.flows.Generation()
	if p.engine.Quiesce(ctx) == nil {
		p.flows.Quiesced(g)
	}
}
