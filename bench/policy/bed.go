package policy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"margay.dev/margay/bench/byhand"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/mem"
	"margay.dev/margay/internal/pkt"
)

func routerMAC(side int) node.MAC { return node.MAC{2, 0, 0, 0, 1, byte(side)} }
func hostMAC(side int) node.MAC   { return node.MAC{2, 0, 0, 0, 2, byte(side)} }

// bed is the real graph over real tables between two ports of memory, an endpoint
// behind each:
//
//	side 0 ► eth-input ► ip-input ► flow ► rewrite ► tx ► side 1, and back
//	                                  └► route ► policy-out ► policy-in ► flow-new ┘
type bed struct {
	arena  *umem.Arena
	tables *node.Tables
	engine *graph.Engine
	queues [2]byhand.Queue
	flows  *flow.Table // nil without policy
	memory *mem.Region
	writer *writer
	passes atomic.Uint64 // odd while a pass is under way
	sent   uint64
	made   int // flows that there must be, with those that have
	ended  int
}

// newBed makes one whose endpoints are judged by lists of so many rules; with
// none nobody has policy. It has room for as many flows.
func newBed(ctx context.Context, k kind, rules, flows int) (_ *bed, err error) {
	b := &bed{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.writer, err = newWriter(rules); err != nil {
		return nil, err
	}
	b.tables = node.NewTablesOver(b.writer.police.Labels())
	if rules > 0 {
		if err := b.makeFlows(flows); err != nil {
			return nil, err
		}
	}
	if b.arena, err = umem.New(umem.Config{Frames: frames + 64, Caches: 1}); err != nil {
		return nil, err
	}
	g, err := graph.Build(node.Specs(b.tables)...)
	if err != nil {
		return nil, err
	}
	if b.engine, err = graph.NewEngine(g, b.arena, graph.Config{Workers: 1, Burst: graph.VectorMax}); err != nil {
		return nil, err
	}
	if err := b.connect(ctx, k); err != nil {
		return nil, err
	}
	return b, b.writer.publish(b.tables)
}

// makeFlows makes the table of flows in the memory that production uses. One
// endpoint may have four fifths of it.
func (b *bed) makeFlows(flows int) (err error) {
	const each = 300 // bytes of a flow with its share of the index, or a little less
	if b.memory, err = mem.Create("margay-flows", mem.KindFlows, flow.LayoutVersion, flow.MinBytes+flows*each*4/3); err != nil {
		return err
	}
	if b.flows, err = flow.New(b.memory.Payload(), flow.Config{Workers: 1, Endpoints: 2, Timeouts: flow.DefaultTimeouts()}); err != nil {
		return err
	}
	b.tables.Court.Keep(b.flows, 0)
	return nil
}

// connect adds the ports, and the routes to the hosts behind them.
func (b *bed) connect(ctx context.Context, k kind) error {
	ether := pkt.EtherIPv4
	if k.ipv6 {
		ether = pkt.EtherIPv6
	}
	for side := range b.queues {
		a := fib.Adjacency{Kind: fib.Rewrite, Port: uint16(side), MTU: 1500, HeaderLen: pkt.EthernetSize}
		to, from := hostMAC(side), routerMAC(side)
		copy(a.Header[:], to[:])
		copy(a.Header[6:], from[:])
		a.Header[12], a.Header[13] = byte(ether>>8), byte(ether&0xff)
		id, t := side+1, b.tables.FIB
		err := errors.Join(t.SetAdjacency(fib.AdjacencyID(id), a),
			t.SetNextHop(fib.NextHopID(id), []fib.Member{{Adjacency: fib.AdjacencyID(id), Weight: 1}}),
			t.SetRoute(covering(k.ipv6, side), fib.NextHopID(id)))
		if err != nil {
			return err
		}
		p := graph.Port{Index: uint16(side), Name: fmt.Sprint("side", side), Entry: node.EntryL2, Queues: []graph.Queue{&b.queues[side]}}
		if err := b.engine.AddPort(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (b *bed) close() {
	if b.engine != nil {
		b.engine.Stop()
	}
	if b.arena != nil {
		_ = b.arena.Close() // unmapping our own memory: nothing to be done about a failure
	}
	if b.memory != nil {
		_ = b.memory.Close() // likewise
	}
}

// step sends a vector from a side, unless one before was not forwarded whole: of
// what is dropped the graph takes the frames, and they must not be sent again.
func (b *bed) step(side int, metas []graph.Meta) {
	if b.queues[0].Sent+b.queues[1].Sent != b.sent {
		return
	}
	b.queues[side].Give(metas, graph.VectorMax)
	b.passes.Add(1)
	b.engine.Step()
	b.passes.Add(1)
	b.sent += uint64(len(metas))
}

// round writes the frames of t anew and sends them through the graph once. What it
// returns is the graph's time alone.
func (b *bed) round(t *talk) time.Duration {
	side := t.turn
	t.write()
	start := time.Now()
	for v := range vectors {
		b.step(side, t.metas[v*graph.VectorMax:(v+1)*graph.VectorMax])
		side ^= 1
	}
	return time.Since(start)
}

// nanos is what a packet costs in rounds of about d all together.
func (b *bed) nanos(t *talk, d time.Duration) float64 {
	return byhand.Nanos(frames, d, func() time.Duration { return b.round(t) })
}

// open opens all conversations of t, and has them under way from both sides.
func (b *bed) open(t *talk) error {
	for _, s := range t.handshake() {
		for at := 0; at < len(t.dialogs); at += graph.VectorMax {
			for i := range graph.VectorMax {
				t.frame(&t.metas[i], &t.dialogs[at+i], s.side, s.flags, s.length)
			}
			b.step(s.side, t.metas[:graph.VectorMax])
			if b.flows != nil && at%(1<<16) == 0 {
				b.age(0)
			}
		}
	}
	b.made += len(t.dialogs)
	if b.flows != nil {
		b.age(0)
	}
	t.shuffle()
	return b.check()
}

// age does what the owner of the flows does a few times a second, at what the
// worker's clock shows but for the seconds since it was made.
func (b *bed) age(now time.Duration) {
	for b.flows.Advance(flow.TickAt(now), 1<<20) {
	}
	b.flows.Quiesced(b.flows.Generation())
}

// check says whether every frame was forwarded, and made no flow but those that
// were opened: a benchmark of drops is none, nor one of flows that are opened
// again and again.
func (b *bed) check() error {
	c := b.engine.Total()
	if c.Tx != b.sent || c.Dropped() != 0 {
		return fmt.Errorf("the graph was given %d frames and sent %d of them; dropped: %v", b.sent, c.Tx, c.Drops)
	}
	if b.flows == nil {
		return nil
	}
	if s := b.flows.Stats(); s.Flows != b.made-b.ended || s.Inserted != uint64(b.made) {
		return fmt.Errorf("there are %d flows, and %d were made; want %d, and %d made", s.Flows, s.Inserted, b.made-b.ended, b.made)
	}
	return nil
}
