package guard

import (
	"slices"

	"margay.dev/margay/classifier"
)

// maxEdits is how many rules may differ between two lists for one to be made of
// the other by edits, unless all of them stand together and only go.
const maxEdits = 128

// diff is the edits that make after of before, and the rules that they remove. It
// is false if that takes too many.
func diff(before, after []classifier.Rule) (edits []classifier.Edit, gone []classifier.Rule, ok bool) {
	at := 0
	for len(before) > 0 && len(after) > 0 && equal(&before[0], &after[0]) {
		before, after, at = before[1:], after[1:], at+1
	}
	for len(before) > 0 && len(after) > 0 && equal(&before[len(before)-1], &after[len(after)-1]) {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	if len(after) == 0 && len(before) <= classifier.MaxRemoved {
		return slices.Repeat([]classifier.Edit{{Position: at, Remove: true}}, len(before)), before, true
	}
	steps, ok := shortest(before, after)
	if !ok {
		return nil, nil, false
	}
	for _, s := range steps {
		switch s {
		case keep:
			at, before, after = at+1, before[1:], after[1:]
		case remove:
			edits, gone = append(edits, classifier.Edit{Position: at, Remove: true}), append(gone, before[0])
			before = before[1:]
		case insert:
			edits = append(edits, classifier.Edit{Position: at, Rule: after[0]})
			at, after = at+1, after[1:]
		}
	}
	return edits, gone, true
}

// A step goes on in the list of before, of after, or in both.
type step uint8

const (
	keep step = iota
	remove
	insert
)

// reach is how far one comes in before by so many changes, for each surplus of
// removals over insertions.
type reach [2*maxEdits + 3]int32

// at is the reach for a surplus.
func (r *reach) at(surplus int) *int32 { return &r[surplus+maxEdits+1] }

// step is the last change of those, of so many, that come the farthest at a surplus.
func (r *reach) step(changes, surplus int) step {
	if surplus == -changes || surplus != changes && *r.at(surplus - 1) < *r.at(surplus + 1) {
		return insert
	}
	return remove
}

// shortest is the way from one list to the other with the fewest changes, at most
// maxEdits: Myers' algorithm.
func shortest(before, after []classifier.Rule) ([]step, bool) {
	var now reach
	var trail []reach // before each number of changes
	for n := 0; n <= maxEdits; n++ {
		trail = append(trail, now)
		for surplus := -n; surplus <= n; surplus += 2 {
			x := 0
			switch {
			case n == 0:
			case now.step(n, surplus) == insert:
				x = int(*now.at(surplus + 1))
			default:
				x = int(*now.at(surplus - 1)) + 1
			}
			for x < len(before) && x-surplus < len(after) && equal(&before[x], &after[x-surplus]) {
				x++
			}
			if *now.at(surplus) = int32(x); x >= len(before) && x-surplus >= len(after) {
				return back(trail, len(before), len(after)), true
			}
		}
	}
	return nil, false
}

// back goes the way back from the ends of both lists.
func back(trail []reach, x, y int) (steps []step) {
	for n := len(trail) - 1; n > 0; n-- {
		was, surplus := &trail[n], x-y
		last := was.step(n, surplus)
		from := surplus - 1
		if last == insert {
			from = surplus + 1
		}
		fromX := int(*was.at(from))
		for ; x > fromX && y > fromX-from && (x-fromX)+(y-fromX+from) > 1; x, y = x-1, y-1 {
			steps = append(steps, keep)
		}
		steps = append(steps, last)
		x, y = fromX, fromX-from
	}
	steps = append(steps, slices.Repeat([]step{keep}, x)...)
	slices.Reverse(steps)
	return steps
}

// equal reports whether rules say the same under the same id.
func equal(a, b *classifier.Rule) bool {
	return a.ID == b.ID && a.Action == b.Action && slices.Equal(a.Protocols, b.Protocols) &&
		equalSides(&a.Source, &b.Source) && equalSides(&a.Destination, &b.Destination)
}

func equalSides(a, b *classifier.Side) bool {
	return slices.Equal(a.Nets, b.Nets) && slices.Equal(a.NotNets, b.NotNets) &&
		slices.Equal(a.Sets, b.Sets) && slices.Equal(a.NotSets, b.NotSets) && slices.Equal(a.Ports, b.Ports)
}
