package survivaltest

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/datastore"
)

var flips = flag.Int("flips", 200, "how often TestPolicyFlipsUnderLoad changes policy; the long form is 10000")

// What flips is the policy of dave: P1 lets ann and amy in, by rules 1 and 2 of its list, and
// P2 cleo alone. Numbers are such as the lab gives to nothing of its own.
const (
	flipsFirst = 500_000 // sets and rules, of the pods in order
	flipsP1    = 500_000 // programs
	flipsP2    = 500_001
)

var flipsPods = []string{"ann", "amy", "cleo"}

// lets says by which rule a program lets a pod in, in words that need no classifier; 0 by none.
func lets(program uint32, pod string) uint32 {
	for i, name := range flipsPods {
		if name == pod && (pod == "cleo") == (program == flipsP2) {
			return flipsFirst + uint32(i)
		}
	}
	return 0
}

// flipper changes dave's policy by a stream of its own to south's forwarder.
type flipper struct {
	*world
	stream *dataplane.Stream
	dave   *v1.Endpoint
}

func (w *world) flipper() *flipper {
	w.t.Helper()
	w.police(`{action: Allow}`)
	state, err := w.Desired("south")
	if err != nil {
		w.t.Fatal(err)
	}
	f := &flipper{world: w}
	for _, program := range []uint32{flipsP1, flipsP2} {
		var rules []classifier.Rule
		for i, pod := range flipsPods {
			if id := lets(program, pod); id != 0 {
				rules = append(rules, classifier.Rule{ID: id, Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{classifier.SetID(flipsFirst + i)}}})
			}
		}
		c, err := classifier.Compile(rules, classifier.Options{})
		if err != nil {
			w.t.Fatal(err)
		}
		state.Programs = append(state.Programs, dataplane.Program{ID: program, Image: c.Image})
	}
	for i, pod := range flipsPods {
		s := dataplane.Set{ID: flipsFirst + uint32(i)}
		for _, six := range []bool{false, true} {
			a := w.addr(pod, six)
			s.Members = append(s.Members, netip.PrefixFrom(a, a.BitLen()))
		}
		state.Sets = append(state.Sets, s)
	}
	for _, e := range state.Endpoints {
		if e.GetId() == "pod/dave" {
			f.dave = e
		}
	}
	if f.stream, err = dataplane.Dial(w.t.Context(), w.Socket("south"), dataplane.Options{}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(f.stream.Close)
	if _, err := f.stream.Apply(w.t.Context(), state); err != nil {
		w.t.Fatal(err)
	}
	return f
}

// to sends for a program to judge dave.
func (f *flipper) to(program uint32) *dataplane.Delivery {
	f.t.Helper()
	e := &v1.Endpoint{
		Id: f.dave.GetId(), Port: f.dave.GetPort(), Addresses: f.dave.GetAddresses(), Mac: f.dave.GetMac(), Policy: v1.Endpoint_POLICY_ENFORCED,
		Ingress: []*v1.Stage{{Program4: program, Program6: program, Name: "default"}}, Egress: f.dave.GetEgress(),
	}
	d, err := f.stream.SendDelta(f.t.Context(), dataplane.Delta{Set: dataplane.State{Endpoints: []*v1.Endpoint{e}}})
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

// TestPolicyFlipsUnderLoad changes the policy of a pod as fast as a forwarder puts it in force,
// each change acknowledged before the next, while others send to it through devices. Whenever
// it rests, every flow is decided anew, as the program in force says, and by the rule.
func TestPolicyFlipsUnderLoad(t *testing.T) {
	w := raise(t, 1, nil)
	f := w.flipper()
	talk := w.talkToDave()
	const burst = 51 // odd: either program is in force at times that nothing changes
	var flipping time.Duration
	done := 0
	for done < *flips {
		began := time.Now()
		for range burst {
			f.wait(f.to(flipsP1 + uint32(done%2)))
			done++
		}
		flipping += time.Since(began)
		program := flipsP1 + uint32((done-1)%2)
		w.eventually("every flow is decided by the program in force", func() bool {
			return w.settled(talk, func(pod string, r *v1.Ruling) bool {
				return r.GetAllowed() == (lets(program, pod) != 0) && (!r.GetAllowed() || r.GetRule().GetId() == lets(program, pod))
			})
		})
	}
	t.Logf("%d changes, %.0f a second, each in force and stored before the next", done, float64(done)/flipping.Seconds())
}

// talkToDave has pods send to dave until the test ends, and says who has which address.
func (w *world) talkToDave() map[netip.Addr]string {
	w.t.Helper()
	talk := map[netip.Addr]string{}
	for _, pod := range flipsPods {
		for _, six := range []bool{false, true} {
			c := w.udp(pod, "dave", six)
			w.t.Cleanup(c.end)
			c.goesOn(w)
			talk[w.addr(pod, six)] = pod
		}
	}
	return talk
}

func (f *flipper) wait(d *dataplane.Delivery) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	if err := d.Wait(ctx); err != nil {
		f.t.Fatal(err)
	}
}

