//go:build linux

package hostnet_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// routeHost has one link, left, with addresses of both families.
func routeHost(t *testing.T) (h *hostnet.Host, index int) {
	t.Helper()
	h, _ = hostnettest.Pair(t)
	must(t, h.AddAddress("left", prefix("10.1.0.2/24"), 0), h.AddAddress("left", prefix("fd00:1::2/64"), hostnet.NoDAD))
	l, err := h.Link("left")
	must(t, err)
	return h, l.Index
}

func TestRoutesAreWhatIPShows(t *testing.T) {
	h, left := routeHost(t)
	gw4, gw6 := addr("10.1.0.1"), addr("fd00:1::1")
	tests := map[string]struct {
		route hostnet.Route
		want  string // in ip route show table all
	}{
		"IPv4 to a link":              {hostnet.Route{Dst: prefix("10.9.0.0/16"), Link: left}, "10.9.0.0/16 dev left proto 77 scope link"},
		"IPv6 to a link":              {hostnet.Route{Dst: prefix("fd09::/48"), Link: left}, "fd09::/48 dev left proto 77 metric 1024"},
		"IPv4 host port with source":  {hostnet.Route{Dst: prefix("10.9.0.0/16"), Link: left, Source: addr("10.1.0.2"), Metric: 5, MTU: 1400}, "10.9.0.0/16 dev left proto 77 scope link src 10.1.0.2 metric 5 mtu 1400"},
		"IPv6 host port with source":  {hostnet.Route{Dst: prefix("fd09::/48"), Link: left, Source: addr("fd00:1::2"), Metric: 5, MTU: 1400}, "fd09::/48 dev left proto 77 src fd00:1::2 metric 5 mtu 1400"},
		"IPv4 by a gateway":           {hostnet.Route{Dst: prefix("10.9.0.0/16"), Gateway: gw4, Link: left}, "10.9.0.0/16 via 10.1.0.1 dev left proto 77"},
		"IPv6 by a gateway":           {hostnet.Route{Dst: prefix("fd09::/48"), Gateway: gw6, Link: left}, "fd09::/48 via fd00:1::1 dev left proto 77 metric 1024"},
		"IPv4 by an IPv6 gateway":     {hostnet.Route{Dst: prefix("10.9.0.0/16"), Gateway: addr("fe80::9"), Link: left}, "10.9.0.0/16 via inet6 fe80::9 dev left proto 77"},
		"IPv4 default, gateway apart": {hostnet.Route{Dst: prefix("0.0.0.0/0"), Gateway: addr("169.254.1.1"), Link: left, OnLink: true}, "default via 169.254.1.1 dev left proto 77 onlink"},
		"IPv6 default, link-local":    {hostnet.Route{Dst: prefix("::/0"), Gateway: addr("fe80::1"), Link: left}, "default via fe80::1 dev left proto 77 metric 1024"},
		"IPv4 blackhole":              {hostnet.Route{Dst: prefix("10.9.0.0/16"), Kind: hostnet.Blackhole, Metric: 900}, "blackhole 10.9.0.0/16 proto 77 metric 900"},
		"IPv6 blackhole":              {hostnet.Route{Dst: prefix("fd09::/48"), Kind: hostnet.Blackhole, Metric: 9000}, "blackhole fd09::/48 dev lo proto 77 metric 9000"},
		"IPv4 unreachable":            {hostnet.Route{Dst: prefix("10.9.0.0/16"), Kind: hostnet.Unreachable}, "unreachable 10.9.0.0/16 proto 77"},
		"IPv6 prohibit":               {hostnet.Route{Dst: prefix("fd09::/48"), Kind: hostnet.Prohibit}, "prohibit fd09::/48 dev lo proto 77 metric 1024"},
		"IPv4 in a large table":       {hostnet.Route{Dst: prefix("10.9.0.0/16"), Link: left, Table: 70000}, "10.9.0.0/16 dev left table 70000 proto 77 scope link"},
		"IPv6 in a small table":       {hostnet.Route{Dst: prefix("fd09::/48"), Link: left, Table: 77, Protocol: 4}, "fd09::/48 dev left table 77 proto static metric 1024"},
		"IPv4 several hops": {hostnet.Route{Dst: prefix("10.9.0.0/16"), Hops: []hostnet.Hop{{Link: left, Gateway: gw4, Weight: 3}, {Link: left, Gateway: addr("10.1.0.3")}}},
			"10.9.0.0/16 proto 77 nexthop via 10.1.0.1 dev left weight 3 nexthop via 10.1.0.3 dev left weight 1"},
		"IPv6 several hops": {hostnet.Route{Dst: prefix("fd09::/48"), Hops: []hostnet.Hop{{Link: left, Gateway: gw6, Weight: 3}, {Link: left, Gateway: addr("fd00:1::3")}}},
			"fd09::/48 proto 77 metric 1024 pref medium nexthop via fd00:1::1 dev left weight 3 nexthop via fd00:1::3 dev left weight 1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				must(t, h.ReplaceRoute(tt.route))
			}
			if out := ipRoutes(t, h); !strings.Contains(out, tt.want) {
				t.Errorf("ip shows no %q in\n%s", tt.want, out)
			}
			f := hostnet.RouteFilter{Dst: tt.route.Dst, Protocol: tt.route.Canonical().Protocol}
			got, err := h.Routes(f)
			must(t, err)
			if len(got) != 1 || !got[0].Equal(tt.route.Canonical()) {
				t.Errorf("read %+v\nwant %+v", got, tt.route.Canonical())
			}
			for range 2 {
				must(t, h.DeleteRoute(tt.route))
			}
			if got, err := h.Routes(f); err != nil || len(got) != 0 {
				t.Errorf("still there: %+v (%v)", got, err)
			}
		})
	}
}

