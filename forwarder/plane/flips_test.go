package plane

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/forwarder/connections"
)

// The pods of a world whose policy flips: three that send, and one that is sent to.
const (
	podA = 1 + iota
	podB
	podC
	target
)

// variants is how many programs take turns.
const variants = 8

// verdictOf is what variant says of packets from a pod, in words that need no
// classifier: even ones let {a, b} in by their first and second rule, odd ones {c}
// alone by their third. No two variants share the id of a rule, so a verdict tells
// whose it is.
func verdictOf(variant, from int) (allowed bool, rule uint32) {
	if (from == podC) != (variant%2 == 1) {
		return false, 0
	}
	return true, uint32(10*variant + from)
}

// variantImage is the program that variant stands for: pod i is in set i.
func variantImage(t *testing.T, variant int) []byte {
	t.Helper()
	var rules []classifier.Rule
	for from := podA; from <= podC; from++ {
		if allowed, id := verdictOf(variant, from); allowed {
			rules = append(rules, classifier.Rule{ID: id, Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{classifier.SetID(from)}}})
		}
	}
	c, err := classifier.Compile(rules, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Image
}

// flips is a target whose policy a writer changes while others send to it.
type flips struct {
	*bench

	mu    sync.Mutex
	turns []uint64 // the court's generation when each change was done, the variants in order
	begun atomic.Int64
	acked atomic.Int64 // the changes that were acknowledged, of those begun

	sent    uint64
	port    uint16      // of the next new flow
	pending []flow.Flow // whose decisions are of a change that was not done
	exact   int         // rounds during which no change was under way
	crossed int         // and others
	judged  int         // decisions that were of their generation
	between int         // and of the next one, which was published already
}

func newFlips(t *testing.T, workers int) *flips {
	t.Helper()
	f := &flips{bench: newBench(t, workers), port: 2000}
	m := &pb.Chunk{}
	for i := podA; i <= target; i++ {
		p, e := pod(i)
		m.Ports, m.Endpoints = append(m.Ports, p), append(m.Endpoints, e)
		m.Sets = append(m.Sets, &pb.SetMembers{Set: uint32(i), Joined: member(i)})
	}
	for v := range variants {
		image := variantImage(t, v)
		m.Programs = append(m.Programs, &pb.ProgramPart{Id: uint32(1 + v), Size: uint32(len(image)), Image: image})
	}
	m.Endpoints[target-1] = f.endpoint(0)
	f.apply(true, m)
	f.turns = []uint64{f.tables.Court.Generation()}
	return f
}

// endpoint is the target under a variant.
func (f *flips) endpoint(variant int) *pb.Endpoint {
	_, e := policed(target)
	id := uint32(1 + variant)
	e.Ingress = []*pb.Stage{{Program4: id, Program6: id, Name: "default"}}
	return e
}

// next puts the next variant in force.
func (f *flips) next() {
	n := f.begun.Add(1)
	f.apply(false, &pb.Chunk{Endpoints: []*pb.Endpoint{f.endpoint(int(n) % variants)}})
	f.mu.Lock()
	f.turns = append(f.turns, f.tables.Court.Generation())
	f.mu.Unlock()
	f.acked.Store(n)
}

// round sends packets from all three pods, of flows that are known and of new ones,
// waits until each is told of, and holds what became of them against the variants
// that were in force between the first and the last.
func (f *flips) round() {
	f.t.Helper()
	const known, fresh = 4, 4 // packets for each pod and family
	first := int(f.acked.Load())
	for from := podA; from <= podC; from++ {
		var packets [][]byte
		for _, ends := range [][2]netip.Addr{{addr4(from), addr4(target)}, {addr6(from), addr6(target)}} {
			for i := range known + fresh {
				port := uint16(1000)
				if i >= known {
					port = f.port + uint16(i)
				}
				packets = append(packets, graphtest.UDPPorts(ends[0], ends[1], 10, port, 53))
			}
		}
		f.sent += uint64(len(packets))
		f.opener.get(fmt.Sprint("p", from)).Inject(int(f.sent)%f.Engine().Workers(), packets...)
	}
	if f.port += fresh + known; f.port < 2000 {
		f.port = 2000
	}
	f.settle()
	last := int(f.begun.Load())
	f.delivered(first, last, 2*(known+fresh))
	f.decisions(first, last)
	if first == last {
		f.exact++
	} else {
		f.crossed++
	}
}

// settle waits until every packet that was sent is told of.
func (f *flips) settle() {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Microsecond) {
		if c := f.Engine().Total(); c.Rx == f.sent && c.Out() == c.In() {
			return
		}
		if time.Now().After(end) {
			f.t.Errorf("of %d packets not all are told of: %+v", f.sent, f.Engine().Total())
			return
		}
	}
}

