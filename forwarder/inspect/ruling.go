package inspect

import (
	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/policing"
)

// denied tells whether policy drops a flow's packets.
func denied(one *flow.Flow) bool {
	for _, v := range judge.Verdicts(&one.Decision) {
		if v.Action() != classifier.Allow {
			return true
		}
	}
	return false
}

// rulings are what policy has decided about a flow at both of its ends.
func rulings(l *plane.Live, one *flow.Flow) (egress, ingress *pb.Ruling) {
	s := l.State
	from, _ := one.Key[0].Addrs()
	to, _ := one.Key[1].Addrs() // who answers, whatever name it was called by
	family := 0
	if one.Key[0].IPv6() {
		family = 1
	}
	var out [2]*pb.Ruling
	verdicts := judge.Verdicts(&one.Decision)
	for side, e := range [2]*desired.Endpoint{s.Owner(from), s.Owner(to)} {
		if host := hostAsked(l, one.Decision.Asked[side]); host != nil {
			e = host
		}
		out[side] = &pb.Ruling{}
		var stages []desired.Stage
		if e != nil {
			out[side].Endpoint, stages = e.ID, policing.Asked(e.Facing()[side], family)
		}
		rule(s, out[side], stages, verdicts[side])
	}
	return out[0], out[1]
}

// hostAsked is the host endpoint that was asked about a side of a flow, nil where that
// was another's or nobody's policy. asked is as flows remember it: the port, plus 1.
func hostAsked(l *plane.Live, asked uint32) *desired.Endpoint {
	if by := l.Tables.State().Policy; asked == 0 || int(asked) > len(by) || by[asked-1] == nil || !by[asked-1].Host {
		return nil
	}
	return l.HostAt(uint16(asked - 1))
}

// rule notes a verdict that some stages gave.
func rule(s *desired.State, out *pb.Ruling, stages []desired.Stage, v classifier.Verdict) {
	out.Allowed = v.Action() == classifier.Allow
	switch {
	case v.Action() == classifier.NoMatch:
		out.By = pb.Ruling_BY_END
	case v.Rule() == classifier.EndOfTier:
		out.By = pb.Ruling_BY_TIER
		if v.Tier() < len(stages) { // else its policy is another one by now
			out.Tier = stages[v.Tier()].Name
		}
	case v.Rule() != 0:
		out.By, out.Rule = pb.Ruling_BY_RULE, ruleName(s, v.Rule())
		out.Tier = out.Rule.GetTier()
	case !out.Allowed:
		out.By, out.Rule = pb.Ruling_BY_RULE, &pb.RuleName{}
	}
}

// ruleName is what is known of a rule.
func ruleName(s *desired.State, id uint32) *pb.RuleName {
	r := s.RuleName(id)
	if r == nil {
		return &pb.RuleName{Id: id}
	}
	return &pb.RuleName{Id: id, Tier: r.Tier, Policy: r.Policy, Egress: r.Egress, Index: uint32(r.Index), Text: r.Text}
}
