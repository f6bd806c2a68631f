package label

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/fib"
)

// books is all that a table holds, for people and for comparing; not which ids
// the lists have that nothing needs.
func books(tb *Table) string {
	var b strings.Builder
	for f := range tb.rows {
		rs := &tb.rows[f]
		for s := (spot{}); rs.at(s) != nil; s = rs.next(s) {
			r := rs.at(s)
			p := prefix{r.key, r.bits(), f == 1}.netip()
			hop, _ := tb.trie.Route(p)
			fmt.Fprintf(&b, "%s up %d own %v class %d %v trie %d\n", p, r.up(), tb.owns.at(r.own()), r.class(), tb.classes.at(r.class()), hop)
		}
	}
	for s := (spot{}); tb.members.at(s) != nil; s = tb.members.next(s) {
		m := tb.members.at(s)
		fmt.Fprintf(&b, "set %d: %s %d times\n", m.set, m.prefix().netip(), m.times())
	}
	fmt.Fprintf(&b, "%d routes, %d and %d lists", tb.trie.Len(), tb.owns.live, tb.classes.live)
	return b.String()
}

// starve are the ways in which a table can be full.
var starve = map[string]func(tb *Table, left int){
	"classes": func(tb *Table, left int) { tb.classes.idsMax = len(tb.classes.refs) + left },
	"lists":   func(tb *Table, left int) { tb.classes.wordsMax = tb.classes.nextWord + left },
	"own lists": func(tb *Table, left int) {
		tb.owns.idsMax = len(tb.owns.refs) + left
	},
	"trie": func(tb *Table, left int) {
		tb.insert = func(p netip.Prefix, class fib.NextHopID) error {
			if left--; left < 0 {
				return errors.New("trie is full")
			}
			return tb.trie.SetRoute(p, class)
		}
	},
}

// TestFullLeavesAllAsItWas lets random changes run out of room at every point
// of their way: each is made whole, or the table is as before, and the next
// change with more room is made.
func TestFullLeavesAllAsItWas(t *testing.T) {
	for name, take := range starve {
		t.Run(name, func(t *testing.T) {
			refused := 0
			for seed := range uint64(*deep) {
				rnd := rand.New(rand.NewPCG(seed, 6))
				tb, r := watched(t)
				o := oracle{}
				for range 40 {
					changes := growing(rnd, o)
					want := maps.Clone(o)
					want.apply(changes)
					for left := 0; ; left += 1 + left/4 {
						before, live := books(tb), maps.Clone(r.live)
						take(tb, left)
						err := tb.Apply(changes)
						tb.classes.idsMax, tb.classes.wordsMax, tb.owns.idsMax = MaxClass+1, wordsMax, MaxClass+1
						tb.insert = tb.trie.SetRoute
						if err == nil {
							break
						}
						refused++
						if !errors.Is(err, ErrFull) || left > 5000 {
							t.Fatalf("error with room for %d is %v, want %v", left, err, ErrFull)
						}
						if after := books(tb); after != before {
							t.Fatalf("%v\nleft\n%s\nof\n%s", err, after, before)
						}
						if !maps.EqualFunc(live, r.live, slices.Equal) {
							t.Fatalf("%v\nleft classes %v of %v", err, r.live, live)
						}
						r.quiesced(tb.Generation())
					}
					o = want
					for _, c := range changes {
						agree(t, tb, r, o, edges(c.Prefix))
					}
				}
				sound(t, tb, r, o)
			}
			if refused == 0 {
				t.Error("nothing was refused")
			}
		})
	}
}

// growing draws changes that can be made and mostly need room.
func growing(rnd *rand.Rand, o oracle) []Change {
	var changes []Change
	for m := range o {
		if rnd.IntN(4) == 0 {
			changes = append(changes, Change{m.set, m.prefix, true})
		}
		if len(changes) == 3 {
			break
		}
	}
	for range 1 + rnd.IntN(6) {
		changes = append(changes, Change{Set: classifier.SetID(rnd.IntN(9) + 1), Prefix: crowded(rnd)})
	}
	return changes
}

func TestTooManySetsOfOneAddress(t *testing.T) {
	for _, p := range []string{"10.0.0.0/24", "2001:db8::/64"} {
		tb := New(nil)
		var changes []Change
		for i := range MaxSets {
			changes = append(changes, Change{Set: classifier.SetID(i + 1), Prefix: parse(p)})
		}
		if err := tb.Apply(changes); err != nil {
			t.Fatal(err)
		}
		if err := tb.Join(MaxSets+1, parse(p)); !errors.Is(err, ErrFull) {
			t.Errorf("error is %v, want %v", err, ErrFull)
		}
		v := tb.View()
		if got := v.Members(v.Lookup(parse(p).Addr())); len(got) != MaxSets {
			t.Errorf("%s is in %d sets, want %d", p, len(got), MaxSets)
		}
		leave(t, tb, 1, p)
		join(t, tb, MaxSets+1, p)
	}
}

func TestTooOftenJoined(t *testing.T) {
	tb := New(nil)
	join(t, tb, 1, "10.0.0.0/24")
	tb.members.put(newMember(1, prefix{keyOf(netip.MustParseAddr("10.0.0.0")), 24, false}), joinedMax)
	if err := tb.Join(1, parse("10.0.0.0/24")); !errors.Is(err, ErrFull) {
		t.Errorf("error is %v, want %v", err, ErrFull)
	}
	leave(t, tb, 1, "10.0.0.0/24")
	join(t, tb, 1, "10.0.0.0/24")
}

// Rooms of all sizes are handed out, come back and are handed out again.
func TestRoomOfListsIsUsedAgain(t *testing.T) {
	l := newLists()
	list := make([]classifier.SetID, MaxSets)
	var room int
	for round := range 3 {
		for n := 1; n <= MaxSets; n += 1 + n/9 {
			index, size := sizeOf(n)
			if prev, _ := sizeOf(n - 1); n > 1 && (prev > index || size < n || size > n+n/4) {
				t.Fatalf("%d sets take size %d, of index %d", n, size, index)
			}
			for i := range n {
				list[i] = classifier.SetID(n + i)
			}
			id, born, err := l.intern(list[:n])
			if err != nil || !born || !slices.Equal(l.at(id), list[:n]) {
				t.Fatalf("%d sets: id %d, born %v, %v", n, id, born, err)
			}
		}
		if round == 0 {
			room = l.nextWord
		}
		if l.nextWord != room {
			t.Errorf("round %d ends at word %d, the first did at %d", round, l.nextWord, room)
		}
		for id := range uint32(len(l.refs)) {
			if id > 0 && l.refs[id] > 0 {
				l.release(id, uint64(round))
			}
		}
		l.quiesced(uint64(round))
	}
}
