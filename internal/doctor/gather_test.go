//go:build linux

package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestParseRanges(t *testing.T) {
	tests := map[string]struct {
		text string
		want []PortRange
	}{
		"nothing":             {"", nil},
		"one port":            {"8080", []PortRange{{8080, 8080}}},
		"as the kernel lists": {"80,443-445,65535", []PortRange{{80, 80}, {443, 445}, {65535, 65535}}},
		"no port of any kind": {"a-b,70000", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := parseRanges(tt.text); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// without against the plain question, port by port.
func FuzzWithout(f *testing.F) {
	f.Add(uint16(10), uint16(20), uint16(12), uint16(13), uint16(0), uint16(10))
	f.Add(uint16(0), uint16(65535), uint16(0), uint16(0), uint16(65535), uint16(65535))
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g uint16) {
		ours := PortRange{min(a, b), max(a, b)}
		holes := []PortRange{{min(c, d), max(c, d)}, {min(e, g), max(e, g)}}
		left := without([]PortRange{ours}, holes)
		for p := 0; p <= 65535; p++ {
			at := PortRange{uint16(p), uint16(p)}
			inside := func(r PortRange) bool { return len(r.and(at)) == 1 }
			if got, want := slices.ContainsFunc(left, inside), inside(ours) && !slices.ContainsFunc(holes, inside); got != want {
				t.Fatalf("%v without %v is %v: port %d is in it: %v, want %v", ours, holes, left, p, got, want)
			}
		}
	})
}

func TestParseRelease(t *testing.T) {
	for release, want := range map[string][2]int{"6.18.44-fc": {6, 18}, "6.6": {6, 6}, "5.15.0-1-amd64": {5, 15}, "": {0, 0}, "next": {0, 0}} {
		major, minor := parseRelease(release)
		if got := [2]int{major, minor}; got != want {
			t.Errorf("%q: got %v, want %v", release, got, want)
		}
	}
}

// root lays files below a folder that stands for the node's root.
func root(t *testing.T, files map[string]string) look {
	t.Helper()
	l := look{root: t.TempDir()}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(l.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, process := range []string{"1", "self"} {
		if err := os.MkdirAll(l.path("proc/"+process+"/ns"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/proc/self/ns/net", l.path("proc/"+process+"/ns/net")); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestNetworkd(t *testing.T) {
	const running = "run/systemd/netif/state"
	const main, dropIn = "etc/systemd/networkd.conf", "systemd/networkd.conf.d/"
	tests := map[string]struct {
		files map[string]string
		want  Networkd
	}{
		"not there":                   {nil, Networkd{}},
		"with its defaults":           {map[string]string{running: "", main: "[Network]\n#ManageForeignRoutes=no\n"}, Networkd{Running: true}},
		"told in the main file":       {map[string]string{running: "", main: "[Network]\nManageForeignRoutes=no\n"}, Networkd{Running: true, KeepsRoutes: true}},
		"told in a drop-in":           {map[string]string{running: "", "run/" + dropIn + "margay.conf": "ManageForeignRoutes = False\n"}, Networkd{Running: true, KeepsRoutes: true}},
		"untold by a later drop-in":   {map[string]string{running: "", main: "ManageForeignRoutes=no", "etc/" + dropIn + "z.conf": "ManageForeignRoutes=yes"}, Networkd{Running: true}},
		"a drop-in masked by another": {map[string]string{running: "", "usr/lib/" + dropIn + "a.conf": "ManageForeignRoutes=no", "etc/" + dropIn + "a.conf": ""}, Networkd{Running: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := root(t, tt.files).networkd(nil); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestOwner(t *testing.T) {
	const networkd, manager = "run/systemd/netif/links/7", "run/NetworkManager/devices/7"
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"nobody":                   {nil, ""},
		"networkd configures it":   {map[string]string{networkd: "# private\nADMIN_STATE=configured\nOPER_STATE=routable\n"}, "systemd-networkd"},
		"networkd leaves it alone": {map[string]string{networkd: "ADMIN_STATE=unmanaged\n"}, ""},
		"NetworkManager has it":    {map[string]string{manager: "[device]\nmanaged=true\n"}, "NetworkManager"},
		"NetworkManager does not":  {map[string]string{manager: "[device]\nmanaged=false\n", networkd: "ADMIN_STATE=initialized\n"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := root(t, tt.files).owner(7); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Forwarders of other namespaces, as a lab has many, do not count.
func TestForwardersAreCountedByNamespace(t *testing.T) {
	elsewhere := hostnettest.Namespace(t)
	binary := filepath.Join(t.TempDir(), program)
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, sleep, 0o755); err != nil {
		t.Fatal(err)
	}
	before := look{root: "/"}.forwarders()
	start := func(command ...string) int {
		cmd := exec.Command(command[0], command[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd.Process.Pid
	}
	here := start(binary, "60")
	there := start("nsenter", "--net="+elsewhere.Path(), binary, "60")
	hostnettest.Eventually(t, "the other forwarder runs", func() bool {
		exe, _ := os.Readlink(filepath.Join("/proc", itoa(there), "exe"))
		return filepath.Base(exe) == program
	})
	want := append(slices.Clone(before), here)
	slices.Sort(want)
	hostnettest.Eventually(t, "the forwarder here runs", func() bool {
		return slices.Equal(look{root: "/"}.forwarders(), want)
	})
	if err := os.Remove(binary); err != nil { // as an upgrade of the package does
		t.Fatal(err)
	}
	if got := (look{root: "/"}).forwarders(); !slices.Equal(got, want) {
		t.Errorf("after its file was replaced: %v, want %v", got, want)
	}
}

func TestTheKernelIsAsked(t *testing.T) {
	hostnettest.NeedRoot(t)
	f, err := Gather(t.Context(), Options{Devices: []DeviceSpec{{Name: "lo"}}})
	if err != nil {
		t.Fatal(err)
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if k := f.Kernel; k.Release != strings.TrimSpace(string(release)) || k.Major == 0 {
		t.Errorf("kernel is %+v, want release %s", k, release)
	}
	// The suites of xsk and port run on this kernel, so it must have what they use.
	for what, a := range map[string]Answer{"AF_XDP": f.Kernel.AFXDP, "TUN": f.Kernel.Tun, "memfd": f.Kernel.Memfd} {
		if a.State != Yes {
			t.Errorf("%s: %+v", what, a)
		}
	}
	status, err := exec.Command("sh", "-c", "ulimit -l; nproc").Output()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(status))
	if got := itoa(int(f.Process.Memlock >> 10)); fields[0] != "unlimited" && got != fields[0] {
		t.Errorf("memlock is %s KiB, ulimit says %s", got, fields[0])
	}
	if got := itoa(f.Process.CPUs); got != fields[1] {
		t.Errorf("%s CPUs, nproc says %s", got, fields[1])
	}
}

// Looking leaves nothing behind: no descriptor, no device, no namespace.
func TestGatherLeavesNothing(t *testing.T) {
	left, _ := hostnettest.Pair(t)
	look := func() {
		if _, err := Gather(t.Context(), Options{Devices: []DeviceSpec{{Name: "left", Namespace: left.Namespace().Path()}}}); err != nil {
			t.Fatal(err)
		}
	}
	look() // what the runtime opens once
	links, descriptors := hostnettest.Run(t, left.Namespace(), "ip", "-br", "link"), hostnettest.Descriptors(t)
	for range 5 {
		look()
	}
	if got := hostnettest.Descriptors(t); got != descriptors {
		t.Errorf("%d descriptors, want %d", got, descriptors)
	}
	if got := hostnettest.Run(t, left.Namespace(), "ip", "-br", "link"); got != links {
		t.Errorf("links are\n%s\nwant\n%s", got, links)
	}
}

func TestGatherStopsWithItsContext(t *testing.T) {
	hostnettest.NeedRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Diagnose(ctx, Options{Devices: []DeviceSpec{{Name: "lo"}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was canceled", err)
	}
}
