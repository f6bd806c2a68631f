package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
)

// maxExpanded is how many classifier rules one rule may become: names of ports
// that pods give to many ports, on both ends, would become millions.
const maxExpanded = 1 << 14

// form is one of the shapes that a rule takes, where it names ports or a service:
// those of all forms together are what the rule matches. from and to are the
// ports asked for by number, which only some of the protocols may have.
type form struct {
	protocols spans
	from, to  end
}

type end struct {
	ports         spans
	sets, notSets []classifier.SetID
}

func fromEnd(f *form) *end { return &f.from }
func toEnd(f *form) *end   { return &f.to }

// expand gives the classifier's rules for one family, 4 or 6, all with the
// rule's id. It fails if they are too many.
func (r *rule) expand(family int) ([]classifier.Rule, error) {
	from, ok1 := r.from.side(family)
	to, ok2 := r.to.side(family)
	if !ok1 || !ok2 || r.family != 0 && r.family != family {
		return nil, nil
	}
	forms := []form{{protocols: r.protocols, from: end{ports: anyPort}, to: end{ports: r.icmp}}}
	for _, s := range [...]struct {
		peer *peer
		end  func(*form) *end
	}{{&r.from, fromEnd}, {&r.to, toEnd}} {
		for _, narrow := range [...]func(*peer, form, func(*form) *end) []form{(*peer).withPorts, (*peer).withoutPorts, (*peer).atService} {
			var next []form
			for _, f := range forms {
				next = append(next, narrow(s.peer, f, s.end)...)
				if len(next) > maxExpanded {
					return nil, fmt.Errorf("names of ports or services stand for so many ports that it would be more than %d rules: use numbers, or fewer names", maxExpanded)
				}
			}
			forms = next
		}
	}
	out := make([]classifier.Rule, 0, len(forms))
	for _, to := range r.to.withDomains(to) {
		for _, f := range drop(forms) {
			out = append(out, classifier.Rule{
				ID: r.id, Action: r.action, Protocols: f.protocols.ranges(anyProtocol),
				Source: f.from.on(from), Destination: f.to.on(to),
			})
		}
	}
	return out, nil
}

// side is what the peer asks of addresses, whatever the ports. It is false where
// the rule is absent for the family: where one of its lists has prefixes, and none
// of the family. (One that excludes all addresses of it needs no rule of its own:
// it matches nothing.)
func (p *peer) side(family int) (side classifier.Side, present bool) {
	side.Nets, side.NotNets = ofFamily(p.nets, family), ofFamily(p.notNets, family)
	if len(p.nets) > 0 && len(side.Nets) == 0 || len(p.notNets) > 0 && len(side.NotNets) == 0 {
		return side, false
	}
	if p.set.asked() {
		side.Sets = []classifier.SetID{p.set.answer.set.id}
	}
	if p.notSet.asked() {
		side.NotSets = []classifier.SetID{p.notSet.answer.set.id}
	}
	return side, true
}

func ofFamily(nets []netip.Prefix, family int) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range nets {
		if n.Addr().Is4() == (family == 4) {
			out = append(out, n)
		}
	}
	return out
}

// on adds the form's part to a side.
func (e end) on(side classifier.Side) classifier.Side {
	side.Ports = e.ports.ranges(anyPort)
	side.Sets = append(slices.Clip(side.Sets), e.sets...)
	side.NotSets = append(slices.Clip(side.NotSets), e.notSets...)
	return side
}

// at is f with one protocol and port at an end.
func (f form) at(p pair, which func(*form) *end) form {
	f.protocols = one(uint16(p.protocol))
	which(&f).ports = one(p.port)
	return f
}

// in adds a set at an end.
func (f form) in(set *memberSet, which func(*form) *end) form {
	e := which(&f)
	e.sets = append(slices.Clip(e.sets), set.id)
	return f
}

// withPorts narrows f to the peer's ports: those by number, and for each name
// those that have it.
func (p *peer) withPorts(f form, which func(*form) *end) []form {
	if p.anyPort {
		return []form{f}
	}
	numbered := f
	which(&numbered).ports = which(&f).ports.and(p.ports)
	forms := []form{numbered}
	for i := range p.named {
		g := p.named[i].answer
		for _, at := range g.live() {
			if f.protocols.has(uint16(at.protocol)) && which(&f).ports.has(at.port) && !p.ports.has(at.port) {
				forms = append(forms, f.at(at, which).in(g.pairs[at], which))
			}
		}
	}
	return drop(forms)
}

// withoutPorts takes the ports away that the peer excludes. For a name, each port
// that has it is judged by itself, and then all others together.
func (p *peer) withoutPorts(f form, which func(*form) *end) []form {
	if len(p.notPorts)+len(p.notNamed) == 0 {
		return []form{f}
	}
	e := which(&f)
	e.ports = e.ports.without(p.notPorts)
	excluded := make(map[pair][]classifier.SetID)
	for i := range p.notNamed {
		g := p.notNamed[i].answer
		for _, at := range g.live() {
			if f.protocols.has(uint16(at.protocol)) && e.ports.has(at.port) {
				excluded[at] = append(excluded[at], g.pairs[at].id)
			}
		}
	}
	var forms []form
	named := make(map[uint8][]span)
	for _, at := range slices.SortedFunc(maps.Keys(excluded), pair.compare) {
		special := f.at(at, which)
		s := which(&special)
		s.notSets = append(slices.Clip(s.notSets), excluded[at]...)
		forms = append(forms, special)
		named[at.protocol] = append(named[at.protocol], span{First: at.port, Last: at.port})
	}
	for _, protocol := range slices.Sorted(maps.Keys(named)) {
		others := f
		others.protocols = one(uint16(protocol))
		which(&others).ports = e.ports.without(join(named[protocol]...))
		forms = append(forms, others)
		f.protocols = f.protocols.without(others.protocols)
	}
	return drop(append(forms, f))
}

// atService narrows f to what is behind the peer's service.
func (p *peer) atService(f form, which func(*form) *end) []form {
	if p.service == nil {
		return []form{f}
	}
	g := p.service.answer
	if g.set != nil {
		return []form{f.in(g.set, which)}
	}
	var forms []form
	for _, at := range g.live() {
		if f.protocols.has(uint16(at.protocol)) && which(&f).ports.has(at.port) {
			forms = append(forms, f.at(at, which).in(g.pairs[at], which))
		}
	}
	return forms
}

// drop leaves out forms that nothing can have.
func drop(forms []form) []form {
	return slices.DeleteFunc(forms, func(f form) bool {
		return len(f.protocols) == 0 || len(f.from.ports) == 0 || len(f.to.ports) == 0
	})
}

// bothAlike reports whether expand gives the same for both families.
func (r *rule) bothAlike() bool {
	return r.family == 0 && len(r.from.nets)+len(r.from.notNets)+len(r.to.nets)+len(r.to.notNets) == 0
}
