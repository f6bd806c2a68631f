package explain

import (
	"context"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/plane"
)

// connections are those that are known of a question.
type connections struct {
	list []flow.Flow
	more uint32 // beside those of the list
}

// find looks through the flow table for connections between the two ends, of the
// protocol and to the destination port, from whatever port, and for the one that
// the packet would be a reply of.
func find(ctx context.Context, l plane.Live, t *tuple) (out connections, err error) {
	const most, every = 8, 1 << 16
	table := l.Tables.Court.Flows
	if table == nil {
		return out, nil
	}
	want := flow.NewKey(t.source.addr, t.destination.addr, t.proto8, 0, t.destinationPort, 0)
	reply := flow.NewKey(t.source.addr, t.destination.addr, t.proto8, t.sourcePort, t.destinationPort, 0)
	seen := 0
	for f := range table.All(l.Now) {
		if seen++; seen%every == 0 && ctx.Err() != nil {
			return out, ctx.Err()
		}
		k := f.Key[0]
		if k.Tail &^= 0xffff << 16; k != want && f.Key[1] != reply {
			continue
		}
		if len(out.list) == most {
			out.more++
			continue
		}
		out.list = append(out.list, f)
	}
	return out, nil
}

// flow says what is known of a connection, and what would be done with its next
// packet. p is what became of another packet between the same ends.
func (w *world) flow(f *flow.Flow, p *node.Passage) *pb.Explanation_Flow {
	from, _ := f.Key[0].Ports()
	out := &pb.Explanation_Flow{
		SourcePort: uint32(from), State: f.State.String(), IdleMs: uint64(f.Idle.Milliseconds()),
		Reply:        f.Key[1] == flow.NewKey(w.source.addr, w.destination.addr, w.proto8, w.sourcePort, w.destinationPort, 0),
		PacketsThere: f.Packets[0], PacketsBack: f.Packets[1],
		Current: f.Decision.Generation == w.Tables.Court.Generation(),
	}
	verdicts := judge.Verdicts(&f.Decision)
	if !out.Current {
		if !p.Referred || out.Reply { // of a reply the other way would have to be asked
			return out
		}
		c := p.Case
		c.Key, c.Flow = f.Key[0], 1 // any: it is known
		w.Tables.Court.Hear(&c)
		verdicts = c.Verdict
	}
	out.Egress, out.Ingress = said(verdicts[0]), said(verdicts[1])
	return out
}
