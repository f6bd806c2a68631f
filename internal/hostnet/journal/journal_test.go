//go:build linux

package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	must(t, err)
	t.Cleanup(func() { j.Close() })
	return j
}

func place(t testing.TB) string { return filepath.Join(t.TempDir(), "state", "settings.journal") }

func restore(t testing.TB, j *Journal) Report {
	t.Helper()
	r, err := j.Restore(context.Background())
	must(t, err)
	return r
}

// node is a namespace with a veth, left, that carries addresses and routes.
func node(t testing.TB) *hostnet.Host {
	t.Helper()
	h, _ := hostnettest.Pair(t)
	must(t, h.AddAddress("left", prefix("10.1.0.2/24"), 0), h.AddAddress("left", prefix("fd00:1::2/64"), hostnet.NoDAD),
		h.ReplaceRoute(hostnet.Route{Dst: prefix("10.8.0.0/16"), Kind: hostnet.Unreachable, Protocol: 4}),
		h.ReplaceRoute(hostnet.Route{Dst: prefix("fd08::/48"), Kind: hostnet.Unreachable, Protocol: 4}))
	return h
}

// snapshot is everything a setting of ours could change, as other programs tell it.
func snapshot(t testing.TB, ns *hostnet.Namespace) string {
	t.Helper()
	return hostnettest.Run(t, ns, "sh", "-ec", `
		ip -d -o link; ip -o addr; ip -4 route show table all; ip -6 route show table all; ethtool -k left
		sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.left.rp_filter net.ipv6.conf.left.accept_ra \
			net.ipv4.ip_local_reserved_ports net.ipv4.ip_local_port_range
		ip netns exec "$0" cat /sys/class/net/left/napi_defer_hard_irqs /sys/class/net/left/gro_flush_timeout`,
		hostnettest.Name(ns))
}

// settled waits for carriers and addresses to stand still, and takes a snapshot.
func settled(t testing.TB, ns *hostnet.Namespace) string {
	t.Helper()
	last := ""
	hostnettest.Eventually(t, "namespace stands still", func() bool {
		now := snapshot(t, ns)
		same := now == last && !strings.Contains(now, "tentative")
		last = now
		return same
	})
	return last
}

// A setting is one call of the journal's in both its halves.
type setting struct {
	set   func(j *Journal, ns *hostnet.Namespace) error
	half  changes // what set writes down, where the other half can be left out
	alien []string
}

// settings are all kinds of them, for a node. alien is how somebody else changes it afterwards.
func settings(index int) map[string]setting {
	hole4 := hostnet.Route{Dst: prefix("10.9.0.0/16"), Kind: hostnet.Blackhole, Metric: 50}
	hole6 := hostnet.Route{Dst: prefix("fd09::/48"), Kind: hostnet.Blackhole, Metric: 50}
	over4 := hostnet.Route{Dst: prefix("10.8.0.0/16"), Link: index}
	over6 := hostnet.Route{Dst: prefix("fd08::/48"), Link: index}
	of := func(c changes, alien ...string) setting {
		return setting{set: func(j *Journal, ns *hostnet.Namespace) error { return j.apply(ns, c) }, half: c, alien: alien}
	}
	return map[string]setting{
		"sysctl IPv4":         of(sysctlChange("net.ipv4.ip_forward", "1"), "sysctl", "-w", "net.ipv4.ip_forward=0"),
		"sysctl IPv6":         of(sysctlChange("net.ipv6.conf.all.forwarding", "1"), "sysctl", "-w", "net.ipv6.conf.all.forwarding=0"),
		"sysctl of a link":    of(sysctlChange("net.ipv4.conf.left.rp_filter", "2"), "sysctl", "-w", "net.ipv4.conf.left.rp_filter=1"),
		"sysctl of IPv6 link": of(sysctlChange("net.ipv6.conf.left.accept_ra", "2"), "sysctl", "-w", "net.ipv6.conf.left.accept_ra=0"),
		"reserved ports":      of(sysctlChange("net.ipv4.ip_local_reserved_ports", "40000-40009, 39999 50000"), "sysctl", "-w", "net.ipv4.ip_local_reserved_ports=7"),
		"port range":          of(sysctlChange("net.ipv4.ip_local_port_range", "20000 \t 30000"), "sysctl", "-w", "net.ipv4.ip_local_port_range=1025 2000"),
		"rephrased number":    of(sysctlChange("net.ipv4.conf.lo.rp_filter", "0x2"), "sysctl", "-w", "net.ipv4.conf.lo.rp_filter=1"),
		"transmit checksums":  of(offloadChanges("left", "tx", false)),
		"one feature":         of(offloadChanges("left", "gro", true), "ethtool", "-K", "left", "gro", "off"),
		"promiscuous":         of(promiscuousChange("left", true), "ip", "link", "set", "left", "promisc", "off"),
		"sysfs":               of(sysfsChange("left", "napi_defer_hard_irqs", "3")),
		"sysfs timer":         of(sysfsChange("left", "gro_flush_timeout", "20000")),
		"blackhole routes":    of(routeChanges(UntilExit, []hostnet.Route{hole4, hole6})),
		"routes over others'": of(routeChanges(UntilExit, []hostnet.Route{over4, over6})),
		"IPv4 address": {set: func(j *Journal, ns *hostnet.Namespace) error {
			return j.AddAddress(ns, UntilExit, "left", prefix("10.7.0.1/32"), 0)
		}, alien: []string{"ip", "addr", "del", "10.7.0.1/32", "dev", "left"}},
		"IPv6 address": {set: func(j *Journal, ns *hostnet.Namespace) error {
			return j.AddAddress(ns, UntilExit, "left", prefix("fd07::1/128"), hostnet.NoDAD)
		}, alien: []string{"ip", "addr", "del", "fd07::1/128", "dev", "left"}},
		"link": {set: func(j *Journal, ns *hostnet.Namespace) error {
			return j.AddLink(ns, UntilExit, "margay0", "tun", func() error { return makeTUN(ns) })
		}, alien: []string{"ip", "link", "del", "margay0"}},
	}
}

