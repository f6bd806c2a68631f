package classbench

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"margay.dev/margay/classifier"
)

// comparisons makes TestProgramsAgreeWithTheScan longer. All sets take part from
// a million on, and those of 100,000 rules, which take long to compile:
//
//	go test ./bench/classbench -run ProgramsAgree -v -timeout 2h -args -comparisons 100000000
var comparisons = flag.Int("comparisons", 30_000, "how many headers TestProgramsAgreeWithTheScan asks about in all, each by every walker")

// Programs answer as the scan does: for headers inside rules, and at the edges of
// what rules ask for, by every walker that this CPU has.
func TestProgramsAgreeWithTheScan(t *testing.T) {
	for _, w := range classifier.MissingWalkers() {
		t.Logf("not tried: %v, this CPU has no %s", w, w.Needs())
	}
	all := *comparisons
	if testing.Short() {
		all /= 10
	}
	large, small := all/100, all*94/300
	for _, base := range []string{"acl1", "fw1", "ipc1"} {
		for _, size := range []string{"1k", "10k", "100k"} {
			if size == "100k" && all < 1_000_000 {
				continue
			}
			n := large
			if size == "1k" {
				n = small
			}
			t.Run(base+"_"+size, func(t *testing.T) { compare(t, rulesOf(t, base, size), n) })
		}
	}
}

// rulesOf is a shipped set; one of 100,000 rules is made of that of 10,000.
func rulesOf(t *testing.T, base, size string) []classifier.Rule {
	name, times := base+"_"+size, 1
	if size == "100k" {
		name, times = base+"_10k", 10
	}
	list, err := ReadRules(open(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return enlarge(list, times)
}

// enlarge makes a list so many times as long: behind each rule stand its likes for
// other networks, so that what is wide stays at the end.
func enlarge(list []classifier.Rule, times int) []classifier.Rule {
	var out []classifier.Rule
	for i := range list {
		for k := range times {
			r := list[i]
			r.ID = uint32(len(out))
			r.Source.Nets, r.Destination.Nets = moved(r.Source.Nets, byte(k)), moved(r.Destination.Nets, byte(k))
			out = append(out, r)
		}
	}
	return out
}

func moved(nets []netip.Prefix, by byte) []netip.Prefix {
	nets = slices.Clone(nets)
	for i, n := range nets {
		a := n.Addr().As4()
		a[0], a[1] = a[0]^by<<2, a[1]^by<<4
		nets[i] = netip.PrefixFrom(netip.AddrFrom4(a), n.Bits()).Masked()
	}
	return nets
}

// compare asks scan and walkers about n headers, in bursts and one by one in turn.
func compare(t *testing.T, list []classifier.Rule, n int) {
	made, err := classifier.Compile(list, classifier.Options{Budget: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	p, err := classifier.Load(made.Image)
	if err != nil {
		t.Fatal(err)
	}
	const chunk = 1000
	scan, rng := NewScan(list), rand.New(rand.NewPCG(uint64(len(list)), uint64(n)))
	keys, want, got := make([]classifier.Key, chunk), make([]int32, chunk), make([]classifier.Verdict, chunk)
	wrong, early, missed, began := 0, 0, 0, time.Now()
	for done := 0; done < n; done += chunk {
		for i := range keys {
			keys[i] = scan.draw(rng)
			switch want[i] = scan.First(keys[i]); {
			case want[i] == None:
				missed++
			case int(want[i]) != len(list)-1:
				early++
			}
		}
		for _, w := range classifier.Walkers() {
			q := p.By(w)
			if q.Match(keys, got); done/chunk%2 == 1 {
				for i := range keys {
					got[i] = q.MatchOne(&keys[i])
				}
			}
			wrong += wrongOf(list, want, got)
		}
	}
	asked := (n + chunk - 1) / chunk * chunk
	t.Logf("%d rules: %d headers by %v in %.0f s: %d decided by a rule other than the last, %d by none; %d wrong",
		len(list), asked, classifier.Walkers(), time.Since(began).Seconds(), early, missed, wrong)
	if wrong > 0 || early < asked/4 {
		t.Errorf("%d answers of %d are wrong, %d are those of a rule other than the last", wrong, asked, early)
	}
}

// draw is a point inside a rule, or, for one of four, with one field at an edge of
// another rule or right beside it.
func (s *Scan) draw(rng *rand.Rand) classifier.Key {
	var v [numFields]uint32
	b := &s.boxes[rng.IntN(len(s.boxes))]
	for f := range v {
		v[f] = b.low[f] + uint32(rng.Uint64N(uint64(b.span[f])+1))
	}
	if rng.IntN(4) == 0 {
		f, b := rng.IntN(numFields), &s.boxes[rng.IntN(len(s.boxes))]
		v[f] = []uint32{b.low[f] - 1, b.low[f], b.low[f] + b.span[f], b.low[f] + b.span[f] + 1}[rng.IntN(4)]
	}
	return classifier.NewKey(v[source], v[destination], uint8(v[protocol]), uint16(v[sourcePort]), uint16(v[destinationPort]))
}

func wrongOf(list []classifier.Rule, want []int32, got []classifier.Verdict) (wrong int) {
	for i, first := range want {
		v := classifier.Verdict(0)
		if first != None {
			v = classifier.NewVerdict(list[first].Action, list[first].ID, 0)
		}
		if got[i] != v {
			wrong++
		}
	}
	return wrong
}
