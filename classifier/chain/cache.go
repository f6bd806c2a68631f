package chain

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
)

// Cache keeps the lists in force: equal ones are compiled once, and every
// program is told of every class. One goroutine at a time uses it, except for
// Fold.Compile; the lists that it hands out are for any number of readers.
type Cache struct {
	options  classifier.Options
	byList   map[[sha256.Size]byte]*List
	entries  map[*List]*kept
	combos   [][]classifier.SetID // by class
	compiles int
}

// kept is what the writer knows of a list.
type kept struct {
	hash    [sha256.Size]byte
	rules   []classifier.Rule // as compiled
	first   int               // edits that were ever made and are in rules
	edits   []classifier.Edit // those since
	pending *Fold             // a compile with edits that are not among them
	sets    []classifier.Set
	users   int

	strange int // combinations that even the last compile left out
}

// NewCache returns an empty cache that compiles with these options; it adds
// Combinations and Editable itself.
func NewCache(o classifier.Options) *Cache {
	if o.Literals == nil {
		o.Literals = classifier.NewLiterals()
	}
	o.Editable = true
	return &Cache{options: o, byList: map[[sha256.Size]byte]*List{}, entries: map[*List]*kept{}, combos: [][]classifier.SetID{nil}}
}

// Compiles counts the compiles so far.
func (c *Cache) Compiles() int { return c.compiles }

// Acquire returns the list in force that is equal to this one, or compiles it.
// Each call is owed a Release. The rules must not be changed afterwards.
func (c *Cache) Acquire(list []classifier.Rule) (*List, error) {
	h := hashOf(list)
	if l, ok := c.byList[h]; ok {
		c.entries[l].users++
		return l, nil
	}
	compiled, p, err := c.compile(list)
	if err != nil {
		return nil, err
	}
	l := NewList(p)
	c.byList[h] = l
	c.entries[l] = &kept{hash: h, rules: list, sets: compiled.Sets, users: 1, strange: p.Strange()}
	return l, nil
}

// Release gives a list back. The last one forgets it; readers may go on with it
// for as long as they like.
func (c *Cache) Release(l *List) {
	k, ok := c.entries[l]
	if !ok {
		return
	}
	if k.users--; k.users == 0 {
		c.unname(l)
		delete(c.entries, l)
	}
}

// unname makes sure that no equal list is answered with l.
func (c *Cache) unname(l *List) {
	if h := c.entries[l].hash; c.byList[h] == l {
		delete(c.byList, h)
	}
}

// Sets are the sets that a list names: what the label table must know for it.
func (c *Cache) Sets(l *List) []classifier.Set {
	if k, ok := c.entries[l]; ok {
		return k.sets
	}
	return nil
}

// AddClass tells every program which sets a class stands for, and those of
// later. It comes before the first address that has the class. A class may be
// given other sets once no address has it and every reader has moved on.
func (c *Cache) AddClass(class uint32, sets []classifier.SetID) {
	for uint64(class) >= uint64(len(c.combos)) {
		c.combos = append(c.combos, nil)
	}
	c.combos[class] = slices.Clone(sets)
	for l := range c.entries {
		l.Program().AddClass(class, sets)
	}
}

// Edit changes a list for all who have it, at once, by an overlay: in
// microseconds, whatever the length of the list. On an error the list stays as
// it was; where that wraps ErrCompile, the same edits can be given to Fold.
func (c *Cache) Edit(l *List, edits ...classifier.Edit) error {
	k, ok := c.entries[l]
	switch {
	case !ok:
		return fmt.Errorf("edit a list that was released")
	case k.pending != nil:
		return fmt.Errorf("edit a list of which a change is being compiled: %w", classifier.ErrCompile)
	}
	p, err := l.Program().Edit(c.options.Literals, edits...)
	if err != nil {
		return err
	}
	c.unname(l)
	k.edits = append(k.edits, edits...)
	l.Publish(p)
	return nil
}

// Wants reports whether a list would be faster after a Fold: it has an overlay,
// or packets of combinations of sets that its compile did not know.
func (c *Cache) Wants(l *List) bool {
	k, ok := c.entries[l]
	p := l.Program()
	return ok && (p.Edited() || p.Strange() > k.strange)
}

// Fold is a compile of a list with the changes made so far, on its way.
type Fold struct {
	list     *List
	rules    []classifier.Rule
	upTo     int // edits that were ever made and are in rules
	options  classifier.Options
	compiled *classifier.Compiled
	program  *classifier.Program
	err      error
}

