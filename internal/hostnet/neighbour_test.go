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

// addressed is a pair whose ends have addresses of both families.
func addressed(t *testing.T) (left, right *hostnet.Host) {
	t.Helper()
	left, right = hostnettest.Pair(t)
	must(t,
		left.AddAddress("left", prefix("10.1.0.1/24"), 0), left.AddAddress("left", prefix("fd00:1::1/64"), hostnet.NoDAD),
		right.AddAddress("right", prefix("10.1.0.2/24"), 0), right.AddAddress("right", prefix("fd00:1::2/64"), hostnet.NoDAD))
	return left, right
}

func neighbour(t *testing.T, h *hostnet.Host, a netip.Addr) (hostnet.Neighbour, bool) {
	t.Helper()
	all, err := h.Neighbours()
	must(t, err)
	i := slices.IndexFunc(all, func(n hostnet.Neighbour) bool { return n.Addr == a })
	if i < 0 {
		return hostnet.Neighbour{}, false
	}
	return all[i], true
}

func TestNeighboursAreWhatIPShows(t *testing.T) {
	left, _ := addressed(t)
	for _, s := range []string{"10.1.0.77", "fd00:1::77"} {
		t.Run(s, func(t *testing.T) {
			a := addr(s)
			for _, mac := range []hostnet.MAC{{2, 0, 0, 0, 7, 7}, {2, 0, 0, 0, 7, 8}} {
				must(t, left.SetNeighbour("left", a, mac))
				out := hostnettest.Run(t, left.Namespace(), "ip", "neigh", "show", "to", s)
				if !strings.Contains(out, "lladdr "+mac.String()+" PERMANENT") {
					t.Errorf("ip shows %q, want %v, permanent", out, mac)
				}
				n, ok := neighbour(t, left, a)
				if !ok || n.MAC != mac || n.State != hostnet.Permanent || !n.State.Usable() || n.State.String() != "permanent" {
					t.Errorf("read %+v, want %v, permanent", n, mac)
				}
			}
			for range 2 {
				must(t, left.DeleteNeighbour("left", a))
			}
			if n, ok := neighbour(t, left, a); ok && n.State.Usable() {
				t.Errorf("still there: %+v", n)
			}
		})
	}
	must(t, left.DeleteNeighbour("nosuch", addr("10.1.0.77")))
	if err := left.SetNeighbour("left", netip.Addr{}, hostnet.MAC{2}); err == nil {
		t.Error("an entry without address was taken")
	}
}

func TestResolveMakesThePeerAnswer(t *testing.T) {
	left, right := addressed(t)
	peer, err := right.Link("right")
	must(t, err)
	for _, s := range []string{"10.1.0.2", "fd00:1::2"} {
		t.Run(s, func(t *testing.T) {
			if n, ok := neighbour(t, left, addr(s)); ok {
				t.Fatalf("known before it was asked for: %+v", n)
			}
			must(t, left.ResolveNeighbour("left", addr(s)))
			hostnettest.Eventually(t, "the peer answers", func() bool {
				n, ok := neighbour(t, left, addr(s))
				if ok && n.State == hostnet.Failed { // its questions came before the peer listened
					must(t, left.ResolveNeighbour("left", addr(s)))
				}
				return ok && n.State == hostnet.Reachable && n.MAC == peer.MAC
			})
			out := hostnettest.Run(t, left.Namespace(), "ip", "neigh", "show", "to", s)
			if !strings.Contains(out, peer.MAC.String()) || !strings.Contains(out, "REACHABLE") {
				t.Errorf("ip shows %q, want %v, reachable", out, peer.MAC)
			}
		})
	}
}

func TestResolveOfNobodyFailsAndIsTriedAgain(t *testing.T) {
	left, right := addressed(t)
	for _, s := range []string{"10.1.0.9", "fd00:1::9"} {
		t.Run(s, func(t *testing.T) {
			must(t, left.ResolveNeighbour("left", addr(s)))
			hostnettest.Eventually(t, "nobody answers", func() bool {
				n, ok := neighbour(t, left, addr(s))
				return ok && n.State == hostnet.Failed && !n.State.Usable() && n.MAC.IsZero()
			})
			p := netip.PrefixFrom(addr(s), addr(s).BitLen())
			must(t, right.AddAddress("right", p, hostnet.NoDAD)) // somebody does, now
			hostnettest.Eventually(t, "the newcomer answers", func() bool {
				must(t, left.ResolveNeighbour("left", addr(s)))
				n, ok := neighbour(t, left, addr(s))
				return ok && n.State == hostnet.Reachable
			})
		})
	}
	if err := left.ResolveNeighbour("nosuch", addr("10.1.0.9")); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("resolving on a link that is not there: %v, want its name", err)
	}
}
