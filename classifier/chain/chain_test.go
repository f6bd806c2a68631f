package chain_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/classifier/classifiertest"
	"margay.dev/margay/classifier/oracle"
)

// rounds makes the random tests longer: go test -args -rounds 100.
var rounds = flag.Uint64("rounds", 1, "how many times as long the random tests run")

// tier is what the oracle knows of a tier.
type tier struct {
	list []classifier.Rule
	end  classifier.Action
}

// steps is what the oracle says of a packet in a chain: as Chain.Explain does.
func steps(w *classifiertest.World, tiers []tier, p oracle.Packet) (steps []classifier.Verdict) {
	for t, tier := range tiers {
		rank, logged := oracle.Match(tier.list, w.Sets, p)
		for _, id := range classifiertest.IDs(tier.list, logged) {
			steps = append(steps, classifier.NewVerdict(classifier.Log, id, t))
		}
		v := classifier.NewVerdict(tier.end, classifier.EndOfTier, t)
		if rank < len(tier.list) {
			v = classifier.NewVerdict(tier.list[rank].Action, tier.list[rank].ID, t)
		}
		steps = append(steps, v)
		if v.Action() != classifier.Pass {
			break
		}
	}
	return steps
}

// packetOf is what the packet path would ask the chain.
func packetOf(w *classifiertest.World, p oracle.Packet) classifier.Packet {
	k := classifier.Packet{SourceClass: w.Class(p.Source), DestinationClass: w.Class(p.Destination),
		SourcePort: p.SourcePort, DestinationPort: p.DestinationPort, Protocol: p.Protocol}
	if p.Source.Is4() {
		raw := classifiertest.KeyOf(p)
		k.Source, k.Destination = raw.Source(), raw.Destination()
	}
	return k
}

// agree asks a chain and the oracle about packets.
func agree(w *classifiertest.World, t testing.TB, c *chain.Chain, tiers []tier, packets []oracle.Packet) (byTier map[int]int) {
	t.Helper()
	byTier = map[int]int{}
	asked, got := make([]classifier.Packet, len(packets)), make([]classifier.Verdict, len(packets))
	for i := range packets {
		asked[i] = packetOf(w, packets[i])
	}
	c.Match(asked, got)
	var logs chain.Logs
	for i, p := range packets {
		steps := steps(w, tiers, p)
		var met []classifier.Verdict
		for _, s := range steps {
			if s.Action() == classifier.Log {
				met = append(met, s)
			}
		}
		if c.Logged(&asked[i], got[i], &logs); !slices.Equal(logs.Met, met) {
			t.Fatalf("%+v: it meets the Log rules %v, want %v", p, logs.Met, met)
		}
		want := classifier.Verdict(0)
		if n := len(steps); n > 0 && steps[n-1].Action() != classifier.Pass {
			want = steps[n-1]
			byTier[want.Tier()]++
		}
		if got[i] != want {
			t.Fatalf("%+v: %v, want %v", p, got[i], want)
		}
		if told := c.Explain(&asked[i], nil); fmt.Sprint(told) != fmt.Sprint(steps) {
			t.Fatalf("%+v: explained by %v, want %v", p, told, steps)
		}
	}
	return byTier
}

func TestChainsAgreeWithTheOracle(t *testing.T) {
	deepest := 0
	for seed := range 40 * *rounds {
		rng := rand.New(rand.NewPCG(seed, 3))
		w := classifiertest.NewWorld(rng, seed%2 == 0)
		var tiers []tier
		var chained []chain.Tier
		for i := range rng.IntN(5) {
			now := tier{w.Rules(rng, rng.IntN(30)), classifier.Pass}
			if rng.IntN(3) == 0 {
				now.end = classifier.Deny
			}
			if i == 2 && !w.V6 {
				now.list = classifiertest.Rules(rng, 20)
			}
			tiers = append(tiers, now)
			chained = append(chained, chain.Tier{List: chain.NewList(w.Compile(t, rng, now.list, classifier.Options{})), End: now.end})
		}
		for _, c := range chained { // the later compiles have made new classes
			w.Tell(c.List.Program())
		}
		c, err := chain.NewChain(chained...)
		if err != nil {
			t.Fatal(err)
		}
		packets := make([]oracle.Packet, 100)
		for i := range packets {
			var list []classifier.Rule
			if len(tiers) > 0 {
				list = tiers[rng.IntN(len(tiers))].list
			}
			packets[i] = w.Packet(rng, list)
		}
		for t, n := range agree(w, t, c, tiers, packets) {
			if n > 0 {
				deepest = max(deepest, t)
			}
		}
	}
	if deepest < 2 {
		t.Errorf("no packet was decided behind tier %d", deepest)
	}
}

// A universe small enough to ask everything: addresses of 4 bits, ports of 3, two
// protocols, against random chains with every kind of rule.
func TestSmallUniverse(t *testing.T) {
	for seed := range 6 * *rounds {
		rng := rand.New(rand.NewPCG(seed, 4))
		w := classifiertest.NewWorld(rng, seed%2 == 0)
		small := func() []classifier.Rule {
			list := w.Rules(rng, 1+rng.IntN(12))
			for i := range list {
				r := &list[i]
				r.Source.Ports, r.Destination.Ports, r.Protocols = nil, nil, nil
				first, last := uint16(rng.IntN(4)), uint16(4+rng.IntN(4))
				if rng.IntN(2) == 0 {
					r.Destination.Ports = []classifier.Range{{First: first, Last: max(first, last-uint16(rng.IntN(3)))}}
				}
				if rng.IntN(3) == 0 {
					r.Protocols = []classifier.Range{{First: 6, Last: 6}}
				}
			}
			return list
		}
		tiers := []tier{{small(), classifier.Pass}, {small(), classifier.Deny}}
		var chained []chain.Tier
		for _, tier := range tiers {
			chained = append(chained, chain.Tier{List: chain.NewList(w.Compile(t, rng, tier.list, classifier.Options{})), End: tier.end})
		}
		w.Tell(chained[0].List.Program())
		c, err := chain.NewChain(chained...)
		if err != nil {
			t.Fatal(err)
		}
		packets := make([]oracle.Packet, 0, 1<<12)
		for i := range uint32(1 << 12) {
			s, d := i&15, i>>4&15
			packets = append(packets, oracle.Packet{Source: w.Address(s>>2<<3 | s&3), Destination: w.Address(d>>2<<3 | d&3),
				DestinationPort: uint16(i >> 8 & 7), Protocol: []uint8{6, 17}[i>>11]})
		}
		agree(w, t, c, tiers, packets)
	}
}

func TestNewChainRefuses(t *testing.T) {
	l := chain.NewList(classifiertest.Load(t, nil, classifier.Options{}))
	for name, tiers := range map[string][]chain.Tier{
		"no list":        {{End: classifier.Deny}},
		"no end":         {{List: l}},
		"an end in log":  {{List: l, End: classifier.Deny}, {List: l, End: classifier.Log}},
		"too many tiers": slices.Repeat([]chain.Tier{{List: l, End: classifier.Pass}}, classifier.MaxTiers+1),
	} {
		if c, err := chain.NewChain(tiers...); c != nil || err == nil {
			t.Errorf("%s: got %v, %v", name, c, err)
		}
	}
}
