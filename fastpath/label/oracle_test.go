package label

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/fib"
)

// membership is a line of the oracle's list.
type membership struct {
	set    classifier.SetID
	prefix netip.Prefix
}

// oracle is the table as anyone would write it first: a list of who joined what
// and how often, all of it read for each lookup.
type oracle map[membership]int

func (o oracle) lookup(a netip.Addr) []classifier.SetID {
	sets := map[classifier.SetID]bool{}
	for m := range o {
		if m.prefix.Contains(a) {
			sets[m.set] = true
		}
	}
	return slices.Sorted(maps.Keys(sets))
}

// apply reports whether the changes could be made; if not, none is.
func (o oracle) apply(changes []Change) bool {
	sum := map[membership]int{}
	for _, c := range changes {
		if c.Leave {
			sum[membership{c.Set, c.Prefix}]--
		} else {
			sum[membership{c.Set, c.Prefix}]++
		}
	}
	for m, n := range sum {
		if o[m]+n < 0 {
			return false
		}
	}
	for m, n := range sum {
		if o[m] += n; o[m] == 0 {
			delete(o, m)
		}
	}
	return true
}

func (o oracle) replace(set classifier.SetID, prefixes []netip.Prefix) {
	maps.DeleteFunc(o, func(m membership, _ int) bool { return m.set == set })
	for _, p := range prefixes {
		o[membership{set, p}]++
	}
}

func (o oracle) prefixes() []netip.Prefix {
	all := map[netip.Prefix]bool{}
	for m := range o {
		all[m.prefix] = true
	}
	return slices.Collect(maps.Keys(all))
}

// roll is a watcher that knows which classes there are, and complains.
type roll struct {
	t    testing.TB
	live map[Class][]classifier.SetID
	dead map[Class]uint64 // the generation of the table that a class died in
	tb   *Table
	born int
}

// watched returns a table and who watches it.
func watched(t testing.TB) (*Table, *roll) {
	r := &roll{t: t, live: map[Class][]classifier.SetID{}, dead: map[Class]uint64{}}
	r.tb = New(r)
	return r.tb, r
}

func (r *roll) ClassBorn(c Class, sets []classifier.SetID) {
	r.born++
	if _, ok := r.live[c]; ok || c == 0 || len(sets) == 0 || !slices.IsSorted(sets) {
		r.t.Errorf("class %d is born with %v", c, sets)
	}
	if _, waits := r.dead[c]; waits {
		r.t.Errorf("class %d is born before readers have moved on", c)
	}
	for old, has := range r.live {
		if slices.Equal(has, sets) {
			r.t.Errorf("class %d is born with the sets of class %d", c, old)
		}
	}
	r.live[c] = sets
}

func (r *roll) ClassDied(c Class) {
	if _, ok := r.live[c]; !ok {
		r.t.Errorf("class %d died and was not alive", c)
	}
	delete(r.live, c)
	r.dead[c] = r.tb.Generation()
}

// quiesced is the table's, and what the roll makes of it.
func (r *roll) quiesced(upTo uint64) {
	r.tb.Quiesced(upTo)
	maps.DeleteFunc(r.dead, func(_ Class, gen uint64) bool { return gen <= upTo })
}

// edges are the addresses where a mistake about p would show: its first and
// last, and those just outside.
func edges(p netip.Prefix) []netip.Addr {
	first, b := p.Masked().Addr(), p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	out := []netip.Addr{first, last}
	for _, a := range []netip.Addr{first.Prev(), last.Next()} {
		if a.IsValid() && !a.Is4In6() {
			out = append(out, a)
		}
	}
	return out
}

// agree asks table and oracle for addresses, one by one and in a vector.
func agree(t testing.TB, tb *Table, r *roll, o oracle, addrs []netip.Addr) {
	t.Helper()
	v := tb.View()
	var batch Batch
	for i, a := range addrs {
		want := o.lookup(a)
		c := v.Lookup(a)
		if got := v.Members(c); !slices.Equal(got, want) {
			t.Fatalf("%s is in %v by class %d, want %v", a, got, c, want)
		}
		if sets := r.live[c]; c != 0 && !slices.Equal(sets, want) {
			t.Fatalf("%s has class %d, which the watcher knows as %v, want %v", a, c, sets, want)
		}
		if i%BatchMax == BatchMax-1 || i == len(addrs)-1 {
			part := addrs[i/BatchMax*BatchMax : i+1]
			agreeBatch(t, v, &batch, part)
		}
	}
}