// makeTUN makes a persistent TUN link in this process: one that another
// program makes could come after the kill of the one that asked for it.
func makeTUN(ns *hostnet.Namespace) error {
	return ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		request, err := unix.NewIfreq("margay0")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	})
}

func leftIndex(t testing.TB, h *hostnet.Host) int {
	t.Helper()
	l, err := h.Link("left")
	must(t, err)
	return l.Index
}

func TestEachSettingIsMadeAndPutBack(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	for name, st := range settings(leftIndex(t, h)) {
		t.Run(name, func(t *testing.T) {
			j := open(t, place(t))
			before := settled(t, ns)
			must(t, st.set(j, ns))
			during := settled(t, ns)
			if name != "rephrased number" && during == before {
				t.Fatal("nothing changed that ip, ethtool or sysctl would see")
			}
			must(t, st.set(j, ns)) // again: nothing to do, and nothing forgotten
			entries := j.Entries()
			if len(entries) == 0 {
				t.Fatal("nothing stands in the journal")
			}
			r := restore(t, j)
			if len(r.Restored) != len(entries) || len(j.Entries()) != 0 {
				t.Errorf("%v, want all %d put back; left: %v", r, len(entries), j.Entries())
			}
			if after := settled(t, ns); after != before {
				t.Errorf("not as before:\n%s", diff(before, after))
			}
			if r := restore(t, j); len(r.Restored)+len(r.Unchanged)+len(r.Kept)+len(r.Vanished) != 0 {
				t.Errorf("a second Restore found %v", r)
			}
		})
	}
}

// diff lists the lines that are in one text alone.
func diff(a, b string) string {
	var out strings.Builder
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, l := range as {
		if !slices.Contains(bs, l) {
			fmt.Fprintln(&out, "-", l)
		}
	}
	for _, l := range bs {
		if !slices.Contains(as, l) {
			fmt.Fprintln(&out, "+", l)
		}
	}
	return out.String()
}

func TestAllSettingsTogetherArePutBackByTheNextProcess(t *testing.T) {
	h := node(t)
	ns, path := h.Namespace(), place(t)
	before := settled(t, ns)
	j := open(t, path)
	for _, st := range settings(leftIndex(t, h)) {
		must(t, st.set(j, ns))
	}
	must(t, j.Close())
	next := open(t, path)
	r := restore(t, next)
	if len(r.Kept)+len(r.Vanished)+len(r.Unchanged) != 0 || len(r.Restored) < 19 {
		t.Errorf("%v, want all put back", r)
	}
	if !slices.IsSortedFunc(r.Restored, func(a, b Entry) int { return cmp.Compare(b.ID, a.ID) }) {
		t.Errorf("not put back newest first: %v", r.Restored)
	}
	if after := settled(t, ns); after != before {
		t.Errorf("not as before:\n%s", diff(before, after))
	}
}

func TestSomebodyElsesChangeIsKept(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	for name, st := range settings(leftIndex(t, h)) {
		if st.alien == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			j := open(t, place(t))
			if name == "one feature" {
				hostnettest.Run(t, ns, "ethtool", "-K", "left", "gro", "off")
			}
			must(t, st.set(j, ns))
			hostnettest.Run(t, ns, st.alien...)
			before := settled(t, ns)
			r := restore(t, j)
			if len(r.Restored) != 0 || len(r.Kept)+len(r.Unchanged) == 0 || len(j.Entries()) != 0 {
				t.Errorf("%v, want nothing put back, and nothing left: %v", r, j.Entries())
			}
			if after := settled(t, ns); after != before {
				t.Errorf("somebody else's setting was changed:\n%s", diff(before, after))
			}
		})
	}
}

