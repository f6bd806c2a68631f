package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"margay.dev/margay/classifier"
)

// body is the rules of a policy or a profile. It asks for sets and has ids of
// rules while endpoints use it.
type body struct {
	ref       RuleRef // without what is of single rules
	endpoints map[*endpoint]struct{}

	want  [2][]*rule // what the object says
	stale bool       // that is not what is in use
	ports bool       // ports that a name or a service stands for came or went
	have  [2][]*rule // what is in use
	inUse bool
	uses  map[*gathering]struct{}
	text  [2]rendered
}

// rendered is rules as the classifier takes them. The revision names the content:
// what has the same revision is the same.
type rendered struct {
	revision uint64
	v4, v6   []classifier.Rule
	alike    bool // v6 is v4
	passes   bool // one of them does
}

func newBody(ref RuleRef) body {
	return body{ref: ref, endpoints: make(map[*endpoint]struct{}), uses: make(map[*gathering]struct{})}
}

// settle brings a body up to date with its object and with who needs it.
func (c *Calculation) settle(b *body, f *freed) {
	switch needed := len(b.endpoints) > 0; {
	case needed && (b.stale || !b.inUse):
		c.adopt(b, b.want, f)
		b.inUse, b.stale = true, false
		c.render(b)
	case needed && b.ports:
		c.render(b)
	case !needed && b.inUse:
		c.adopt(b, [2][]*rule{}, f)
		b.inUse, b.text = false, [2]rendered{}
		c.note(b.ref.Object).used = nil
	}
}

// adopt puts rules in use in the place of those that are. Those that stay the
// same keep their ids, and the sets that both ask for stay.
func (c *Calculation) adopt(b *body, next [2][]*rule, f *freed) {
	old := make(map[*gathering]bool)
	for g := range b.uses {
		old[g] = true
	}
	for d := range next {
		c.handDown(b.have[d], next[d], f)
		for _, r := range next[d] {
			r.questions(func(q *question) {
				q.answer = c.use(b, q.key, q.selector)
				delete(old, q.answer)
			})
			c.name(b, Direction(d), r)
		}
	}
	for g := range old {
		c.leave(b, g)
	}
	b.have = next
}

// name gives the rule an id, if it has none yet, and notes what that stands for.
func (c *Calculation) name(b *body, d Direction, r *rule) {
	if r.id == 0 {
		r.id = c.ruleIDs.take()
	}
	if r.id == 0 {
		return // there are none left: the rule works, and is not told from others
	}
	ref := b.ref
	ref.Direction, ref.Index, ref.StandsIn = d, r.index, r.standsIn
	if r.source != nil {
		ref.Rule = *r.source
	}
	if was, known := c.rules[r.id]; known && (was.Index != ref.Index || was.Tier != ref.Tier || was.StandsIn != ref.StandsIn) {
		c.dirty.rules[r.id] = struct{}{}
	}
	c.rules[r.id] = ref
}

// handDown gives the ids of old rules to those new ones that say the same, wherever
// they have moved to, so that what was counted for them stays theirs, and frees the
// others.
func (c *Calculation) handDown(old, next []*rule, f *freed) {
	same := func(a, b *rule) bool {
		return a.action == b.action && (a.index < 0) == (b.index < 0) && reflect.DeepEqual(a.source, b.source)
	}
	for len(old) > 0 && len(next) > 0 && same(old[0], next[0]) {
		next[0].id = old[0].id
		old, next = old[1:], next[1:]
	}
	for len(old) > 0 && len(next) > 0 && same(old[len(old)-1], next[len(next)-1]) {
		next[len(next)-1].id = old[len(old)-1].id
		old, next = old[:len(old)-1], next[:len(next)-1]
	}
	if len(old) > 0 && len(next) > 0 {
		old = handAcross(old, next)
	}
	for _, r := range old {
		if r.id != 0 {
			f.rules = append(f.rules, r.id)
			r.id = 0 // should its body be used again, another rule may have the id
		}
	}
}

// handAcross is handDown for lists that differ at both of their ends: of rules that say
// the same the first has the id of the first. It returns the old ones that are left.
func handAcross(old, next []*rule) (left []*rule) {
	by := make(map[string][]*rule, len(old)) // by what they say
	for _, r := range old {
		says := r.says()
		by[says] = append(by[says], r)
	}
	taken := make(map[*rule]bool)
	for _, r := range next {
		says := r.says()
		if same := by[says]; len(same) > 0 {
			r.id, by[says] = same[0].id, same[1:]
			taken[same[0]] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(old), func(r *rule) bool { return taken[r] })
}

// says is what a rule says, in a text that is another's as well only if that one says
// the same.
func (r *rule) says() string {
	text, err := json.Marshal(r.source)
	if err != nil { // there is nothing in it that JSON cannot say
		return fmt.Sprintf("%p", r)
	}
	return fmt.Sprint(r.action, r.index < 0, string(text))
}

// render makes the classifier's rules anew, and has the endpoints judged anew if
// they came out differently.
func (c *Calculation) render(b *body) {
	faults := &c.note(b.ref.Object).used
	*faults, b.ports = nil, false
	for d := range b.have {
		next := rendered{alike: true}
		for _, r := range b.have[d] {
			next.alike = next.alike && r.bothAlike()
			next.passes = next.passes || r.action == classifier.Pass
			next.v4 = append(next.v4, expand(r, Direction(d), 4, faults)...)
		}
		if next.v6 = next.v4; !next.alike {
			next.v6 = nil
			for _, r := range b.have[d] {
				next.v6 = append(next.v6, expand(r, Direction(d), 6, faults)...)
			}
		}
		if was := &b.text[d]; was.revision != 0 && reflect.DeepEqual(was.v4, next.v4) && reflect.DeepEqual(was.v6, next.v6) {
			continue
		}
		c.revisions++
		next.revision = c.revisions
		b.text[d] = next
		for e := range b.endpoints {
			c.dirty.endpoints[e] = struct{}{}
		}
	}
}

// expand is the rule's for one family. One that would be too many denies
// everything, or is left out where it would allow or log.
func expand(r *rule, d Direction, family int, faults *[]string) []classifier.Rule {
	rules, err := r.expand(family)
	if err == nil {
		return rules
	}
	if fault := fmt.Sprintf("rule %d of %v: %v", r.index, d, err); !slices.Contains(*faults, fault) {
		*faults = append(*faults, fault)
	}
	if r.action == classifier.Allow || r.action == classifier.Log {
		return nil
	}
	return []classifier.Rule{{ID: r.id, Action: classifier.Deny}}
}
