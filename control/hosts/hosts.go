// Package hosts brings what policy calculates for a node's host endpoints to the
// node's kernel:
//
//	policy.Changes ─┐
//	HostEndpoints ──┼─► Hosts ─Flush─► nft.Change: who judges each interface, and the sets that it takes
//	interfaces ─────┘
//
// Each interface has at most one host endpoint: of those that name it, or, without
// a name, expect an address of it, the first by name; "*" is for all interfaces
// that have none, but not for those of workloads. An endpoint whose object has come, and
// whose judgement has not, denies; one that is gone judges nothing.
package hosts

import (
	"maps"
	"net/netip"
	"slices"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	"margay.dev/margay/dataplane/nft"
	"margay.dev/margay/policy"
)

// Sets are what a calculation knows of sets: policy.Calculation.Sets.
type Sets func(wanted func(classifier.SetID) bool) []policy.SetChange

// Rules is what a calculation knows of the ids of rules: policy.Calculation.Rule.
type Rules func(id uint32) (policy.RuleRef, bool)

// Hosts knows the host endpoints of one node. It is for one goroutine. Make it
// with New.
type Hosts struct {
	node      string
	known     Sets
	rules     Rules
	words     *Words
	specs     map[string]*v3.HostEndpointSpec
	judged    map[string]*policy.Endpoint
	links     []Interface
	settings  nft.Settings
	converted map[*policy.Judgement]*judgement // those of the last Flush

	sets    map[classifier.SetID]bool // that the kernel has
	changed map[classifier.SetID]*policy.SetChange
	told    *nft.Desired // nil: nothing was, or it came to nothing
	placed  map[string][]string
}

// Interface is one of the node's, with its addresses.
type Interface struct {
	Name      string
	Addresses []netip.Addr
}

// judgement is one in the kernel's words, and the sets that its lists name.
type judgement struct {
	nft  *nft.Judgement // nil: nothing is asked
	sets map[classifier.SetID]bool
	refs map[uint32]policy.RuleRef // of its rules
}

// New makes one that knows nothing, for the endpoints of a node. words comes to know the
// rules that Flush gives.
func New(node string, known Sets, rules Rules, words *Words) *Hosts {
	return &Hosts{
		node: node, known: known, rules: rules, words: words, specs: map[string]*v3.HostEndpointSpec{}, judged: map[string]*policy.Endpoint{},
		settings: DefaultSettings(), converted: map[*policy.Judgement]*judgement{},
		sets: map[classifier.SetID]bool{}, changed: map[classifier.SetID]*policy.SetChange{},
	}
}

// Put adds a host endpoint, or puts it in the place of the one of its name; those of
// other nodes are passed over.
func (h *Hosts) Put(name string, spec *v3.HostEndpointSpec) {
	if spec.Node != h.node {
		h.Delete(name)
		return
	}
	h.specs[name] = spec
}

// Delete takes a host endpoint away.
func (h *Hosts) Delete(name string) { delete(h.specs, name) }

// SetInterfaces says which interfaces there are, in the place of what was said.
func (h *Hosts) SetInterfaces(links []Interface) { h.links = links }

// SetSettings says what holds for all endpoints, in the place of DefaultSettings.
func (h *Hosts) SetSettings(s nft.Settings) { h.settings = s }

// Take notes what a Flush of the calculation has found. It needs all of them, one
// after the other, and Flush before the calculation is flushed again.
func (h *Hosts) Take(changes policy.Changes) {
	for _, e := range changes.Endpoints {
		switch {
		case e.Key.Kind != v3.KindHostEndpoint:
		case e.Normal == [2]*policy.Judgement{}:
			delete(h.judged, e.Key.Name)
		default:
			h.judged[e.Key.Name] = e
		}
	}
	for i := range changes.Sets {
		if c := &changes.Sets[i]; h.sets[c.ID] {
			h.changed[c.ID] = c
		}
	}
}

