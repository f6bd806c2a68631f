package nft

import (
	"net/netip"
	"slices"
	"strings"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/oracle"
)

// state is what a table was given, as plainly as it can be held.
type state struct {
	desired *Desired
	sets    oracle.Sets
}

// allows follows a packet of a connection that nobody knows through the host.
func (s *state) allows(p *packet) bool {
	in, out := s.endpoint(p.from), s.endpoint(p.out())
	if p.from < 0 { // the host's own
		switch s.judge(untracked(out, Egress), p, Egress, true, true) {
		case classifier.Allow:
			return true
		case classifier.Deny:
			return false
		}
		return s.judge(normal(out, Egress), p, Egress, true, false) != classifier.Deny
	}
	skips := false
	for _, early := range []struct {
		j      *Judgement
		mirror bool
	}{{untracked(in, Ingress), true}, {preDNAT(in), false}} {
		if skips {
			break
		}
		switch s.judge(early.j, p, Ingress, true, early.mirror) {
		case classifier.Allow:
			skips = true
		case classifier.Deny:
			return false
		}
	}
	if p.out() < 0 {
		return skips || s.judge(normal(in, Ingress), p, Ingress, true, false) != classifier.Deny
	}
	return (skips || s.judge(forward(in, Ingress), p, Ingress, false, false) != classifier.Deny) &&
		s.judge(forward(out, Egress), p, Egress, false, false) != classifier.Deny
}

func untracked(e *Endpoint, d Direction) *Judgement {
	return of(e, func() *Judgement { return e.Untracked[d] })
}
func normal(e *Endpoint, d Direction) *Judgement {
	return of(e, func() *Judgement { return e.Normal[d] })
}
func forward(e *Endpoint, d Direction) *Judgement {
	return of(e, func() *Judgement { return e.Forward[d] })
}
func preDNAT(e *Endpoint) *Judgement { return of(e, func() *Judgement { return e.PreDNAT }) }

func of(e *Endpoint, j func() *Judgement) *Judgement {
	if e == nil {
		return nil
	}
	return j()
}

// endpoint is whose interface it is.
func (s *state) endpoint(at int) *Endpoint {
	if at < 0 {
		return nil
	}
	name := interfaces[at]
	var others *Endpoint
	for i := range s.desired.Endpoints {
		switch e := &s.desired.Endpoints[i]; e.Interface {
		case name:
			return e
		case AllInterfaces:
			others = e
		}
	}
	for _, w := range s.desired.Settings.Workloads {
		if head, all := strings.CutSuffix(w, "*"); w == name || all && strings.HasPrefix(name, head) {
			return nil
		}
	}
	return others
}

// judge asks one judgement: Pass is no opinion, also where nobody is asked, or what
// passes before policy.
func (s *state) judge(j *Judgement, p *packet, d Direction, own, mirror bool) classifier.Action {
	if j == nil || own && s.exempt(p, d, mirror) {
		return classifier.Pass
	}
	for _, t := range j.Tiers {
		rules := t.V4
		if !p.source.Is4() {
			rules = t.V6
		}
		n, _ := oracle.Match(rules, s.sets, p.key())
		action := t.End
		if n < len(rules) {
			action = rules[n].Action
		}
		if action != classifier.Pass {
			return action
		}
	}
	return j.End
}

func (p *packet) key() oracle.Packet {
	return oracle.Packet{Source: p.source, Destination: p.destination, Protocol: p.protocol, SourcePort: p.sourcePort, DestinationPort: p.destinationPort}
}

// exempt reports whether the packet is neighbour discovery, or for a failsafe port.
func (s *state) exempt(p *packet, d Direction, mirror bool) bool {
	if kind := p.destinationPort >> 8; p.protocol == 58 && !p.source.Is4() && (kind >= 130 && kind <= 136 || kind == 143) {
		return true
	}
	remote := p.source
	if d == Egress {
		remote = p.destination
	}
	has := func(list []Failsafe, port uint16) bool {
		return slices.ContainsFunc(list, func(f Failsafe) bool {
			return f.Protocol == p.protocol && f.Port == port && (f.Net == netip.Prefix{} || f.Net.Contains(remote))
		})
	}
	f := &s.desired.Settings.Failsafe
	return has(f[d], p.destinationPort) || mirror && has(f[1-d], p.sourcePort)
}
