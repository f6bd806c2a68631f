package classifier

import (
	"net/netip"
	"slices"
	"sync"
)

// Literals numbers the lists of prefixes that rules give literally: equal lists
// are one anonymous set, in whichever program they occur. Any number of
// compiles may use one at the same time.
type Literals struct {
	mu     sync.Mutex
	ids    map[string]SetID
	sets   map[SetID][]netip.Prefix
	number SetID // the last one given
}

// NewLiterals returns one that knows no list.
func NewLiterals() *Literals {
	return &Literals{ids: map[string]SetID{}, sets: map[SetID][]netip.Prefix{}}
}

// NumberAbove has sets numbered from above first, which is at most 1<<30. It is for
// Literals that know no list yet.
func (l *Literals) NumberAbove(first uint32) { l.number = SetID(first) }

// ID is the set of a list of prefixes, whatever their order.
func (l *Literals) ID(nets []netip.Prefix) SetID {
	sorted := make([]netip.Prefix, len(nets))
	for i, n := range nets {
		sorted[i] = n.Masked()
	}
	slices.SortFunc(sorted, comparePrefixes)
	sorted = slices.Compact(sorted)
	var key []byte
	for _, n := range sorted {
		a := n.Addr().As16()
		key = append(append(key, a[:]...), byte(n.Bits()), byte(n.Addr().BitLen()))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.ids[string(key)]
	if !ok {
		l.number++
		id = AnonymousSet | l.number
		l.ids[string(key)], l.sets[id] = id, sorted
	}
	return id
}

// Prefixes are those of an anonymous set, in ascending order; nil if there is none of that id.
func (l *Literals) Prefixes(id SetID) []netip.Prefix {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sets[id]
}

// Retain forgets all sets but those in use. Their ids are not given again.
func (l *Literals) Retain(used map[SetID]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, id := range l.ids {
		if !used[id] {
			delete(l.ids, key)
			delete(l.sets, id)
		}
	}
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
