package hostiletest

import (
	"sync/atomic"
	"testing"
	"time"

	"margay.dev/margay/forwarder/plane"
)

const server, changing, other = 1, 2, 3 // pods

// talk is what may pass between two pods by a port: pod 2 being a client, and a guest.
type talk struct {
	from, to int
	port     uint16
	may      [2]bool
}

// known is the source port of a talk's lasting flow.
func known(i int) uint16 { return uint16(2000 + i) }

// relabelled is a world in which pod 2 is turned from a client into a guest and
// back. The server lets clients in; guests may send to ports 53 and 54 alone, and be
// sent what comes to port 53.
type relabelled struct {
	*world
	talks         []talk
	begun, done   atomic.Int64 // changes
	rounds        atomic.Int64
	sport         uint16 // of the next new flow
	exact, others int    // rounds that fell between two changes, and that did not
}

func newRelabelled(t *testing.T) *relabelled {
	t.Helper()
	r := &relabelled{world: raise(t, 3, plane.Config{Workers: 2}), sport: 3000, talks: []talk{
		{changing, server, 53, [2]bool{true, false}}, // the server's ingress says so
		{changing, server, 54, [2]bool{true, true}},
		{changing, server, 55, [2]bool{true, false}}, // its own egress says so
		{other, server, 53, [2]bool{true, true}},
		{server, changing, 53, [2]bool{true, true}},
		{server, changing, 54, [2]bool{true, false}}, // its own ingress says so
	}}
	r.put(append(r.read(openProfile+`---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: server}, spec: {selector: role == 'server', types: [Ingress],
	ingress: [{action: Allow, source: {selector: role == 'client'}}, {action: Allow, protocol: UDP, source: {selector: role == 'guest'}, destination: {ports: [54, 55]}}]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: guests}, spec: {selector: role == 'guest', types: [Ingress, Egress],
	ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}], egress: [{action: Allow, protocol: UDP, destination: {ports: [53, 54]}}]}}
`), workload(server, map[string]string{"role": "server"}, "open"), workload(other, map[string]string{"role": "client"}, "open"))...)
	r.relabel(0)
	return r
}

// relabel makes the n-th change, which makes pod 2 a guest if n is odd.
func (r *relabelled) relabel(n int) {
	r.t.Helper()
	r.begun.Store(int64(n))
	r.put(workload(changing, map[string]string{"role": []string{"client", "guest"}[n%2]}, "open"))
	r.done.Store(int64(n))
}

// round sends packets of every talk, of a flow that is known and of a new one, and
// holds what came against the labels that were in force meanwhile.
func (r *relabelled) round() error {
	first := int(r.done.Load())
	r.sport += uint16(len(r.talks))
	for i, talk := range r.talks {
		for _, six := range families {
			from, to := addr(talk.from, six), addr(talk.to, six)
			r.inject(pod(talk.from), datagram(from, to, known(i), talk.port), datagram(from, to, r.sport+uint16(i), talk.port))
		}
	}
	if err := r.settle(); err != nil {
		return err
	}
	last := int(r.begun.Load())
	if first == last {
		r.exact++
	} else {
		r.others++
	}
	r.came(first, last)
	r.rounds.Add(1)
	return nil
}

// came wants to come what the labels of all changes from first to last let in, and
// not to come what those of none do.
func (r *relabelled) came(first, last int) {
	came := map[int]map[[2]uint16]int{server: r.collect(pod(server)), changing: r.collect(pod(changing))}
	for i, talk := range r.talks {
		let := map[bool]bool{}
		for n := first; n <= last; n++ {
			let[talk.may[n%2]] = true
		}
		for _, from := range []uint16{known(i), r.sport + uint16(i)} {
			n := came[talk.to][[2]uint16{from, talk.port}]
			if !let[false] && n != 2 || !let[true] && n > 0 { // one of each family
				r.t.Errorf("%d packets from port %d of pod %d to port %d of pod %d came while changes %d to %d were in force",
					n, from, talk.from, talk.port, talk.to, first, last)
			}
		}
	}
}

// talking makes rounds until stop, and then says how they ended.
func (r *relabelled) talking(stop <-chan struct{}) (ended chan error) {
	ended = make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := r.round(); err != nil {
				ended <- err
				return
			}
		}
	}()
	return ended
}

// TestPodIsRelabelledUnderTraffic has a label decide in both directions, of its pod
// and of others. What was sent after a change was acknowledged fares as the labels
// then say, of flows that were known as of new ones; what was sent meanwhile as
// those before or behind it.
func TestPodIsRelabelledUnderTraffic(t *testing.T) {
	changes := 60
	if testing.Short() {
		changes = 20
	}
	r := newRelabelled(t)
	stop := make(chan struct{})
	ended := r.talking(stop)
	for n := 1; n <= changes; n++ {
		r.relabel(n)
		for quiet := r.rounds.Load() + int64(n%3)*2; r.rounds.Load() < quiet && len(ended) == 0 && !t.Failed(); {
			time.Sleep(100 * time.Microsecond)
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if r.exact == 0 || r.others == 0 {
		t.Errorf("%d rounds fell between two changes, and %d did not", r.exact, r.others)
	}
	t.Logf("%d changes; %d rounds between two of them, %d others", changes, r.exact, r.others)
}
