package domains

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/api/domain"
)

// ledger adds up what a book tells.
type ledger map[string]map[netip.Addr]bool

func (l ledger) take(t testing.TB, changes []Change) {
	t.Helper()
	for _, c := range changes {
		if l[c.Pattern] == nil {
			t.Fatalf("%q is told, and not wanted", c.Pattern)
		}
		for _, a := range c.Joined {
			if l[c.Pattern][a] {
				t.Fatalf("%v joins %q twice", a, c.Pattern)
			}
			l[c.Pattern][a] = true
		}
		for _, a := range c.Left {
			if !l[c.Pattern][a] {
				t.Fatalf("%v leaves %q without having joined", a, c.Pattern)
			}
			delete(l[c.Pattern], a)
		}
	}
}

// String is the ledger in one line.
func (l ledger) String() string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(l)) {
		if len(l[p]) > 0 {
			out = append(out, fmt.Sprint(p, " ", slices.SortedFunc(maps.Keys(l[p]), netip.Addr.Compare)))
		}
	}
	return strings.Join(out, "; ")
}

func TestBook(t *testing.T) {
	b, l := NewBook(Limits{Grace: 10 * time.Second}), ledger{}
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	want := func(patterns ...string) {
		t.Helper()
		for _, p := range patterns {
			if l[p] = map[netip.Addr]bool{}; b.Want(p) != nil {
				t.Fatalf("%q is no pattern", p)
			}
		}
	}
	hear := func(seconds int, name, a string, ttl int) {
		b.Learn(at(seconds), []Found{{name, address(a), time.Duration(ttl) * time.Second}})
	}
	check := func(seconds int, text string) {
		t.Helper()
		b.Expire(at(seconds))
		if l.take(t, b.Changes(at(seconds))); l.String() != text {
			t.Errorf("after %d s: %q, want %q", seconds, l, text)
		}
	}
	want("*.example", "a.example")
	hear(0, "a.example", "192.0.2.1", 20)
	hear(0, "b.example", "2001:db8::1", 40)
	hear(0, "a.elsewhere", "192.0.2.9", 40)
	check(0, "*.example [192.0.2.1 2001:db8::1]; a.example [192.0.2.1]")
	hear(10, "b.example", "192.0.2.1", 50) // the address of two names
	check(29, "*.example [192.0.2.1 2001:db8::1]; a.example [192.0.2.1]")
	check(30, "*.example [192.0.2.1 2001:db8::1]")
	hear(31, "b.example", "2001:db8::1", 1) // a shorter TTL takes nothing away that was promised
	check(49, "*.example [192.0.2.1 2001:db8::1]")
	hear(49, "b.example", "2001:db8::1", 100)
	check(69, "*.example [192.0.2.1 2001:db8::1]")
	check(70, "*.example [2001:db8::1]")
	hear(70, "c.example", "192.0.2.3", 0)
	check(70, "*.example [192.0.2.3 2001:db8::1]")
	b.Drop("*.example")
	delete(l, "*.example")
	check(71, "")
	if s := b.Stats(); s != (Stats{Patterns: 1}) {
		t.Errorf("after the pattern went: %+v", s)
	}
	if next, ok := b.Expire(at(71)); ok {
		t.Errorf("something ends at %v, and there is nothing", next)
	}
	want("*.example")
	check(72, "")
	for _, bad := range []string{"", "*", "A.example", "a.example.", "*.*.example"} {
		if b.Want(bad) == nil {
			t.Errorf("%q is wanted", bad)
		}
	}
}

