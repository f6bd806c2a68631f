//go:build linux

package hostnet_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestSysctlsAreThoseOfTheNamespace(t *testing.T) {
	h := hostnettest.Host(t)
	hostnettest.Run(t, h.Namespace(), "ip", "link", "add", "dot.ted", "type", "veth", "peer", "name", "p")
	ns := h.Namespace()
	own, err := hostnet.OpenNamespace("")
	must(t, err)
	defer own.Close()
	tests := map[string]struct{ key, first, second, file string }{
		"IPv4":                {"net.ipv4.ip_forward", "1", "0", "/proc/sys/net/ipv4/ip_forward"},
		"IPv6":                {"net.ipv6.conf.all.forwarding", "1", "0", "/proc/sys/net/ipv6/conf/all/forwarding"},
		"of a link":           {"net.ipv4.conf.p.rp_filter", "1", "2", "/proc/sys/net/ipv4/conf/p/rp_filter"},
		"of a dotted link":    {"net.ipv6.conf.dot/ted.accept_ra", "2", "0", "/proc/sys/net/ipv6/conf/dot.ted/accept_ra"},
		"by slashes":          {"net/ipv4/conf/dot.ted/rp_filter", "2", "1", "/proc/sys/net/ipv4/conf/dot.ted/rp_filter"},
		"of several words":    {"net.ipv4.ip_local_port_range", "20000 30000", "21000 31000", "/proc/sys/net/ipv4/ip_local_port_range"},
		"emptied":             {"net.ipv4.ip_local_reserved_ports", "5-9,77", "", "/proc/sys/net/ipv4/ip_local_reserved_ports"},
		"of the second words": {"net.ipv4.ping_group_range", "0 5", "0 9", "/proc/sys/net/ipv4/ping_group_range"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			outside, outsideErr := own.Sysctl(tt.key)
			for _, value := range []string{tt.first, tt.second} {
				must(t, ns.SetSysctl(tt.key, value))
				got, err := ns.Sysctl(tt.key)
				must(t, err)
				if out := hostnettest.Run(t, ns, "cat", tt.file); got != value || strings.Join(strings.Fields(out), " ") != value {
					t.Errorf("set %q, read %q, %s holds %q", value, got, tt.file, out)
				}
			}
			if now, err := own.Sysctl(tt.key); now != outside || (err == nil) != (outsideErr == nil) {
				t.Errorf("our own namespace's changed from %q to %q", outside, now)
			}
		})
	}
	for _, key := range []string{"", ".", "net..x", "net.ipv4.//.//.//etc.hostname", "../etc/hostname", "/etc/hostname", "net/../../etc/hostname"} {
		if _, err := ns.Sysctl(key); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("key %q: %v, want it refused", key, err)
		}
		if err := ns.SetSysctl(key, "1"); err == nil {
			t.Errorf("key %q was written", key)
		}
	}
	if _, err := ns.Sysctl("net.ipv4.conf.nosuch.rp_filter"); !hostnet.Missing(err) {
		t.Errorf("a link that is not there: %v, want that it is missing", err)
	}
	if err := ns.SetSysctl("net.ipv4.ip_forward", "no number"); err == nil {
		t.Error("the kernel's refusal was lost")
	}
}

func TestSysfsIsThatOfTheNamespace(t *testing.T) {
	h := hostnettest.Host(t)
	ns := h.Namespace()
	must(t, h.AddVeth(hostnet.VethConfig{Name: "a", Peer: "b"}))
	for attribute, value := range map[string]string{"napi_defer_hard_irqs": "2", "gro_flush_timeout": "20000", "mtu": "1400", "queues/rx-0/rps_cpus": "1"} {
		must(t, ns.SetSysfs("a", attribute, value))
		got, err := ns.Sysfs("a", attribute)
		must(t, err)
		// ip netns exec mounts the namespace's sysfs on /sys, which nsenter does not.
		out := strings.TrimSpace(hostnettest.Run(t, ns, "ip", "netns", "exec", hostnettest.Name(ns), "cat", "/sys/class/net/a/"+attribute))
		if got != value || out != value {
			t.Errorf("%s: set %q, read %q, sysfs holds %q", attribute, value, got, out)
		}
	}
	for _, path := range [][2]string{{"a", "../b/mtu"}, {"../a", "mtu"}, {"a", "/etc/hostname"}, {"a", "."}, {"a", ""}, {"", "mtu"}} {
		if _, err := ns.Sysfs(path[0], path[1]); err == nil {
			t.Errorf("%q was read", path)
		}
	}
	if _, err := ns.Sysfs("nosuch", "mtu"); !hostnet.Missing(err) {
		t.Errorf("a link that is not there: %v, want that it is missing", err)
	}
}
