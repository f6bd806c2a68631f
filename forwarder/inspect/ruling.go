package inspect

import (
	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/policing"
)

// denied tells whether policy drops a flow's packets.
func denied(one *flow.Flow) bool {
	for _, v := range one.Decision.Verdict {
		if classifier.Verdict(v).Action() != classifier.Allow {
			return true
		}
	}
	return false
}

// rulings are what policy has decided about a flow at both of its ends.
func rulings(s *desired.State, one *flow.Flow) (egress, ingress *pb.Ruling) {
	from, _ := one.Key[0].Addrs()
	to, _ := one.Key[1].Addrs() // who answers, whatever name it was called by
	family := 0
	if one.Key[0].IPv6() {
		family = 1
	}
	source, destination := s.Owner(from), s.Owner(to)
	egress, ingress = &pb.Ruling{}, &pb.Ruling{}
	var out, in []desired.Stage
	if source != nil {
		egress.Endpoint, out = source.ID, policing.Asked(source.Egress, family)
	}
	if destination != nil {
		ingress.Endpoint, in = destination.ID, policing.Asked(destination.Ingress, family)
	}
	rule(s, egress, out, classifier.Verdict(one.Decision.Verdict[0]))
	rule(s, ingress, in, classifier.Verdict(one.Decision.Verdict[1]))
	return egress, ingress
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
