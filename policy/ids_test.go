package policy

import (
	"fmt"
	"slices"
	"testing"

	v3 "margay.dev/margay/api/v3"
)

// Rules that say the same keep their ids, so that what is counted for them follows
// them, whatever else of their policy changes, and no id is two rules'.
func TestIDsFollowRules(t *testing.T) {
	tests := map[string]struct{ before, after string }{ // each letter is what a rule says
		"one more in front":            {"abc", "xabc"},
		"one more at the end":          {"abc", "abcx"},
		"two more, apart":              {"abcd", "axbcyd"},
		"both ends are others":         {"abcd", "xbcy"},
		"turned round":                 {"abcd", "dcba"},
		"moved and changed":            {"abcde", "ebxda"},
		"the same said twice":          {"abab", "babaa"},
		"the same said less often":     {"aabaa", "xabx"},
		"nothing stays":                {"abc", "xyz"},
		"all goes":                     {"abc", ""},
		"all comes":                    {"", "abc"},
		"the same once before and now": {"a", "a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := New("")
			upsert(t, c, workload("a", map[string]string{"role": "a"}, "10.0.0.1", "fd00::1"))
			put := func(rules string) {
				p := globalPolicy("p", "role == 'a'", 0)
				p.Spec.Types = []v3.PolicyType{v3.PolicyTypeIngress}
				for _, r := range rules {
					p.Spec.Ingress = append(p.Spec.Ingress, v3.Rule{Action: v3.Allow, Source: v3.EntityRule{Nets: []string{fmt.Sprintf("10.%d.0.0/16", r), fmt.Sprintf("fd%02x::/16", r)}}})
				}
				upsert(t, c, p)
				c.Flush()
			}
			has := func() (ids []uint32) {
				for _, r := range c.policies[Key{Kind: v3.KindGlobalNetworkPolicy, Name: "p"}].have[Ingress] {
					ids = append(ids, r.id)
				}
				return ids
			}
			put(tt.before)
			before := has()
			put(tt.after)
			after := has()
			if sorted := slices.Compact(slices.Sorted(slices.Values(after))); len(sorted) != len(tt.after) || slices.Contains(sorted, 0) {
				t.Fatalf("ids are %v, want %d different ones", after, len(tt.after))
			}
			for i, id := range after {
				if ref, ok := c.Rule(id); !ok || ref.Index != i {
					t.Errorf("id %d stands for rule %d, want %d", id, ref.Index, i)
				}
				if at := slices.Index(before, id); at >= 0 && tt.before[at] != tt.after[i] {
					t.Errorf("rule %c has the id of %c", tt.after[i], tt.before[at])
				}
			}
			for _, says := range "abcdexyz" {
				if had, have, kept := count(tt.before, says), count(tt.after, says), keptBy(before, after, tt.after, says); kept != min(had, have) {
					t.Errorf("%c was there %d times and is %d times: %d kept their ids", says, had, have, kept)
				}
			}
		})
	}
}

func count(rules string, says rune) (n int) {
	for _, r := range rules {
		if r == says {
			n++
		}
	}
	return n
}

// keptBy is how many rules that say something have an id that was there before.
func keptBy(before, after []uint32, rules string, says rune) (n int) {
	for i, r := range rules {
		if r == says && slices.Contains(before, after[i]) {
			n++
		}
	}
	return n
}
