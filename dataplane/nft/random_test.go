package nft

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/oracle"
)

// world makes states and packets of few addresses and ports, so that they meet.
type world struct {
	*rand.Rand
	nextRule uint32
}

func pick[T any](w *world, of ...T) T { return of[w.IntN(len(of))] }

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

// address is one behind an interface, or of the host itself.
func (w *world) address(family, network int) netip.Addr {
	last := byte(w.IntN(6))
	if family == 4 {
		return netip.AddrFrom4([4]byte{10, byte(network), pick[byte](w, 0, 1, 128), last})
	}
	a := netip.MustParseAddr("2001:db8::").As16()
	a[5], a[6], a[15] = byte(network), pick[byte](w, 0, 1, 128), last
	return netip.AddrFrom16(a)
}

func (w *world) network() int { return pick(w, 1, 2, 3, ownNetwork) }

func (w *world) prefix(family int) netip.Prefix {
	a := w.address(family, w.network())
	bits := pick(w, 0, 8, 13, 16, 17, 24, 31, 32)
	if family == 6 {
		bits = pick(w, 0, 32, 45, 48, 49, 64, 127, 128)
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func (w *world) prefixes(family, most int) []netip.Prefix {
	var out []netip.Prefix
	for range w.IntN(most + 1) {
		out = append(out, w.prefix(family))
	}
	return out
}

var ports = []uint16{0, 1, 22, 53, 80, 443, 1024, 65535}

func (w *world) port() uint16 { return pick(w, ports...) }

// typeCode is what ICMP messages have in the place of ports.
func (w *world) typeCode() uint16 {
	return pick[uint16](w, 0, 1, 3, 8, 128, 129, 135)<<8 | uint16(w.IntN(3))
}

func (w *world) portRanges() []classifier.Range {
	var out []classifier.Range
	for range w.IntN(4) {
		first := w.port()
		if w.chance(30) {
			first = w.typeCode()
		}
		last := first
		if w.chance(50) {
			last = max(first, pick(w, w.port(), w.typeCode(), first+uint16(min(300, 65535-int(first)))))
		}
		out = append(out, classifier.Range{First: first, Last: last})
	}
	return out
}

var protocols = []uint8{1, 6, 17, 47, 58, 89, 132}

func (w *world) protocolRanges() []classifier.Range {
	var out []classifier.Range
	for range pick(w, 0, 0, 1, 1, 1, 2, 3) {
		first := uint16(pick(w, protocols...))
		last := first
		if w.chance(25) {
			last = uint16(w.IntN(256-int(first))) + first
		}
		out = append(out, classifier.Range{First: first, Last: last})
	}
	return out
}

// setIDs are the sets that there may be.
var setIDs = []classifier.SetID{1, 2, 3, 1 << 30}

func (w *world) side(family int, sets oracle.Sets) classifier.Side {
	var s classifier.Side
	if w.chance(30) {
		s.Nets = w.prefixes(family, 3)
	}
	if w.chance(20) {
		s.NotNets = w.prefixes(family, 2)
	}
	ids := slices.Sorted(maps.Keys(sets))
	if len(ids) > 0 && w.chance(25) {
		s.Sets = append(s.Sets, pick(w, ids...))
	}
	if len(ids) > 0 && w.chance(15) {
		s.NotSets = append(s.NotSets, pick(w, ids...))
	}
	if w.chance(40) {
		s.Ports = w.portRanges()
	}
	return s
}

func (w *world) rule(family int, sets oracle.Sets) classifier.Rule {
	w.nextRule++
	return classifier.Rule{
		ID: w.nextRule, Action: pick(w, classifier.Allow, classifier.Allow, classifier.Deny, classifier.Pass, classifier.Log),
		Protocols: w.protocolRanges(), Source: w.side(family, sets), Destination: w.side(family, sets),
	}
}

func (w *world) rules(family int, sets oracle.Sets) []classifier.Rule {
	var out []classifier.Rule
	for range pick(w, 0, 1, 3, 8, 40, 70, 140) {
		out = append(out, w.rule(family, sets))
	}
	return out
}

// judgementOf is one that ends as those of its kind do; it may be none.

func (w *world) judgementOf(sets oracle.Sets, ends ...classifier.Action) *Judgement {
	if w.chance(25) {
		return nil
	}
	j := &Judgement{End: pick(w, ends...)}
	for i := range w.IntN(4) {
		end := classifier.Pass
		if j.End != classifier.Pass && w.chance(30) {
			end = classifier.Deny
		}
		j.Tiers = append(j.Tiers, Tier{Name: fmt.Sprintf("tier%d", i), V4: w.rules(4, sets), V6: w.rules(6, sets), End: end})
	}
	return j
}

func (w *world) endpoint(name string, sets oracle.Sets) Endpoint {
	e := Endpoint{Name: "of " + name, Interface: name}
	for d := range e.Normal {
		e.Normal[d] = w.judgementOf(sets, classifier.Deny, classifier.Allow)
		e.Forward[d] = w.judgementOf(sets, classifier.Allow)
		e.Untracked[d] = w.judgementOf(sets, classifier.Pass)
	}
	e.PreDNAT = w.judgementOf(sets, classifier.Pass)
	return e
}

func (w *world) desired(sets oracle.Sets) *Desired {
	d := &Desired{Settings: Settings{KeepInvalid: true, Reject: w.chance(20), Mark: pick[uint32](w, 0, 3<<30)}}
	for _, name := range append(interfaces[:], AllInterfaces) {
		if w.chance(50) {
			d.Endpoints = append(d.Endpoints, w.endpoint(name, sets))
		}
	}
	if w.chance(60) {
		d.Settings.Workloads = []string{pick(w, "cali*", "cali1", "other", "e*")}
	}
	for i := range d.Settings.Failsafe {
		for range w.IntN(3) {
			f := Failsafe{Protocol: pick[uint8](w, 6, 17), Port: pick[uint16](w, 22, 53)}
			if w.chance(50) {
				f.Net = w.prefix(pick(w, 4, 6))
			}
			d.Settings.Failsafe[i] = append(d.Settings.Failsafe[i], f)
		}
	}
	return d
}

// change is a state that differs little: a rule more or less in one list, or a
// setting, or an endpoint.
func (w *world) change(old *Desired, sets oracle.Sets) *Desired {
	d := *old
	d.Endpoints = slices.Clone(old.Endpoints)
	if len(d.Endpoints) == 0 || w.chance(10) {
		return w.desired(sets)
	}
	if w.chance(20) {
		d.Settings.Reject = !d.Settings.Reject
	}
	e := &d.Endpoints[w.IntN(len(d.Endpoints))]
	for _, at := range []**Judgement{&e.Normal[0], &e.Normal[1], &e.Forward[0], &e.Forward[1], &e.Untracked[0], &e.Untracked[1], &e.PreDNAT} {
		if *at != nil && len((*at).Tiers) > 0 && w.chance(60) {
			*at = w.edit(*at, sets)
		}
	}
	return &d
}

func (w *world) edit(old *Judgement, sets oracle.Sets) *Judgement {
	j := *old
	j.Tiers = slices.Clone(old.Tiers)
	t := &j.Tiers[w.IntN(len(j.Tiers))]
	list, family := &t.V4, 4
	if w.chance(50) {
		list, family = &t.V6, 6
	}
	rules := slices.Clone(*list)
	at := w.IntN(len(rules) + 1)
	if len(rules) > 0 && w.chance(50) {
		at = min(at, len(rules)-1)
		rules = slices.Delete(rules, at, at+1)
	} else {
		rules = slices.Insert(rules, at, w.rule(family, sets))
	}
	*list = rules
	return &j
}

// churn changes members of sets, makes sets, and gives the change.
func (w *world) churn(sets oracle.Sets) []SetChange {
	var out []SetChange
	for _, id := range setIDs {
		if w.chance(40) {
			continue
		}
		c := SetChange{ID: id, Name: fmt.Sprintf("number %d", id)}
		members := slices.Clone(sets[id])
		for range w.IntN(4) {
			if len(members) > 0 {
				at := w.IntN(len(members))
				c.Left = append(c.Left, members[at])
				members = slices.Delete(members, at, at+1)
			}
		}
		for _, family := range []int{4, 6} {
			for _, p := range w.prefixes(family, 5) {
				if !slices.Contains(members, p) && !slices.Contains(c.Left, p) {
					members, c.Joined = append(members, p), append(c.Joined, p)
				}
			}
		}
		sets[id] = members
		out = append(out, c)
	}
	return out
}

func (w *world) packet() packet {
	family := pick(w, 4, 6)
	p := packet{from: w.IntN(4) - 1, protocol: pick(w, protocols...)}
	if p.from < 0 {
		p.source, p.destination = w.address(family, ownNetwork), w.address(family, pick(w, 1, 2, 3))
	} else {
		p.source, p.destination = w.address(family, pick(w, 1, 2, 3)), w.address(family, w.network())
	}
	switch p.protocol {
	case 6, 17, 132:
		p.sourcePort, p.destinationPort = w.port(), w.port()
	case 1:
		if family == 4 {
			p.destinationPort = w.typeCode()
		} else {
			p.protocol = 58
			p.destinationPort = w.typeCode()
		}
	case 58:
		if family == 4 {
			p.protocol = 1
		}
		p.destinationPort = w.typeCode()
	}
	return p
}