// ipRoutes is all of both families, in one line.
func ipRoutes(t *testing.T, h *hostnet.Host) string {
	t.Helper()
	out := ""
	for _, fam := range []string{"-4", "-6"} {
		out += hostnettest.Run(t, h.Namespace(), "ip", fam, "route", "show", "table", "all") + " "
	}
	return strings.Join(strings.Fields(out), " ")
}

func TestReplaceLeavesOneRoute(t *testing.T) {
	h, left := routeHost(t)
	kinds := map[string]func(dst netip.Prefix, gw netip.Addr) hostnet.Route{
		"link": func(dst netip.Prefix, _ netip.Addr) hostnet.Route { return hostnet.Route{Dst: dst, Link: left} },
		"blackhole": func(dst netip.Prefix, _ netip.Addr) hostnet.Route {
			return hostnet.Route{Dst: dst, Kind: hostnet.Blackhole}
		},
		"gateway": func(dst netip.Prefix, gw netip.Addr) hostnet.Route {
			return hostnet.Route{Dst: dst, Link: left, Gateway: gw}
		},
	}
	for from, first := range kinds {
		for to, second := range kinds {
			for dst, gw := range map[string]string{"10.9.0.0/16": "10.1.0.1", "fd09::/48": "fd00:1::1"} {
				t.Run(from+" by "+to+" "+dst, func(t *testing.T) {
					d, g := prefix(dst), addr(gw)
					want := second(d, g).Canonical()
					must(t, h.ReplaceRoute(first(d, g)), h.ReplaceRoute(want))
					got, err := h.Routes(hostnet.RouteFilter{Dst: d})
					must(t, err)
					if len(got) != 1 || !got[0].Equal(want) {
						t.Errorf("after the replacement there is %+v, want only %+v", got, want)
					}
					must(t, h.DeleteRoute(want))
				})
			}
		}
	}
}

func TestRouteFilter(t *testing.T) {
	h, left := routeHost(t)
	ours := hostnet.Route{Dst: prefix("10.9.0.0/16"), Link: left}.Canonical()
	theirs := hostnet.Route{Dst: prefix("fd09::/48"), Link: left, Protocol: 4, Table: 99}.Canonical()
	hole := hostnet.Route{Dst: prefix("10.8.0.0/16"), Kind: hostnet.Blackhole}.Canonical()
	must(t, h.ReplaceRoute(ours), h.ReplaceRoute(theirs), h.ReplaceRoute(hole))
	tests := map[string]struct {
		filter hostnet.RouteFilter
		want   []hostnet.Route
	}{
		"of ours":      {hostnet.RouteFilter{Protocol: hostnet.Protocol}, []hostnet.Route{hole, ours}},
		"of a table":   {hostnet.RouteFilter{Table: 99}, []hostnet.Route{theirs}},
		"of a kind":    {hostnet.RouteFilter{Kind: hostnet.Blackhole}, []hostnet.Route{hole}},
		"to a prefix":  {hostnet.RouteFilter{Dst: theirs.Dst}, []hostnet.Route{theirs}},
		"of a link":    {hostnet.RouteFilter{Link: left, Protocol: 4}, []hostnet.Route{theirs}},
		"of no such":   {hostnet.RouteFilter{Link: left + 1000}, nil},
		"of two facts": {hostnet.RouteFilter{Protocol: hostnet.Protocol, Kind: hostnet.Unicast}, []hostnet.Route{ours}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := h.Routes(tt.filter)
			must(t, err)
			slices.SortFunc(got, func(a, b hostnet.Route) int { return a.Dst.Addr().Compare(b.Dst.Addr()) })
			if !slices.EqualFunc(got, tt.want, hostnet.Route.Equal) {
				t.Errorf("chose %+v\nwant  %+v", got, tt.want)
			}
		})
	}
}

