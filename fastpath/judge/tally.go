package judge

import (
	"iter"
	"slices"
	"sync/atomic"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
)

// Count is packets of which something was decided.
type Count struct {
	Packets  uint64 // as they came: a superpacket is one
	Segments uint64 // wire packets that they stand for
	Bytes    uint64 // from the IP header on
}

// Add sums counts.
func (c *Count) Add(other Count) {
	c.Packets += other.Packets
	c.Segments += other.Segments
	c.Bytes += other.Bytes
}

// Record is what a court has decided so far, for people. A packet counts when it
// is judged: for what is allowed that is the one that opens a connection, for what
// is denied each. The packets of known flows are counted with their flows, also
// when a flow is judged anew and stays allowed.
type Record struct {
	Rules   Tally // by id of the rule that decided, 0 for those without one or with one that nobody expected
	Pending Tally // likewise, by the rule that would decide if staged policies were in force
	Ends    Tally // by the numbers that Endpoint gives to the ends of its tiers
	Log     Log
}

// Count is what the rule of an id has decided, summed over workers.
func (r *Record) Count(rule uint32) Count { return r.Rules.Count(rule) }

// recorder is a worker's part of a record.
type recorder struct {
	rules, pending, ends *sheet[cell]
	writer               *writer
}

func (r *Record) recorder() recorder {
	return recorder{rules: r.Rules.join(), pending: r.Pending.join(), ends: r.Ends.join(), writer: r.Log.join()}
}

// Tally counts by number, from 0 to MaxNumber: each worker on a sheet of its own,
// on which there is room for what was expected; all else counts as 0. Its methods
// are safe for concurrent use.
type Tally struct{ pad[cell] }

type cell struct{ packets, segments, bytes atomic.Uint64 }

// add counts a packet.
//
//fastpath:hot
func (c *cell) add(p *flow.Packet) {
	c.packets.Add(1)
	c.segments.Add(uint64(p.Segments))
	c.bytes.Add(uint64(p.Bytes))
}

func (c *cell) count() Count {
	return Count{c.packets.Load(), c.segments.Load(), c.bytes.Load()}
}

// Count is what was counted by a number, summed over workers: none for one that
// nobody expected.
func (t *Tally) Count(n uint32) (sum Count) {
	t.each(n, func(c *cell) { sum.Add(c.count()) })
	return sum
}

// Reset forgets what was counted by a number, which is to mean something else:
// when no worker counts by it any more.
func (t *Tally) Reset(n uint32) {
	t.each(n, func(c *cell) {
		c.packets.Store(0)
		c.segments.Store(0)
		c.bytes.Store(0)
	})
}

// Adopt adds what another process has counted by a number to what is counted
// here. Before the first worker has joined there is no place for it.
func (t *Tally) Adopt(n uint32, was Count) {
	t.each(n, func(c *cell) {
		c.packets.Add(was.Packets)
		c.segments.Add(was.Segments)
		c.bytes.Add(was.Bytes)
		was = Count{}
	})
}

// All yields every number by which anything was counted, in their order.
func (t *Tally) All() iter.Seq2[uint32, Count] {
	return func(yield func(uint32, Count) bool) {
		for i := range uint32(pages) {
			if i > 0 && !t.has(i) {
				continue
			}
			for n := i << pageBits; n < (i+1)<<pageBits; n++ {
				if c := t.Count(n); c != (Count{}) && !yield(n, c) {
					return
				}
			}
		}
	}
}

// teller is what a bar needs to count and log.
type teller struct {
	would [classifier.Burst]classifier.Verdict // by what is staged
	logs  chain.Logs                           // that one packet has met
	metas *graph.Slots
	now   int64
}

// look notes what else is known of a vector's packets.
func (n *bar) look(w *graph.Worker, v *graph.Vector) { n.now, n.metas = w.Now, v.Metas() }

// tell counts and logs what was made of cases that one chain judged for a side.
// Their tuples are the first of n.tuples.
func (n *bar) tell(side int, by *chain.Chain, idx []uint16) {
	staged := false
	for _, slot := range idx {
		c := n.Docket.At(slot)
		e := c.By[side]
		if e == nil {
			return // it is nobody's policy that let all of them pass
		}
		if c.counts(side) {
			n.count(n.rules, &e.Ends[side], c, c.Verdict[side])
		}
		staged = staged || e.Staged[side] != nil
	}
	if staged {
		n.stage(side, idx)
	}
	if by != nil && by.HasLog() {
		n.log(side, by, idx)
	}
}

// counts says whether a packet counts as judged: those of known flows that stay
// allowed are counted with their flow.
func (c *Case) counts(side int) bool {
	return c.Flow == 0 || c.Verdict[side].Action() != classifier.Allow
}

// count counts a packet by the rule that gave a verdict, or by the end of a tier.
func (n *bar) count(rules *sheet[cell], ends *Ends, c *Case, v classifier.Verdict) {
	if v.Action() == classifier.NoMatch || v.Rule() == classifier.EndOfTier {
		n.ends.at(ends.of(c.family(), v)).add(&c.Packet)
		return
	}
	rules.at(v.Rule()).add(&c.Packet)
}

// family is 0 for IPv4, 1 for IPv6.
func (c *Case) family() int {
	if c.Key.IPv6() {
		return 1
	}
	return 0
}

// Ends are the numbers by which Record.Ends counts what the ends of a chain's
// tiers deny, by family (IPv4, IPv6) and tier; the last is for what goes past all
// tiers. Without any the number is 0.
type Ends [2][]uint32

// Equal says whether two give the same numbers.
func (e *Ends) Equal(other *Ends) bool {
	return slices.Equal(e[0], other[0]) && slices.Equal(e[1], other[1])
}

// of is the number of what a verdict says that no rule gave.
func (e *Ends) of(family int, v classifier.Verdict) uint32 {
	of := e[family]
	switch tier := v.Tier(); {
	case len(of) == 0:
		return 0
	case v.Action() != classifier.NoMatch && tier < len(of):
		return of[tier]
	}
	return of[len(of)-1]
}
