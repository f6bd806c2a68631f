// Package preview says which connections a change of policy would turn, before it is
// made: each is judged by the objects as they are and as they would be, by reading
// every object (policy/oracle), so that neither store nor forwarder is touched.
//
// Addresses of names of hosts are those that an agent has learned (Names). What no
// agent knows, as names that nobody has asked for yet and backends of services, is in
// neither, and rules that ask for it match nothing here; Blind says which objects do.
package preview

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/api/domain"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy/oracle"
)

// Names is what an agent knows of names of hosts: the patterns whose names it learns,
// in canonical form, and the addresses that names have.
type Names struct {
	Patterns  []string
	Addresses map[string][]netip.Addr
}

// World is objects by which packets are judged.
type World struct {
	oracle.World
	owner   map[netip.Addr]oracle.Endpoint
	learned []string // patterns
}

// NewWorld takes what of some objects policy is made of; of two with one name the
// later counts. They are defaulted and valid, and are not changed later.
func NewWorld(objects []v3.Object, names Names) *World {
	w := &World{owner: make(map[netip.Addr]oracle.Endpoint), learned: names.Patterns}
	for _, o := range latest(append([]v3.Object{defaultAllow()}, objects...)) {
		w.add(o)
	}
	w.Domains = make(map[string][]netip.Addr)
	for _, entry := range w.domains() {
		pattern, err := domain.Parse(entry)
		if err != nil || w.Domains[entry] != nil {
			continue // validation refuses what is none
		}
		for name, addresses := range names.Addresses {
			if pattern.Match(name) {
				w.Domains[entry] = append(w.Domains[entry], addresses...)
			}
		}
	}
	return w
}

// domains are the entries of all network sets.
func (w *World) domains() (entries []string) {
	for _, s := range w.Sets {
		entries = append(entries, s.Spec.AllowedEgressDomains...)
	}
	for _, s := range w.Global {
		entries = append(entries, s.Spec.AllowedEgressDomains...)
	}
	return entries
}

// defaultAllow is the profile that is there without being written.
func defaultAllow() *v3.Profile {
	p := &v3.Profile{}
	p.Name = v3.ProfileDefaultAllow
	p.Spec.Ingress, p.Spec.Egress = []v3.Rule{{Action: v3.Allow}}, []v3.Rule{{Action: v3.Allow}}
	return p
}

// latest leaves of objects with one name the last.
func latest(objects []v3.Object) (all []v3.Object) {
	type key struct{ kind, namespace, name string }
	at := make(map[key]int)
	for _, o := range objects {
		k := key{fmt.Sprintf("%T", o), o.GetNamespace(), o.GetName()}
		if i, ok := at[k]; ok {
			all[i] = o
			continue
		}
		at[k] = len(all)
		all = append(all, o)
	}
	return all
}

// add puts an object into its place; what is not policy has none.
func (w *World) add(o v3.Object) {
	switch o := o.(type) {
	case *v3.Tier:
		w.Tiers = append(w.Tiers, o)
	case *v3.Profile:
		w.Profiles = append(w.Profiles, o)
	case *v3.NetworkSet:
		w.Sets = append(w.Sets, o)
	case *v3.GlobalNetworkSet:
		w.Global = append(w.Global, o)
	case *v3.HostEndpoint:
		w.Hosts = append(w.Hosts, o)
	case *v3.NetworkPolicy:
		w.Policies = append(w.Policies, oracle.Policy{Kind: v3.KindNetworkPolicy, Namespace: o.Namespace, Name: o.Name, Spec: v3.GlobalNetworkPolicySpec{NetworkPolicySpec: o.Spec}})
	case *v3.GlobalNetworkPolicy:
		w.Policies = append(w.Policies, oracle.Policy{Kind: v3.KindGlobalNetworkPolicy, Name: o.Name, Spec: o.Spec})
	case *v3.WorkloadEndpoint:
		w.Workloads = append(w.Workloads, o)
		for _, text := range o.Spec.IPNetworks {
			if n, err := v3.ParseNet(text); err == nil {
				w.owner[n.Addr()] = oracle.Endpoint{Namespace: o.Namespace, Name: o.Name}
			}
		}
	}
}

