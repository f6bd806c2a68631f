package label

import (
	"fmt"
	"math/bits"
	"slices"

	"margay.dev/margay/classifier"
)

const (
	recordBits = 12 // records of a page
	wordBits   = 16 // words of a page
	pagesMax   = (MaxClass + 1) >> recordBits
	wordsMax   = 1 << 26 // 256 MiB of sets
)

// record says where a list is in the words, and how long.
type record struct{ first, count uint32 }

// lists interns sorted lists of sets: equal lists have one id, the empty one has
// 0. Records and words are in pages that never move, so that readers need not
// know of growth, and none of them changes while its id may be in a reader's
// hands.
type lists struct {
	records [pagesMax]*[1 << recordBits]record
	words   [wordsMax >> wordBits]*[1 << wordBits]classifier.SetID

	// The writer's.
	refs     []uint32 // of each id
	hashes   []uint32 // of each id
	slots    []uint32 // ids by hash: linear probing, no tombstones; 0 is empty
	live     int
	free     []uint32
	waiting  []retired // by rising generation
	nextWord int
	spare    [64][]uint32 // room that died, by the index of sizeOf
	idsMax   int          // of ids, with 0
	wordsMax int
}

type retired struct {
	gen uint64
	id  uint32
}

func newLists() lists {
	return lists{
		refs: make([]uint32, 1, 1024), hashes: make([]uint32, 1, 1024), slots: make([]uint32, 1024),
		idsMax: MaxClass + 1, wordsMax: wordsMax,
	}
}

// at returns the list of an id, nil for one that never was.
//
//fastpath:hot
func (l *lists) at(id uint32) []classifier.SetID {
	// No list has id 0, and its page may come into being while a reader asks.
	if id == 0 || uint(id>>recordBits) >= uint(len(l.records)) || l.records[id>>recordBits] == nil {
		return nil
	}
	r := l.records[id>>recordBits][id&(1<<recordBits-1)]
	if r.count == 0 {
		return nil
	}
	first := r.first & (1<<wordBits - 1)
	return l.words[r.first>>wordBits&(wordsMax>>wordBits-1)][first : first+r.count]
}

// intern returns the id of a sorted list and holds it once more; born says that
// it is new.
func (l *lists) intern(list []classifier.SetID) (id uint32, born bool, err error) {
	if len(list) == 0 {
		return 0, false, nil
	}
	h := hash(list)
	s := l.home(h)
	for ; l.slots[s] != 0; s = (s + 1) & (len(l.slots) - 1) {
		if id := l.slots[s]; l.hashes[id] == h && slices.Equal(l.at(id), list) {
			l.refs[id]++
			return id, false, nil
		}
	}
	if id, err = l.make(list); err != nil {
		return 0, false, err
	}
	l.refs[id], l.hashes[id], l.slots[s] = 1, h, id
	if l.live++; 4*l.live > 3*len(l.slots) {
		l.rehash(2 * len(l.slots))
	}
	return id, true, nil
}

// make finds an id and room for a list.
func (l *lists) make(list []classifier.SetID) (uint32, error) {
	if len(list) > MaxSets {
		return 0, fmt.Errorf("an address would be in %d sets, want at most %d: narrow the widest prefixes: %w", len(list), MaxSets, ErrFull)
	}
	if len(l.free) == 0 && len(l.refs) == l.idsMax {
		return 0, fmt.Errorf("all %d classes are in use or wait for readers, want fewer sets that overlap: %w", l.idsMax-1, ErrFull)
	}
	first, ok := l.room(len(list))
	if !ok {
		return 0, fmt.Errorf("lists of sets fill %d MiB, want fewer sets that overlap: %w", l.wordsMax>>18, ErrFull)
	}
	id := uint32(len(l.refs))
	if n := len(l.free); n > 0 {
		id, l.free = l.free[n-1], l.free[:n-1]
	} else {
		l.refs, l.hashes = append(l.refs, 0), append(l.hashes, 0)
	}
	if l.records[id>>recordBits] == nil {
		l.records[id>>recordBits] = new([1 << recordBits]record)
	}
	l.records[id>>recordBits][id&(1<<recordBits-1)] = record{first, uint32(len(list))}
	copy(l.at(id), list)
	return id, nil
}

