package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	"margay.dev/margay/policy/oracle"
)

// receiver adds up what a calculation tells, and holds it to its word.
type receiver struct {
	t          testing.TB
	sets       map[classifier.SetID]*heard
	endpoints  map[Key]*Endpoint
	conditions map[Key][]string
	names      map[string][]netip.Addr // what the calculation was told of wanted names of hosts
	generation uint64
}

type heard struct {
	name    string
	members map[netip.Prefix]bool
}

func newReceiver(t testing.TB) *receiver {
	return &receiver{t: t, sets: make(map[classifier.SetID]*heard), endpoints: make(map[Key]*Endpoint), conditions: make(map[Key][]string),
		names: make(map[string][]netip.Addr)}
}

// take applies the changes of one Flush.
func (r *receiver) take(c Changes) {
	r.t.Helper()
	if r.generation++; c.Generation != r.generation {
		r.t.Fatalf("generation %d, want %d", c.Generation, r.generation)
	}
	for _, s := range c.Sets {
		h, known := r.sets[s.ID]
		if !known {
			h = &heard{s.Name, make(map[netip.Prefix]bool)}
			r.sets[s.ID] = h
		}
		if known && h.name != s.Name {
			r.t.Fatalf("set %d was %q and is %q", s.ID, h.name, s.Name)
		}
		for _, m := range s.Left {
			if !h.members[m] {
				r.t.Fatalf("%v leaves %q without having joined", m, s.Name)
			}
			delete(h.members, m)
		}
		for _, m := range s.Joined {
			if h.members[m] || m != m.Masked() {
				r.t.Fatalf("%v joins %q twice, or is not masked", m, s.Name)
			}
			h.members[m] = true
		}
	}
	for _, e := range c.Endpoints {
		if r.endpoints[e.Key] = e; e.Normal[Ingress] == nil {
			delete(r.endpoints, e.Key)
		}
	}
	for _, id := range c.GoneSets {
		if s, ok := r.sets[id]; !ok || len(s.members) > 0 {
			r.t.Fatalf("set %d goes: known %v, and has members", id, ok)
		}
		delete(r.sets, id)
	}
	for _, pattern := range c.NewDomains {
		if _, wanted := r.names[pattern]; wanted {
			r.t.Fatalf("%q is wanted twice", pattern)
		}
		r.names[pattern] = nil
	}
	for _, pattern := range c.GoneDomains {
		if _, wanted := r.names[pattern]; !wanted {
			r.t.Fatalf("%q goes, and was not wanted", pattern)
		}
		delete(r.names, pattern)
	}
	for _, c := range c.Conditions {
		if r.conditions[c.Object] = c.Faults; len(c.Faults) == 0 {
			delete(r.conditions, c.Object)
		}
	}
	r.check()
}

// check finds lists that the classifier would refuse, and sets that nobody told.
func (r *receiver) check() {
	r.t.Helper()
	seen := make(map[*List]bool)
	for _, e := range r.endpoints {
		for _, l := range listsOf(e) {
			if seen[l] {
				continue
			}
			seen[l] = true
			for _, rules := range [][]classifier.Rule{l.V4, l.V6} {
				if err := classifier.Validate(rules); err != nil {
					r.t.Fatalf("%v: %v", e.Key, err)
				}
				for i := range rules {
					for _, side := range []*classifier.Side{&rules[i].Source, &rules[i].Destination} {
						for _, id := range slices.Concat(side.Sets, side.NotSets) {
							if r.sets[id] == nil {
								r.t.Fatalf("%v asks for set %d, which was not told", e.Key, id)
							}
						}
					}
				}
			}
		}
	}
}

func listsOf(e *Endpoint) []*List {
	var lists []*List
	for _, kind := range [][2]*Judgement{e.Normal, e.Forward, e.Untracked, e.PreDNAT} {
		for _, j := range kind {
			if j == nil {
				continue
			}
			for _, t := range slices.Concat(j.Tiers, j.Staged) {
				lists = append(lists, t.Rules)
			}
			lists = append(lists, j.Profiles...)
		}
	}
	return lists
}

// judge walks the lists by first match.
func (r *receiver) judge(c *Calculation, key Key, d Direction, kind oracle.Traffic, staged bool, p oracle.Packet) oracle.Verdict {
	e := r.endpoints[key]
	if e == nil {
		return oracle.Verdict{Action: v3.Deny}
	}
	j := [...][2]*Judgement{e.Normal, e.Forward, e.Untracked, e.PreDNAT}[kind][d]
	if j == nil && kind == oracle.PreDNAT {
		return oracle.Verdict{Action: v3.Pass}
	}
	tiers := j.Tiers
	if staged && j.Staged != nil {
		tiers = j.Staged
	}
	var v oracle.Verdict
	for _, t := range tiers {
		switch a := r.walk(c, t.Rules, p, &v); {
		case a == classifier.Allow || a == classifier.Deny:
			return v
		case a == classifier.NoMatch && t.End == classifier.Deny:
			return oracle.Verdict{Action: v3.Deny, By: t.Name, Logged: v.Logged}
		}
	}
	for _, l := range j.Profiles {
		if a := r.walk(c, l, p, &v); a == classifier.Allow || a == classifier.Deny {
			return v
		}
	}
	return oracle.Verdict{Action: actions[j.End], Logged: v.Logged}
}