func TestRoutesThatCannotBeAreRefused(t *testing.T) {
	h, left := routeHost(t)
	tests := map[string]hostnet.Route{
		"no destination":        {Link: left},
		"host bits":             {Dst: prefix("10.9.0.1/16"), Link: left},
		"mapped address":        {Dst: netip.PrefixFrom(addr("::ffff:10.0.0.0"), 104), Link: left},
		"nowhere to go":         {Dst: prefix("10.9.0.0/16")},
		"other family's source": {Dst: prefix("fd09::/48"), Link: left, Source: addr("10.1.0.2")},
		"negative metric":       {Dst: prefix("fd09::/48"), Link: left, Metric: -1},
		"overweight hop":        {Dst: prefix("fd09::/48"), Hops: []hostnet.Hop{{Link: left, Weight: 257}}},
		"gateway out of reach":  {Dst: prefix("10.9.0.0/16"), Gateway: addr("203.0.113.1")},
		"link that is gone":     {Dst: prefix("fd09::/48"), Link: left + 1000},
	}
	for name, r := range tests {
		t.Run(name, func(t *testing.T) {
			if err := h.ReplaceRoute(r); err == nil {
				t.Errorf("%+v was taken", r)
			}
		})
	}
}

func TestRulesAreWhatIPShows(t *testing.T) {
	h := hostnettest.Host(t)
	tests := map[string]struct {
		rule hostnet.Rule
		want string
	}{
		"IPv4 by mark":         {hostnet.Rule{Priority: 100, Table: 77, Mark: 0x10, Mask: 0xf0}, "100: from all fwmark 0x10/0xf0 lookup 77 proto 77"},
		"IPv6 by mark":         {hostnet.Rule{IPv6: true, Priority: 100, Table: 77, Mark: 0x10}, "100: from all fwmark 0x10 lookup 77 proto 77"},
		"IPv4 by address":      {hostnet.Rule{Priority: 101, Table: 70000, From: prefix("10.1.0.0/16"), To: prefix("10.2.0.0/24")}, "101: from 10.1.0.0/16 to 10.2.0.0/24 lookup 70000 proto 77"},
		"IPv6 by address, in":  {hostnet.Rule{IPv6: true, Priority: 101, Table: 77, From: prefix("fd01::/16"), In: "lo"}, "101: from fd01::/16 iif lo lookup 77 proto 77"},
		"IPv4 of another hand": {hostnet.Rule{Priority: 102, Table: 5, Protocol: 4}, "102: from all lookup 5 proto static"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				must(t, h.AddRule(tt.rule))
			}
			fam := map[bool]string{false: "-4", true: "-6"}[tt.rule.IPv6]
			out := strings.Join(strings.Fields(hostnettest.Run(t, h.Namespace(), "ip", fam, "rule", "show")), " ")
			if strings.Count(out, tt.want) != 1 {
				t.Errorf("ip does not show %q once in\n%s", tt.want, out)
			}
			want := tt.rule
			want.Protocol = max(want.Protocol, 4)
			if tt.rule.Protocol == 0 {
				want.Protocol = hostnet.Protocol
			}
			if want.Mark != 0 && want.Mask == 0 {
				want.Mask = ^uint32(0)
			}
			all, err := h.Rules()
			must(t, err)
			if !slices.Contains(all, want) {
				t.Errorf("read %+v\nwant %+v among them", all, want)
			}
			for range 2 {
				must(t, h.DeleteRule(tt.rule))
			}
			if all, err := h.Rules(); err != nil || slices.Contains(all, want) {
				t.Errorf("still there: %+v (%v)", all, err)
			}
		})
	}
	for _, bad := range []hostnet.Rule{{Priority: 1}, {Priority: 1, Table: 5, From: prefix("fd00::/8")}, {Priority: -1, Table: 5}} {
		if err := h.AddRule(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
