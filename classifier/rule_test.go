package classifier

import (
	"net/netip"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")
	tests := map[string]struct {
		rule Rule
		want string // part of the error; empty: it is fine
	}{
		"IPv4 with everything": {Rule{ID: MaxRuleID, Action: Log, Protocols: []Range{{6, 6}, {0, 255}}, Source: Side{
			Nets: []netip.Prefix{v4}, NotNets: []netip.Prefix{v4}, Sets: []SetID{1}, NotSets: []SetID{AnonymousSet - 1}, Ports: []Range{{0, 65535}}}}, ""},
		"IPv6":                        {Rule{Action: Allow, Destination: Side{Nets: []netip.Prefix{v6}}}, ""},
		"host bits set":               {Rule{Action: Allow, Destination: Side{Nets: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("10.1.2.3"), 8)}}}, ""},
		"id too wide":                 {Rule{ID: MaxRuleID + 1, Action: Allow}, "id is over"},
		"no action":                   {Rule{}, "no-match is not what a rule can do"},
		"unknown action":              {Rule{Action: 5}, "action 5 is not"},
		"protocol over 255":           {Rule{Action: Deny, Protocols: []Range{{6, 256}}}, "protocols 6-256"},
		"protocols upside down":       {Rule{Action: Deny, Protocols: []Range{{7, 6}}}, "protocols 7-6"},
		"ports upside down":           {Rule{Action: Deny, Source: Side{Ports: []Range{{2, 1}}}}, "source: ports 2-1"},
		"set 0":                       {Rule{Action: Deny, Destination: Side{Sets: []SetID{0}}}, "destination: set 0x0"},
		"a set that we would number":  {Rule{Action: Deny, Destination: Side{NotSets: []SetID{AnonymousSet}}}, "set 0x80000000"},
		"no prefix":                   {Rule{Action: Deny, Source: Side{Nets: []netip.Prefix{{}}}}, "not valid"},
		"IPv4 in disguise":            {Rule{Action: Deny, Source: Side{Nets: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}}}, "want it as IPv4"},
		"both families in one rule":   {Rule{Action: Deny, Source: Side{Nets: []netip.Prefix{v6}, NotNets: []netip.Prefix{v4}}}, "10.0.0.0/8 is of IPv4, the list is of IPv6"},
		"both families on both sides": {Rule{Action: Deny, Source: Side{Nets: []netip.Prefix{v4}}, Destination: Side{NotNets: []netip.Prefix{v6}}}, "2001:db8::/32 is of IPv6, the list is of IPv4"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := Validate([]Rule{{Action: Pass}, tt.rule})
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "rule 1 of 2")) {
				t.Errorf("got %v, want it to name rule 1 of 2 and say %q", err, tt.want)
			}
		})
	}
	if err := Validate(make([]Rule, MaxRules+1)); err == nil {
		t.Error("a list over the limit passes")
	}
	if err := Validate(nil); err != nil {
		t.Error(err)
	}
}

func TestVerdict(t *testing.T) {
	v := NewVerdict(Log, MaxRuleID, MaxTiers-1)
	if v.Action() != Log || v.Rule() != MaxRuleID || v.Tier() != MaxTiers-1 {
		t.Errorf("packed and unpacked: %v", v)
	}
	if z := Verdict(0); z != NewVerdict(NoMatch, 0, 0) {
		t.Errorf("the zero verdict is %v", z)
	}
}
