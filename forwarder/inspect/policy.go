package inspect

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/grpc"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/policing"
)

const (
	// rulesPerChunk keeps a message below what gRPC takes by default, whatever the
	// rules are called.
	rulesPerChunk = 1024
	// maxSets is how many sets of one address are told.
	maxSets = 100
)

// ListPolicies tells of each endpoint whether it is judged, and by how much.
func (s *Server) ListPolicies(context.Context, *pb.ListPoliciesRequest) (*pb.PolicyList, error) {
	out := &pb.PolicyList{}
	looked := s.plane.Look(func(l plane.Live) {
		out.Generation = l.Generation
		for _, id := range slices.Sorted(maps.Keys(l.State.Endpoints)) {
			e := l.State.Endpoints[id]
			one := &pb.PolicyList_Entry{
				Endpoint: id, Port: e.Port, Policy: pb.Endpoint_Policy(e.Policy), Closed: closed(&l, e), Flows: held(&l, e),
				EgressTiers: uint32(len(e.Egress)), IngressTiers: uint32(len(e.Ingress)),
				Staged: len(e.StagedEgress)+len(e.StagedIngress) > 0,
			}
			for _, t := range tiersOf(&l, e) {
				one.Rules += t.rules()
			}
			out.Endpoints = append(out.Endpoints, one)
		}
	})
	if !looked {
		return nil, errEnded
	}
	return out, nil
}

// tier is a stage of an endpoint, with what its rules are read from. Programs do
// not change, so that rules can be told while the forwarder goes on.
type tier struct {
	head     *pb.EndpointPolicy_Tier
	programs [2]*classifier.Program // by family; nil for none
}

// rules is how many are in force, each family's by themselves.
func (t *tier) rules() (n uint32) {
	for _, p := range t.programs {
		if p != nil && !t.head.GetStaged() {
			n += uint32(p.Rules())
		}
	}
	return n
}

// tiersOf are the stages of an endpoint: those for what comes by its port first, and
// what is staged behind what is in force.
func tiersOf(l *plane.Live, e *desired.Endpoint) (out []tier) {
	by := judged(l, e)
	if by == nil {
		by = &judge.Endpoint{}
	}
	for side, stages := range e.Facing() {
		chains := [2][2]*chain.Chain{by.Egress, by.Ingress}[side]
		out = append(out, tiersIn(l, stages, chains, by.Ends[side], &pb.EndpointPolicy_Tier{Egress: (side == 0) != e.Host})...)
	}
	for side, stages := range e.FacingStaged() {
		staged := by.Staged[side]
		if staged == nil {
			staged = &judge.Staged{}
		}
		out = append(out, tiersIn(l, stages, staged.Chain, staged.Ends, &pb.EndpointPolicy_Tier{Egress: (side == 0) != e.Host, Staged: true})...)
	}
	return out
}

// tiersIn are stages of one direction, with the programs that are in force: those of
// chains, or of the state where nobody is judged by them yet.
func tiersIn(l *plane.Live, stages []desired.Stage, chains [2]*chain.Chain, ends judge.Ends, as *pb.EndpointPolicy_Tier) []tier {
	out := make([]tier, len(stages))
	for i, s := range stages {
		out[i].head = &pb.EndpointPolicy_Tier{Egress: as.Egress, Staged: as.Staged, Name: s.Name, Passes: s.UndecidedPasses}
	}
	numbers := make([][]uint32, len(stages)) // by which the ends of each are counted
	for family, c := range chains {
		var live []chain.Tier
		if c != nil {
			live = c.Tiers()
		}
		asked := len(policing.Asked(stages, family))
		for i, at := 0, 0; i < len(stages) && at < asked; i++ {
			id := policing.Program(&stages[i], family)
			if id == 0 {
				continue
			}
			if p := l.State.Programs[id]; p != nil {
				out[i].programs[family] = p.Loaded
			}
			if len(live) == asked {
				out[i].programs[family] = live[at].List.Program()
			}
			if at < len(ends[family]) {
				numbers[i] = append(numbers[i], ends[family][at])
			}
			at++
		}
	}
	for i := range out {
		out[i].head.Denied = ended(l, numbers[i])
	}
	return out
}

// ended is what was counted by any of some numbers, of which both families may have
// the same; nil where nobody counts.
func ended(l *plane.Live, numbers []uint32) *pb.PacketCount {
	if len(numbers) == 0 {
		return nil
	}
	slices.Sort(numbers)
	var sum judge.Count
	for _, n := range slices.Compact(numbers) {
		sum.Add(l.Tables.Court.Ends.Count(n))
	}
	return counted(sum)
}

func counted(c judge.Count) *pb.PacketCount {
	return &pb.PacketCount{Packets: c.Packets, Segments: c.Segments, Bytes: c.Bytes}
}

