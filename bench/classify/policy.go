package classify

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/label"
)

// The shape of a large cluster's policy: an ordered list in which a quarter of the
// rules name sets of addresses.
const (
	policyRules = 294 * 68 // policies and rules of each
	policyPorts = 200      // that rules name and flows go to
	policyFlows = 1 << 16
	policyAsked = 4000 // flows whose verdicts are compared with a walk over the list
)

// policy is a list over sets, the members of these, and flows to judge.
type policy struct {
	ipv6    bool
	list    []classifier.Rule
	members []label.Change
	flows   []flow
}

// flow is one packet: what is known of it before its addresses are looked up.
type flow struct {
	source, destination netip.Addr
	protocol            uint8
	port                uint16
}

// setSizes are so many sets, with so many members at least and at most.
type setSizes struct{ sets, least, most int }

// policySets are those of a large cluster: 3,708.
func policySets() []setSizes {
	return []setSizes{{4, 0, 0}, {3035, 1, 9}, {446, 10, 99}, {64, 100, 999}, {158, 1000, 3299}, {1, 54_566, 54_566}}
}

// newPolicy draws a policy of so many rules over such sets; each call draws the
// same one.
func newPolicy(ipv6 bool, rules int, sizes []setSizes) *policy {
	r := rand.New(rand.NewPCG(seed, 7))
	p := &policy{ipv6: ipv6, flows: make([]flow, policyFlows)}
	var sets uint32
	p.members, sets = drawMembers(r, ipv6, sizes)
	ports := make([]uint16, policyPorts)
	for i := range ports {
		ports[i] = uint16(1 + r.UintN(65000))
	}
	for i := range rules {
		rule := drawRule(r, sets, ports)
		rule.ID = uint32(i)
		p.list = append(p.list, rule)
	}
	for i := range p.flows {
		p.flows[i] = p.drawFlow(r, ports)
	}
	return p
}

// drawMembers draws the members of sets, numbered from 1. One member in eight is
// in another set already.
func drawMembers(r *rand.Rand, ipv6 bool, sizes []setSizes) (all []label.Change, sets uint32) {
	next := uint32(10 << 24)
	for _, size := range sizes {
		for range size.sets {
			sets++
			in := map[netip.Prefix]bool{}
			for range size.least + r.IntN(size.most-size.least+1) {
				next += 1 + r.Uint32N(3)
				member := host(ipv6, next)
				if r.IntN(8) == 0 && len(all) > 0 {
					member = all[r.IntN(len(all))].Prefix
				}
				if !in[member] {
					in[member] = true
					all = append(all, label.Change{Set: classifier.SetID(sets), Prefix: member})
				}
			}
		}
	}
	return all, sets
}

// host is an address by its number: IPv6 in nets of 256 hosts.
func host(ipv6 bool, n uint32) netip.Prefix {
	if !ipv6 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))), 32)
	}
	b := [16]byte{0xfd}
	binary.BigEndian.PutUint32(b[4:], n>>8)
	b[15] = byte(n)
	return netip.PrefixFrom(netip.AddrFrom16(b), 128)
}

// drawRule draws a rule. Those that name no set mostly ask for ports that no
// flow has, as guards do: else few flows would come to the end of the list.
func drawRule(r *rand.Rand, sets uint32, ports []uint16) classifier.Rule {
	rule := classifier.Rule{Action: classifier.Allow, Protocols: [][]classifier.Range{exactly(6), exactly(6), exactly(6), exactly(17), nil}[r.IntN(5)]}
	port := classifier.Range{First: ports[r.IntN(len(ports))]}
	port.Last = port.First
	if r.IntN(10) == 0 {
		port.Last = min(65000, port.First+uint16(r.UintN(100)))
	}
	some := func() []classifier.SetID { return []classifier.SetID{1 + classifier.SetID(r.Uint32N(sets))} }
	switch {
	case r.IntN(1000) >= 242:
		if r.IntN(50) > 0 {
			port = classifier.Range{First: uint16(65001 + r.UintN(400)), Last: 65500}
		}
	case r.IntN(8) == 0:
		rule.Source.Sets, rule.Destination.Sets = some(), some()
	case r.IntN(7) < 4:
		rule.Source.Sets = some()
	default:
		rule.Destination.Sets = some()
	}
	rule.Destination.Ports = []classifier.Range{port}
	return rule
}

func exactly(n uint16) []classifier.Range { return []classifier.Range{{First: n, Last: n}} }

// drawFlow draws a flow: seven addresses of ten are members, three ports of four
// are among those that rules name.
func (p *policy) drawFlow(r *rand.Rand, ports []uint16) flow {
	address := func() netip.Addr {
		if r.IntN(10) < 7 {
			return p.members[r.IntN(len(p.members))].Prefix.Addr()
		}
		if p.ipv6 {
			b := [16]byte{0xfd}
			binary.BigEndian.PutUint64(b[8:], r.Uint64())
			return netip.AddrFrom16(b)
		}
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, r.Uint32())))
	}
	f := flow{address(), address(), []uint8{6, 6, 6, 17}[r.IntN(4)], ports[r.IntN(len(ports))]}
	if r.IntN(4) == 0 {
		f.port = uint16(r.UintN(1 << 16))
	}
	return f
}

// holders knows which sets hold an address, by nothing but maps.
type holders struct {
	sets    map[netip.Prefix][]classifier.SetID
	lengths []int
}

func newHolders(members []label.Change) *holders {
	h := &holders{sets: make(map[netip.Prefix][]classifier.SetID, len(members))}
	seen := map[int]bool{}
	for _, m := range members {
		h.sets[m.Prefix] = append(h.sets[m.Prefix], m.Set)
		if !seen[m.Prefix.Bits()] {
			seen[m.Prefix.Bits()] = true
			h.lengths = append(h.lengths, m.Prefix.Bits())
		}
	}
	return h
}

func (h *holders) of(a netip.Addr) map[classifier.SetID]bool {
	in := map[classifier.SetID]bool{}
	for _, n := range h.lengths {
		for _, set := range h.sets[netip.PrefixFrom(a, n).Masked()] {
			in[set] = true
		}
	}
	return in
}

// first is the position of the first rule that matches, or -1, found by asking
// one after the other. Which sets hold the addresses is known.
func (p *policy) first(f *flow, source, destination map[classifier.SetID]bool) int {
	for i := range p.list {
		r := &p.list[i]
		ports := r.Destination.Ports[0]
		switch {
		case f.port < ports.First || f.port > ports.Last:
		case len(r.Protocols) > 0 && uint16(f.protocol) != r.Protocols[0].First:
		case len(r.Source.Sets) > 0 && !source[r.Source.Sets[0]]:
		case len(r.Destination.Sets) > 0 && !destination[r.Destination.Sets[0]]:
		default:
			return i
		}
	}
	return -1
}