// Blind are the objects of a world with rules or members that nobody here knows: of
// services, and of names of hosts that no agent has learned.
func (w *World) Blind() (names []string) {
	for _, p := range w.Policies {
		if slices.ContainsFunc(slices.Concat(p.Spec.Ingress, p.Spec.Egress), func(r v3.Rule) bool {
			return r.Source.Services != nil || r.Destination.Services != nil
		}) {
			names = append(names, strings.TrimPrefix(p.Namespace+"/"+p.Name, "/"))
		}
	}
	unlearned := func(entry string) bool {
		p, err := domain.Parse(entry)
		return err != nil || !slices.Contains(w.learned, p.String())
	}
	for _, s := range w.Sets {
		if slices.ContainsFunc(s.Spec.AllowedEgressDomains, unlearned) {
			names = append(names, s.Namespace+"/"+s.Name)
		}
	}
	for _, s := range w.Global {
		if slices.ContainsFunc(s.Spec.AllowedEgressDomains, unlearned) {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Turn is a connection whose verdict would change.
type Turn struct {
	Flow    *dataplanev1.FlowList_Flow
	Allowed bool   // then; now it is the other
	Ingress bool   // whether the ingress of the destination decides it, not the egress of the source
	By      string // the rule that decides then, as NetworkPolicy shop/web rule 2, or the end that does
}

// Said is what a world says of a packet that opens a connection.
type Said struct {
	Allowed bool
	Ingress bool // decides
	By      string
}

// Compare gives the connections that are judged otherwise by after than by before,
// in their order. Ends that are no workload of the world are not judged.
func Compare(before, after *World, flows []*dataplanev1.FlowList_Flow) (turns []Turn, err error) {
	for _, f := range flows {
		p, err := packet(f)
		if err != nil {
			return nil, err
		}
		now, then := before.Judge(p), after.Judge(p)
		if now.Allowed != then.Allowed {
			turns = append(turns, Turn{f, then.Allowed, then.Ingress, then.By})
		}
	}
	return turns, nil
}

// packet is the one that has opened a connection.
func packet(f *dataplanev1.FlowList_Flow) (p oracle.Packet, err error) {
	d := f.GetOriginal()
	if p.Source, err = netip.ParseAddr(d.GetSource()); err != nil {
		return p, fmt.Errorf("read flow: %w", err)
	}
	if p.Destination, err = netip.ParseAddr(d.GetDestination()); err != nil {
		return p, fmt.Errorf("read flow: %w", err)
	}
	p.Protocol = uint8(f.GetProtocol())
	if p.Protocol == 1 || p.Protocol == 58 {
		p.Type, p.Code = uint8(d.GetDestinationPort()>>8), uint8(d.GetDestinationPort())
		return p, nil
	}
	p.SourcePort, p.DestinationPort = uint16(d.GetSourcePort()), uint16(d.GetDestinationPort())
	return p, nil
}

// Judge says what becomes of a packet: the egress of its source is asked, then the
// ingress of its destination.
func (w *World) Judge(p oracle.Packet) Said {
	said := Said{Allowed: true, By: "no policy is asked"}
	for _, side := range []struct {
		address   netip.Addr
		direction v3.PolicyType
	}{{p.Source, v3.PolicyTypeEgress}, {p.Destination, v3.PolicyTypeIngress}} {
		who, ok := w.owner[side.address]
		if !ok {
			continue
		}
		v := w.World.Judge(who, side.direction, oracle.Normal, false, p)
		said = Said{v.Action == v3.Allow, side.direction == v3.PolicyTypeIngress, by(v.By)}
		if !said.Allowed {
			return said
		}
	}
	return said
}

// by says who decided in words: kind/namespace/name/index is a rule, another text a
// tier, nothing the end of all.
func by(id string) string {
	parts := strings.Split(id, "/")
	switch {
	case id == "":
		return "the end of all"
	case len(parts) != 4:
		return "the end of tier " + id
	case parts[3] == "-1":
		return "the missing " + strings.ToLower(parts[0]) + " " + parts[2]
	}
	return fmt.Sprintf("%s %s rule %s", parts[0], strings.TrimPrefix(parts[1]+"/"+parts[2], "/"), parts[3])
}
