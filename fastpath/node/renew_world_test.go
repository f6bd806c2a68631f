package node_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/label"
	"margay.dev/margay/fastpath/node"
)

// The ports of a churned lab: three endpoints', two of the world outside and the
// node's own, all of them without link layer.
const (
	endA, endB, endC uint16 = 1, 2, 3
	outU, outV       uint16 = 4, 5
	ownHost          uint16 = 6
	churnPorts       uint16 = 7
)

// The numbers that churn uses again and again, each from 1 on: adjacencies lead to
// the ports of their numbers, but for those that change in place.
const (
	churnHops           = 8
	adjPunt, adjNowhere = 7, 8
	adjMoving, adjMax   = 9, 11
	churnSets           = 7
)

// churn is a lab of which everything changes that flows are decided from.
type churn struct {
	l       *gt.Lab
	r       *rand.Rand
	labels  *label.Table
	classes map[label.Class][]classifier.SetID
	lists   []*classifier.Program
	chains  []*chain.Chain
	hosts   [2][]netip.Addr // of each family
	joined  map[label.Change]bool
	policy  map[uint16]*judge.Endpoint
}

// ClassBorn and ClassDied make churn a label.Watcher, as forwarder/policing has one.
func (c *churn) ClassBorn(class label.Class, sets []classifier.SetID) {
	c.classes[class] = slices.Clone(sets)
	for _, p := range c.lists {
		p.AddClass(uint32(class), sets)
	}
}

func (c *churn) ClassDied(label.Class) {}

func newChurn(t testing.TB, seed uint64, cfg gt.Config) *churn {
	c := &churn{r: rand.New(rand.NewPCG(seed, 7)), classes: map[label.Class][]classifier.SetID{},
		joined: map[label.Change]bool{}, policy: map[uint16]*judge.Endpoint{}}
	c.labels = label.New(c)
	cfg.Labels = c.labels
	c.l = gt.New(t, cfg)
	for p := range churnPorts {
		flags := []node.PortFlags{endA: node.Workload, endB: node.Workload, endC: node.Workload, ownHost: node.HostPort}[p]
		c.l.AddPort(gt.Port{Index: p, Flags: node.Owned | flags, MTU: 1500})
		if p != 0 && p != ownHost {
			c.l.SetAdjacency(fib.AdjacencyID(p), fib.Adjacency{Kind: fib.Rewrite, Port: p, MTU: 1500})
		}
	}
	c.l.SetAdjacency(fib.AdjacencyID(ownHost), fib.Adjacency{Kind: fib.Rewrite, Port: outU, MTU: 1500})
	c.l.SetAdjacency(adjPunt, fib.Adjacency{Kind: fib.Punt})
	c.l.SetAdjacency(adjNowhere, fib.Adjacency{Kind: fib.Blackhole})
	for range 10 {
		c.addProgram(t)
	}
	for i := range 5 {
		c.hosts[0] = append(c.hosts[0], netip.AddrFrom4([4]byte{byte(10 + i%2), 0, byte(i / 3), byte(i)}))
		c.hosts[1] = append(c.hosts[1], netip.MustParseAddr(fmt.Sprintf("200%x:db8:0:%x::%x", i%2, i/3, i)))
	}
	for range 150 {
		c.step(t)
	}
	return c
}

