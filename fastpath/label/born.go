package label

// births is when each class became what it is: in which generation of those who
// keep what they decided by classes. Pages never move; what a page says of a class
// does not change while the class may be in a reader's hands.
type births struct {
	pages [pagesMax]*[1 << recordBits]uint64
	now   uint64
}

// BirthsAt says in which generation classes are that are born from now on. Who
// decides by classes calls it with the generation that will begin once all changes
// until then are in force.
func (t *Table) BirthsAt(generation uint64) { t.births.now = generation }

// note is for a class that no reader can meet yet.
func (b *births) note(class uint32) {
	page := &b.pages[class>>recordBits]
	if *page == nil {
		*page = new([1 << recordBits]uint64)
	}
	(*page)[class&(1<<recordBits-1)] = b.now
}

// Born is the generation that a class, which a lookup in this view answered, was
// born in, 0 for class 0: since then it has been of the same sets.
//
//fastpath:hot
func (v *View) Born(c Class) uint64 {
	// Class 0 is of no set, ever, and its page may come into being while a reader asks.
	if c == 0 || uint(c>>recordBits) >= uint(len(v.births.pages)) || v.births.pages[c>>recordBits] == nil {
		return 0
	}
	return v.births.pages[c>>recordBits][c&(1<<recordBits-1)]
}

// bytes is the memory that the pages take.
func (b *births) bytes() (n int) {
	for _, p := range b.pages {
		if p != nil {
			n += 8 << recordBits
		}
	}
	return n
}
