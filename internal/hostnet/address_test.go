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

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestAddressesAreWhatIPShows(t *testing.T) {
	tests := map[string]struct {
		prefix string
		flags  hostnet.AddressFlags
		want   string // in ip addr show
		route  bool   // comes with a route to its prefix
	}{
		"IPv4":                    {"10.1.0.2/24", 0, "inet 10.1.0.2/24 scope global left", true},
		"IPv4 without its route":  {"10.1.0.2/24", hostnet.NoPrefixRoute, "inet 10.1.0.2/24 scope global noprefixroute left", false},
		"IPv4 host":               {"10.1.0.9/32", 0, "inet 10.1.0.9/32 scope global left", false},
		"IPv4 link-local gateway": {"169.254.1.1/32", 0, "inet 169.254.1.1/32 scope link left", false},
		"IPv6":                    {"fd00:1::2/64", hostnet.NoDAD, "inet6 fd00:1::2/64 scope global nodad", true},
		"IPv6 without its route":  {"fd00:1::2/64", hostnet.NoDAD | hostnet.NoPrefixRoute, "inet6 fd00:1::2/64 scope global nodad noprefixroute", false},
		"IPv6 host":               {"fd00:1::9/128", hostnet.NoDAD, "inet6 fd00:1::9/128 scope global nodad", true},
		"IPv6 link-local":         {"fe80::1/64", hostnet.NoDAD, "inet6 fe80::1/64 scope link nodad", true},
	}
	left, _ := hostnettest.Pair(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := prefix(tt.prefix)
			for range 2 { // the second time it is there already
				must(t, left.AddAddress("left", p, tt.flags))
			}
			out := strings.Join(strings.Fields(hostnettest.Run(t, left.Namespace(), "ip", "addr", "show", "dev", "left")), " ")
			if !strings.Contains(out, tt.want) {
				t.Errorf("ip shows no %q in\n%s", tt.want, out)
			}
			got := find(t, left, p)
			if len(got) != 1 || got[0].Flags&(hostnet.NoDAD|hostnet.NoPrefixRoute) != tt.flags {
				t.Errorf("read %+v, want one with flags 0x%x", got, tt.flags)
			}
			routes, err := left.Routes(hostnet.RouteFilter{Dst: p.Masked(), Table: hostnet.TableMain, Link: got[0].Link, Protocol: 2})
			must(t, err)
			if tt.route != (len(slices.DeleteFunc(routes, func(r hostnet.Route) bool { return r.Metric == 0 && p.Addr().Is6() })) > 0) {
				t.Errorf("routes to the prefix are %+v, want some: %v", routes, tt.route)
			}
			for range 2 {
				must(t, left.DeleteAddress("left", p))
			}
			if got := find(t, left, p); len(got) != 0 {
				t.Errorf("still there: %+v", got)
			}
		})
	}
	for _, bad := range []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 100)} {
		if err := left.AddAddress("left", bad, 0); err == nil {
			t.Errorf("AddAddress took %v", bad)
		}
	}
	must(t, left.DeleteAddress("nosuch", prefix("10.0.0.1/24")))
}

func find(t *testing.T, h *hostnet.Host, p netip.Prefix) []hostnet.Address {
	t.Helper()
	all, err := h.Addresses("left")
	must(t, err)
	return slices.DeleteFunc(all, func(a hostnet.Address) bool { return a.Prefix != p })
}