// addProgram makes a list of rules that look at sets and ports.
func (c *churn) addProgram(t testing.TB) {
	var rules []classifier.Rule
	for i := range 1 + c.r.IntN(3) {
		r := classifier.Rule{ID: uint32(100*len(c.lists) + i), Action: classifier.Allow}
		if c.r.IntN(4) == 0 {
			r.Action = classifier.Deny
		}
		for _, s := range []*classifier.Side{&r.Source, &r.Destination} {
			switch set := classifier.SetID(1 + c.r.IntN(churnSets)); c.r.IntN(5) {
			case 0:
				s.Sets = []classifier.SetID{set}
			case 1:
				s.NotSets = []classifier.SetID{set}
			}
		}
		rules = append(rules, r)
	}
	made, err := classifier.Compile(rules, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := classifier.Load(made.Image)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := chain.NewChain(chain.Tier{List: chain.NewList(p), End: []classifier.Action{classifier.Deny, classifier.Deny, classifier.Pass}[c.r.IntN(3)]})
	if err != nil {
		t.Fatal(err)
	}
	c.lists, c.chains = append(c.lists, p), append(c.chains, ch)
}

// step changes one thing.
func (c *churn) step(t testing.TB) {
	var err error
	switch c.r.IntN(10) {
	case 0, 1, 2:
		err = c.member()
	case 3, 4, 5:
		p := c.prefix()
		if err = c.l.Tables.FIB.SetRoute(p, fib.NextHopID(1+c.r.IntN(churnHops))); c.r.IntN(3) == 0 {
			c.l.Tables.FIB.DeleteRoute(p)
		}
	case 6:
		err = c.l.Tables.FIB.SetNextHop(fib.NextHopID(1+c.r.IntN(churnHops)), c.members())
	case 7:
		id := fib.AdjacencyID(adjMoving + c.r.IntN(adjMax-adjMoving+1))
		a := fib.Adjacency{Kind: []fib.Kind{fib.Rewrite, fib.Rewrite, fib.Punt}[c.r.IntN(3)], Port: uint16(1 + c.r.IntN(5)), MTU: uint32(1400 + c.r.IntN(3))}
		err = c.l.Tables.FIB.SetAdjacency(id, a)
	case 8:
		c.l.Tables.FIB.SetMemberDown(fib.AdjacencyID(1+c.r.IntN(adjMax)), c.r.IntN(2) == 0)
	case 9:
		c.police()
		return // that begins a generation by itself
	}
	if err != nil {
		t.Fatal(err)
	}
	c.l.Tables.Court.Moved()
}

// member lets one prefix join a set, or leave it.
func (c *churn) member() error {
	m := label.Change{Set: classifier.SetID(1 + c.r.IntN(churnSets)), Prefix: c.prefix()}
	leave := m
	leave.Leave = c.joined[m]
	c.joined[m] = !c.joined[m]
	return c.labels.Apply([]label.Change{leave})
}

// prefix is that of a host, or one time in five that of several.
func (c *churn) prefix() netip.Prefix {
	family := c.r.IntN(2)
	a := c.hosts[family][c.r.IntN(len(c.hosts[family]))]
	n := a.BitLen()
	if c.r.IntN(5) == 0 {
		n = [][]int{{8, 16, 24}, {16, 48, 64}}[family][c.r.IntN(3)]
	}
	p, _ := a.Prefix(n) // n is within the address
	return p
}

// members are of a next hop: mostly one, sometimes a group.
func (c *churn) members() (out []fib.Member) {
	n := max(1, c.r.IntN(5)-1)
	for _, id := range c.r.Perm(adjMax)[:n] {
		out = append(out, fib.Member{Adjacency: fib.AdjacencyID(id + 1), Weight: 1})
	}
	return out
}

// police gives an endpoint, or the host on its port to the world, another policy, or none.
func (c *churn) police() {
	port, some := endA+uint16(c.r.IntN(4)), func() *chain.Chain { return c.chains[c.r.IntN(len(c.chains))] }
	e := &judge.Endpoint{Account: uint32(port), Host: port == outU, HostDenied: port != outU && c.r.IntN(8) == 0}
	for family := range 2 {
		e.Egress[family], e.Ingress[family] = some(), some()
	}
	if e.Host {
		e.Open = openBoth(e.Egress, e.Ingress)
	}
	if c.r.IntN(6) == 0 {
		e = nil
	}
	c.policy[port] = e
	c.l.Police(port, e)
}

// judged is what a packet comes to that opened a flow with key k, goes in by one
// port and would go out by another, as reading all tables says.
func (c *churn) judged(k flow.Key, from, to uint16) (d flow.Decision, hostDenied bool) {
	src, dst := k.Addrs()
	view := c.labels.View()
	d.Class = [2]uint32{uint32(view.Lookup(src)), uint32(view.Lookup(dst))}
	d.NextHop = [2]uint32{uint32(c.hop(dst)), uint32(c.hop(src))}
	family := 0
	if k.IPv6() {
		family = 1
	}
	d.Verdict[0], d.Verdict[1] = uint32(classifier.NewVerdict(classifier.Allow, 0, 0)), uint32(classifier.NewVerdict(classifier.Allow, 0, 0))
	tuple := [1]classifier.Packet{{SourceClass: d.Class[0], DestinationClass: d.Class[1], Protocol: k.Proto()}}
	tuple[0].SourcePort, tuple[0].DestinationPort = k.Ports()
	if e := c.policy[from]; e != nil {
		hostDenied = e.HostDenied && to == ownHost
		if !e.Host || to != ownHost {
			d.Asked[0], d.Verdict[0] = uint32(from)+1, ask(e, e.Egress[family], tuple)
		}
	}
	if e := c.policy[to]; e != nil && from != ownHost {
		d.Asked[1], d.Verdict[1] = uint32(to)+1, ask(e, e.Ingress[family], tuple)
	}
	if judge.Denial(uint64(d.Verdict[0])|uint64(classifier.NewVerdict(classifier.Allow, 0, 0))<<32) != 0 {
		d.Verdict[1] = 0
	}
	return d, hostDenied
}

func ask(e *judge.Endpoint, c *chain.Chain, tuple [1]classifier.Packet) uint32 {
	var out [1]classifier.Verdict
	c.Match(tuple[:], out[:])
	if e.Host && out[0].Action() == classifier.NoMatch {
		return uint32(classifier.NewVerdict(classifier.Allow, 0, 0))
	}
	return uint32(out[0])
}

// hop is where packets for an address go.
func (c *churn) hop(a netip.Addr) fib.NextHopID {
	v := c.l.Tables.FIB.View()
	if b := a.AsSlice(); a.Is6() {
		return v.Lookup6(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
	}
	return v.Lookup4(binary.BigEndian.Uint32(a.AsSlice()))
}

// exits are the ports that packets for an address may leave by: one, unless the
// next hop is a group: the upper bits of a hash choose. The first is that which
// sources are held against.
func (c *churn) exits(a netip.Addr) (out []uint16) {
	v, hop, ways := c.l.Tables.FIB.View(), c.hop(a), uint32(fib.Buckets)
	if _, single := v.Single(hop); single {
		ways = 1
	}
	for hash := range ways {
		adj := v.Adjacency(v.Resolve(hop, hash<<25))
		port := adj.Port
		switch adj.Kind {
		case fib.Punt:
			port = ownHost
		case fib.Rewrite:
		default:
			continue
		}
		if !slices.Contains(out, port) {
			out = append(out, port)
		}
	}
	return out
}
