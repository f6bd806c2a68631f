package forward

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"margay.dev/margay/bench/byhand"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/pkt"
)

// nextHops is how many neighbours the routes lead to, as in the figures of VPP.
const nextHops = byhand.NextHops

func ourMAC() node.MAC  { return node.MAC{2, 0, 0, 0, 0, 1} }
func peerMAC() node.MAC { return node.MAC{2, 0, 0, 0, 0, 2} }

// bed is the real graph over real tables with two ports of memory:
//
//	source (port 0) ► eth-input ► ip-input ► route ► rewrite ► tx ► sink (port 1)
type bed struct {
	engine *graph.Engine
	arena  *umem.Arena
	tables *node.Tables
	source *byhand.Queue
	nodes  []string
	sent   uint64
}

// newBed makes a graph for frames of a family by routes; frames is the most that
// a stream will have.
func newBed(ctx context.Context, ipv6 bool, routes []netip.Prefix, frames int) (_ *bed, err error) {
	b := &bed{tables: node.NewTables(), source: &byhand.Queue{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.arena, err = umem.New(umem.Config{Frames: frames + 64, Caches: 1}); err != nil {
		return nil, err
	}
	g, err := graph.Build(node.Specs(b.tables)...)
	if err != nil {
		return nil, err
	}
	b.nodes = g.Nodes()
	if b.engine, err = graph.NewEngine(g, b.arena, graph.Config{Workers: 1, Burst: graph.VectorMax}); err != nil {
		return nil, err
	}
	port := node.Port{Flags: node.L2, MTU: 1500, MAC: ourMAC()}
	out := port
	out.Main = 1
	b.tables.Publish(&node.State{HostPort: graph.NoPort, Ports: []node.Port{port, out}})
	if err := b.route(ctx, ipv6, routes); err != nil {
		return nil, err
	}
	for i, q := range []graph.Queue{b.source, &byhand.Queue{}} {
		p := graph.Port{Index: uint16(i), Name: fmt.Sprintf("memory%d", i), Entry: node.EntryL2, Queues: []graph.Queue{q}}
		if err := b.engine.AddPort(ctx, p); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// route leads routes to the next hops in turn.
func (b *bed) route(ctx context.Context, ipv6 bool, routes []netip.Prefix) error {
	t := b.tables.FIB
	ether := pkt.EtherIPv4
	if ipv6 {
		ether = pkt.EtherIPv6
	}
	for i := range uint32(nextHops) {
		a := fib.Adjacency{Kind: fib.Rewrite, Port: 1, MTU: 1500, HeaderLen: pkt.EthernetSize}
		to, from := peerMAC(), ourMAC()
		to[5] = byte(16 + i)
		copy(a.Header[:], to[:])
		copy(a.Header[6:], from[:])
		a.Header[12], a.Header[13] = byte(ether>>8), byte(ether&0xff)
		err := errors.Join(t.SetAdjacency(fib.AdjacencyID(i+1), a),
			t.SetNextHop(fib.NextHopID(i+1), []fib.Member{{Adjacency: fib.AdjacencyID(i + 1), Weight: 1}}))
		if err != nil {
			return err
		}
	}
	for i, p := range routes {
		if err := t.SetRoute(p, fib.NextHopID(i%nextHops+1)); err != nil {
			return err
		}
		if i%65536 == 0 && ctx.Err() != nil {
			return fmt.Errorf("load %d routes: %w", len(routes), context.Cause(ctx))
		}
	}
	t.Reclaim()
	return nil
}

func (b *bed) close() {
	if b.engine != nil {
		b.engine.Stop()
	}
	if b.arena != nil {
		_ = b.arena.Close() // unmapping our own memory: nothing to be done about a failure
	}
}

// round writes the frames of s anew and sends them through the graph once, in
// vectors of vec. What it returns is the graph's time alone.
func (b *bed) round(s *stream, vec int) time.Duration {
	s.write()
	b.source.Give(s.metas, vec)
	start := time.Now()
	for range (len(s.metas) + vec - 1) / vec {
		b.engine.Step()
	}
	took := time.Since(start)
	b.sent += uint64(len(s.metas))
	return took
}

// nanos is what a packet of s costs in vectors of vec, over rounds of about d.
func (b *bed) nanos(s *stream, vec int, d time.Duration) float64 {
	return byhand.Nanos(len(s.metas), d, func() time.Duration { return b.round(s, vec) })
}

// check says whether every frame was forwarded: a benchmark of drops is none.
func (b *bed) check() error {
	c := b.engine.Total()
	if c.Tx != b.sent || c.Dropped() != 0 {
		return fmt.Errorf("the graph was given %d frames and sent %d of them; dropped: %v", b.sent, c.Tx, c.Drops)
	}
	return nil
}