// agreeBatch looks packets up whose destination is each address and whose source
// is the one before of that family.
func agreeBatch(t testing.TB, v View, batch *Batch, addrs []netip.Addr) {
	t.Helper()
	before := [2]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	var want [BatchMax][2]Class
	for i, a := range addrs {
		k, f := keyOf(a), 0
		if a.Is6() {
			f = 1
		}
		s := keyOf(before[f])
		want[i] = [2]Class{v.Lookup(before[f]), v.Lookup(a)}
		if before[f] = a; f == 0 {
			batch.Begin4(uint8(i), uint32(s.hi>>32), uint32(k.hi>>32))
		} else {
			batch.Begin6(uint8(i), [2]uint64{s.hi, s.lo}, [2]uint64{k.hi, k.lo})
		}
	}
	batch.Finish(v)
	for i := range addrs {
		if s, d := batch.Classes(uint8(i)); s != want[i][0] || d != want[i][1] {
			t.Fatalf("packet %d to %s has classes %d, %d in a batch, want %v", i, addrs[i], s, d, want[i])
		}
	}
}

// sound checks what the books of a table promise about each other.
func sound(t testing.TB, tb *Table, r *roll, o oracle) {
	t.Helper()
	owns, classes := map[uint32]uint32{}, map[uint32]uint32{}
	n := 0
	for f := range tb.rows {
		rs := &tb.rows[f]
		var last *row
		for s := (spot{}); rs.at(s) != nil; s = rs.next(s) {
			at := rs.at(s)
			p := prefix{at.key, at.bits(), f == 1}.netip()
			if last != nil && compareRows(*last, *at) >= 0 {
				t.Errorf("%s is not sorted", p)
			}
			last = at
			n++
			owns[at.own()]++
			classes[at.class()]++
			soundRow(t, tb, rs, at, p, o)
		}
		if n := 0; true {
			for _, c := range rs.chunks {
				n += len(c)
			}
			if n != rs.count {
				t.Errorf("list says that it has %d rows and has %d", rs.count, n)
			}
		}
	}
	if n != tb.trie.Len() || len(o) != tb.Len() {
		t.Errorf("%d prefixes, the trie has %d; %d memberships, want %d", n, tb.trie.Len(), tb.Len(), len(o))
	}
	soundLists(t, &tb.owns, owns)
	soundLists(t, &tb.classes, classes)
	if len(r.live) != tb.Classes() {
		t.Errorf("the watcher knows %d classes, the table has %d", len(r.live), tb.Classes())
	}
}

// soundRow checks one row against the oracle, the trie and the row that covers it.
func soundRow(t testing.TB, tb *Table, rs *rows, at *row, p netip.Prefix, o oracle) {
	t.Helper()
	if hop, _ := tb.trie.Route(p); hop != fib.NextHopID(at.class()) {
		t.Errorf("%s has class %d, in the trie %d", p, at.class(), hop)
	}
	own, all, up := map[classifier.SetID]bool{}, map[classifier.SetID]bool{}, -1
	for m := range o {
		if m.prefix == p {
			own[m.set] = true
		}
		if m.prefix.Bits() <= p.Bits() && m.prefix.Contains(p.Addr()) {
			all[m.set] = true
			if m.prefix.Bits() < p.Bits() {
				up = max(up, m.prefix.Bits())
			}
		}
	}
	if got := tb.owns.at(at.own()); !slices.Equal(got, slices.Sorted(maps.Keys(own))) {
		t.Errorf("%s joined %v, has %v", p, own, got)
	}
	if got := tb.classes.at(at.class()); !slices.Equal(got, slices.Sorted(maps.Keys(all))) {
		t.Errorf("%s has class %v, want %v", p, got, all)
	}
	if (up == -1) != (at.up() == noCover) || up != -1 && up != int(at.up()) {
		t.Errorf("%s has a cover of %d bits, want %d", p, at.up(), up)
	}
}

// soundLists checks that each list has the holders that were counted, and is
// live, free or waiting.
func soundLists(t testing.TB, l *lists, held map[uint32]uint32) {
	t.Helper()
	live := 0
	for id, n := range l.refs {
		if n != held[uint32(id)] {
			t.Errorf("list %d is held %d times, want %d", id, n, held[uint32(id)])
		}
		if n > 0 {
			live++
		}
	}
	if live != l.live || live+len(l.free)+len(l.waiting) != len(l.refs)-1 {
		t.Errorf("%d lists are held and %d counted; %d free, %d waiting of %d", live, l.live, len(l.free), len(l.waiting), len(l.refs)-1)
	}
}

// crowded draws prefixes that lie on, in and beside each other, so that every
// shape of the table comes up: few distinct octets, all lengths.
func crowded(r *rand.Rand) netip.Prefix {
	octets := []byte{0, 1, 127, 128, 255}
	n := 16
	if r.IntN(2) == 0 {
		n = 4
	}
	b := make([]byte, n)
	run := r.IntN(n) // the octets before it are all alike: long common keys
	for i := range b {
		if b[i] = 0x20; i >= run {
			b[i] = octets[r.IntN(len(octets))]
		}
	}
	a, _ := netip.AddrFromSlice(b)
	p := netip.PrefixFrom(a, r.IntN(8*n+1)).Masked()
	if p.Addr().Is4In6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), p.Bits())
	}
	return p
}
