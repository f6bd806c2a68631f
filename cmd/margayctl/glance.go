//go:build linux

package main

import (
	"cmp"
	"maps"
	"slices"
	"time"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
)

// glance is what happened between two readings.
type glance struct {
	at        time.Time
	trouble   error   // why there is no reading; nil where there is one
	now       reading // the later of two
	restarted bool    // counters have begun anew since the one before: there are no rates

	elapsed time.Duration
	in      flow // all ports together
	out     flow // all ports but the host port
	punt    flow // to the node's own stack
	made    float64
	dropped float64
	vector  float64 // packets per call of a node, 0 if none was called
	nodes   []nodeRate
	workers []workerRate
	ports   rates
	drops   []dropRate
}

// flow is packets and bits per second.
type flow struct{ packets, bits float64 }

type nodeRate struct {
	name           string
	packets, calls float64 // per second
	perCall        float64
	nanos          float64 // per packet, 0 where none was timed
	share          float64 // of the time spent in all nodes
}

type workerRate struct {
	*dataplanev1.WorkerList_Worker
	busy                   float64 // share of the time between the readings
	packets, loops, sleeps float64 // per second
}

type dropRate struct {
	reason  string
	packets float64 // per second
}

// compare takes two readings, of one forwarder or of one after another.
func compare(before, now reading) glance {
	g := glance{at: now.at, now: now, elapsed: now.at.Sub(before.at)}
	if g.restarted = startedAnew(before, now); g.restarted {
		return g
	}
	a, b := before.drops.GetAccount(), now.drops.GetAccount()
	g.in.packets = g.per(a.GetRx(), b.GetRx())
	g.out.packets = g.per(a.GetTx(), b.GetTx())
	g.punt.packets = g.per(a.GetPunt(), b.GetPunt())
	g.dropped = g.per(a.GetDropped(), b.GetDropped())
	g.made = g.per(sum(a.GetMade()), sum(b.GetMade()))
	g.comparePorts(before)
	g.compareNodes(before)
	g.compareWorkers(before)
	g.compareDrops(before)
	return g
}

// startedAnew tells whether another process answers than before, or one whose
// counters have gone back.
func startedAnew(before, now reading) bool {
	a, b := before.drops.GetAccount(), now.drops.GetAccount()
	return before.status.GetBootId() != now.status.GetBootId() ||
		b.GetRx() < a.GetRx() || b.GetTx() < a.GetTx() || b.GetDropped() < a.GetDropped()
}

// per is how much a counter grew in a second; 0 for one that has gone back.
func (g *glance) per(was, is uint64) float64 {
	if is < was {
		return 0
	}
	return float64(is-was) / g.elapsed.Seconds()
}

// comparePorts sorts ports by the bytes that went through them.
func (g *glance) comparePorts(before reading) {
	g.ports = between(before.ports, g.now.ports, g.elapsed)
	for _, p := range g.now.ports.GetPorts() {
		r := g.ports.of[p.GetName()]
		g.in.bits += 8 * r.rxBytes
		if p.GetKind() == "host" {
			g.punt.bits += 8 * r.txBytes
		} else {
			g.out.bits += 8 * r.txBytes
		}
	}
	traffic := func(p *dataplanev1.PortList_PortState) float64 {
		r := g.ports.of[p.GetName()]
		return r.rxBytes + r.txBytes
	}
	slices.SortStableFunc(g.ports.now.GetPorts(), func(a, b *dataplanev1.PortList_PortState) int {
		return cmp.Compare(traffic(b), traffic(a))
	})
}

// compareNodes sorts nodes by what they cost, then by packets; those that had
// none are left out.
func (g *glance) compareNodes(before reading) {
	old := map[string]*dataplanev1.NodeList_Node{}
	for _, n := range before.nodes.GetNodes() {
		old[n.GetName()] = n
	}
	var packets, calls, spent float64
	for _, n := range g.now.nodes.GetNodes() {
		o := old[n.GetName()]
		r := nodeRate{name: n.GetName(), packets: g.per(o.GetPackets(), n.GetPackets()), calls: g.per(o.GetCalls(), n.GetCalls())}
		if r.calls == 0 {
			continue
		}
		r.perCall = r.packets / r.calls
		if timed := g.per(o.GetSampledPackets(), n.GetSampledPackets()); timed > 0 {
			r.nanos = g.per(o.GetSampledNanos(), n.GetSampledNanos()) / timed
		}
		packets, calls, spent = packets+r.packets, calls+r.calls, spent+r.nanos*r.packets
		g.nodes = append(g.nodes, r)
	}
	if calls > 0 {
		g.vector = packets / calls
	}
	for i, r := range g.nodes {
		if spent > 0 {
			g.nodes[i].share = r.nanos * r.packets / spent
		}
	}
	slices.SortStableFunc(g.nodes, func(a, b nodeRate) int {
		return cmp.Or(cmp.Compare(b.share, a.share), cmp.Compare(b.packets, a.packets))
	})
}

func (g *glance) compareWorkers(before reading) {
	old := map[uint32]*dataplanev1.WorkerList_Worker{}
	for _, w := range before.workers.GetWorkers() {
		old[w.GetId()] = w
	}
	for _, w := range g.now.workers.GetWorkers() {
		o := old[w.GetId()]
		g.workers = append(g.workers, workerRate{
			WorkerList_Worker: w,
			// What it counted may be 50 ms old: a share of that little more than all is all.
			busy:    min(g.per(o.GetBusyNanos(), w.GetBusyNanos())/1e9, 1),
			packets: g.per(o.GetPackets(), w.GetPackets()), loops: g.per(o.GetLoops(), w.GetLoops()), sleeps: g.per(o.GetSleeps(), w.GetSleeps()),
		})
	}
}

// compareDrops sorts the reasons for which something was dropped by how often.
func (g *glance) compareDrops(before reading) {
	counts := map[string]uint64{}
	for _, d := range g.now.drops.GetDrops() {
		counts[d.GetReason()] = d.GetPackets()
	}
	for _, d := range before.drops.GetDrops() {
		counts[d.GetReason()] -= min(d.GetPackets(), counts[d.GetReason()])
	}
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[reason]; n > 0 {
			g.drops = append(g.drops, dropRate{reason, g.per(0, n)})
		}
	}
	slices.SortStableFunc(g.drops, func(a, b dropRate) int { return cmp.Compare(b.packets, a.packets) })
}
