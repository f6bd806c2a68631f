package graph

import (
	"errors"
	"fmt"

	"margay.dev/margay/fastpath/umem"
)

// Carried is what an engine has to tell another one that takes its place, in
// another process and perhaps of another version: encoding/json encodes it, and
// what versions may differ in goes by its name.
type Carried struct {
	Workers []CarriedWorker `json:"workers"`
}

// CarriedWorker is what one worker counted, and the packets that it holds. Counts
// of zero are left out.
type CarriedWorker struct {
	Rx          uint64                  `json:"rx,omitempty"`
	Tx          uint64                  `json:"tx,omitempty"`
	Punt        uint64                  `json:"punt,omitempty"`
	Made        map[string]uint64       `json:"made,omitempty"`     // by Origin
	Consumed    map[string]uint64       `json:"consumed,omitempty"` // by Use
	Drops       map[string]uint64       `json:"drops,omitempty"`    // by Reason
	MadeRefused uint64                  `json:"madeRefused,omitempty"`
	Nodes       map[string]NodeCounters `json:"nodes,omitempty"` // by Spec.Name
	Ports       map[uint16]PortCounters `json:"ports,omitempty"` // by Port.Index
	Held        []CarriedPacket         `json:"held,omitempty"`
}

// CarriedPacket is a packet that a node holds.
type CarriedPacket struct {
	Node string `json:"node"` // by whom it is held
	At   string `json:"at"`   // the node at which it goes on, of those that Node's Spec.Resumes names
	// Meta is what is known of it, but for what means nothing in another
	// process: Adjacency and Trace.
	Meta Meta `json:"meta"`
}

// Carry tells what the engine has counted and what its nodes hold, and takes
// nothing of it away: the engine may Start again. It is for a halted engine;
// while workers run it fails.
func (e *Engine) Carry() (Carried, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running {
		return Carried{}, errors.New("carry counters and held packets: the workers run; halt them first")
	}
	c := Carried{Workers: make([]CarriedWorker, len(e.workers))}
	for i, w := range e.workers {
		c.Workers[i] = w.carry()
		told := uint64(0)
		for _, p := range c.Workers[i].Held {
			told += uint64(p.Meta.Segments)
		}
		if held := w.stats.Counters.Held; told != held {
			return Carried{}, fmt.Errorf("carry held packets: worker %d counts %d, its nodes tell of %d: a node holds packets and is no Holder", i, held, told)
		}
	}
	return c, nil
}

func (w *Worker) carry() CarriedWorker {
	s := &w.stats
	c := CarriedWorker{Rx: s.Counters.Rx, Tx: s.Counters.Tx, Punt: s.Counters.Punt, MadeRefused: s.Counters.MadeRefused,
		Made: byName(s.Counters.Made[:], originName), Consumed: byName(s.Counters.Consumed[:], useName), Drops: byName(s.Counters.Drops[:], reasonName),
		Nodes: map[string]NodeCounters{}, Ports: map[uint16]PortCounters{}}
	for i, n := range s.Nodes {
		if n != (NodeCounters{}) {
			c.Nodes[w.graph.specs[i].Name] = n
		}
	}
	for i, p := range s.Ports {
		if p != (PortCounters{}) {
			c.Ports[uint16(i)] = p
		}
	}
	w.holding(func(node int, m *Meta, at Again) {
		spec, p := &w.graph.specs[node], *m
		p.Adjacency, p.Trace = 0, 0
		c.Held = append(c.Held, CarriedPacket{Node: spec.Name, At: spec.Resumes[at], Meta: p})
	})
	return c
}

func reasonName(i int) string { return Reason(i).String() }
func originName(i int) string { return Origin(i).String() }
func useName(i int) string    { return Use(i).String() }

// byName is the counts that are not zero, by their names.
func byName(counts []uint64, name func(int) string) map[string]uint64 {
	named := map[string]uint64{}
	for i, n := range counts {
		if n != 0 {
			named[name(i)] = n
		}
	}
	return named
}

// holding calls yield for each packet that nodes of w hold, and for those that it
// has adopted and not let go on yet.
func (w *Worker) holding(yield func(node int, m *Meta, at Again)) {
	for i := range w.adopted {
		p := &w.adopted[i]
		yield(p.node, &p.meta, p.at)
	}
	for i := range w.stops {
		if h, ok := w.stops[i].node.(Holder); ok {
			h.Holding(func(m *Meta, at Again) { yield(i, m, at) })
		}
	}
}

// Held is every buffer that held packets fill, all of their chains. It fails
// while workers run, and where a chain leads to no frame.
func (e *Engine) Held() (bufs []umem.Buf, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running {
		return nil, errors.New("list held buffers: the workers run; halt them first")
	}
	for _, w := range e.workers {
		w.holding(func(node int, m *Meta, _ Again) {
			chain, fault := chainOf(e.arena, m)
			if fault != nil && err == nil {
				err = fmt.Errorf("list held buffers: worker %d, a packet of %s: %w", w.id, w.graph.specs[node].Name, fault)
			}
			bufs = append(bufs, chain...)
		})
	}
	if err != nil {
		return nil, err
	}
	return bufs, nil
}

// Forfeit drops every held packet for HandedOver and leaves its buffers alone: they
// may be in use already by a process that took them over and then failed, and
// are whose the rings say. It fails while workers run.
func (e *Engine) Forfeit() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running {
		return errors.New("forfeit held packets: the workers run; halt them first")
	}
	for _, w := range e.workers {
		c := &w.stats.Counters
		c.Drops[HandedOver] += c.Held
		c.Held, w.adopted = 0, nil
		for i := range w.stops {
			if h, ok := w.stops[i].node.(Holder); ok {
				h.Forget()
			}
		}
	}
	return nil
}

// chainOf is the buffers that m fills.
func chainOf(a *umem.Arena, m *Meta) ([]umem.Buf, error) {
	all := uint64(a.Frames()) + uint64(a.Supers())
	chain := make([]umem.Buf, 0, m.Bufs)
	for b := m.Buf; ; b = a.Segment(b).Next {
		if uint64(b) >= all || m.Bufs > 1 && !a.IsFrame(b) {
			return nil, fmt.Errorf("buffer %d of its %d is number %d, and there are %d frames and %d supers", len(chain)+1, m.Bufs, b, a.Frames(), a.Supers())
		}
		if chain = append(chain, b); len(chain) >= int(m.Bufs) {
			return chain, nil
		}
	}
}