// Flush is what differs for the kernel from what the last one gave. It is false
// where nothing does. Who cannot bring it there calls Lost.
func (h *Hosts) Flush() (nft.Change, bool) {
	desired, wanted := h.desired()
	c := nft.Change{Whole: h.told == nil}
	for _, id := range slices.Sorted(maps.Keys(h.changed)) {
		if wanted[id] {
			c.Sets = append(c.Sets, setChange(h.changed[id]))
		}
	}
	clear(h.changed)
	fresh := maps.Clone(wanted)
	maps.DeleteFunc(fresh, func(id classifier.SetID, _ bool) bool { return h.sets[id] })
	if len(fresh) > 0 { // to ask is work that follows the number of all sets
		for _, s := range h.known(func(id classifier.SetID) bool { return fresh[id] }) {
			c.Sets = append(c.Sets, setChange(&s))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(h.sets)) {
		if !wanted[id] {
			c.Gone = append(c.Gone, id)
		}
	}
	h.sets = wanted
	if h.told == nil || !same(h.told, desired) {
		c.Desired, h.told = desired, desired
	}
	return c, c.Desired != nil || len(c.Sets)+len(c.Gone) > 0
}

// Lost says that the kernel has not what Flush gave: the next one gives all.
func (h *Hosts) Lost() {
	h.told = nil
	clear(h.sets)
	clear(h.changed)
}

// Placed are the interfaces that an endpoint judges, as of the last Flush; "*" may
// be among them. None: no interface has its name or an address of it, or
// another endpoint came first.
func (h *Hosts) Placed(name string) []string { return h.placed[name] }

func setChange(c *policy.SetChange) nft.SetChange {
	return nft.SetChange{ID: c.ID, Name: c.Name, Joined: c.Joined, Left: c.Left}
}

// desired is what the kernel shall have, and the sets that its lists name.
func (h *Hosts) desired() (*nft.Desired, map[classifier.SetID]bool) {
	d, wanted := &nft.Desired{Settings: h.settings}, map[classifier.SetID]bool{}
	before := h.converted
	h.converted, h.placed = map[*policy.Judgement]*judgement{}, map[string][]string{}
	convert := func(j *policy.Judgement) *nft.Judgement {
		if j == nil {
			return nil
		}
		out := h.converted[j]
		if out == nil {
			if out = before[j]; out == nil {
				out = h.convert(j)
			}
			h.converted[j] = out
			maps.Copy(wanted, out.sets)
		}
		return out.nft
	}
	places := h.place()
	for _, link := range slices.Sorted(maps.Keys(places)) {
		name := places[link]
		h.placed[name] = append(h.placed[name], link)
		e := nft.Endpoint{Name: name, Interface: link}
		from := h.judged[name]
		if from == nil {
			closed := &nft.Judgement{End: classifier.Deny}
			e.Normal, e.Forward = [2]*nft.Judgement{closed, closed}, [2]*nft.Judgement{closed, closed}
			d.Endpoints = append(d.Endpoints, e)
			continue
		}
		for to, by := range [...]policy.Direction{nft.Ingress: policy.Ingress, nft.Egress: policy.Egress} {
			e.Normal[to], e.Forward[to], e.Untracked[to] = convert(from.Normal[by]), convert(from.Forward[by]), convert(from.Untracked[by])
		}
		e.PreDNAT = convert(from.PreDNAT[policy.Ingress])
		d.Endpoints = append(d.Endpoints, e)
	}
	var refs []map[uint32]policy.RuleRef
	for _, j := range h.converted {
		refs = append(refs, j.refs)
	}
	h.words.know(refs)
	return d, wanted
}

// convert is a judgement in the kernel's words.
func (h *Hosts) convert(j *policy.Judgement) *judgement {
	out := &judgement{sets: map[classifier.SetID]bool{}, refs: map[uint32]policy.RuleRef{}}
	if j.End != classifier.Deny && len(j.Tiers) == 0 {
		return out
	}
	out.nft = &nft.Judgement{End: j.End}
	for _, t := range j.Tiers {
		out.add(t.Name, t.Rules, t.End)
	}
	for _, p := range j.Profiles {
		out.add("profiles", p, classifier.Pass)
	}
	for _, t := range out.nft.Tiers {
		for _, list := range [...][]classifier.Rule{t.V4, t.V6} {
			for i := range list {
				if ref, ok := h.rules(list[i].ID); ok {
					out.refs[list[i].ID] = ref
				}
			}
		}
	}
	return out
}

func (j *judgement) add(name string, l *policy.List, end classifier.Action) {
	j.nft.Tiers = append(j.nft.Tiers, nft.Tier{Name: name, V4: l.V4, V6: l.V6, End: end})
	for _, list := range [...][]classifier.Rule{l.V4, l.V6} {
		for i := range list {
			for _, s := range [...]*classifier.Side{&list[i].Source, &list[i].Destination} {
				for _, id := range s.Sets {
					j.sets[id] = true
				}
				for _, id := range s.NotSets {
					j.sets[id] = true
				}
			}
		}
	}
}
