package verdicts

import (
	"testing"

	"google.golang.org/protobuf/proto"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
)

func TestProtocol(t *testing.T) {
	for word, want := range map[string]uint32{"tcp": 6, "UDP": 17, "icmp": 1, "icmp6": 58, "ICMPv6": 58, "sctp": 132, "47": 47, "255": 255} {
		if got, err := Protocol(word); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", word, got, err, want)
		}
	}
	for _, word := range []string{"", "0", "256", "-1", "tcp ", "1e1", "+6"} {
		if got, err := Protocol(word); err == nil {
			t.Errorf("%q is %d", word, got)
		}
	}
}

// However a policy was cut into chunks, what comes of them is the policy.
func TestJoin(t *testing.T) {
	rules := func(ids ...uint32) (out []*rule) {
		for _, id := range ids {
			out = append(out, &rule{Name: &dataplanev1.RuleName{Id: id}})
		}
		return out
	}
	whole := &policy{Endpoint: "e", Tiers: []*tier{{Name: "a", Rules: rules(1, 2, 3)}, {Name: "b"}, {Name: "c", Rules: rules(4)}}}
	tests := map[string][]*policy{
		"in one": {{Endpoint: "e", Tiers: []*tier{{Name: "a", Rules: rules(1, 2, 3)}, {Name: "b"}, {Name: "c", Rules: rules(4)}}}},
		"cut within a tier": {
			{Endpoint: "e", Tiers: []*tier{{Name: "a", Rules: rules(1)}}}, {Tiers: []*tier{{Name: "a", Continued: true, Rules: rules(2)}}},
			{Tiers: []*tier{{Name: "a", Continued: true, Rules: rules(3)}, {Name: "b"}, {Name: "c", Rules: rules(4)}}},
		},
		"cut between tiers": {
			{Endpoint: "e", Tiers: []*tier{{Name: "a", Rules: rules(1, 2, 3)}}}, {Tiers: []*tier{{Name: "b"}, {Name: "c"}}},
			{Tiers: []*tier{{Name: "c", Continued: true, Rules: rules(4)}}},
		},
	}
	for name, chunks := range tests {
		var all *policy
		for _, c := range chunks {
			all = Join(all, c)
		}
		if !proto.Equal(all, whole) {
			t.Errorf("%s: %v, want %v", name, all, whole)
		}
	}
	if first := Join(&policy{}, &policy{Tiers: []*tier{{Continued: true, Rules: rules(1)}}}); len(first.GetTiers()) != 1 {
		t.Errorf("what goes on from nothing is %v", first)
	}
}