var actions = map[classifier.Action]v3.Action{
	classifier.Allow: v3.Allow, classifier.Deny: v3.Deny, classifier.Pass: v3.Pass, classifier.Log: v3.Log,
}

func (r *receiver) walk(c *Calculation, l *List, p oracle.Packet, v *oracle.Verdict) classifier.Action {
	rules := l.V6
	if p.Source.Is4() {
		rules = l.V4
	}
	for i := range rules {
		if !r.matches(&rules[i], p) {
			continue
		}
		name := describe(c, rules[i].ID)
		switch a := rules[i].Action; a {
		case classifier.Log:
			if !slices.Contains(v.Logged, name) { // several rules may stand for one
				v.Logged = append(v.Logged, name)
			}
		case classifier.Pass:
			return a
		default:
			v.Action, v.By = actions[a], name
			return a
		}
	}
	return classifier.NoMatch
}

// describe is kind/namespace/name/index of the rule that an id stands for.
func describe(c *Calculation, id uint32) string {
	ref, ok := c.Rule(id)
	if !ok {
		return fmt.Sprintf("unknown rule %d", id)
	}
	return fmt.Sprintf("%s/%s/%s/%d", ref.Object.Kind, ref.Object.Namespace, ref.Object.Name, ref.Index)
}

func (r *receiver) matches(rule *classifier.Rule, p oracle.Packet) bool {
	from, to := p.SourcePort, p.DestinationPort
	if p.Protocol == 1 || p.Protocol == 58 {
		from, to = 0, uint16(p.Type)<<8|uint16(p.Code)
	}
	return contains(rule.Protocols, uint16(p.Protocol)) &&
		r.on(&rule.Source, p.Source, from) && r.on(&rule.Destination, p.Destination, to)
}

func contains(ranges []classifier.Range, n uint16) bool {
	return len(ranges) == 0 || slices.ContainsFunc(ranges, func(r classifier.Range) bool { return r.First <= n && n <= r.Last })
}

func (r *receiver) on(s *classifier.Side, a netip.Addr, port uint16) bool {
	covers := func(n netip.Prefix) bool { return n.Contains(a) }
	member := func(id classifier.SetID) bool {
		for m := range r.sets[id].members {
			if m.Contains(a) {
				return true
			}
		}
		return false
	}
	return contains(s.Ports, port) &&
		(len(s.Nets) == 0 || slices.ContainsFunc(s.Nets, covers)) && !slices.ContainsFunc(s.NotNets, covers) &&
		!slices.ContainsFunc(s.Sets, func(id classifier.SetID) bool { return !member(id) }) && !slices.ContainsFunc(s.NotSets, member)
}

// dump is all that was told, without the numbers that differ from one way of
// getting there to another.
func (r *receiver) dump(c *Calculation) string {
	var b strings.Builder
	for _, key := range slices.SortedFunc(maps.Keys(r.endpoints), Key.compare) {
		e := r.endpoints[key]
		for i, kind := range [][2]*Judgement{e.Normal, e.Forward, e.Untracked, e.PreDNAT} {
			for d, j := range kind {
				if j == nil {
					continue
				}
				fmt.Fprintf(&b, "%v, %v, judgement %d ends in %v\n", key, Direction(d), i, j.End)
				for _, t := range j.Tiers {
					fmt.Fprintf(&b, "  tier %s ends in %v\n%s", t.Name, t.End, r.dumpList(c, t.Rules))
				}
				for _, t := range j.Staged {
					fmt.Fprintf(&b, "  staged: tier %s ends in %v\n%s", t.Name, t.End, r.dumpList(c, t.Rules))
				}
				for _, l := range j.Profiles {
					fmt.Fprintf(&b, "  profiles\n%s", r.dumpList(c, l))
				}
			}
		}
	}
	var sets []string
	for _, s := range r.sets {
		members := slices.SortedFunc(maps.Keys(s.members), netip.Prefix.Compare)
		sets = append(sets, fmt.Sprintf("set %s: %v\n", s.name, members))
	}
	slices.Sort(sets)
	b.WriteString(strings.Join(sets, ""))
	for _, key := range slices.SortedFunc(maps.Keys(r.conditions), Key.compare) {
		fmt.Fprintf(&b, "condition of %v: %q\n", key, r.conditions[key])
	}
	return b.String()
}

func (r *receiver) dumpList(c *Calculation, l *List) string {
	var b strings.Builder
	for i, rules := range [][]classifier.Rule{l.V4, l.V6} {
		for _, rule := range rules {
			fmt.Fprintf(&b, "    v%d %v %s protocols %v %s %s\n", 4+2*i, rule.Action, describe(c, rule.ID), rule.Protocols, r.dumpSide(&rule.Source), r.dumpSide(&rule.Destination))
		}
	}
	return b.String()
}

func (r *receiver) dumpSide(s *classifier.Side) string {
	var sets, notSets []string
	for _, id := range s.Sets {
		sets = append(sets, r.sets[id].name)
	}
	for _, id := range s.NotSets {
		notSets = append(notSets, r.sets[id].name)
	}
	return fmt.Sprintf("[nets %v not %v sets %q not %q ports %v]", s.Nets, s.NotNets, sets, notSets, s.Ports)
}
