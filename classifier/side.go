package classifier

import (
	"slices"
	"sync/atomic"
)

// side is one side of a program over classes: what local class each class of the
// label table has. One writer tells it of classes, any number of readers ask.
type side struct {
	ids   []SetID
	known uint32 // local classes from here on are combinations that the trees do not know

	cells atomic.Pointer[[]uint32] // by class; replaced by a longer one, else changed cell by cell
	rows  atomic.Pointer[rows]     // by local class; rows are only added

	index    map[SetID]uint32  // the writer's
	interned map[string]uint32 // the writer's: combination to local class
}

// unheard is the local class of a class that the program was not told of.
const unheard = 1<<32 - 1

func newSide(ids []SetID, r rows) *side {
	s := &side{ids: ids, known: r.count()}
	s.rows.Store(&r)
	s.cells.Store(&[]uint32{0})
	return s
}

// compiled are the local classes that the trees know.
func (s *side) compiled() rows {
	r := s.rows.Load()
	n := r.at[s.known]
	return rows{at: r.at[: s.known+1 : s.known+1], sets: r.sets[:n:n]}
}

// local is the local class of a class.
//
//fastpath:hot
func (s *side) local(class uint32) uint32 { return localOf(*s.cells.Load(), class) }

// localOf is the local class of a class, by a side's cells.
//
//fastpath:hot
func localOf(cells []uint32, class uint32) uint32 {
	if uint64(class) >= uint64(len(cells)) {
		return unheard
	}
	return atomic.LoadUint32(&cells[class])
}

// add tells the side which sets a class stands for.
func (s *side) add(class uint32, sets []SetID) {
	index := s.lookup()
	var row []uint32
	for _, id := range sets {
		if i, ok := index[id]; ok {
			row = append(row, i)
		}
	}
	slices.Sort(row)
	row = slices.Compact(row)
	key := rowKey(row)
	local, ok := s.interned[key]
	if !ok {
		r := *s.rows.Load()
		local = r.count()
		r.add(row) // behind what readers of the old rows look at
		s.rows.Store(&r)
		s.interned[key] = local
	}
	s.set(class, local)
}

// set stores a cell. Its row is published already: a reader who sees the cell
// finds the row.
func (s *side) set(class, local uint32) {
	cells := *s.cells.Load()
	if uint64(class) < uint64(len(cells)) {
		atomic.StoreUint32(&cells[class], local)
		return
	}
	longer := make([]uint32, max(int(class)+1, 2*len(cells)))
	n := copy(longer, cells)
	for i := n; i < len(longer); i++ {
		longer[i] = unheard
	}
	longer[class] = local
	s.cells.Store(&longer)
}

// lookup is the map from sets to their indexes. The writer's maps are made when
// it first needs them: a program that is never told of a class does without.
func (s *side) lookup() map[SetID]uint32 {
	if s.index != nil {
		return s.index
	}
	s.index = make(map[SetID]uint32, len(s.ids))
	for i, id := range s.ids {
		s.index[id] = uint32(i)
	}
	r := s.rows.Load()
	s.interned = make(map[string]uint32, r.count())
	for i := range r.count() {
		s.interned[rowKey(r.row(i))] = i
	}
	return s.index
}

// AddClass tells a program over classes which sets the addresses of a class are
// in; sets that no rule names do not matter. Class 0 is known to be in none. One
// goroutine at a time may call it, while others match. A class must be added
// before an address has it: packets of a class that was not added match no rule.
func (p *Program) AddClass(class uint32, sets []SetID) {
	if p.mode == Classes {
		p.sides[0].add(class, sets)
		p.sides[1].add(class, sets)
	}
}

// Source is the local class of a packet's source, for NewKey.
//
//fastpath:hot
func (p *Program) Source(class uint32) uint32 { return p.sides[0].local(class) }

// Destination is the local class of a packet's destination, for NewKey.
//
//fastpath:hot
func (p *Program) Destination(class uint32) uint32 { return p.sides[1].local(class) }

// Strange counts the combinations of sets that were added and that the compile
// did not know, the higher of both sides: packets of theirs are judged rule by
// rule until the list is compiled anew with them.
func (p *Program) Strange() int {
	n := 0
	for _, s := range p.sides {
		if s != nil {
			n = max(n, int(s.rows.Load().count()-s.known))
		}
	}
	return n
}
