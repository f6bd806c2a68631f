// Package explain says what this node makes of a packet that opens a connection:
// where it would come in and leave, who judges it, which tier, policy and rule
// decides, and what would turn that.
//
//	question ─names, addresses─► tuple of each family ─► Try: ip-input, route ─► Hear: chains ─► Explanation
//	                                                                └─ hypotheses ─► Changes
//
// It asks the tables that packets are judged by, with the code that judges them,
// and changes nothing. What would turn a verdict is never guessed: each change is
// tried on the lists in force before it is told.
package explain

import (
	"context"
	"errors"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
)

// The errors of questions, for errors.Is.
var (
	ErrQuestion = errors.New("not a question that can be answered")
	ErrUnknown  = errors.New("not an endpoint of this node")
)

// fault is an error for people that is one of the above.
type fault struct {
	kind error
	says string
}

func (f fault) Error() string { return f.says }
func (f fault) Unwrap() error { return f.kind }

// Ask answers a question about a plane. A question that makes no sense, or names
// what is not there, is an error that wraps ErrQuestion or ErrUnknown.
func Ask(ctx context.Context, p *plane.Plane, in *pb.ExplainRequest) (*pb.ExplanationList, error) {
	var asked []tuple
	var err error
	var live plane.Live
	p.Look(func(l plane.Live) {
		asked, err = read(l.State, in)
		live.Tables, live.Now = l.Tables, l.Now
	})
	if err != nil {
		return nil, err
	}
	out := &pb.ExplanationList{}
	for i := range asked {
		known, err := find(ctx, live, &asked[i]) // takes its time: nobody waits for it
		if err != nil {
			return nil, err
		}
		if e := answer(p, &asked[i], known); e != nil {
			out.Explanations = append(out.Explanations, e)
		}
	}
	return out, nil
}

// answer explains one tuple; nil where the plane has ended. What would turn a verdict is
// looked for while others change the tables: if they change who is asked, or what
// those say, it is all asked again, and if that goes on, nothing is told that would turn it.
func answer(p *plane.Plane, t *tuple, known connections) (out *pb.Explanation) {
	const tries = 3
	for range tries {
		var s *search
		out = nil
		p.Look(func(l plane.Live) { out, s = explain(l, t, known) })
		if out == nil || s == nil {
			return out
		}
		s.look = p.Look
		if changes := s.changes(); !s.stale {
			out.Changes = changes
			return out
		}
	}
	return out
}

// world is the tables in force, and what is asked of them.
type world struct {
	plane.Live
	*tuple
	st    *node.State
	hosts [2]*desired.Endpoint // that judge in the place of source and destination; nil for none
}

// explain answers for one family, but for what would turn the verdict: that is to be
// searched for, nil where policy is not asked.
func explain(l plane.Live, t *tuple, known connections) (*pb.Explanation, *search) {
	w := &world{Live: l, tuple: t, st: l.Tables.State()}
	out := &pb.Explanation{Generation: l.Generation, Tuple: t.proto()}
	in := w.from()
	passage := w.Tables.Try(in, t.packet())
	out.Source, out.Destination = w.party(t.source, in), w.party(t.destination, w.to(&passage))
	out.There = w.way(t.destination.addr)
	reason := passage.Reason
	if reason != 0 {
		out.There.Reason = reason.String()
	}
	if passage.Referred {
		w.findHosts(&passage, in)
		reason = w.Tables.Court.Hear(&passage.Case)
	}
	if reason == 0 {
		reason = passage.Later
	}
	out.Egress, out.Ingress = w.judgements(out, &passage, in)
	if out.Outcome = outcome(passage.Next); reason != 0 {
		out.Outcome, out.Reason = pb.Explanation_OUTCOME_DROPPED, reason.String()
	} else if out.Outcome != pb.Explanation_OUTCOME_ANSWERED {
		out.Back = w.back(&passage)
	}
	out.FlowsUnlisted = known.more
	for i := range known.list {
		out.Flows = append(out.Flows, w.flow(&known.list[i], &passage))
	}
	if !passage.Referred {
		return out, nil
	}
	return out, w.search(in, passage.Case)
}

// findHosts finds the host endpoints that judge a packet which came in by a port.
func (w *world) findHosts(p *node.Passage, in uint16) {
	for side, port := range [2]uint16{in, p.OutPort} {
		if e := p.Case.By[side]; e != nil && e.Host {
			w.hosts[side] = w.HostAt(port)
		}
	}
}

// outcome is what becomes of a packet at the stop that route, or policy, sends it to.
func outcome(stop string) pb.Explanation_Outcome {
	switch stop {
	case "rewrite", "fragment":
		return pb.Explanation_OUTCOME_FORWARDED
	case "resolve":
		return pb.Explanation_OUTCOME_HELD
	case "punt":
		return pb.Explanation_OUTCOME_TO_NODE
	case "icmp-echo":
		return pb.Explanation_OUTCOME_ANSWERED
	}
	return pb.Explanation_OUTCOME_UNKNOWN
}
