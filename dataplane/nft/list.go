package nft

import (
	"fmt"
	"reflect"
	"slices"

	"margay.dev/margay/classifier"
)

// listKey is which list stands for some rules: whoever has the same rules, in the
// same memory, shares it.
type listKey struct {
	first  *classifier.Rule
	length int
	how
}

// how is what else decides how rules are written.
type how struct {
	family int
	mode   mode
	end    classifier.Action // of the tier: Deny or Pass
}

func keyOf(rules []classifier.Rule, h how) listKey { return listKey{&rules[0], len(rules), h} }

// list is rules in pieces, each in a chain of its own, and a chain that asks them one
// after the other. A change of few rules empties and fills few of them. (Chains
// that go on with each other would do without that chain, but the kernel
// wants no more than 16 behind each other.)
type list struct {
	how
	rules  []classifier.Rule
	index  string // the chain that asks the pieces, where there are several, without the side's name
	pieces []piece
}

// piece is some rules of a list in a chain.
type piece struct {
	name   string // without the side's
	rules  []classifier.Rule
	chain  *chain // nil: it is not written yet
	alone  bool   // it was written as the whole list
	passes bool   // some rule of it may pass
}

// pieceLength is how many rules a piece has at first; it may grow to twice as many.
const pieceLength = 32

// name is where the list begins.
func (l *list) name() string {
	if len(l.pieces) == 1 {
		return l.pieces[0].name
	}
	return l.index
}

// cut makes pieces of rules, named by next.
func cut(rules []classifier.Rule, next func() string) []piece {
	var out []piece
	for n := max(1, len(rules)/pieceLength); n > 0 && len(rules) > 0; n-- {
		some := rules[:len(rules)/n]
		rules = rules[len(some):]
		passes := slices.ContainsFunc(some, func(r classifier.Rule) bool { return r.Action == classifier.Pass })
		out = append(out, piece{name: next(), rules: some, passes: passes})
	}
	return out
}

// edited is the list with other rules: what pieces have alike from the beginning,
// and from the end, stays as it is.
func (l *list) edited(rules []classifier.Rule, next func() string) *list {
	same := func(a, b classifier.Rule) bool { return reflect.DeepEqual(a, b) }
	out := &list{how: l.how, rules: rules, index: l.index}
	old, rest := l.pieces, rules
	for len(old) > 0 && len(old[0].rules) <= len(rest) && slices.EqualFunc(old[0].rules, rest[:len(old[0].rules)], same) {
		out.pieces = append(out.pieces, old[0])
		rest, old = rest[len(old[0].rules):], old[1:]
	}
	var tail []piece
	for len(old) > 0 {
		p := old[len(old)-1]
		at := len(rest) - len(p.rules)
		if at < 0 || !slices.EqualFunc(p.rules, rest[at:], same) {
			break
		}
		tail = append(tail, p)
		rest, old = rest[:at], old[:len(old)-1]
	}
	// The old pieces in between lend their names, so that who asks them need not be
	// written anew.
	name := func() string {
		if len(old) == 0 {
			return next()
		}
		n := old[0].name
		old = old[1:]
		return n
	}
	out.pieces = append(out.pieces, cut(rest, name)...)
	slices.Reverse(tail)
	out.pieces = append(out.pieces, tail...)
	return out
}

// write makes the list's chains; pieces that are written stay.
func (l *list) write(v *view) {
	alone := len(l.pieces) == 1
	for i := range l.pieces {
		p := &l.pieces[i]
		if p.chain == nil || p.alone != alone {
			p.alone, p.chain = alone, l.piece(v, p.rules, alone)
		}
		v.image.chains[v.side+p.name] = p.chain
	}
	if alone {
		return
	}
	w, bit := v.writer(), v.desired.Settings.passed()
	var rules []rule
	for _, p := range l.pieces {
		rules = append(rules, w.line("").verdict(codeJump, v.side+p.name))
		if p.passes {
			rules = append(rules, w.line("passed").marked(bit).mark(bit, false).verdict(codeReturn, ""))
		}
	}
	v.put(l.index, w, append(rules, l.last(w)...))
}

// piece writes some rules. One that passes returns to who asks the list, or, from a
// piece among others, says so by a bit to the chain that asks the pieces.
func (l *list) piece(v *view, list []classifier.Rule, alone bool) *chain {
	w := v.writer()
	if !alone {
		w.passed = v.desired.Settings.passed()
	}
	var rules []rule
	for i := range list {
		rules = append(rules, w.rules(&list[i], l.family, l.mode, v.options, &v.desired.Settings)...)
	}
	if alone {
		rules = append(rules, l.last(w)...)
	}
	return v.chain(w, rules)
}

// last is the end of the list's tier. It stands in the list, since a rule that passes
// comes by it.
func (l *list) last(w *writer) []rule {
	if l.end != classifier.Deny {
		return nil
	}
	return []rule{w.line("end of the tier").deny(l.mode)}
}

// slot is where a list is asked: the one that is asked there next is taken to be a
// change of it.
type slot struct {
	judgement string // its chain
	tier      int
	name      string
}

// lists finds or makes the lists of all judgements.
func (v *view) lists(from *view) {
	type place struct {
		slot
		listKey
		rules []classifier.Rule
	}
	var wanted []place
	for _, j := range v.judgements {
		for i, tier := range j.judgement.Tiers {
			for _, f := range [...]struct {
				family int
				rules  []classifier.Rule
			}{{4, tier.V4}, {6, tier.V6}} {
				if len(f.rules) > 0 {
					key := keyOf(f.rules, how{f.family, j.mode, tier.End})
					wanted = append(wanted, place{slot{j.chain(f.family), i, tier.Name}, key, f.rules})
					v.listAt[key] = nil
				}
			}
		}
	}
	free := map[listKey]*list{} // those that nobody wants any more
	for key, l := range from.listAt {
		if _, ok := v.listAt[key]; ok {
			v.listAt[key] = l.copy()
		} else {
			free[key] = l
		}
	}
	for _, p := range wanted {
		v.slots[p.slot] = p.listKey
		if v.listAt[p.listKey] != nil {
			continue
		}
		was := from.slots[p.slot]
		if l := free[was]; l != nil && l.how == p.how {
			delete(free, was)
			v.listAt[p.listKey] = l.edited(p.rules, v.nextPiece)
			continue
		}
		v.listAt[p.listKey] = &list{how: p.how, rules: p.rules, index: v.nextPiece(), pieces: cut(p.rules, v.nextPiece)}
	}
}

// copy is the list as a view of its own may change it.
func (l *list) copy() *list {
	out := *l
	out.pieces = slices.Clone(l.pieces)
	return &out
}

// nextPiece is a name that no list and no piece had.
func (v *view) nextPiece() string {
	v.pieces++
	return fmt.Sprintf("list%d", v.pieces)
}