// delivered holds what came out against the variants first to last: a pod's packets
// come if all of them let it in, none comes if none does.
func (f *flips) delivered(first, last, sent int) {
	f.t.Helper()
	got := map[netip.Addr]int{}
	for q := range f.Engine().Workers() {
		for _, p := range f.opener.get(fmt.Sprint("p", target)).Collect(q) {
			got[source(p.Bytes)]++
		}
	}
	for from := podA; from <= podC; from++ {
		let := 0
		for n := first; n <= last; n++ {
			if allowed, _ := verdictOf(n%variants, from); allowed {
				let++
			}
		}
		n := got[addr4(from)] + got[addr6(from)]
		if all := last - first + 1; let == 0 && n != 0 || let == all && n != sent {
			f.t.Errorf("%d of %d packets of pod %d came while changes %d to %d were in force, of which %d of %d let it in", n, sent, from, first, last, let, all)
		}
	}
}

func source(p []byte) netip.Addr {
	if p[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(p[12:16]))
	}
	return netip.AddrFrom16([16]byte(p[8:24]))
}

// decisions reads every flow's decision, holds it against the variant of its
// generation, and ends the flows that were new. Those of a change that is being put
// in force wait until it is.
func (f *flips) decisions(first, last int) {
	f.t.Helper()
	list := f.pending
	f.pending = nil
	for fl := range f.connections.Table.All(flow.TickAt(connections.Now())) {
		list = append(list, fl)
		if sport, _ := fl.Key[0].Ports(); sport != 1000 {
			f.connections.Table.Retire(fl)
			if n := f.turnOf(fl.Decision.Generation); first == last && n != first {
				f.t.Errorf("a new flow has generation %d, of change %d, while %d was in force", fl.Decision.Generation, n, first)
			}
		}
	}
	for _, fl := range list {
		from, v := podOf(fl.Key[0]), classifier.Verdict(fl.Decision.Verdict[1])
		n := f.turnOf(fl.Decision.Generation)
		alone := first == last && n == first // nothing that follows was published when this was decided
		right := n >= 0 && decides(n%variants, from, v)
		switch next := (n + 1) % variants; {
		case n < 0 && first == last:
			f.t.Errorf("a flow of pod %d has generation %d, which no change has come to", from, fl.Decision.Generation)
		case n < 0:
			f.pending = append(f.pending, fl)
		case !right && !alone && decides(next, from, v): // the change that follows was published between the two looks
			f.between++
		case !right:
			f.t.Errorf("a flow of pod %d has verdict %v of generation %d, which is change %d of variant %d", from, v, fl.Decision.Generation, n, n%variants)
		default:
			f.judged++
		}
	}
}

// turnOf is the change that was in force at a generation, -1 for one that is not
// done.
func (f *flips) turnOf(g uint64) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, _ := slices.BinarySearchFunc(f.turns, g, func(after, g uint64) int { return cmp.Compare(after, g) })
	if n == len(f.turns) {
		return -1
	}
	return n
}

// decides tells whether a verdict is what a variant says of a pod.
func decides(variant, from int, v classifier.Verdict) bool {
	allowed, rule := verdictOf(variant, from)
	if !allowed {
		return v.Action() != classifier.Allow
	}
	return v.Action() == classifier.Allow && v.Rule() == rule
}

func podOf(k flow.Key) int {
	return int(k.SrcLo & 0xff)
}

// TestPolicyFlipsUnderLoad changes a target's policy as fast as that goes, in
// bursts, while pods send to it. A decision is of the generation that it carries, and
// no packet passes that none of the policies of its time lets in.
func TestPolicyFlipsUnderLoad(t *testing.T) {
	bursts, each := 10, 100
	if testing.Short() {
		bursts = 4
	}
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			f := newFlips(t, workers)
			var rounds atomic.Int64
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
						f.round()
						rounds.Add(1)
					}
				}
			}()
			var flipping time.Duration
			for range bursts {
				began := time.Now()
				for range each / 4 {
					for range 4 {
						f.next()
					}
					time.Sleep(100 * time.Microsecond) // packets must get their turn on one core, too
				}
				flipping += time.Since(began)
				f.ageFlows(t.Context())
				for quiet := rounds.Load() + 3; rounds.Load() < quiet && !t.Failed(); {
					time.Sleep(100 * time.Microsecond)
				}
			}
			close(stop)
			<-done
			if f.exact < bursts || f.crossed == 0 || f.judged == 0 {
				t.Errorf("%d rounds fell between two changes and %d did not, and %d decisions were looked at", f.exact, f.crossed, f.judged)
			}
			t.Logf("%d changes, %.0f a second; packets sent in %d rounds, changes came during %d; %d decisions of their generation, %d of the next",
				bursts*each, float64(bursts*each)/flipping.Seconds(), rounds.Load(), f.crossed, f.judged, f.between)
		})
	}
}
