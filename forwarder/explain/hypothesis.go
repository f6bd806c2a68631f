package explain

import (
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/plane"
)

// hypothesis is how things might be: another packet, other members of sets,
// another list. Index 0 is the source's side, 1 the destination's.
type hypothesis struct {
	addr    [2]netip.Addr
	proto   uint8
	port    [2]uint16
	sets    [2][]classifier.SetID
	moved   bool   // sets are not those that the addresses are in
	without uint32 // id of rules that are not in the lists; EndOfTier for none
	forced  [2]forced
}

// forced is a rule for this very packet in a tier of one side. NoMatch is none.
type forced struct {
	tier   int
	action classifier.Action
}

// search looks for what would turn what policy says of a case. Lists do not change, and
// are read while others work on the tables; all else is looked at within hold.
type search struct {
	*world
	look     func(func(plane.Live)) bool
	stale    bool   // the case is judged otherwise by now
	in       uint16 // port that its packet came by
	c        *judge.Case
	base     hypothesis
	target   classifier.Action // Allow for what is denied now
	verdict  [2]classifier.Verdict
	readings map[reading]*classifier.Reading
	left     int // clauses that may still be read
}

type reading struct{ side, tier int }

// read is the list of a tier; nil where its image has none.
func (s *search) read(side, tier int) *classifier.Reading {
	at := reading{side, tier}
	r, ok := s.readings[at]
	if !ok {
		r = chainOf(s.c, side).Tiers()[tier].List.Program().Read()
		s.readings[at] = r
	}
	return r
}

// same is the hypothesis that all is as it is.
func (w *world) same(c *judge.Case) hypothesis {
	h := hypothesis{proto: c.Key.Proto(), without: classifier.EndOfTier}
	h.addr[0], h.addr[1] = c.Key.Addrs()
	h.port[0], h.port[1] = c.Tuple.SourcePort, c.Tuple.DestinationPort
	for side, a := range h.addr {
		h.sets[side] = slices.Clone(w.sets(a))
	}
	return h
}

// hold looks at the tables for a moment, in which nothing else changes. It calls f
// unless the case is judged by others by now, or otherwise: then the search is stale.
func (s *search) hold(f func()) {
	looked := s.look(func(l plane.Live) {
		s.Live, s.st = l, l.Tables.State()
		again := l.Tables.Try(s.in, s.packet())
		c := again.Case
		l.Tables.Court.Hear(&c)
		if s.stale = s.stale || !again.Referred || c.By != s.c.By || c.Verdict != s.verdict; !s.stale {
			f()
		}
	})
	s.stale = s.stale || !looked
}

// try is what each side would say if all conditions of a candidate were true, asked of
// the lists in force. It is false where that cannot be known, or where the packet would
// be dropped whatever they say.
func (s *search) try(k candidate) (h hypothesis, out [2]classifier.Verdict, ok bool) {
	h = s.base
	var c judge.Case
	s.hold(func() {
		if !s.suppose(&h, k) {
			return
		}
		if c, ok = s.imagine(&h); ok {
			s.Tables.Court.Hear(&c)
		}
	})
	if !ok || c.Barred() != graph.NoReason || h.moved && h.addr != s.base.addr {
		return h, out, false
	}
	if !h.moved && h.without == classifier.EndOfTier && h.forced == ([2]forced{}) {
		return h, c.Verdict, true
	}
	for side := range out {
		if out[side], ok = s.side(&h, &c, side); !ok {
			return h, out, false
		}
	}
	return h, out, true
}

// imagine is the case of the packet that a hypothesis is about. Another host has
// another port, and others to judge it; it is false where nobody does.
func (s *search) imagine(h *hypothesis) (judge.Case, bool) {
	if h.addr != s.base.addr {
		echo, _ := echoOf(h.addr[0].Is6())
		t := tuple{source: end{addr: h.addr[0]}, destination: end{addr: h.addr[1]}, proto8: h.proto,
			sourcePort: h.port[0], destinationPort: h.port[1], echo: h.proto == echo}
		p := s.Tables.Try(s.home(h.addr[0]), t.packet())
		return p.Case, p.Referred && p.Reason == graph.NoReason
	}
	c := *s.c
	c.Key = flow.NewKey(h.addr[0], h.addr[1], h.proto, h.port[0], h.port[1], 0)
	c.Packet.Key = c.Key
	return c, true
}

// side is what the chain of one side would say.
func (s *search) side(h *hypothesis, c *judge.Case, side int) (v classifier.Verdict, known bool) {
	by, force := chainOf(c, side), h.forced[side]
	if by == nil {
		return classifier.NewVerdict(classifier.Allow, 0, 0), c.By[side] == nil
	}
	tiers := by.Tiers()
	known = true
	v = by.Walk(func(tier int) classifier.Verdict {
		p := tiers[tier].List.Program()
		if force.action != classifier.NoMatch && force.tier == tier {
			return classifier.NewVerdict(force.action, classifier.EndOfTier, 0)
		}
		if h.without == classifier.EndOfTier && (!h.moved || p.Mode() == classifier.Addresses) {
			var key classifier.Key
			p.Key(&c.Tuple, &key)
			return p.MatchOne(&key)
		}
		r := s.read(side, tier)
		if r == nil {
			known = false
			return 0
		}
		return r.Match(&c.Tuple, h.sets, h.without)
	})
	if v.Action() == classifier.NoMatch && force.tier == len(tiers) && force.action != classifier.NoMatch { // behind them
		return classifier.NewVerdict(force.action, classifier.EndOfTier, force.tier), known
	}
	if v.Action() == classifier.NoMatch && c.By[side].Open[side][familyOf(c)] {
		return judge.Unopposed(), known
	}
	return v, known
}

// turned says whether verdicts are what is looked for, and which side then shows it.
func (s *search) turned(v [2]classifier.Verdict) (side int, ok bool) {
	for side := range v {
		switch allows := v[side].Action() == classifier.Allow; {
		case s.target == classifier.Deny && !allows:
			return side, true
		case s.target == classifier.Allow && !allows:
			return side, false
		}
	}
	if s.target == classifier.Deny {
		return 0, false
	}
	if s.verdict[0].Action() != classifier.Allow {
		return 0, true
	}
	return 1, true
}
