package inspect

import "margay.dev/margay/classifier"

// listedRule is a rule of a list, and the families, IPv4 and IPv6, that it is there for.
type listedRule struct {
	id     uint32
	action classifier.Action
	in     [2]bool
}

// ruleKey tells the rules of a list apart: by id, or those without one by how many
// of them came before.
type ruleKey struct{ id, nameless uint32 }

// listed puts the lists of both families together, in an order that is that of
// each: what both have came from one list. A rule that was made into several
// stands where the first of them does.
func listed(programs [2]*classifier.Program) (out []listedRule) {
	var lists [2][]ruleKey
	actions := map[ruleKey]classifier.Action{}
	var has [2]map[ruleKey]bool
	for family, p := range programs {
		has[family] = map[ruleKey]bool{}
		if p == nil {
			continue
		}
		nameless := uint32(0)
		for v := range p.Order() {
			key := ruleKey{id: v.Rule()}
			if key.id == 0 {
				nameless++
				key.nameless = nameless
			}
			if !has[family][key] {
				has[family][key], actions[key] = true, v.Action()
				lists[family] = append(lists[family], key)
			}
		}
	}
	told := map[ruleKey]bool{}
	tell := func(key ruleKey) {
		if !told[key] {
			told[key] = true
			out = append(out, listedRule{key.id, actions[key], [2]bool{has[0][key], has[1][key]}})
		}
	}
	four, six := lists[0], lists[1]
	for len(four) > 0 {
		for len(six) > 0 && (told[six[0]] || !has[0][six[0]]) { // of IPv6 alone: before what both have next
			tell(six[0])
			six = six[1:]
		}
		tell(four[0])
		four = four[1:]
	}
	for _, key := range six {
		tell(key)
	}
	return out
}
