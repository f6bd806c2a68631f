package explain

import (
	"encoding/binary"
	"net/netip"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/paths"
)

// from is the port that the packet comes in by: that of the endpoint which was
// named, or the one that leads to its address; graph.NoPort where none does.
func (w *world) from() uint16 {
	if e := w.source.endpoint; e != nil {
		return w.port(e)
	}
	return w.home(w.source.addr)
}

// port is the index of an endpoint's port.
func (w *world) port(e *desired.Endpoint) uint16 {
	if index, ok := w.Ports[e.Port]; ok {
		return index
	}
	return graph.NoPort
}

// home is the port that leads to an address, the host port for the node's own.
func (w *world) home(addr netip.Addr) uint16 {
	view := w.Tables.FIB.View()
	var hop fib.NextHopID
	if b := addr.AsSlice(); addr.Is4() {
		hop = view.Lookup4(binary.BigEndian.Uint32(b))
	} else {
		hop = view.Lookup6(binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]))
	}
	switch a := view.Adjacency(view.Resolve(hop, 0)); a.Kind {
	case fib.Attached, fib.Rewrite, fib.Incomplete:
		return a.Port
	case fib.Local, fib.Punt:
		return w.st.HostPort
	}
	return graph.NoPort
}

// to is the port that the packet would leave by.
func (w *world) to(p *node.Passage) uint16 {
	if p.Reason == 0 && p.Next != "icmp-echo" {
		return p.OutPort
	}
	return w.home(w.destination.addr)
}

// party says who is at an end, and behind which port.
func (w *world) party(e end, port uint16) *pb.Explanation_Party {
	out := &pb.Explanation_Party{Port: w.name(port), Node: port != graph.NoPort && port == w.st.HostPort}
	if e.endpoint != nil {
		out.Endpoint, out.HostDenied = e.endpoint.ID, e.endpoint.HostDenied
		out.Policy = pb.Explanation_Party_POLICY_OFF
		if int(port) < len(w.st.Policy) && w.st.Policy[port] != nil {
			out.Policy = pb.Explanation_Party_POLICY_ENFORCED
		}
		if int(port) < len(w.st.Ports) && w.st.Ports[port].Flags&node.NoPolicyState != 0 {
			out.Policy = pb.Explanation_Party_POLICY_UNKNOWN
		}
	}
	const most = 64
	sets := w.sets(e.addr)
	for _, id := range sets[:min(len(sets), most)] {
		out.Sets = append(out.Sets, w.set(id))
	}
	out.SetsUnlisted = uint32(len(sets) - len(out.Sets))
	return out
}

// sets are those that hold an address.
func (w *world) sets(addr netip.Addr) []classifier.SetID {
	view := w.Tables.Court.Labels.View()
	return view.Members(view.Lookup(addr))
}

// way is the route that decides for an address.
func (w *world) way(addr netip.Addr) *pb.Explanation_Way {
	r, ok := w.Paths.Covering(addr)
	if !ok {
		return &pb.Explanation_Way{}
	}
	hop := w.Paths.Hops()[r.Hop]
	return &pb.Explanation_Way{Prefix: r.Prefix.String(), NextHop: hop.Client, Adjacencies: hop.Proto()}
}

// back is the way of replies, which come in where the packet leaves.
func (w *world) back(there *node.Passage) *pb.Explanation_Way {
	out := w.way(w.source.addr)
	if p := w.Tables.Try(there.OutPort, w.answer()); p.Reason != 0 {
		out.Reason = p.Reason.String()
	}
	return out
}

// name is what people call a port.
func (w *world) name(index uint16) string {
	for name, i := range w.Ports {
		switch {
		case i != index:
		case name == paths.HostName && w.State.Host != nil:
			return w.State.Host.Name
		default:
			return name
		}
	}
	return ""
}

// set names a set.
func (w *world) set(id classifier.SetID) *pb.Explanation_Set {
	const most = 4
	out := &pb.Explanation_Set{Id: uint32(id), Name: w.State.SetName(uint32(id))}
	if members, ok := w.State.Sets[uint32(id)]; ok && out.Name == "" {
		for p := range members.All() {
			if p.Addr().Is4() != w.source.addr.Is4() {
				continue
			}
			if len(out.Members) == most {
				break
			}
			out.Members = append(out.Members, p.String())
		}
	}
	return out
}

// rule names the rule that gave a verdict; nil for the end of a tier.
func (w *world) rule(v classifier.Verdict) *pb.Explanation_Rule {
	if v.Rule() == classifier.EndOfTier || v.Action() == classifier.NoMatch {
		return nil
	}
	return w.named(v.Rule())
}

// named names the rule of an id.
func (w *world) named(id uint32) *pb.Explanation_Rule {
	out := &pb.Explanation_Rule{Id: id}
	if r := w.State.RuleName(id); r != nil {
		out.Tier, out.Policy, out.Egress, out.Index, out.Text = r.Tier, r.Policy, r.Egress, uint32(r.Index), r.Text
	}
	return out
}
