package fib

import "math/bits"

// routes is the writer's list of the prefixes of one family: an open-addressing
// hash table in columns (12 bytes a slot for IPv4, 20 for IPv6), linear
// probing, no tombstones. The trie alone cannot tell which prefixes it was
// made of: deletion and listing need this.
type routes struct {
	hi     []uint64
	lo     []uint64 // nil for IPv4
	meta   []uint32 // length and next hop; 0: the slot is empty, as next hop 0 is never stored
	is4    bool
	count  int
	byBits [129]int // routes of each length
}

const (
	metaLenShift = 24
	metaHopMask  = 1<<metaLenShift - 1

	routesMin = 1024 // slots of an empty table
)

func newRoutes(is4 bool) routes {
	r := routes{is4: is4}
	r.resize(routesMin)
	return r
}

func (r *routes) resize(slots int) {
	old := *r
	r.hi, r.meta = make([]uint64, slots), make([]uint32, slots)
	if !r.is4 {
		r.lo = make([]uint64, slots)
	}
	for i, m := range old.meta {
		if m != 0 {
			k := old.at(i)
			s, _ := r.find(k, int(m>>metaLenShift))
			r.put(s, k, m)
		}
	}
}

func (r *routes) at(slot int) key {
	k := key{hi: r.hi[slot]}
	if !r.is4 {
		k.lo = r.lo[slot]
	}
	return k
}

func (r *routes) put(slot int, k key, meta uint32) {
	r.hi[slot], r.meta[slot] = k.hi, meta
	if !r.is4 {
		r.lo[slot] = k.lo
	}
}

// home is the slot where the search for a prefix starts: the hash scaled to
// the number of slots, which therefore need not be a power of two. Each number
// of slots has a hash of its own: who removes routes in the order of the slots
// would else crowd those that are left into one end of the smaller table.
func (r *routes) home(k key, n int) int {
	h := (k.hi ^ bits.RotateLeft64(k.lo*0x9e3779b97f4a7c15, 32) ^ uint64(n) ^ uint64(len(r.meta))<<8) * 0xd6e8feb86659fd93
	h = (h ^ h>>32) * 0xd6e8feb86659fd93
	at, _ := bits.Mul64(h, uint64(len(r.meta)))
	return int(at)
}

// find returns the slot of the prefix, or the empty one that it would take.
func (r *routes) find(k key, n int) (slot int, ok bool) {
	for s := r.home(k, n); ; {
		m := r.meta[s]
		if m == 0 {
			return s, false
		}
		if r.hi[s] == k.hi && int(m>>metaLenShift) == n && (r.is4 || r.lo[s] == k.lo) {
			return s, true
		}
		if s++; s == len(r.meta) {
			s = 0
		}
	}
}

func (r *routes) get(k key, n int) uint32 {
	if s, ok := r.find(k, n); ok {
		return r.meta[s] & metaHopMask
	}
	return 0
}

// set adds the prefix or changes its next hop.
func (r *routes) set(k key, n int, hop uint32) {
	s, ok := r.find(k, n)
	if !ok {
		if 5*(r.count+1) > 4*len(r.meta) {
			r.resize(len(r.meta) + len(r.meta)/4)
			s, _ = r.find(k, n)
		}
		r.count++
		r.byBits[n]++
	}
	r.put(s, k, uint32(n)<<metaLenShift|hop)
}

// remove deletes the prefix and closes the gap in its run of slots. A table
// that has become much too large is made smaller.
func (r *routes) remove(k key, n int) bool {
	gap, ok := r.find(k, n)
	if !ok {
		return false
	}
	size := len(r.meta)
	for s := gap; ; {
		if s++; s == size {
			s = 0
		}
		m := r.meta[s]
		if m == 0 {
			break
		}
		from := r.at(s)
		if h := r.home(from, int(m>>metaLenShift)); (s-h+size)%size >= (s-gap+size)%size {
			r.put(gap, from, m)
			gap = s
		}
	}
	r.put(gap, key{}, 0)
	r.count--
	r.byBits[n]--
	if size > routesMin && r.count < size/4 {
		r.resize(max(routesMin, size/2))
	}
	return true
}

// cover returns the longest prefix shorter than n bits that holds k, as its
// length and next hop; length -1 and next hop 0 when there is none.
func (r *routes) cover(k key, n int) (bits int, hop uint32) {
	for n--; n >= 0; n-- {
		if r.byBits[n] == 0 {
			continue
		}
		if hop := r.get(k.masked(n), n); hop != 0 {
			return n, hop
		}
	}
	return -1, 0
}
