package plane

import (
	"context"
	"iter"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/fastpath/overhear"
	"margay.dev/margay/forwarder/connections"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/policing"
)

// police takes up what is new of policy. Where that fails nobody's policy can be
// told, and publish lets nothing pass that needs it.
func (p *Plane) police(changed *desired.Change) error {
	p.unsettled = p.unsettled || changed == nil || p.unpoliced != nil
	var sets desired.SetChanges
	var rules iter.Seq[uint32]
	if !p.unsettled {
		sets, rules = changed.Sets(), changed.Rules()
	}
	p.policing.Ledger().Open(p.want, rules)
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
	if !p.unsettled {
		sets = changed.Sets()
	}
	p.unpoliced = p.policing.Leave(p.want, sets)
	p.unsettled = p.unpoliced != nil
	p.policing.Ledger().Close(p.want)
	p.tables.Court.Moved()
	return p.unpoliced
}

// Ledger is what was judged and logged.
func (p *Plane) Ledger() *policing.Ledger { return p.policing.Ledger() }

// Overhear gives copies of what endpoints and servers of names say to each other, until
// stop; who asked before gets none any more.
func (p *Plane) Overhear() (heard <-chan overhear.Heard, stop func()) {
	return p.tables.Court.Post.Listen()
}

// AnswersRead lets packets go on that are held until they are read, by their ids.
func (p *Plane) AnswersRead(ids []uint64) {
	p.tables.Court.Post.Read(ids)
	p.engine.Kick()
}

// judge puts an endpoint's policy in force for its port.
func (p *Plane) judge(s *node.State, index uint16, e *desired.Endpoint) {
	var j *judge.Endpoint
	var err error
	if e.Policy == desired.PolicyEnforced {
		if j, err = p.policing.Endpoint(e, uint32(index)); err != nil {
			p.unpoliced = err
		}
	}
	switch {
	case e.Policy == desired.PolicyOff:
		return
	case e.Host && (e.Policy == desired.NoPolicy || p.unpoliced != nil):
		j = &judge.Endpoint{Host: true, Account: uint32(index)} // nothing is forwarded; what is the node's own goes on
	case e.Policy == desired.NoPolicy:
		return // guard has seen to it
	case p.unpoliced != nil:
		s.Ports[index].Flags |= node.NoPolicyState
		return
	}
	for len(s.Policy) <= int(index) {
		s.Policy = append(s.Policy, nil)
	}
	s.Policy[index] = j
}

// remember has what is decided kept in a table of connections.
func (p *Plane) remember(s *connections.Store, err error) error {
	if err == nil {
		p.connections = s
		p.tables.Court.Keep(s.Table, connections.Now())
	}
	return err
}

// forget gives the memory of connections back, if there is any.
func (p *Plane) forget() error {
	if p.connections == nil {
		return nil
	}
	return p.connections.Close()
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
	flows, now := p.connections.Table, flow.TickAt(connections.Now())
	for flows.Advance(now, most) && ctx.Err() == nil {
	}
	g := flows.Generation()
	if p.engine.Quiesce(ctx) == nil {
		flows.Quiesced(g)
	}
}
