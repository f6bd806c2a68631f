package explain

import (
	"cmp"
	"slices"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/policing"
)

// How much is done for one explanation.
const (
	maxClauses    = 4 << 20 // that are read
	maxCandidates = 64      // that are tried
	maxPairs      = 4       // of each side, that are tried with each other
)

// candidate is conditions that might turn what policy says, all of them together.
type candidate []condition

// search is the search for what would turn the verdict of policy on a case that was
// heard, of a packet that came in by a port.
func (w *world) search(in uint16, c judge.Case) *search {
	return &search{world: w, in: in, c: &c, base: w.same(&c), target: classifier.Allow, verdict: c.Verdict,
		readings: map[reading]*classifier.Reading{}, left: maxClauses}
}

// changes are what would turn the verdict: the nearest first, and last, what always
// helps, a rule for this packet alone. They are of use unless the search is stale then.
func (s *search) changes() (out []*pb.Explanation_Change) {
	if s.c.Barred() != graph.NoReason {
		return nil // no list can help
	}
	if _, denied := (&search{target: classifier.Deny}).turned(s.verdict); !denied {
		s.target = classifier.Deny
	}
	add := func(k candidate) bool {
		change := s.verify(k)
		if change != nil {
			out = append(out, change)
		}
		return change != nil
	}
	near := s.near()
	if !slices.ContainsFunc(near, add) {
		s.pairs(near, add)
	}
	for _, k := range s.removals() {
		add(k)
	}
	slices.SortStableFunc(out, func(a, b *pb.Explanation_Change) int { return cmp.Compare(len(a.Parts), len(b.Parts)) })
	add(s.general())
	return out
}

// open says whether a side's verdict is to be turned.
func (s *search) open(side int) bool {
	if s.target == classifier.Deny {
		return s.c.By[side] != nil
	}
	return s.verdict[side].Action() != classifier.Allow
}

// tiers is how many tiers a side has.
func (s *search) tiers(side int) int {
	if by := chainOf(s.c, side); by != nil {
		return len(by.Tiers())
	}
	return 0
}

// near finds the rules with the fewest conditions unmet that would, by themselves,
// say something else: in the order in which they are to be tried.
func (s *search) near() (best []candidate) {
	var buffer []condition
	take := func(k candidate, side int, wants classifier.Verdict) {
		at, _ := slices.BinarySearchFunc(best, len(k)+1, func(o candidate, n int) int { return cmp.Compare(len(o), n) })
		if at == maxCandidates {
			return
		}
		k = slices.Clone(k)
		for i := range k {
			k[i].side, k[i].wants = side, wants
		}
		if best = slices.Insert(best, at, k); len(best) > maxCandidates {
			best = best[:maxCandidates]
		}
	}
	for side := range s.verdict {
		for tier := range s.tiers(side) {
			if !s.open(side) {
				break
			}
			r := s.read(side, tier)
			if r == nil {
				continue
			}
			decided := false
			for c := range r.Clauses() {
				if s.left--; s.left < 0 {
					return best
				}
				var ok bool
				buffer, ok = unmet(&s.base, &c, buffer[:0])
				switch action := c.Verdict.Action(); {
				case !ok || action == classifier.Log:
				case len(buffer) == 0 && !decided:
					decided = true
					for _, t := range c.Terms { // each membership by which it matches, turned
						take(candidate{membership(t, t.Not)}, side, 0)
					}
				case len(buffer) > 0 && (action == s.target || action == classifier.Pass):
					take(buffer, side, c.Verdict)
				}
			}
		}
	}
	return best
}

// pairs tries what turns one side together with what turns the other.
func (s *search) pairs(near []candidate, add func(candidate) bool) {
	var by [2][]candidate
	for _, k := range near {
		side := k[0].side
		if len(by[side]) == maxPairs {
			continue
		}
		if _, v, ok := s.try(k); ok && v[side].Action() == classifier.Allow {
			by[side] = append(by[side], k)
		}
	}
	for _, a := range by[0] {
		for _, b := range by[1] {
			if add(slices.Concat(a, b)) {
				return
			}
		}
	}
}

