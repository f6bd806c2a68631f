package domains

import (
	"container/heap"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"margay.dev/margay/api/domain"
)

// Limits are how much a Book keeps, and for how long. The zero value is of use.
type Limits struct {
	AddressesOfName    int           // 0: 256
	AddressesOfPattern int           // of all its names together, an address counted for each; 0: 16,384
	Addresses          int           // of all patterns together; 0: 131,072
	Grace              time.Duration // beyond a TTL; 0: 5 minutes, negative: none
}

func (l Limits) withDefaults() Limits {
	set := func(n *int, to int) {
		if *n <= 0 {
			*n = to
		}
	}
	set(&l.AddressesOfName, 256)
	set(&l.AddressesOfPattern, 1<<14)
	set(&l.Addresses, 1<<17)
	switch {
	case l.Grace == 0:
		l.Grace = 5 * time.Minute
	case l.Grace < 0:
		l.Grace = 0
	}
	return l
}

// Change is addresses that joined and left those of a pattern's names, sorted.
// Fault is why it has not all of them, in words, or nothing.
type Change struct {
	Pattern      string
	Joined, Left []netip.Addr
	Fault        string
}

// Book knows the addresses of names that patterns match. It is for one goroutine.
// Times are the caller's; they may jump, and what lasts is then longer or shorter by that.
type Book struct {
	limits   Limits
	patterns map[string]*pattern
	exact    map[string]*pattern   // by name
	wild     map[string][]*pattern // by suffix
	entries  int
	ends     ends
	dirty    map[*pattern]struct{}
	fresh    map[*entry]struct{} // new, or known for longer, and not written down yet; nil: nobody does
	stats    Stats
}

// Stats tell how full a Book is, and what it has refused.
type Stats struct {
	Patterns, Names, Addresses int    // an address counts for each name and pattern
	Refused                    uint64 // addresses of names, for which there was no room
}

// pattern is what is known of the names that one matches.
type pattern struct {
	domain.Pattern
	wanted  bool // else it is of a former life, and nobody has asked for it yet
	names   map[string]map[netip.Addr]*entry
	entries int
	members map[netip.Addr]int // by how many names
	told    map[netip.Addr]bool
	changed map[netip.Addr]struct{}
	full    time.Time // when an address was refused for lack of room the last time
	fault   string    // that was told
}

// entry is an address of a name, until its time is over.
type entry struct {
	of      *pattern
	name    string
	address netip.Addr
	until   time.Time
	due     time.Time // when ends will ask about it: until, or earlier
	at      int       // in ends
}

// NewBook makes one without patterns.
func NewBook(l Limits) *Book {
	return &Book{
		limits: l.withDefaults(), patterns: map[string]*pattern{}, exact: map[string]*pattern{}, wild: map[string][]*pattern{},
		dirty: map[*pattern]struct{}{},
	}
}

// Want has the book learn the names that a pattern matches, from now on, and tell
// of all that it knows of them. It fails for what is no pattern in canonical form.
func (b *Book) Want(text string) error {
	p, err := b.pattern(text)
	if err != nil {
		return err
	}
	p.wanted, p.fault = true, ""
	clear(p.told)
	for a := range p.members {
		p.changed[a] = struct{}{}
	}
	b.dirty[p] = struct{}{}
	return nil
}

func (b *Book) pattern(text string) (*pattern, error) {
	if p, ok := b.patterns[text]; ok {
		return p, nil
	}
	parsed, err := parsePattern(text)
	if err != nil {
		return nil, fmt.Errorf("learn names: %w", err)
	}
	p := &pattern{
		Pattern: parsed, names: map[string]map[netip.Addr]*entry{}, members: map[netip.Addr]int{},
		told: map[netip.Addr]bool{}, changed: map[netip.Addr]struct{}{},
	}
	b.patterns[text] = p
	if name, ok := parsed.Exact(); ok {
		b.exact[name] = p
	} else {
		b.wild[parsed.Suffix()] = append(b.wild[parsed.Suffix()], p)
	}
	return p, nil
}

// parsePattern reads a pattern in canonical form.
func parsePattern(text string) (domain.Pattern, error) {
	p, err := domain.Parse(text)
	if err == nil && p.String() != text {
		err = fmt.Errorf("%q is not in canonical form, which is %q", text, p)
	}
	return p, err
}

// Drop forgets a pattern and what is known of its names, and tells nothing of it.
func (b *Book) Drop(text string) {
	p, ok := b.patterns[text]
	if !ok {
		return
	}
	for _, addresses := range p.names {
		for _, e := range addresses {
			heap.Remove(&b.ends, e.at)
			delete(b.fresh, e)
		}
	}
	b.entries -= p.entries
	delete(b.patterns, text)
	delete(b.dirty, p)
	if name, ok := p.Exact(); ok {
		delete(b.exact, name)
		return
	}
	suffix := p.Suffix()
	if b.wild[suffix] = slices.DeleteFunc(b.wild[suffix], func(o *pattern) bool { return o == p }); len(b.wild[suffix]) == 0 {
		delete(b.wild, suffix)
	}
}

// matching calls yield for each pattern that matches a canonical name.
func (b *Book) matching(name string, yield func(*pattern)) {
	if p, ok := b.exact[name]; ok {
		yield(p)
	}
	for rest := name; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return
		}
		rest = rest[dot+1:]
		for _, p := range b.wild[rest] {
			if p.Match(name) {
				yield(p)
			}
		}
	}
}

// Matters says whether any pattern matches a canonical name.
func (b *Book) Matters(name string) (matters bool) {
	b.matching(name, func(*pattern) { matters = true })
	return matters
}