func TestKeptEntriesAreTold(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	j := open(t, place(t))
	must(t, j.SetSysctl(ns, "net.ipv4.conf.left.rp_filter", "2"), j.SetSysctl(ns, "net.ipv6.conf.left.accept_ra", "2"),
		ns.SetSysctl("net.ipv4.conf.left.rp_filter", "1"))
	r := restore(t, j)
	if len(r.Kept) != 1 || len(r.Restored) != 1 || !strings.Contains(r.Kept[0].String(), "net/ipv4/conf/left/rp_filter") {
		t.Errorf("report is %+v, want the sysctl that another hand changed, and the other put back", r)
	}
	if want := "1 put back, 0 unchanged, 1 changed by others and kept, 0 of things that are gone"; r.String() != want {
		t.Errorf("report reads %q, want %q", r, want)
	}
}

func TestWhatWasBeforeTheFirstChangeIsPutBack(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	j := open(t, place(t))
	const key = "net.ipv4.conf.left.rp_filter"
	must(t, ns.SetSysctl(key, "0"))
	for _, v := range []string{"1", "2", "1", "2"} {
		must(t, j.SetSysctl(ns, key, v))
	}
	if len(j.Entries()) != 1 {
		t.Errorf("%d entries for one key: %v", len(j.Entries()), j.Entries())
	}
	restore(t, j)
	if v, err := ns.Sysctl(key); v != "0" || err != nil {
		t.Errorf("value is %q (%v), want 0", v, err)
	}
	// Another hand between two changes of ours: what that hand set is put back.
	must(t, j.SetSysctl(ns, key, "2"), ns.SetSysctl(key, "1"), j.SetSysctl(ns, key, "2"))
	restore(t, j)
	if v, err := ns.Sysctl(key); v != "1" || err != nil {
		t.Errorf("value is %q (%v), want the other hand's 1", v, err)
	}
	// What is as we want it already is not ours.
	must(t, j.SetSysctl(ns, key, "1"))
	if len(j.Entries()) != 0 {
		t.Errorf("nothing was changed, and yet: %v", j.Entries())
	}
}

func TestSettingThatTheKernelRefusesLeavesNoEntry(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	j := open(t, place(t))
	nowhere := hostnet.Route{Dst: prefix("10.9.0.0/16"), Gateway: prefix("203.0.113.1/32").Addr()}
	refused := map[string]error{
		"sysctl":        j.SetSysctl(ns, "net.ipv4.ip_forward", "no number"),
		"sysfs":         j.SetSysfs(ns, "left", "gro_flush_timeout", "never"),
		"offload":       j.SetOffload(ns, "left", "lro", true),
		"route":         j.AddRoutes(ns, UntilExit, nowhere),
		"link":          j.AddLink(ns, UntilExit, "margay0", "tun", func() error { return os.ErrPermission }),
		"address":       j.AddAddress(ns, UntilExit, "nosuch", prefix("10.7.0.1/32"), 0),
		"missing key":   j.SetSysctl(ns, "net.ipv4.nosuch", "1"),
		"missing link":  j.SetPromiscuous(ns, "nosuch", true),
		"climbing path": j.SetSysctl(ns, "../../etc/hostname", "1"),
	}
	for name, err := range refused {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(j.Entries()) != 0 {
		t.Errorf("entries of what was not changed: %v", j.Entries())
	}
	// A refused second change leaves the first to be put back.
	must(t, j.SetSysctl(ns, "net.ipv4.ip_forward", "1"))
	if err := j.SetSysctl(ns, "net.ipv4.ip_forward", "no number"); err == nil {
		t.Error("no error for the second change")
	}
	restore(t, j)
	if v, _ := ns.Sysctl("net.ipv4.ip_forward"); v != "0" {
		t.Errorf("ip_forward is %q, want 0", v)
	}
}

func TestNothingIsChangedWhenTheDiskRefuses(t *testing.T) {
	h := node(t)
	ns, path := h.Namespace(), place(t)
	j := open(t, path)
	must(t, j.SetSysctl(ns, "net.ipv6.conf.left.accept_ra", "2"))
	readonly, err := os.Open(path)
	must(t, err)
	whole := j.file.file
	j.file.file = readonly // writes fail from here on
	before := settled(t, ns)
	for name, st := range settings(leftIndex(t, h)) {
		if name == "sysctl of IPv6 link" {
			continue
		}
		if err := st.set(j, ns); err == nil || !strings.Contains(err.Error(), "write journal") {
			t.Errorf("%s: %v, want that the journal could not be written", name, err)
		}
	}
	if after := settled(t, ns); after != before {
		t.Errorf("changed without a record:\n%s", diff(before, after))
	}
	must(t, readonly.Close())
	j.file.file = whole
	if r := restore(t, j); len(r.Restored) != 1 {
		t.Errorf("%v, want the one change from before", r)
	}
}
