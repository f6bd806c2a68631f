package explain

import (
	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/policing"
)

// judgements are what the policy of both sides says of a packet that came in by a port.
func (w *world) judgements(out *pb.Explanation, p *node.Passage, in uint16) (egress, ingress *pb.Explanation_Judgement) {
	egress = &pb.Explanation_Judgement{Exempt: exempt(out.Source, "sends it")}
	ingress = &pb.Explanation_Judgement{Exempt: exempt(out.Destination, "gets it")}
	if in == w.st.HostPort && out.Destination.Endpoint != "" {
		ingress.Exempt = "what a node sends to its own endpoints is not judged"
	}
	switch {
	case p.Reason != 0:
		egress.Exempt = "the packet ends before policy is asked"
		ingress.Exempt = egress.Exempt
	case p.Referred:
		for side, at := range []*pb.Explanation_Judgement{egress, ingress} {
			if p.Case.By[side] != nil {
				w.judged(at, side, &p.Case)
			}
		}
	}
	return egress, ingress
}

// exempt says why nobody judges a packet for one side.
func exempt(p *pb.Explanation_Party, does string) string {
	switch {
	case p.Node:
		return "the node itself " + does
	case p.Endpoint == "":
		return "no endpoint of this node " + does + "; where it lives, its own node's forwarder is to be asked"
	}
	return "its policy is off"
}

// judged fills in what one side's stages say.
func (w *world) judged(out *pb.Explanation_Judgement, side int, c *judge.Case) {
	out.Exempt, out.Said = "", said(c.Verdict[side])
	if h := w.hosts[side]; h != nil {
		out.Host = h.ID
	}
	var steps []classifier.Verdict
	if by := chainOf(c, side); by != nil {
		steps = by.Explain(&c.Tuple, nil)
	}
	tier, decided := 0, false
	for _, s := range w.stages(side) {
		stage := &pb.Explanation_Stage{Name: s.Name}
		out.Stages = append(out.Stages, stage)
		switch {
		case decided:
			continue
		case policing.Program(&s, familyOf(c)) != 0:
			for _, v := range steps {
				if v.Tier() == tier {
					w.step(stage, v)
				}
			}
			tier++
		case s.UndecidedPasses:
			stage.Did = pb.Explanation_Stage_DID_END_PASS
		default:
			stage.Did = pb.Explanation_Stage_DID_END_DENY
		}
		decided = stage.Did != pb.Explanation_Stage_DID_PASS && stage.Did != pb.Explanation_Stage_DID_END_PASS
	}
	out.End = !decided
}

// step notes what a tier did.
func (w *world) step(out *pb.Explanation_Stage, v classifier.Verdict) {
	if v.Action() == classifier.Log {
		out.Logged = append(out.Logged, w.rule(v))
		return
	}
	out.Rule = w.rule(v)
	switch end := v.Rule() == classifier.EndOfTier; {
	case v.Action() == classifier.Allow:
		out.Did = pb.Explanation_Stage_DID_ALLOW
	case v.Action() == classifier.Deny && end:
		out.Did = pb.Explanation_Stage_DID_END_DENY
	case v.Action() == classifier.Deny:
		out.Did = pb.Explanation_Stage_DID_DENY
	case end:
		out.Did = pb.Explanation_Stage_DID_END_PASS
	default:
		out.Did = pb.Explanation_Stage_DID_PASS
	}
}

// judge is the endpoint whose policy is asked for one side, 0 for the source's; nil for
// none.
func (w *world) judge(side int) *desired.Endpoint {
	if h := w.hosts[side]; h != nil {
		return h
	}
	return [2]*end{&w.source, &w.destination}[side].endpoint
}

// stages are those of the endpoint of one side, 0 for the source's egress.
func (w *world) stages(side int) []desired.Stage {
	if e := w.judge(side); e != nil {
		return e.Facing()[side]
	}
	return nil
}

// egress says whether what is asked for a side is an endpoint's egress policy.
func (w *world) egress(side int) bool { return (side == 0) != (w.hosts[side] != nil) }

// chainOf is what judges one side of a case; nil where nothing does.
func chainOf(c *judge.Case, side int) *chain.Chain {
	switch e := c.By[side]; {
	case e == nil:
		return nil
	case side == 0:
		return e.Egress[familyOf(c)]
	default:
		return e.Ingress[familyOf(c)]
	}
}

func familyOf(c *judge.Case) int {
	if c.Key.IPv6() {
		return 1
	}
	return 0
}

func said(v classifier.Verdict) pb.Explanation_Judgement_Said {
	if v.Action() == classifier.Allow {
		return pb.Explanation_Judgement_SAID_ALLOW
	}
	return pb.Explanation_Judgement_SAID_DENY
}