// Learn takes what an answer says.
func (b *Book) Learn(now time.Time, found []Found) {
	for _, f := range found {
		until := now.Add(f.TTL + b.limits.Grace)
		b.matching(f.Name, func(p *pattern) { b.put(p, f.Name, f.Address, now, until) })
	}
}

// put notes that a name has an address until a time, or longer if that is known.
func (b *Book) put(p *pattern, name string, a netip.Addr, now, until time.Time) {
	if !until.After(now) {
		return
	}
	if e, ok := p.names[name][a]; ok {
		if until.After(e.until) {
			e.until = until
			b.note(e)
		}
		return
	}
	if !b.room(p, name, until) {
		p.full = now
		b.stats.Refused++
		b.dirty[p] = struct{}{}
		return
	}
	if p.names[name] == nil {
		p.names[name] = map[netip.Addr]*entry{}
	}
	e := &entry{of: p, name: name, address: a, until: until, due: until}
	p.names[name][a] = e
	b.note(e)
	heap.Push(&b.ends, e)
	p.entries++
	b.entries++
	if p.members[a]++; p.members[a] == 1 {
		b.touch(p, a)
	}
}

// note notes that an entry is to be written down.
func (b *Book) note(e *entry) {
	if b.fresh != nil {
		b.fresh[e] = struct{}{}
	}
}

// room makes room for an address of a name, if it may have one: where the name has
// all that it may, one that would end earlier gives way.
func (b *Book) room(p *pattern, name string, until time.Time) bool {
	if len(p.names[name]) >= b.limits.AddressesOfName {
		var first *entry
		for _, e := range p.names[name] {
			if first == nil || e.until.Before(first.until) {
				first = e
			}
		}
		if !first.until.Before(until) {
			return false
		}
		b.remove(first)
	}
	return p.entries < b.limits.AddressesOfPattern && b.entries < b.limits.Addresses
}

func (b *Book) touch(p *pattern, a netip.Addr) {
	p.changed[a] = struct{}{}
	b.dirty[p] = struct{}{}
}

// remove forgets an entry.
func (b *Book) remove(e *entry) {
	p := e.of
	heap.Remove(&b.ends, e.at)
	delete(b.fresh, e)
	if delete(p.names[e.name], e.address); len(p.names[e.name]) == 0 {
		delete(p.names, e.name)
	}
	p.entries--
	b.entries--
	if p.members[e.address]--; p.members[e.address] == 0 {
		delete(p.members, e.address)
		b.touch(p, e.address)
	}
}

// Expire forgets what is over, and says when something else will be; false if there
// is nothing.
func (b *Book) Expire(now time.Time) (next time.Time, ok bool) {
	for len(b.ends) > 0 {
		e := b.ends[0]
		switch {
		case e.due.After(now):
			return e.due, true
		case e.until.After(now):
			e.due = e.until
			heap.Fix(&b.ends, 0)
		default:
			if b.remove(e); !e.of.wanted && e.of.entries == 0 {
				b.Drop(e.of.String())
			}
		}
	}
	return time.Time{}, false
}

// Pending says whether Changes would tell of addresses.
func (b *Book) Pending() bool {
	for p := range b.dirty {
		if p.wanted && len(p.changed) > 0 {
			return true
		}
	}
	return false
}

// faultLasts is how long a pattern is said to be without some addresses, after one
// was refused.
const faultLasts = 10 * time.Minute

// Changes are what has changed since they were asked for the last time, by pattern.
func (b *Book) Changes(now time.Time) (out []Change) {
	for p := range b.dirty {
		if !p.wanted {
			continue
		}
		c := Change{Pattern: p.String(), Fault: p.faultAt(now, &b.limits)}
		for a := range p.changed {
			switch is := p.members[a] > 0; {
			case is && !p.told[a]:
				c.Joined = append(c.Joined, a)
				p.told[a] = true
			case !is && p.told[a]:
				c.Left = append(c.Left, a)
				delete(p.told, a)
			}
		}
		clear(p.changed)
		if c.Fault == "" {
			delete(b.dirty, p)
		}
		if len(c.Joined)+len(c.Left) > 0 || c.Fault != p.fault {
			p.fault = c.Fault
			slices.SortFunc(c.Joined, netip.Addr.Compare)
			slices.SortFunc(c.Left, netip.Addr.Compare)
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Pattern, b.Pattern) })
	return out
}

// faultAt is what keeps addresses out at a time.
func (p *pattern) faultAt(now time.Time, l *Limits) string {
	if p.full.IsZero() || now.Sub(p.full) > faultLasts {
		return ""
	}
	return fmt.Sprintf("names that %q matches have more addresses than are kept: %d of a name, %d of a pattern, %d in all; "+
		"the others are not allowed, name the networks instead", p.Pattern, l.AddressesOfName, l.AddressesOfPattern, l.Addresses)
}

// Stats tell of the book.
func (b *Book) Stats() Stats {
	s := b.stats
	s.Patterns, s.Addresses = len(b.patterns), b.entries
	for _, p := range b.patterns {
		s.Names += len(p.names)
	}
	return s
}

// Addresses are those of a pattern's names, by name, for people and tests.
func (b *Book) Addresses(pattern string) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	if p, ok := b.patterns[pattern]; ok {
		for name, addresses := range p.names {
			out[name] = slices.SortedFunc(maps.Keys(addresses), netip.Addr.Compare)
		}
	}
	return out
}

// ends are entries by when they are asked about, the first in front.
type ends []*entry

func (h ends) Len() int           { return len(h) }
func (h ends) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h ends) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *ends) Push(x any) {
	e := x.(*entry)
	e.at = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *ends) Pop() any {
	e := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return e
}
