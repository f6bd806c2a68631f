package label

import (
	"slices"
	"sort"
)

// sorted is a sorted list in chunks: a search is two binary ones, a change moves
// half a chunk at most.
type sorted[E any] struct {
	chunks  [][]E // none of them empty
	compare func(a, b E) int
	count   int
	hint    spot // of the last search: the next is often for the same, or for what follows
}

// chunkMax elements of 24 bytes fill 6 KiB, which the runtime has a size for.
const chunkMax = 256

// spot is a place in a sorted list, good until the list changes. A spot behind
// the last element is in chunk len(chunks).
type spot struct{ chunk, i int }

// find returns where e is, or where it belongs.
func (s *sorted[E]) find(e E) (spot, bool) {
	at := s.hint
	if !s.within(at.chunk, e) {
		at.chunk = sort.Search(len(s.chunks), func(i int) bool { return s.compare(s.chunks[i][0], e) > 0 }) - 1
		if at.chunk < 0 {
			return spot{}, false
		}
	}
	c, ok := s.chunks[at.chunk], true
	if at.i >= len(c) || s.compare(c[at.i], e) != 0 {
		at.i, ok = slices.BinarySearchFunc(c, e, s.compare)
	}
	s.hint = at
	if at.i == len(c) {
		return spot{at.chunk + 1, 0}, false
	}
	return at, ok
}

// within says whether e is in chunk i, if it is anywhere.
func (s *sorted[E]) within(i int, e E) bool {
	return i < len(s.chunks) && s.compare(s.chunks[i][0], e) <= 0 &&
		(i+1 == len(s.chunks) || s.compare(s.chunks[i+1][0], e) > 0)
}

// at returns the element at a spot, nil behind the last. It is good until the
// list changes.
func (s *sorted[E]) at(p spot) *E {
	if p.chunk >= len(s.chunks) {
		return nil
	}
	return &s.chunks[p.chunk][p.i]
}

// next is the spot that follows p.
func (s *sorted[E]) next(p spot) spot {
	if p.i+1 < len(s.chunks[p.chunk]) {
		return spot{p.chunk, p.i + 1}
	}
	return spot{p.chunk + 1, 0}
}

// before returns the element before p, nil where there is none.
func (s *sorted[E]) before(p spot) *E {
	switch {
	case p.i > 0:
		return &s.chunks[p.chunk][p.i-1]
	case p.chunk > 0:
		c := s.chunks[p.chunk-1]
		return &c[len(c)-1]
	}
	return nil
}

// insert puts e where find said that it belongs.
func (s *sorted[E]) insert(p spot, e E) {
	s.count++
	if p.i == 0 && p.chunk > 0 { // better the end of a chunk than the front of the next
		p = spot{p.chunk - 1, len(s.chunks[p.chunk-1])}
	}
	if p.chunk == len(s.chunks) {
		s.chunks = append(s.chunks, append(make([]E, 0, chunkMax), e))
		return
	}
	if c := s.chunks[p.chunk]; len(c) == chunkMax {
		// What arrives in order leaves full chunks behind.
		cut := chunkMax / 2
		if p.i == chunkMax {
			cut = chunkMax - chunkMax/8
		}
		s.chunks = slices.Insert(s.chunks, p.chunk+1, append(make([]E, 0, chunkMax), c[cut:]...))
		s.chunks[p.chunk] = c[:cut]
		if p.i > cut {
			p = spot{p.chunk + 1, p.i - cut}
		}
	}
	s.chunks[p.chunk] = slices.Insert(s.chunks[p.chunk], p.i, e)
}

// remove takes the element at p out.
func (s *sorted[E]) remove(p spot) {
	s.count--
	c := slices.Delete(s.chunks[p.chunk], p.i, p.i+1)
	s.chunks[p.chunk] = c
	if len(c) == 0 {
		s.chunks = slices.Delete(s.chunks, p.chunk, p.chunk+1)
		return
	}
	s.join(p.chunk)
	s.join(p.chunk - 1)
}

// join makes one of chunk i and the next, where half a chunk holds both.
func (s *sorted[E]) join(i int) {
	if i < 0 || i+1 >= len(s.chunks) || len(s.chunks[i])+len(s.chunks[i+1]) > chunkMax/2 {
		return
	}
	s.chunks[i] = append(s.chunks[i], s.chunks[i+1]...)
	s.chunks = slices.Delete(s.chunks, i+1, i+2)
}

// bytes is the memory that the list holds, for elements of that size.
func (s *sorted[E]) bytes(size int) int { return len(s.chunks)*chunkMax*size + 24*cap(s.chunks) }
