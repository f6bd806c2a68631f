package classifier

import (
	"encoding/binary"
	"maps"
	"slices"

	"margay.dev/margay/classifier/cut"
)

// maxKnown is how many local classes a side may have: a tree looks at 16 bits.
const maxKnown = 1 << 16

// term is one question of a rule about a set: is the address of that side in it?
//
//	31: destination side | 30: the answer must be no | 29..0: index of the side's set
type term uint32

const (
	termDestination term = 1 << 31
	termNot         term = 1 << 30
	termSet         term = 1<<30 - 1
)

// sideClasses is one side of a list of rules over classes: the sets that its
// rules name, and the combinations of them that have a local class. Local class 0
// is the empty combination.
type sideClasses struct {
	ids  []SetID
	rows rows

	index map[SetID]uint32
	uses  []int        // rules that name a set, by its index
	holds [][]cut.Span // a set's local classes, by its index

	shared bool // ids and index are a program's
}

// rows are combinations of sets, each a sorted list of their indexes: row i is
// sets[at[i]:at[i+1]].
type rows struct{ at, sets []uint32 }

// row returns a combination, nil where there is no such row.
//
//fastpath:hot
func (r *rows) row(i uint32) []uint32 {
	if uint64(i)+1 >= uint64(len(r.at)) {
		return nil
	}
	return r.sets[r.at[i]:r.at[i+1]]
}

func (r *rows) count() uint32 { return uint32(len(r.at) - 1) }

// add appends a combination.
func (r *rows) add(sets []uint32) {
	r.sets = append(r.sets, sets...)
	r.at = append(r.at, uint32(len(r.sets)))
}

// rowKey is a combination as the key of a map.
func rowKey(sets []uint32) string {
	k := make([]byte, 0, 4*len(sets))
	for _, s := range sets {
		k = binary.LittleEndian.AppendUint32(k, s)
	}
	return string(k)
}

// need numbers a set that a rule names.
func (s *sideClasses) need(id SetID) uint32 {
	i, ok := s.index[id]
	if !ok {
		if s.shared {
			s.ids, s.index, s.shared = slices.Clone(s.ids), maps.Clone(s.index), false
		}
		i = uint32(len(s.ids))
		s.index[id] = i
		s.ids = append(s.ids, id)
		s.uses = append(s.uses, 0)
	}
	s.uses[i]++
	return i
}

// project gives the indexes of those sets that the side knows, sorted.
func (s *sideClasses) project(sets []SetID) []uint32 {
	var row []uint32
	for _, id := range sets {
		if i, ok := s.index[id]; ok {
			row = append(row, i)
		}
	}
	slices.Sort(row)
	return slices.Compact(row)
}

// number gives local classes to the empty combination, to each single set and
// to as many of the given combinations as there is room for. Those that share
// the set that matters most get numbers next to each other, so that it becomes
// few ranges of numbers.
func (s *sideClasses) number(combinations [][]SetID) {
	seen := map[string]bool{"": true}
	var found [][]uint32
	add := func(row []uint32) {
		if k := rowKey(row); !seen[k] && len(found) < maxKnown-1 {
			seen[k] = true
			found = append(found, row)
		}
	}
	for i := range s.ids {
		add([]uint32{uint32(i)})
	}
	for _, sets := range combinations {
		add(s.project(sets))
	}
	place := s.order(found)
	ordered := make([][]uint32, len(found)) // each row by place, for comparing
	for i, row := range found {
		ordered[i] = make([]uint32, len(row))
		for j, set := range row {
			ordered[i][j] = place[set]
		}
		slices.Sort(ordered[i])
	}
	slices.SortFunc(ordered, slices.Compare)
	back := make([]uint32, len(place))
	for set, p := range place {
		back[p] = uint32(set)
	}
	s.rows = rows{at: []uint32{0, 0}}
	s.holds = make([][]cut.Span, len(s.ids))
	for _, row := range ordered {
		for j := range row {
			row[j] = back[row[j]]
			s.hold(row[j], s.rows.count())
		}
		slices.Sort(row)
		s.rows.add(row)
	}
}

// order ranks the sets: first those that most rules and combinations have.
func (s *sideClasses) order(found [][]uint32) (place []uint32) {
	weight := make([]int, len(s.ids))
	for _, row := range found {
		for _, set := range row {
			weight[set]++
		}
	}
	by := make([]uint32, len(s.ids))
	for i := range by {
		by[i] = uint32(i)
		weight[i] *= s.uses[i]
	}
	slices.SortStableFunc(by, func(a, b uint32) int { return weight[b] - weight[a] })
	place = make([]uint32, len(by))
	for p, set := range by {
		place[set] = uint32(p)
	}
	return place
}

// hold notes that a local class, higher than those before, has a set.
func (s *sideClasses) hold(set, local uint32) {
	spans := s.holds[set]
	if n := len(spans); n > 0 && spans[n-1].Hi+1 == local {
		spans[n-1].Hi = local
		return
	}
	s.holds[set] = append(spans, cut.Span{Lo: local, Hi: local})
}

// all is every local class.
func (s *sideClasses) all() []cut.Span { return []cut.Span{{Hi: maxKnown - 1}} }

// answer is the local classes of which every term is true.
func (s *sideClasses) answer(terms []term) []cut.Span {
	out := s.all()
	for _, t := range terms {
		spans := s.holds[t&termSet]
		if t&termNot != 0 {
			spans = cut.Complement(spans, maxKnown-1)
		}
		out = cut.Intersect(out, spans)
	}
	return out
}