// Fold begins to compile a list anew, with more edits if Edit refused them:
// Compile may run in the background, then Finish puts the outcome in force.
// A later Fold with edits contains those of one that has not finished.
func (c *Cache) Fold(l *List, edits ...classifier.Edit) *Fold {
	f := &Fold{list: l, options: c.options}
	f.options.Combinations = slices.Clone(c.combos)
	k, ok := c.entries[l]
	if !ok {
		return f
	}
	if k.pending != nil {
		f.rules, f.upTo = slices.Clone(k.pending.rules), k.pending.upTo
	} else {
		f.rules, f.upTo = slices.Clone(k.rules), k.first+len(k.edits)
		edits = slices.Concat(k.edits, edits)
	}
	for i := range edits {
		if f.rules, f.err = edited(f.rules, &edits[i]); f.err != nil {
			return f
		}
	}
	if n := k.first + len(k.edits); k.pending != nil || len(edits) > len(k.edits) {
		f.upTo = max(f.upTo, n) + 1
		k.pending = f
	}
	return f
}

// Compile does the work. Any goroutine may call it, once. It reports what
// Finish will: a list with a fault, or one that does not fit the budget.
func (f *Fold) Compile() error {
	if f.err == nil {
		f.compiled, f.err = classifier.Compile(f.rules, f.options)
	}
	if f.err == nil {
		f.program, f.err = classifier.Load(f.compiled.Image)
	}
	return f.err
}

// Sets are the sets that the list will name, once compiled: the label table must
// know them before Finish.
func (f *Fold) Sets() []classifier.Set {
	if f.compiled == nil {
		return nil
	}
	return f.compiled.Sets
}

// Finish puts a compiled list in force, with what was changed in the meantime
// as an overlay. On an error the list stays as it was.
func (c *Cache) Finish(f *Fold) error {
	k, ok := c.entries[f.list]
	if !ok {
		return nil // released
	}
	pending := k.pending
	if pending == f {
		k.pending = nil
	}
	switch {
	case f.err != nil:
		return fmt.Errorf("fold list: %w", f.err)
	case f.upTo < k.first || pending != nil && pending != f:
		return nil // a later compile has it all
	}
	c.compiles++
	c.tell(f.program)
	since := k.edits[min(f.upTo-k.first, len(k.edits)):]
	p := f.program
	if len(since) > 0 {
		var err error
		if p, err = f.program.Edit(c.options.Literals, since...); err != nil {
			return fmt.Errorf("fold list: changes during the compile: %w", err)
		}
	}
	c.unname(f.list)
	k.first, k.rules, k.edits, k.sets, k.strange = f.upTo, f.rules, slices.Clone(since), f.compiled.Sets, f.program.Strange()
	if len(since) == 0 {
		k.hash = hashOf(k.rules)
		if _, taken := c.byList[k.hash]; !taken {
			c.byList[k.hash] = f.list
		}
	}
	f.list.Publish(p)
	return nil
}

// compile makes a program that knows all classes.
func (c *Cache) compile(list []classifier.Rule) (*classifier.Compiled, *classifier.Program, error) {
	f := Fold{rules: list, options: c.options}
	f.options.Combinations = c.combos
	if err := f.Compile(); err != nil {
		return nil, nil, err
	}
	c.compiles++
	c.tell(f.program)
	return f.compiled, f.program, nil
}

// tell tells a program of every class.
func (c *Cache) tell(p *classifier.Program) {
	for class, sets := range c.combos {
		p.AddClass(uint32(class), sets)
	}
}

// edited makes one change to a list, in place where there is room.
func edited(list []classifier.Rule, e *classifier.Edit) ([]classifier.Rule, error) {
	if e.Position < 0 || e.Position > len(list) || e.Remove && e.Position == len(list) {
		return list, fmt.Errorf("edit list of %d rules: position %d is not in it", len(list), e.Position)
	}
	if e.Remove {
		return slices.Delete(list, e.Position, e.Position+1), nil
	}
	return slices.Insert(list, e.Position, e.Rule), nil
}

// hashOf is equal for lists that decide alike because they say the same, down to
// the order of what is in their rules.
func hashOf(list []classifier.Rule) [sha256.Size]byte {
	h := sha256.New()
	var b []byte
	for i := range list {
		r := &list[i]
		b = binary.LittleEndian.AppendUint32(b[:0], r.ID)
		b = append(b, byte(r.Action))
		b = appendRanges(b, r.Protocols)
		for _, s := range []*classifier.Side{&r.Source, &r.Destination} {
			b = appendNets(appendNets(b, s.Nets), s.NotNets)
			b = appendSets(appendSets(b, s.Sets), s.NotSets)
			b = appendRanges(b, s.Ports)
		}
		h.Write(b)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// appendRanges, appendNets and appendSets write a length first, so that no two
// rules have the same bytes.
func appendRanges(b []byte, ranges []classifier.Range) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ranges)))
	for _, r := range ranges {
		b = binary.LittleEndian.AppendUint32(b, uint32(r.First)<<16|uint32(r.Last))
	}
	return b
}

func appendNets(b []byte, nets []netip.Prefix) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(nets)))
	for _, n := range nets {
		a := n.Masked().Addr().As16()
		b = append(append(b, a[:]...), byte(n.Bits()), byte(n.Addr().BitLen()))
	}
	return b
}

func appendSets(b []byte, sets []classifier.SetID) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(sets)))
	for _, s := range sets {
		b = binary.LittleEndian.AppendUint32(b, uint32(s))
	}
	return b
}
