package hostiletest

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/forwarder/plane"
)

var membersOfSet = flag.Int("members", 50_000, "how many prefixes TestSetOfAMillion puts into one set; the long form is 1000000")

// netOf is the i-th prefix of a large set, by turns of either family.
func netOf(i int) netip.Prefix {
	if i%2 == 1 {
		a := [16]byte{0x20, 1, 0xd, 0xb8}
		binary.BigEndian.PutUint32(a[4:], uint32(i))
		return netip.PrefixFrom(netip.AddrFrom16(a), 64)
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 32<<24+uint32(i/2)<<8)
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// probe sends a packet of each of some prefixes, of which a third are beyond the n of
// a set, and wants those to pass that are in.
func (w *world) probe(when string, n int, in func(i int) bool) {
	w.t.Helper()
	rng := rand.New(rand.NewPCG(1, w.sent))
	asked := map[uint16]int{} // prefixes, by the source port of their packets
	var packets [][]byte
	for k := range 300 {
		i := rng.IntN(n + n/2)
		if k < 8 {
			i = []int{0, 1, n/2 - 1, n / 2, n/2 + 1, n - 1, n, n + 1}[k]
		}
		from := netOf(i).Addr().Next()
		asked[uint16(1024+k)] = i
		packets = append(packets, datagram(from, addr(1, from.Is6()), uint16(1024+k), 53))
	}
	came := w.offer(uplink, pod(1), packets...)
	for port, i := range asked {
		if got := came[[2]uint16{port, 53}] == 1; got != in(i) {
			w.t.Errorf("%s: a packet of prefix %v, %d of %d, passes: %v, want %v", when, netOf(i), i, n, got, in(i))
		}
	}
}

// TestSetOfAMillion has a set of very many prefixes go all the way to the packets:
// in messages of no more than the contract allows, in bounded memory, and with a
// change of few members in few bytes.
func TestSetOfAMillion(t *testing.T) {
	n := *membersOfSet
	if testing.Short() {
		n = min(n, 20_000)
	}
	w := raise(t, 1, plane.Config{})
	w.put(append(w.read(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {selector: role == 'server', types: [Ingress],
		ingress: [{action: Allow, source: {selector: has(big)}}]}}`), workload(1, map[string]string{"role": "server"}))...)
	check := func(when string, in func(i int) bool) { t.Helper(); w.probe(when, n, in) }
	before := heap()
	big := v3.New(v3.KindGlobalNetworkSet).(*v3.GlobalNetworkSet)
	big.Name, big.Labels = "big", map[string]string{"big": "yes"}
	for i := range n {
		big.Spec.Nets = append(big.Spec.Nets, netOf(i).String())
	}
	w.put(big)
	const entry = 4 + 1 // bytes of the smallest member
	if w.core.largest > dataplane.ChunkLimit || w.core.chunks < n*entry/dataplane.ChunkLimit {
		t.Errorf("%d messages, the largest of %d bytes, want at most %d", w.core.chunks, w.core.largest, dataplane.ChunkLimit)
	}
	per := int64(heap()-before) / int64(n)
	t.Logf("%d members came in %d messages; all who know of them take %d bytes for each", n, w.core.chunks, per)
	if per > 1500 { // the resource, the calculation, the guard's labels, the client's mirror, the forwarder's state and labels
		t.Errorf("each of %d members takes %d bytes, want at most 1500", n, per)
	}
	check("all members", func(i int) bool { return i < n })

	other := big.DeepCopy()
	other.Spec.Nets[n/2], other.Spec.Nets[0] = netOf(n).String(), netOf(n+1).String()
	w.core.largest, w.core.chunks = 0, 0
	w.put(other)
	if w.core.chunks != 1 || w.core.largest > 1000 {
		t.Errorf("two members that leave and two that join take %d messages of up to %d bytes", w.core.chunks, w.core.largest)
	}
	check("two others", func(i int) bool { return i < n && i != 0 && i != n/2 || i == n || i == n+1 })

	half := big.DeepCopy()
	half.Spec.Nets = half.Spec.Nets[:n/2]
	w.put(half)
	check("half of them", func(i int) bool { return i < n/2 })
	w.drop(half)
	check("none", func(int) bool { return false })
	w.put(big)
	check("all again", func(i int) bool { return i < n })
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