func TestBookLimits(t *testing.T) {
	b := NewBook(Limits{AddressesOfName: 4, AddressesOfPattern: 8, Addresses: 12, Grace: -1})
	for _, p := range []string{"*.evil.example", "good.example"} {
		if err := b.Want(p); err != nil {
			t.Fatal(err)
		}
	}
	flood := func(name string, n int, ttl time.Duration) {
		var found []Found
		for i := range n {
			found = append(found, Found{name, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), ttl})
		}
		b.Learn(start, found)
	}
	flood("a.evil.example", 10000, time.Minute)
	if got := b.Stats(); got.Addresses != 4 || got.Refused != 9996 {
		t.Errorf("10,000 addresses of a name: %+v", got)
	}
	for i := range 100 {
		flood(fmt.Sprintf("n%d.evil.example", i), 4, time.Minute)
	}
	if got := b.Stats(); got.Addresses != 8 {
		t.Errorf("100 names of a pattern: %+v", got)
	}
	flood("good.example", 4, time.Second)
	c := b.Changes(start)
	if len(c) != 2 || len(c[1].Joined) != 4 || c[1].Fault != "" || c[0].Fault == "" {
		t.Errorf("a pattern beside one that is full: %+v", c)
	}
	later := []Found{{"good.example", address("2001:db8::1"), time.Minute}}
	b.Learn(start, later)
	if c := b.Changes(start); len(c) != 1 || len(c[0].Joined) != 1 || len(c[0].Left) != 1 {
		t.Errorf("a later address in the place of one that ends sooner: %+v", c)
	}
	b.Expire(start.Add(time.Hour))
	if c := b.Changes(start.Add(time.Hour)); len(c) != 2 || c[0].Fault != "" || b.Stats().Addresses != 0 {
		t.Errorf("an hour later: %+v, %+v", c, b.Stats())
	}
}

// TestBookHistories plays random ones.
func TestBookHistories(t *testing.T) {
	for seed := range uint64(100) {
		dice, text := rand.New(rand.NewPCG(seed, 1)), make([]byte, 1000)
		for i := range text {
			text[i] = byte(dice.Uint32())
		}
		playBook(t, text)
	}
}

// FuzzBook plays what the bytes say on a book, and on a list of all that was ever
// heard.
func FuzzBook(f *testing.F) {
	f.Add([]byte("0a1b2c3d4e5f6g7h8i9jkaslkdjfhaskjdfhqwoeiuryt"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 2000 {
			return
		}
		playBook(t, text)
	})
}

// fact is something that was heard.
type fact struct {
	pattern, name string
	address       netip.Addr
	until         time.Time
}

// known is what facts come to at a time.
func known(facts []fact, now time.Time) ledger {
	l := ledger{}
	for _, f := range facts {
		if l[f.pattern] == nil {
			l[f.pattern] = map[netip.Addr]bool{}
		}
		if f.until.After(now) {
			l[f.pattern][f.address] = true
		}
	}
	return l
}

func playBook(t *testing.T, text []byte) {
	patterns := []string{"a.example", "*.example", "b.*.example", "*.b.example"}
	names := []string{"a.example", "b.example", "b.b.example", "b.a.b.example", "example"}
	var facts []fact
	b, l, now := NewBook(Limits{Grace: time.Second}), ledger{}, start
	for ; len(text) >= 4; text = text[4:] {
		p := patterns[int(text[1])%len(patterns)]
		switch text[0] % 8 {
		case 0:
			if l[p] == nil {
				l[p] = map[netip.Addr]bool{}
				if err := b.Want(p); err != nil {
					t.Fatal(err)
				}
			}
		case 1:
			b.Drop(p)
			delete(l, p)
			facts = slices.DeleteFunc(facts, func(f fact) bool { return f.pattern == p })
		case 2, 3:
			now = now.Add(time.Duration(text[1]) * time.Second / 4)
		default:
			heard := Found{names[int(text[1])%len(names)], netip.AddrFrom4([4]byte{192, 0, 2, text[2] % 4}), time.Duration(text[3]) * time.Second / 4}
			for p := range l {
				if parsed, _ := domain.Parse(p); parsed.Match(heard.Name) {
					facts = append(facts, fact{p, heard.Name, heard.Address, now.Add(heard.TTL + time.Second)})
				}
			}
			b.Learn(now, []Found{heard})
		}
		next, ok := b.Expire(now)
		if ok && !next.After(now) {
			t.Fatalf("at %v something is to end at %v", now, next)
		}
		if text[0]%3 == 0 {
			l.take(t, b.Changes(now))
			if want := known(facts, now); l.String() != want.String() {
				t.Fatalf("the book says %q, the list %q", l, want)
			}
		}
	}
	for _, p := range patterns {
		b.Drop(p)
	}
	if s := b.Stats(); s.Addresses+s.Names+s.Patterns > 0 || len(b.ends)+len(b.exact)+len(b.wild)+len(b.dirty) > 0 {
		t.Errorf("left over: %+v", s)
	}
}
