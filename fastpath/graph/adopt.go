package graph

import (
	"errors"
	"fmt"
	"slices"

	"margay.dev/margay/fastpath/umem"
)

// adopted is a packet that a node of another process held: it goes on where that
// node of ours would let it go on.
type adopted struct {
	meta Meta
	node int
	at   Again
}

// linkRoom is how many bytes must stand free in front of an IP header, for any
// link-layer header to be put there.
const linkRoom = 64

// Adopt lets an engine that never ran go on from what another one carried: it
// counts on from there, and each worker lets the held packets go on in its first
// passes. Their buffers must be held in the engine's arena as they were in the
// other's. What is counted under names that this version does not have goes into
// the sums Former, MadeFormer and UsedFormer; counts of nodes it does not have
// end here. Unknown tells of both. Times and loads begin anew.
//
// It fails, and changes nothing, if the engine has run or has adopted before, if
// the other had another number of workers, and if a packet is held in a place or
// in buffers that do not exist, or reaches beyond them.
func (e *Engine) Adopt(c Carried) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.mayAdopt(c); err != nil {
		return fmt.Errorf("adopt what another engine carried: %w", err)
	}
	packets := make([][]adopted, len(e.workers))
	taken := make(map[umem.Buf]bool)
	for i := range c.Workers {
		var err error
		if packets[i], err = e.check(&c.Workers[i], taken); err != nil {
			return fmt.Errorf("adopt what worker %d carried: %w", i, err)
		}
	}
	for i, w := range e.workers {
		w.adopt(&c.Workers[i], packets[i])
	}
	e.adopted = true
	return nil
}

// mayAdopt says why e cannot adopt c whatever it holds.
func (e *Engine) mayAdopt(c Carried) error {
	switch {
	case e.ended:
		return errors.New("the engine has been stopped")
	case e.adopted:
		return errors.New("the engine has adopted before")
	case len(c.Workers) != len(e.workers):
		return fmt.Errorf("it had %d workers and here are %d: run as many, or restart instead of taking over", len(c.Workers), len(e.workers))
	}
	for _, w := range e.workers {
		if !w.started.IsZero() {
			return errors.New("the engine has run already, and counted for itself")
		}
	}
	return nil
}

// check finds the places of the packets of c, whose buffers are put into taken.
func (e *Engine) check(c *CarriedWorker, taken map[umem.Buf]bool) (packets []adopted, err error) {
	for port := range c.Ports {
		if port >= MaxPorts {
			return nil, fmt.Errorf("port %d is not below %d", port, MaxPorts)
		}
	}
	for i := range c.Held {
		p := &c.Held[i]
		node, ok := e.graph.index(p.Node)
		if !ok {
			return nil, fmt.Errorf("packet %d is held by %q, and no node is called so", i, p.Node)
		}
		at := slices.Index(e.graph.specs[node].Resumes, p.At)
		if at < 0 {
			return nil, fmt.Errorf("packet %d goes on from %s at %q, want one of %q", i, p.Node, p.At, e.graph.specs[node].Resumes)
		}
		if err := checkPacket(e.arena, &p.Meta, taken); err != nil {
			return nil, fmt.Errorf("packet %d, held by %s: %w", i, p.Node, err)
		}
		m := p.Meta
		m.Adjacency, m.Trace = 0, 0
		packets = append(packets, adopted{meta: m, node: node, at: Again(at)})
	}
	return packets, nil
}

// checkPacket says why m, whose buffers are added to taken, is no packet that
// nodes could go on with. What its bytes are is not its matter.
func checkPacket(a *umem.Arena, m *Meta, taken map[umem.Buf]bool) error {
	chain, err := chainOf(a, m)
	if err != nil {
		return err
	}
	for _, b := range chain {
		if taken[b] {
			return fmt.Errorf("buffer %d is another packet's, too", b)
		}
		taken[b] = true
	}
	start, off, head := uint64(a.Start(m.Buf)), uint64(m.Off), uint64(m.Head)
	end := start + uint64(a.Room(m.Buf))
	switch header := ipHeader(m); {
	case m.Bufs == 0 || m.Segments == 0:
		return fmt.Errorf("it fills %d buffers and stands for %d packets, want at least 1", m.Bufs, m.Segments)
	case m.InPort >= MaxPorts && m.InPort != NoPort:
		return fmt.Errorf("it came in by port %d, want one below %d", m.InPort, MaxPorts)
	case off < start || off+head > end:
		return fmt.Errorf("its bytes %d to %d reach beyond its buffer, %d to %d", off, off+head, start, end)
	case off+uint64(m.L3) < start+linkRoom:
		return fmt.Errorf("its IP header is %d bytes behind the start of its buffer, want at least %d", off+uint64(m.L3)-start, linkRoom)
	case uint64(m.L3)+header > head:
		return fmt.Errorf("its IP header, %d bytes at %d, reaches beyond its %d bytes", header, m.L3, head)
	case m.L4 != 0 && (m.L4 < m.L3 || uint64(m.L4) > head || off+uint64(m.L4)+transportHeader > end):
		return fmt.Errorf("its transport header at %d lies not between its IP header at %d and its end at %d", m.L4, m.L3, head)
	case m.GSO != GSONone && (m.L4 == 0 || m.GSOSize == 0):
		return errors.New("it stands for several packets, and has no transport header or no size of segments")
	case m.Flags&Partial != 0 && uint64(m.CsumStart)+uint64(m.CsumOffset)+2 > head:
		return fmt.Errorf("its checksum at %d+%d is not in its %d bytes", m.CsumStart, m.CsumOffset, head)
	}
	return checkLengths(a, m, chain)
}