// removals are the rules that decide, taken out of their policies.
func (s *search) removals() (out []candidate) {
	for side, v := range s.verdict {
		none := v.Rule() == classifier.EndOfTier || v.Rule() == 0 || v.Action() == classifier.NoMatch
		if none || !s.open(side) || s.c.By[side] == nil {
			continue
		}
		out = append(out, candidate{{kind: pb.Explanation_Change_KIND_RULE_REMOVED, rule: v.Rule(), side: side}})
	}
	return out
}

// general is a rule for this packet in each tier where it is decided otherwise; to
// deny, in one.
func (s *search) general() (k candidate) {
	for side, v := range s.verdict {
		if !s.open(side) || s.target == classifier.Deny && len(k) > 0 {
			continue
		}
		force := forced{v.Tier(), s.target}
		if _, blocks := s.blocker(side); blocks && v.Action() == classifier.NoMatch {
			force.tier = s.tiers(side)
		} else if by := chainOf(s.c, side); by != nil { // what passed in the last tier counts, too
			if steps := by.Explain(&s.c.Tuple, nil); len(steps) > 0 {
				v = steps[len(steps)-1]
				force.tier = v.Tier()
			}
		}
		add := condition{kind: pb.Explanation_Change_KIND_RULE_ADDED, force: force, side: side}
		if v.Action() != classifier.NoMatch && v.Rule() != classifier.EndOfTier {
			add.rule = v.Rule()
		}
		k = append(k, add)
	}
	return k
}

// suppose makes all conditions true.
func (s *search) suppose(h *hypothesis, k candidate) bool {
	for i := range k {
		if !s.meet(h, &k[i]) {
			return false
		}
	}
	return true
}

// verify tries a candidate on the lists in force, and tells it if it turns the verdict.
func (s *search) verify(k candidate) (out *pb.Explanation_Change) {
	h, v, ok := s.try(k)
	if !ok {
		return nil
	}
	side, ok := s.turned(v)
	if !ok {
		return nil
	}
	s.hold(func() { out = s.change(k, &h, v, side) })
	return out
}

// change tells a candidate that turns the verdict to v, as a side shows.
func (s *search) change(k candidate, h *hypothesis, v [2]classifier.Verdict, side int) *pb.Explanation_Change {
	out := &pb.Explanation_Change{Then: said(v[side]), Rule: s.rule(v[side]), Stage: s.stage(side, v[side].Tier()), Egress: s.egress(side)}
	if h.addr != s.base.addr { // others judge
		out.Stage = out.Rule.GetTier()
	}
	for i := range k {
		out.Parts = append(out.Parts, s.part(&k[i]))
	}
	return out
}

// stage is the name of a side's tier.
func (s *search) stage(side, tier int) string {
	if asked := policing.Asked(s.stages(side), familyOf(s.c)); tier < len(asked) {
		return asked[tier].Name
	}
	name, _ := s.blocker(side)
	return name
}

// blocker is the stage, if there is one, that has no list and denies all that
// comes to it.
func (s *search) blocker(side int) (name string, ok bool) {
	for _, stage := range s.stages(side) {
		if policing.Program(&stage, familyOf(s.c)) == 0 && !stage.UndecidedPasses {
			return stage.Name, true
		}
	}
	return "", false
}

// part tells a condition.
func (s *search) part(c *condition) *pb.Explanation_Change_Part {
	out := &pb.Explanation_Change_Part{Kind: c.kind, Number: uint32(c.number), Egress: s.egress(c.side), Wants: s.rule(c.wants)}
	switch {
	case c.prefix.IsValid():
		out.Prefix, out.Address = c.prefix.String(), within4(c.prefix).String()
	case c.set != 0:
		out.Set = s.set(c.set)
	case c.kind == pb.Explanation_Change_KIND_RULE_REMOVED:
		out.Rule = s.named(c.rule)
	case c.kind == pb.Explanation_Change_KIND_RULE_ADDED:
		if out.Stage = s.stage(c.side, c.force.tier); c.rule != 0 {
			out.Rule = s.named(c.rule)
		}
		if e := s.judge(c.side); e != nil {
			out.Endpoint = e.ID
			if out.Stage == "" && e.Host { // it has no profiles
				out.Stage = "default"
			}
		}
	}
	return out
}
