package policy

import (
	"encoding/binary"
	"fmt"
	"slices"

	"margay.dev/margay/classifier"
)

// endpoint is one that is judged.
type endpoint struct {
	key      Key
	host     bool
	wildcard bool // of a host: all interfaces that have no endpoint of their own
	profiles []string
	policies map[*policy]struct{}
	told     *Endpoint
	lists    []*shared // that told has
}

// shared is a list, with how many endpoints hold it.
type shared struct {
	list  *List
	key   string
	users int
}

// judging is the work on one endpoint.
type judging struct {
	c      *Calculation
	e      *endpoint
	lists  []*shared
	faults []string
}

// judge works out the endpoint's judgements, and reports whether they differ
// from those told.
func (c *Calculation) judge(e *endpoint) (differs bool) {
	j := judging{c: c, e: e}
	next, policies := &Endpoint{Key: e.key}, c.sorted(e)
	told := e.told
	if told == nil {
		told = &Endpoint{}
	}
	for d := range next.Normal {
		d := Direction(d)
		next.Normal[d] = same(told.Normal[d], j.judgement(policies, d, (*policy).normal, classifier.Deny))
		if !e.host {
			continue
		}
		next.Forward[d] = same(told.Forward[d], j.judgement(policies, d,
			func(p *policy) bool { return p.normal() && p.forward }, classifier.Allow))
		if d == Ingress {
			next.PreDNAT[d] = same(told.PreDNAT[d], j.judgement(policies, d,
				func(p *policy) bool { return p.preDNAT }, classifier.Pass))
		}
		next.Untracked[d] = same(told.Untracked[d], j.judgement(policies, d,
			func(p *policy) bool { return p.untracked && !e.wildcard }, classifier.Pass))
	}
	if e.wildcard && slices.ContainsFunc(policies, func(p *policy) bool { return p.untracked && !p.subject.staged }) {
		j.faults = append(j.faults, "doNotTrack policies do not apply to interfaceName \"*\": they are ignored here, name the interface")
	}
	for _, name := range e.profiles {
		if !c.profiles[name].given {
			j.faults = append(j.faults, fmt.Sprintf("profile %.64q is missing: store it, or take it out of the profiles; until then it denies everything", name))
		}
	}
	c.release(e.lists)
	e.lists = j.lists
	c.note(e.key).used = j.faults
	differs = e.told == nil || *e.told != *next
	if differs {
		e.told = next
	}
	return differs
}

// same is the old judgement, if the new one says the same.
func same(old, next *Judgement) *Judgement {
	if old != nil && old.End == next.End && slices.Equal(old.Tiers, next.Tiers) &&
		slices.Equal(old.Staged, next.Staged) && (old.Staged == nil) == (next.Staged == nil) &&
		slices.Equal(old.Profiles, next.Profiles) {
		return old
	}
	return next
}

// judgement works out one judgement from the policies, which are sorted, of one
// kind. Tiers deny what they do not decide and profiles follow where end is Deny,
// the judgement of normal traffic; forwarded traffic has the tiers alone.
func (j *judging) judgement(policies []*policy, d Direction, kind func(*policy) bool, end classifier.Action) *Judgement {
	var enforced, staged []*policy
	for _, p := range policies {
		if !p.governs[d] || !kind(p) {
			continue
		}
		if !p.subject.staged {
			enforced = append(enforced, p)
		}
		if p.subject.staged || !j.c.changedBy(p) {
			staged = append(staged, p)
		}
	}
	out := &Judgement{Tiers: j.tiers(enforced, d, end), End: end}
	if end == classifier.Deny {
		out.Profiles = j.profiles(d)
	}
	if n := len(out.Tiers) + len(out.Profiles); n > classifier.MaxTiers {
		j.faults = append(j.faults, fmt.Sprintf("policies of %d tiers, with profiles, govern %v, want at most %d: use fewer tiers; until then everything is denied", n, d, classifier.MaxTiers))
		return &Judgement{End: classifier.Deny}
	}
	if !slices.Equal(enforced, staged) {
		out.Staged = j.tiers(staged, d, end)
		if out.Staged == nil {
			out.Staged = []Tier{}
		}
		if n := len(out.Staged) + len(out.Profiles); n > classifier.MaxTiers {
			j.faults = append(j.faults, fmt.Sprintf("staged policies would make %d tiers, with profiles, govern %v, want at most %d: they are not reported on", n, d, classifier.MaxTiers))
			out.Staged = nil
		}
	}
	return out
}

// tiers groups policies by tier.
func (j *judging) tiers(policies []*policy, d Direction, end classifier.Action) []Tier {
	var tiers []Tier
	for len(policies) > 0 {
		name := policies[0].tier
		n := 0
		var parts []rendered
		for n < len(policies) && policies[n].tier == name {
			parts = append(parts, policies[n].text[d])
			n++
		}
		t := Tier{Name: name, Rules: j.list(parts), End: classifier.Deny}
		if end == classifier.Pass || j.c.tiers[name].pass {
			t.End = classifier.Pass
		}
		tiers = append(tiers, t)
		policies = policies[n:]
	}
	return tiers
}

// profiles are the lists of the endpoint's profiles. Those of which none passes
// are one list, since Pass leaves its profile alone.
func (j *judging) profiles(d Direction) []*List {
	var lists []*List
	var parts []rendered
	for _, name := range j.e.profiles {
		text := j.c.profiles[name].text[d]
		if len(text.v4)+len(text.v6) == 0 {
			continue
		}
		parts = append(parts, text)
		if text.passes {
			lists = append(lists, j.list(parts))
			parts = nil
		}
	}
	if len(parts) > 0 {
		lists = append(lists, j.list(parts))
	}
	return lists
}

// list gives the list of some rules one after the other, the same for all who
// ask for it.
func (j *judging) list(parts []rendered) *List {
	key := make([]byte, 0, 8*len(parts))
	n := 0
	for _, p := range parts {
		key = binary.LittleEndian.AppendUint64(key, p.revision)
		n += max(len(p.v4), len(p.v6))
	}
	if n > classifier.MaxRules {
		j.faults = append(j.faults, fmt.Sprintf("%d rules in one tier, want at most %d: use fewer names of ports and services; until then everything is denied", n, classifier.MaxRules))
		deny := []classifier.Rule{{Action: classifier.Deny}}
		return &List{deny, deny}
	}
	s, ok := j.c.lists[string(key)]
	if !ok {
		s = &shared{list: concat(parts), key: string(key)}
		j.c.lists[s.key] = s
	}
	s.users++
	j.lists = append(j.lists, s)
	return s.list
}

// concat puts rules one after the other.
func concat(parts []rendered) *List {
	if len(parts) == 1 {
		return &List{parts[0].v4, parts[0].v6}
	}
	v4, v6 := make([][]classifier.Rule, len(parts)), make([][]classifier.Rule, len(parts))
	alike := true
	for i, p := range parts {
		v4[i], v6[i] = p.v4, p.v6
		alike = alike && p.alike
	}
	l := &List{V4: slices.Concat(v4...)}
	if l.V6 = l.V4; !alike {
		l.V6 = slices.Concat(v6...)
	}
	return l
}

// release gives lists back; those that nobody holds are forgotten.
func (c *Calculation) release(lists []*shared) {
	for _, s := range lists {
		if s.users--; s.users == 0 {
			delete(c.lists, s.key)
		}
	}
}
