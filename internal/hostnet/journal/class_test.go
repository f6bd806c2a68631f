//go:build linux

package journal

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func exists(t *testing.T, h *hostnet.Host, link string) bool {
	t.Helper()
	_, err := h.Link(link)
	if err != nil && !hostnet.Missing(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestWhatOutlivesUsOnPurposeStays(t *testing.T) {
	h := node(t)
	ns, path := h.Namespace(), place(t)
	before := settled(t, ns)
	j := open(t, path)
	holes := []hostnet.Route{
		{Dst: prefix("10.9.0.0/16"), Kind: hostnet.Blackhole, Metric: 4000},
		{Dst: prefix("fd09::/48"), Kind: hostnet.Blackhole, Metric: 4000},
	}
	made := 0
	hostPort := func(j *Journal) {
		t.Helper()
		must(t, j.AddLink(ns, UntilUninstall, "margay0", "tun", func() error { made++; return makeTUN(ns) }),
			j.AddAddress(ns, UntilUninstall, "margay0", prefix("10.7.0.1/32"), 0),
			j.AddRoutes(ns, UntilUninstall, holes...), j.SetSysctl(ns, "net.ipv4.ip_forward", "1"))
	}
	hostPort(j)
	kept := func() bool {
		routes, err := h.Routes(hostnet.RouteFilter{Kind: hostnet.Blackhole, Protocol: hostnet.Protocol})
		must(t, err)
		return exists(t, h, "margay0") && len(routes) == 2
	}
	for range 3 { // three lives: each puts back its settings, and finds the host port as it was
		if r := restore(t, j); len(r.Restored) != 1 || r.Restored[0].Kind != KindSysctl || !kept() {
			t.Fatalf("%v, want only the sysctl put back, and link and routes there: %v", r, kept())
		}
		must(t, j.Close())
		j = open(t, path)
		hostPort(j)
	}
	if made != 1 {
		t.Errorf("link was made %d times, want once", made)
	}
	r, err := j.RestoreAll(context.Background())
	must(t, err)
	if len(r.Kept) != 0 || len(j.Entries()) != 0 {
		t.Errorf("uninstalling: %v, left %v", r, j.Entries())
	}
	if after := settled(t, ns); after != before {
		t.Errorf("not as before:\n%s", diff(before, after))
	}
}

func TestOthersLinksAddressesAndRoutesStayTheirs(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	must(t, makeTUN(ns))
	hole := hostnet.Route{Dst: prefix("10.9.0.0/16"), Kind: hostnet.Blackhole}
	must(t, h.ReplaceRoute(hole))
	before := settled(t, ns)
	j := open(t, place(t))
	must(t, j.AddLink(ns, UntilExit, "margay0", "tun", func() error { t.Error("made over an existing link"); return nil }),
		j.AddAddress(ns, UntilExit, "left", prefix("10.1.0.2/24"), 0), j.AddAddress(ns, UntilExit, "left", prefix("fd00:1::2/64"), 0),
		j.AddRoutes(ns, UntilExit, hole))
	if len(j.Entries()) != 0 {
		t.Errorf("took for ours: %v", j.Entries())
	}
	must(t, j.RemoveLink(ns, "margay0"), j.RemoveAddress(ns, "left", prefix("10.1.0.2/24")), j.RemoveRoutes(ns, hole))
	restore(t, j)
	if after := settled(t, ns); after != before {
		t.Errorf("not as before:\n%s", diff(before, after))
	}
}

func TestRemoveTakesAwayOnlyWhatItNames(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	before := settled(t, ns)
	j := open(t, place(t))
	over := hostnet.Route{Dst: prefix("fd08::/48"), Kind: hostnet.Blackhole} // in place of another's
	hole := hostnet.Route{Dst: prefix("10.9.0.0/16"), Kind: hostnet.Blackhole}
	must(t, j.AddLink(ns, UntilExit, "margay0", "tun", func() error { return makeTUN(ns) }),
		j.AddAddress(ns, UntilExit, "left", prefix("10.7.0.1/32"), 0), j.AddRoutes(ns, UntilUninstall, over, hole))
	must(t, j.RemoveRoutes(ns, hole))
	if len(j.Entries()) != 3 {
		t.Errorf("after one of four was removed: %v", j.Entries())
	}
	must(t, j.RemoveRoutes(ns, over), j.RemoveAddress(ns, "left", prefix("10.7.0.1/32")), j.RemoveLink(ns, "margay0"))
	if len(j.Entries()) != 0 {
		t.Errorf("after all were removed: %v", j.Entries())
	}
	if after := settled(t, ns); after != before {
		t.Errorf("not as before:\n%s", diff(before, after))
	}
}

func TestVanishedThingsAreTolerated(t *testing.T) {
	h := node(t)
	ns, path := h.Namespace(), place(t)
	j := open(t, path)
	must(t, j.SetOffload(ns, "left", "tx", false), j.SetPromiscuous(ns, "left", true), j.SetSysfs(ns, "left", "napi_defer_hard_irqs", "3"),
		j.SetSysctl(ns, "net.ipv4.conf.left.rp_filter", "2"), j.AddAddress(ns, UntilExit, "left", prefix("fd07::1/128"), hostnet.NoDAD),
		j.AddRoutes(ns, UntilExit, hostnet.Route{Dst: prefix("10.9.0.0/16"), Link: leftIndex(t, h)}))
	must(t, j.SetSysctl(ns, "net.ipv4.ip_forward", "1"))
	n := len(j.Entries())
	must(t, h.DeleteLink("left"), h.AddVeth(hostnet.VethConfig{Name: "left", Peer: "other"})) // another link by that name
	must(t, h.SetPromiscuous("left", true), ns.SetSysctl("net.ipv4.conf.left.rp_filter", "2"))
	r := restore(t, j)
	if len(r.Restored) != 1 || len(r.Vanished) != n-2 || len(r.Unchanged) != 1 || len(j.Entries()) != 0 {
		t.Errorf("%v, want the namespace's sysctl put back, the route as before, all else gone\n%v", r, r.Unchanged)
	}
	l, err := h.Link("left")
	must(t, err)
	if v, _ := ns.Sysctl("net.ipv4.conf.left.rp_filter"); !l.Promiscuous || v != "2" {
		t.Errorf("the newcomer was touched: %+v, rp_filter %s", l, v)
	}
}

func TestRenamedLinkIsFound(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	j := open(t, place(t))
	must(t, h.SetDown("left"))
	before := settled(t, ns)
	must(t, j.SetOffload(ns, "left", "tx", false), j.SetPromiscuous(ns, "left", true), j.SetSysfs(ns, "left", "napi_defer_hard_irqs", "3"),
		j.SetSysctl(ns, "net.ipv4.conf.left.rp_filter", "2"), h.RenameLink("left", "elsewhere"))
	n := len(j.Entries())
	must(t, j.SetSysfs(ns, "elsewhere", "napi_defer_hard_irqs", "5"))
	if len(j.Entries()) != n {
		t.Errorf("one attribute of one link has several entries: %v", j.Entries())
	}
	must(t, j.SetSysctl(ns, "net.ipv4.conf.elsewhere.rp_filter", "1"))
	if r := restore(t, j); len(r.Vanished) != 0 {
		t.Errorf("%v, want all found", r)
	}
	must(t, h.RenameLink("elsewhere", "left"))
	if after := settled(t, ns); after != before {
		t.Errorf("not as before:\n%s", diff(before, after))
	}
}

func TestVanishedNamespacesAndBootsAreTolerated(t *testing.T) {
	gone, stays := node(t), node(t)
	path := place(t)
	j := open(t, path)
	for _, h := range []*hostnet.Host{gone, stays} {
		must(t, j.SetSysctl(h.Namespace(), "net.ipv4.ip_forward", "1"))
	}
	name := hostnettest.Name(gone.Namespace())
	must(t, hostnet.DeleteNamespace(name))
	fresh, err := hostnet.CreateNamespace(name) // another by the same name
	must(t, err)
	defer fresh.Close()
	must(t, fresh.SetSysctl("net.ipv4.ip_forward", "1"))
	if r := restore(t, j); len(r.Restored) != 1 || len(r.Vanished) != 1 {
		t.Errorf("%v, want one put back, one gone", r)
	}
	if v, _ := fresh.Sysctl("net.ipv4.ip_forward"); v != "1" {
		t.Error("a namespace that only has the old one's name was changed")
	}
	must(t, j.SetSysctl(stays.Namespace(), "net.ipv4.ip_forward", "1"))
	must(t, j.Close())
	j = open(t, path)
	j.boot = "another boot"
	if r := restore(t, j); len(r.Vanished) != 1 {
		t.Errorf("%v, want the entry of another boot gone", r)
	}
}

func TestNamespaceIsFoundByAnyName(t *testing.T) {
	h := node(t)
	path := place(t)
	// A process inside the namespace knows it as its own, and one outside puts it back.
	out := child(t, h.Namespace(), path, "own")
	if !strings.Contains(out, "set") {
		t.Fatalf("child said %q", out)
	}
	if v, _ := h.Namespace().Sysctl("net.ipv4.ip_forward"); v != "1" {
		t.Fatalf("ip_forward is %q, want the child's 1", v)
	}
	if r := restore(t, open(t, path)); len(r.Restored) != 1 {
		t.Errorf("%v, want one put back", r)
	}
	if v, _ := h.Namespace().Sysctl("net.ipv4.ip_forward"); v != "0" {
		t.Errorf("ip_forward is %q, want 0", v)
	}
}

func TestForgetDropsEntriesAlone(t *testing.T) {
	h := node(t)
	ns, path := h.Namespace(), place(t)
	j := open(t, path)
	must(t, j.SetPromiscuous(ns, "left", true), j.SetSysctl(ns, "net.ipv4.ip_forward", "1"))
	must(t, j.Forget(func(e Entry) bool { return e.Link == "left" }), j.Close())
	j = open(t, path)
	if r := restore(t, j); len(r.Restored) != 1 || r.Restored[0].Kind != KindSysctl {
		t.Errorf("%v, want the sysctl alone", r)
	}
	if l, _ := h.Link("left"); !l.Promiscuous {
		t.Error("a forgotten setting was put back")
	}
}

func TestRestoreStopsWithItsContextAndGoesOnLater(t *testing.T) {
	h := node(t)
	j := open(t, place(t))
	must(t, j.SetSysctl(h.Namespace(), "net.ipv4.ip_forward", "1"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r, err := j.Restore(ctx); err == nil || len(r.Restored) != 0 || len(j.Entries()) != 1 {
		t.Errorf("%v (%v), want nothing done and nothing lost", r, err)
	}
	if r := restore(t, j); len(r.Restored) != 1 {
		t.Errorf("%v, want one put back", r)
	}
	must(t, j.Close())
	if _, err := j.Restore(context.Background()); err == nil {
		t.Error("a closed journal restored")
	}
}
