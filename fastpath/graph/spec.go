package graph

import (
	"errors"
	"fmt"
)

// Edge is a named way out of a node. Edge 0 is drop in every node.
type Edge uint8

// Drop is the edge that every node has first; Meta.Reason says why.
const Drop Edge = 0

// Node is one stop. Process looks at each packet of v and says by next[i]
// which edge it leaves by. It may change packets and their Meta, and send
// further packets of its own by Worker.Emit. One instance serves one worker.
type Node interface {
	Process(w *Worker, v *Vector, next []Edge)
}

// Resumer is a node that holds packets or has things to do in time. Resume
// runs at the start of a pass, about every TickInterval and after Engine.Kick.
type Resumer interface {
	Node
	Resume(w *Worker)
}

// Holder is a node that holds packets and can tell which, so that they may be
// handed to another process: every node that calls Worker.Hold must be one.
type Holder interface {
	Resumer
	// Holding calls yield for each packet that the node holds, oldest first for
	// each flow, with where it goes on when everything is decided anew: what
	// another process has of tables and of time is not known here. m is good
	// for the call. The node goes on holding them.
	Holding(yield func(m *Meta, at Again))
	// Forget lets the node hold nothing any more, and leaves the buffers alone.
	Forget()
}

// Spec is a node's place in the graph.
type Spec struct {
	Name  string
	Edges []string // names of the nodes they lead to; Edges[0] is "drop"
	// Resumes names the nodes at which packets held here go on; they may lie
	// earlier in the walk, since a resumed packet begins a new pass.
	Resumes []string
	New     func(worker int) Node // one instance per worker
}

// Again is an index into Spec.Resumes: where a held packet goes on.
type Again uint8

// Names of the two stops that the engine itself provides.
const (
	DropName = "drop" // counts the reason and frees the packet
	TxName   = "tx"   // hands the packet to Meta.OutPort's transmit queue
)

// maxNodes is the most nodes of a graph: a worker keeps a bit for each in a word.
const maxNodes = 64

// Graph is a checked declaration: every edge leads to a node, forward only.
type Graph struct {
	specs []Spec // in topological order, then tx and drop
	byStr map[string]int
}

// Build checks specs and puts them in topological order. It reports every
// fault: unknown and doubled names, a first edge other than drop, cycles.
func Build(specs ...Spec) (*Graph, error) {
	byName := make(map[string]*Spec, len(specs))
	var errs []error
	for i := range specs {
		s := &specs[i]
		switch {
		case s.Name == "" || s.Name == DropName || s.Name == TxName:
			errs = append(errs, fmt.Errorf("node name %q is empty or reserved", s.Name))
		case byName[s.Name] != nil:
			errs = append(errs, fmt.Errorf("node %q is declared twice", s.Name))
		case s.New == nil:
			errs = append(errs, fmt.Errorf("node %q has no constructor", s.Name))
		case len(s.Edges) == 0 || s.Edges[0] != DropName:
			errs = append(errs, fmt.Errorf("node %q: edge 0 is not %q", s.Name, DropName))
		}
		byName[s.Name] = s
	}
	if len(specs) > maxNodes-2 {
		errs = append(errs, fmt.Errorf("%d nodes are declared, want at most %d", len(specs), maxNodes-2))
	}
	order, err := sortForward(specs, byName)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("build graph: %w", err)
	}
	g := &Graph{specs: append(order, Spec{Name: TxName}, Spec{Name: DropName}), byStr: map[string]int{}}
	for i, s := range g.specs {
		g.byStr[s.Name] = i
	}
	return g, nil
}

// sortForward puts specs in an order in which every edge leads forward.
func sortForward(specs []Spec, byName map[string]*Spec) ([]Spec, error) {
	var (
		errs  []error
		order []Spec
		state = map[string]int{} // 1 on the way down, 2 done
		visit func(s *Spec)
	)
	visit = func(s *Spec) {
		state[s.Name] = 1
		for _, to := range s.Edges {
			if to == DropName || to == TxName {
				continue
			}
			switch next := byName[to]; {
			case next == nil:
				errs = append(errs, fmt.Errorf("node %q has an edge to %q, which is not declared", s.Name, to))
			case state[to] == 1:
				errs = append(errs, fmt.Errorf("edge %q to %q leads back: the graph is forward only", s.Name, to))
			case state[to] == 0:
				visit(next)
			}
		}
		for _, at := range s.Resumes {
			if byName[at] == nil {
				errs = append(errs, fmt.Errorf("node %q resumes at %q, which is not declared", s.Name, at))
			}
		}
		state[s.Name] = 2
		order = append(order, *s)
	}
	for i := len(specs) - 1; i >= 0; i-- {
		if state[specs[i].Name] == 0 {
			visit(&specs[i])
		}
	}
	for i, j := 0, len(order)-1; i < j; i, j = i+1, j-1 {
		order[i], order[j] = order[j], order[i]
	}
	return order, errors.Join(errs...)
}

// Nodes are the nodes' names in the order of the walk, tx and drop last.
func (g *Graph) Nodes() []string {
	names := make([]string, len(g.specs))
	for i, s := range g.specs {
		names[i] = s.Name
	}
	return names
}

// index finds a node by name.
func (g *Graph) index(name string) (int, bool) {
	i, ok := g.byStr[name]
	return i, ok
}

// indexes finds nodes that Build has checked to be there.
func (g *Graph) indexes(names []string) (at []uint16) {
	for _, name := range names {
		n, _ := g.index(name)
		at = append(at, uint16(n))
	}
	return at
}