// transportHeader is the bytes that nodes read of a transport header without
// another look: TCP's.
const transportHeader = 20

// ipHeader is the size of m's IP header without options.
func ipHeader(m *Meta) uint64 {
	if m.Flags&IPv6 != 0 {
		return 40
	}
	return 20
}

// checkLengths compares what m says of its length with its parts.
func checkLengths(a *umem.Arena, m *Meta, chain []umem.Buf) error {
	sum := uint64(m.Head)
	for _, b := range chain[1:] {
		s := a.Segment(b)
		if uint32(s.Off)+uint32(s.Len) > a.Room(b) {
			return fmt.Errorf("%d bytes at %d of buffer %d reach beyond it", s.Len, s.Off, b)
		}
		sum += uint64(s.Len)
	}
	if sum != uint64(m.Len) {
		return fmt.Errorf("its length is %d bytes, those of its parts are %d", m.Len, sum)
	}
	return nil
}

// adopt takes over what was checked.
func (w *Worker) adopt(c *CarriedWorker, packets []adopted) {
	s := &w.stats
	s.Counters.Rx += c.Rx
	s.Counters.Tx += c.Tx
	s.Counters.Punt += c.Punt
	s.Counters.MadeRefused += c.MadeRefused
	fold(s.Counters.Made[:], c.Made, originName, int(MadeFormer))
	fold(s.Counters.Consumed[:], c.Consumed, useName, int(UsedFormer))
	fold(s.Counters.Drops[:], c.Drops, reasonName, int(Former))
	for name, n := range c.Nodes {
		if i, ok := w.graph.index(name); ok {
			s.Nodes[i].Add(&n)
		}
	}
	for port, n := range c.Ports {
		s.growPorts(int(port) + 1)
		s.Ports[port].Add(&n)
	}
	for i := range packets {
		s.Counters.Held += uint64(packets[i].meta.Segments)
	}
	w.adopted = packets
	w.pub.store(s) // or it would seem to begin at nothing until the first pass
}

// fold adds counts by their names to sums, and those without one to the sum rest.
func fold(sums []uint64, counts map[string]uint64, name func(int) string, rest int) {
	for counted, n := range counts {
		sums[placeOf(counted, len(sums), name, rest)] += n
	}
}

// placeOf is the number below n of what is called so, else rest.
func placeOf(called string, n int, name func(int) string, rest int) int {
	for i := range n {
		if name(i) == called {
			return i
		}
	}
	return rest
}

// Unknown tells, a line each, what c has counts of that this engine has no name
// for. A new version may have given up a reason or a node: it is for a log.
func (e *Engine) Unknown(c Carried) []string {
	lines := map[string]uint64{}
	for i := range c.Workers {
		w := &c.Workers[i]
		unnamed(lines, "made, of kind", w.Made, originName, Origins)
		unnamed(lines, "consumed as", w.Consumed, useName, Uses)
		unnamed(lines, "dropped for", w.Drops, reasonName, Reasons)
		for name, n := range w.Nodes {
			if _, ok := e.graph.index(name); !ok {
				lines[fmt.Sprintf("through node %q", name)] += n.Packets
			}
		}
	}
	var told []string
	for line, n := range lines {
		told = append(told, fmt.Sprintf("%d packets %s", n, line))
	}
	slices.Sort(told)
	return told
}

func unnamed(lines map[string]uint64, what string, counts map[string]uint64, name func(int) string, n int) {
	for counted, packets := range counts {
		if placeOf(counted, n, name, n) == n {
			lines[fmt.Sprintf("%s %q", what, counted)] += packets
		}
	}
}

// takeUp lets adopted packets go on, as many as a pass may begin with.
func (w *Worker) takeUp() {
	for len(w.adopted) > 0 {
		p := &w.adopted[0]
		if !w.resumeAt(&p.meta, w.stops[p.node].again[p.at]) {
			w.nextAt = w.Now // the rest in the next pass
			return
		}
		w.adopted = w.adopted[1:]
	}
	w.adopted = nil
}