// settled says whether all flows to dave have been judged by what is in force. It fails the
// test where one is not as says has it of the pod that opened it.
func (w *world) settled(talk map[netip.Addr]string, says func(pod string, r *v1.Ruling) bool) bool {
	w.t.Helper()
	rpc, err := w.inspect("south").ListFlows(w.t.Context(), &v1.ListFlowsRequest{Endpoint: "dave", Protocol: 17})
	if err != nil {
		w.t.Fatal(err)
	}
	seen := 0
	for {
		list, err := rpc.Recv()
		if errors.Is(err, io.EOF) {
			return seen == len(talk)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		for _, fl := range list.GetFlows() {
			pod := talk[netip.MustParseAddr(fl.GetOriginal().GetSource())]
			if pod == "" || fl.GetOutdated() {
				continue
			}
			if seen++; !says(pod, fl.GetIngress()) {
				w.t.Errorf("%s is judged %v, which is not what is in force", pod, fl.GetIngress())
			}
		}
	}
}

// flipsPolicy says of dave what a program does.
func flipsPolicy(program uint32) *v3.GlobalNetworkPolicy {
	p := &v3.GlobalNetworkPolicy{}
	p.Name, p.Spec.Selector, p.Spec.Types = "flip", "pod == 'dave'", []v3.PolicyType{v3.PolicyTypeIngress}
	for _, pod := range flipsPods {
		if lets(program, pod) != 0 {
			p.Spec.Ingress = append(p.Spec.Ingress, v3.Rule{Action: v3.Allow, Source: v3.EntityRule{Selector: "pod == '" + pod + "'"}})
		}
	}
	return p
}

// before is how many rules a program has before the one that lets a pod in.
func before(program uint32, pod string) (n uint32) {
	for _, other := range flipsPods[:slices.Index(flipsPods, pod)] {
		if lets(program, other) != 0 {
			n++
		}
	}
	return n
}

// TestPolicyFlipsThroughAStore writes the same policies to a store in turn, as fast as it takes
// them. Agents need not have each in force, but the last one, each time that it rests.
func TestPolicyFlipsThroughAStore(t *testing.T) {
	w := raiseAgents(t, 1)
	store, err := w.OpenStore()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	talk := w.talkToDave()
	const burst = 25
	var writing time.Duration
	began, done := w.status("south").GetGeneration(), 0
	for done < *flips/2 {
		program := uint32(0)
		start := time.Now()
		for range burst {
			program = flipsP1 + uint32(done%2)
			if _, _, err := datastore.Apply(t.Context(), store, flipsPolicy(program)); err != nil {
				t.Fatal(err)
			}
			done++
		}
		writing += time.Since(start)
		if err := w.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.eventually("every flow is decided by the last policy written", func() bool {
			return w.settled(talk, func(pod string, r *v1.Ruling) bool {
				rule := r.GetRule()
				return r.GetAllowed() == (lets(program, pod) != 0) && (!r.GetAllowed() || rule.GetPolicy() == "GlobalNetworkPolicy flip" && rule.GetIndex() == before(program, pod))
			})
		})
	}
	t.Logf("%d policies written, %.0f a second; south's forwarder took %d changes", done, float64(done)/writing.Seconds(), w.status("south").GetGeneration()-began)
}