// room finds a run of n words within a page.
func (l *lists) room(n int) (uint32, bool) {
	index, size := sizeOf(n)
	if free := l.spare[index]; len(free) > 0 {
		l.spare[index] = free[:len(free)-1]
		return free[len(free)-1], true
	}
	const page = 1 << wordBits
	first := l.nextWord
	if first%page+size > page {
		first = (first/page + 1) * page
	}
	if first+size > l.wordsMax {
		return 0, false
	}
	if l.words[first/page] == nil {
		l.words[first/page] = new([page]classifier.SetID)
	}
	l.nextWord = first + size
	return uint32(first), true
}

// sizeOf rounds a length up to one of the sizes in which room is handed out: all
// up to 8, then four between each power of two and the next.
func sizeOf(n int) (index, size int) {
	if n <= 8 {
		return n, n
	}
	shift := bits.Len(uint(n-1)) - 3
	quarter := (n - 1) >> shift // 4 to 7
	return 4*shift + quarter + 1, (quarter + 1) << shift
}

// hold is one more that needs the list. (The empty one is always there.)
func (l *lists) hold(id uint32) {
	if id != 0 {
		l.refs[id]++
	}
}

// release is one less that needs the list; it reports whether that was the last.
// A list without holders is found no more, but it stays as it is, for readers,
// until quiesced passes gen.
func (l *lists) release(id uint32, gen uint64) bool {
	if id == 0 {
		return false
	}
	if l.refs[id]--; l.refs[id] > 0 {
		return false
	}
	l.unlink(id)
	l.live--
	l.waiting = append(l.waiting, retired{gen, id})
	return true
}

// unlink takes id out of the slots and closes the gap in its run.
func (l *lists) unlink(id uint32) {
	last := len(l.slots) - 1
	gap := l.home(l.hashes[id])
	for l.slots[gap] != id {
		gap = (gap + 1) & last
	}
	for s := (gap + 1) & last; l.slots[s] != 0; s = (s + 1) & last {
		if home := l.home(l.hashes[l.slots[s]]); (s-home)&last >= (s-gap)&last {
			l.slots[gap], gap = l.slots[s], s
		}
	}
	l.slots[gap] = 0
}

// quiesced frees what was released in generation gen or before.
func (l *lists) quiesced(gen uint64) {
	n := 0
	for ; n < len(l.waiting) && l.waiting[n].gen <= gen; n++ {
		id := l.waiting[n].id
		r := l.records[id>>recordBits][id&(1<<recordBits-1)]
		index, _ := sizeOf(int(r.count))
		l.spare[index] = append(l.spare[index], r.first)
		l.free = append(l.free, id)
	}
	l.waiting = append(l.waiting[:0], l.waiting[n:]...)
}

func (l *lists) rehash(slots int) {
	old := l.slots
	l.slots = make([]uint32, slots)
	for _, id := range old {
		if id == 0 {
			continue
		}
		s := l.home(l.hashes[id])
		for l.slots[s] != 0 {
			s = (s + 1) & (slots - 1)
		}
		l.slots[s] = id
	}
}

// home is the slot where the search for a hash starts.
func (l *lists) home(h uint32) int { return int(h) & (len(l.slots) - 1) }

func hash(list []classifier.SetID) uint32 {
	h := uint64(len(list))
	for _, set := range list {
		h = (h ^ uint64(set)) * 0xd6e8feb86659fd93
		h ^= h >> 32
	}
	return uint32(h)
}

// bytes is the memory that the lists hold, used or not.
func (l *lists) bytes() int {
	n := 4*(cap(l.refs)+cap(l.hashes)+len(l.slots)+cap(l.free)) + 16*cap(l.waiting)
	for _, p := range l.records {
		if p != nil {
			n += 8 << recordBits
		}
	}
	for _, p := range l.words {
		if p != nil {
			n += 4 << wordBits
		}
	}
	for _, s := range l.spare {
		n += 4 * cap(s)
	}
	return n
}
