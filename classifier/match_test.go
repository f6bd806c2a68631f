package classifier_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
	"margay.dev/margay/classifier/oracle"
)

// rounds makes the random tests longer: go test -args -rounds 100.
var rounds = flag.Uint64("rounds", 1, "how many times as long the random tests run")

// agree asks program and oracle about packets, one at a time and in bursts, and
// returns how many were decided by a rule.
func agree(t testing.TB, list []classifier.Rule, p *classifier.Program, packets []oracle.Packet) (hits int) {
	t.Helper()
	keys := make([]classifier.Key, len(packets))
	for i := range packets {
		keys[i] = classifiertest.KeyOf(packets[i])
	}
	got := make([]classifier.Verdict, len(keys))
	p.Match(keys, got)
	for i, packet := range packets {
		rank, logged := oracle.Match(list, nil, packet)
		want := classifier.Verdict(0)
		if rank < len(list) {
			want = classifier.NewVerdict(list[rank].Action, list[rank].ID, 0)
			hits++
		}
		if one := p.MatchOne(&keys[i]); got[i] != want || one != want {
			t.Fatalf("%+v: %v in a burst, %v alone, want %v (position %d)", packet, got[i], one, want, rank)
		}
		if ids := p.Logged(&keys[i], nil); fmt.Sprint(ids) != fmt.Sprint(classifiertest.IDs(list, logged)) {
			t.Fatalf("%+v: logged by %v, want %v", packet, ids, classifiertest.IDs(list, logged))
		}
	}
	return hits
}

func TestProgramsAgreeWithTheOracle(t *testing.T) {
	hits, asked := 0, 0
	for seed := range 100 * *rounds {
		rng := rand.New(rand.NewPCG(seed, 0))
		list := classifiertest.Rules(rng, rng.IntN(1<<rng.IntN(9)))
		p := classifiertest.Load(t, list, classifier.Options{})
		hits += agree(t, list, p, classifiertest.Probes(rng, list, 300))
		asked += 300
	}
	if hits < asked/4 || hits > asked*99/100 {
		t.Errorf("%d of %d packets met a rule: the Probes show little", hits, asked)
	}
}

// A list that asks for no address is one list for both families.
func TestListWithoutAddressesJudgesIPv6(t *testing.T) {
	list := []classifier.Rule{
		{ID: 1, Action: classifier.Log, Protocols: []classifier.Range{{First: 58, Last: 58}}},
		{ID: 2, Action: classifier.Allow, Protocols: []classifier.Range{{First: 6, Last: 6}}, Destination: classifier.Side{Ports: []classifier.Range{{First: 443, Last: 443}}}},
		{ID: 3, Action: classifier.Deny},
	}
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	agree(t, list, classifiertest.Load(t, list, classifier.Options{}), []oracle.Packet{
		{Source: a, Destination: b, Protocol: 6, DestinationPort: 443}, {Source: a, Destination: b, Protocol: 6, DestinationPort: 80}, {Source: a, Destination: b, Protocol: 58, DestinationPort: 128 << 8},
	})
}

func TestEmptyListMatchesNothing(t *testing.T) {
	p := classifiertest.Load(t, nil, classifier.Options{})
	for _, packet := range classifiertest.Probes(rand.New(rand.NewPCG(1, 1)), nil, 40) {
		k := classifiertest.KeyOf(packet)
		if v := p.MatchOne(&k); v != 0 {
			t.Fatalf("%+v: %v", packet, v)
		}
	}
}

// A program that was not told of a class does not guess.
func TestClassThatWasNotAddedMatchesNothing(t *testing.T) {
	list := []classifier.Rule{{ID: 1, Action: classifier.Log}, {ID: 2, Action: classifier.Allow, Source: classifier.Side{NotSets: []classifier.SetID{1}}}}
	p := classifiertest.Load(t, list, classifier.Options{})
	p.AddClass(9, nil) // class 8 is below it, and still unknown
	for class, want := range map[uint32]classifier.Verdict{0: classifier.NewVerdict(classifier.Allow, 2, 0), 8: 0, 9: classifier.NewVerdict(classifier.Allow, 2, 0), 10: 0, 1 << 31: 0} {
		var k classifier.Key
		p.Key(&classifier.Packet{SourceClass: class}, &k)
		if v := p.MatchOne(&k); v != want {
			t.Errorf("class %d: %v, want %v", class, v, want)
		}
		if ids := p.Logged(&k, nil); len(ids) != 0 && want == 0 {
			t.Errorf("class %d: logged by %v", class, ids)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	list := classifiertest.Rules(rng, 500)
	p := classifiertest.Load(t, list, classifier.Options{})
	keys := make([]classifier.Key, 256)
	for i, packet := range classifiertest.Probes(rng, list, len(keys)) {
		keys[i] = classifiertest.KeyOf(packet)
	}
	out := make([]classifier.Verdict, len(keys))
	ids := make([]uint32, 0, len(list))
	if n := testing.AllocsPerRun(20, func() {
		p.Match(keys, out)
		out[0] = p.MatchOne(&keys[1])
		ids = p.Logged(&keys[2], ids[:0])
	}); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func TestProgramsOverClassesAgreeWithTheOracle(t *testing.T) {
	hits, asked, strange := 0, 0, 0
	for seed := range 80 * *rounds {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := classifiertest.NewWorld(rng, seed%2 == 0)
		list := w.Rules(rng, rng.IntN(1<<rng.IntN(8)))
		p := w.Compile(t, rng, list, classifier.Options{})
		hits += w.Agree(t, rng, list, p, 200)
		p = w.Compile(t, rng, list, classifier.Options{}) // now that the literal sets are known
		hits += w.Agree(t, rng, list, p, 200)
		strange += p.Strange()
		asked += 400
	}
	if hits < asked/4 || hits > asked*99/100 || strange == 0 {
		t.Errorf("%d of %d packets met a rule, %d strange classes: this shows little", hits, asked, strange)
	}
}
