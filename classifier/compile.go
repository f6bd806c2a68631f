package classifier

import (
	"fmt"
	"slices"
)

// Options steer a compile. The zero value is what most callers want.
type Options struct {
	// Budget is the most bytes that the image may take; 0 means 64 MiB.
	Budget int
}

// Report says what a compile made.
type Report struct {
	Rules, Boxes, Cells, Trees, Levels int
	Bytes                              int // of the image
}

// Compiled is a list in the form that Load takes.
type Compiled struct {
	Image  []byte
	Report Report
}

const defaultBudget = 64 << 20

// Compile turns an ordered list of rules into an image. It reports a list that
// has a fault (see Validate), and one whose image would not fit the budget.
func Compile(list []Rule, o Options) (*Compiled, error) {
	if err := Validate(list); err != nil {
		return nil, err
	}
	if !literal(list) {
		return nil, fmt.Errorf("compile %d rules: want at most one IPv4 prefix a side, and no sets", len(list))
	}
	if o.Budget == 0 {
		o.Budget = defaultBudget
	}
	items, logs, err := itemsOf(list, o.Budget)
	if err != nil {
		return nil, fmt.Errorf("compile %d rules into %d bytes: %w", len(list), o.Budget, err)
	}
	p := assemble(list, items, logs, o.Budget)
	if p.size > o.Budget {
		return nil, fmt.Errorf("compile %d rules into %d bytes: %d boxes and %d cells take %d", len(list), o.Budget, len(p.boxes)-padBoxes, len(p.cells), p.size)
	}
	return &Compiled{Image: p.encode(), Report: Report{
		Rules: len(list), Boxes: len(p.boxes) - padBoxes, Cells: len(p.cells), Trees: len(p.trees), Levels: p.levels, Bytes: p.size,
	}}, nil
}

// itemsOf makes the items of the deciding rules and of the log rules.
func itemsOf(list []Rule, budget int) (items, logs []item, err error) {
	limit := min(budget/boxSize, maxBoxes, maxItems)
	for rank := range list {
		r := &list[rank]
		into := &items
		if r.Action == Log {
			into = &logs
		}
		*into, err = expand(*into, r, uint32(rank), addresses(r.Source.Nets), addresses(r.Destination.Nets), limit)
		if err != nil {
			return nil, nil, err
		}
	}
	return items, logs, nil
}

// assemble builds the trees and lays them out.
func assemble(list []Rule, items, logs []item, budget int) *Program {
	s := shape{trees: 4, charge: 1.2, leaf: 4}
	c := newCutter(append(slices.Clip(items), logs...), uint32(len(list)), s)
	trees := c.plant(groups(items, s.trees, 0), float64(budget)/float64(len(c.items)))
	c.every = true
	logTrees := c.plant(groups(c.items, 1, len(items)), float64(budget)/float64(len(c.items)))
	return c.lay(trees, logTrees, list)
}