// ShowPolicy tells what judges an endpoint. The rules are those in force when it
// was asked; their names and counters those of when they are sent.
func (s *Server) ShowPolicy(in *pb.ShowPolicyRequest, out grpc.ServerStreamingServer[pb.EndpointPolicy]) error {
	var head *pb.EndpointPolicy
	var tiers []tier
	var err error
	looked := s.plane.Look(func(l plane.Live) {
		var e *desired.Endpoint
		if e, err = find(l.State, in.GetEndpoint()); err == nil {
			head, tiers = policyHead(&l, e), tiersOf(&l, e)
		}
	})
	if !looked {
		err = errEnded
	}
	if err != nil {
		return err
	}
	p := &pager{plane: s.plane, out: out, chunk: head}
	for _, t := range tiers {
		if err := p.tier(t); err != nil {
			return err
		}
	}
	return out.Send(p.chunk)
}

// policyHead is what is told of an endpoint beside its tiers.
func policyHead(l *plane.Live, e *desired.Endpoint) *pb.EndpointPolicy {
	out := &pb.EndpointPolicy{
		Endpoint: e.ID, Port: e.Port, Policy: pb.Endpoint_Policy(e.Policy), Closed: closed(l, e), Generation: l.Generation,
		HostDenied: e.HostDenied, Host: e.Host, Flows: held(l, e),
	}
	for _, prefix := range e.Addresses {
		out.Addresses = append(out.Addresses, addressOf(l, prefix))
	}
	by := judged(l, e)
	if by == nil {
		return out
	}
	for side := range by.Ends {
		one := &pb.EndpointPolicy_Direction{Egress: (side == 0) != e.Host}
		var last []uint32
		for _, ends := range by.Ends[side] {
			if len(ends) > 0 {
				last = append(last, ends[len(ends)-1])
			}
		}
		one.Denied = ended(l, last)
		if staged := by.Staged[side]; staged != nil {
			one.Staged = true
			one.WouldDeny, one.WouldPermit = counted(l.Tables.Court.Ends.Count(staged.Denies)), counted(l.Tables.Court.Ends.Count(staged.Permits))
		}
		out.Directions = append(out.Directions, one)
	}
	return out
}

// addressOf is a prefix with the class of its first address, and the sets of that.
func addressOf(l *plane.Live, prefix netip.Prefix) *pb.EndpointPolicy_Address {
	view := l.Tables.Court.Labels.View()
	class := view.Lookup(prefix.Addr())
	sets := view.Members(class)
	out := &pb.EndpointPolicy_Address{Prefix: prefix.String(), Class: uint32(class), SetsUnlisted: uint32(max(0, len(sets)-maxSets))}
	for _, id := range sets[:min(len(sets), maxSets)] {
		out.Sets = append(out.Sets, &pb.EndpointPolicy_Set{Id: uint32(id), Name: l.State.SetName(uint32(id))})
	}
	return out
}

// pager sends tiers in chunks.
type pager struct {
	plane *plane.Plane
	out   grpc.ServerStreamingServer[pb.EndpointPolicy]
	chunk *pb.EndpointPolicy
	rules int // of the chunk
}

// tier adds a tier, and sends the chunk whenever that is full.
func (p *pager) tier(t tier) error {
	p.chunk.Tiers = append(p.chunk.Tiers, t.head)
	for rules := listed(t.programs); len(rules) > 0; {
		if p.rules == rulesPerChunk {
			if err := p.out.Send(p.chunk); err != nil {
				return err
			}
			next := &pb.EndpointPolicy_Tier{Egress: t.head.Egress, Staged: t.head.Staged, Name: t.head.Name, Passes: t.head.Passes, Continued: true}
			p.chunk, p.rules = &pb.EndpointPolicy{Tiers: []*pb.EndpointPolicy_Tier{next}}, 0
		}
		n := min(len(rules), rulesPerChunk-p.rules)
		into := p.chunk.Tiers[len(p.chunk.Tiers)-1]
		if !p.plane.Look(func(l plane.Live) { into.Rules = append(into.Rules, rulesOf(&l, rules[:n], t.head.Staged)...) }) {
			return errEnded
		}
		rules, p.rules = rules[n:], p.rules+n
	}
	return nil
}

// rulesOf are rules with what is known of them.
func rulesOf(l *plane.Live, list []listedRule, staged bool) (out []*pb.EndpointPolicy_Rule) {
	tally := &l.Tables.Court.Rules
	if staged {
		tally = &l.Tables.Court.Pending
	}
	for _, r := range list {
		one := &pb.EndpointPolicy_Rule{Name: ruleName(l.State, r.id), Action: r.action.String(), Ipv4: r.in[0], Ipv6: r.in[1]}
		if r.id != 0 {
			one.Decided = counted(tally.Count(r.id))
		}
		out = append(out, one)
	}
	return out
}
