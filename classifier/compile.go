package classifier

import (
	"fmt"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier/cut"
)

// Options steer a compile. The zero value is what most callers want.
type Options struct {
	// Budget is the most bytes that the image may take; 0 means 64 MiB.
	Budget int
	// Literals numbers lists of prefixes; nil means one for this compile alone.
	Literals *Literals
	// Combinations are sets that addresses are known to be in together. They are
	// judged by the trees. No set and each set alone need not be named.
	Combinations [][]SetID
	// Editable keeps the list beside the trees, so that Program.Edit can change
	// it. A list that is compiled over classes always is.
	Editable bool
}

// Report says what a compile made.
type Report struct {
	Rules, Boxes, Cells, Trees, Levels int
	Bytes                              int    // of the image
	Known                              [2]int // local classes of source and destination, 0 in mode Addresses
}

// Set is a set that a program names. Prefixes are those of an anonymous one.
type Set struct {
	ID       SetID
	Prefixes []netip.Prefix
}

// Compiled is a list in the form that Load takes.
type Compiled struct {
	Image  []byte
	Sets   []Set // in ascending order: what the label table must know for this program
	Report Report
}

const defaultBudget = 64 << 20

// Compile turns an ordered list of rules into an image. It reports a list that
// has a fault (see Validate), and one whose image would not fit the budget.
func Compile(list []Rule, o Options) (*Compiled, error) {
	if err := Validate(list); err != nil {
		return nil, err
	}
	w := work{list: list, budget: o.Budget, literals: o.Literals}
	if w.budget == 0 {
		w.budget = defaultBudget
	}
	if w.literals == nil {
		w.literals = NewLiterals()
	}
	if err := w.prepare(o.Combinations, o.Editable); err != nil {
		return nil, fmt.Errorf("compile %d rules into %d bytes: %w", len(list), w.budget, err)
	}
	w.share()
	p := w.assemble()
	if p.size > w.budget {
		return nil, fmt.Errorf("compile %d rules into %d bytes: %d boxes, %d cells and %d boxes in a row take %d: raise the budget or split the list",
			len(list), w.budget, len(p.boxes)-padBoxes, len(p.cells), len(p.linear.boxes), p.size)
	}
	c := &Compiled{Image: p.Image(), Sets: w.sets(), Report: Report{
		Rules: len(list), Boxes: len(p.boxes) - padBoxes, Cells: len(p.cells), Trees: len(p.trees), Levels: p.levels, Bytes: p.size,
	}}
	for i, s := range p.sides {
		if s != nil {
			c.Report.Known[i] = int(s.known)
		}
	}
	return c, nil
}

// share says how much room there is for each item in the trees: what the list
// itself takes has to fit into the budget, too.
func (w *work) share() {
	n := len(w.items) + len(w.logs)
	left := w.budget - headerSize - (len(w.list)+1)*verdictSize - len(w.linear)*boxSize
	w.limit = float64(left) / float64(max(n, 1))
	w.room = min(w.limit, roomFor(n)/float64(max(n, 1)))
}

// ground is what the trees grow on.
func (w *work) ground() *cut.Ground {
	g := &cut.Ground{Items: slices.Concat(w.items, w.logs), Every: len(w.items), None: uint32(len(w.list)), Each: min(4*w.room, w.limit)}
	for f := range g.Bits {
		g.Bits[f] = cut.FieldOf(f).Bits
	}
	if w.mode == Classes {
		g.Bits[cut.Source], g.Bits[cut.Destination] = 16, 16
	}
	return g
}

// build builds the trees in one way and lays them out.
func (w *work) build(s cut.Shape) *Program {
	p := lay(cut.Grow(w.ground(), s), w.list)
	p.mode, p.linear = w.mode, w.block()
	for i := range w.sides {
		if w.mode == Classes {
			p.sides[i] = newSide(w.sides[i].ids, w.sides[i].rows)
		}
	}
	n := p.counts()
	p.size = n.parts()[numParts]
	return p
}
