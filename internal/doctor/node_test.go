//go:build linux

package doctor

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"margay.dev/margay/fastpath/xsk"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/hostnet/journal"
)

func itoa(n int) string { return strconv.Itoa(n) }

// gatherOne is what the doctor sees of one device in a namespace.
func gatherOne(t *testing.T, h *hostnet.Host, name string) Facts {
	t.Helper()
	f, err := Gather(t.Context(), Options{Devices: []DeviceSpec{{Name: name, Namespace: h.Namespace().Path()}}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// finding is what one check says of the one device.
func finding(t *testing.T, f Facts, check string) Finding {
	t.Helper()
	for _, found := range Check(f) {
		if found.Check == check && found.Subject != "" {
			return found
		}
	}
	t.Fatalf("check %s said nothing", check)
	return Finding{}
}

// attach puts a program that passes everything on a link, as somebody else would.
func attach(t *testing.T, h *hostnet.Host, name string, mode link.XDPAttachFlags) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign_pass", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := h.Link(name)
	if err != nil {
		t.Fatal(err)
	}
	err = h.Namespace().Do(func() error {
		attached, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: l.Index, Flags: mode})
		if err == nil {
			t.Cleanup(func() { attached.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

type ipLink struct {
	XDP struct {
		Mode int `json:"mode"`
		Prog struct {
			ID uint32 `json:"id"`
		} `json:"prog"`
	} `json:"xdp"`
	MTU int `json:"mtu"`
}

// A foreign program is seen as ip-link sees it, in the driver and in the stack.
func TestForeignProgramIsSeen(t *testing.T) {
	for name, flags := range map[string]link.XDPAttachFlags{"native": link.XDPDriverMode, "generic": link.XDPGenericMode} {
		t.Run(name, func(t *testing.T) {
			left, _ := hostnettest.Pair(t)
			attach(t, left, "left", flags)
			f := gatherOne(t, left, "left")
			want := hostnettest.JSON[[]ipLink](t, left.Namespace(), "ip", "-j", "link", "show", "left")[0]
			d := f.Devices[0]
			if d.Link.XDP.Program != want.XDP.Prog.ID || int(d.Link.XDP.Mode) != want.XDP.Mode || d.Link.MTU != want.MTU || want.XDP.Prog.ID == 0 {
				t.Errorf("saw %+v and MTU %d, ip says %+v", d.Link.XDP, d.Link.MTU, want)
			}
			if got := finding(t, f, "xdp-program"); got.Severity != Fault || !strings.Contains(got.Found, "foreign_pass") || !strings.Contains(got.Found, name) {
				t.Errorf("got %+v, want a fault that names foreign_pass and %s", got, name)
			}
		})
	}
}

// Our own program, put on by fastpath/xsk, is not taken for somebody else's.
func TestOwnProgramIsKnown(t *testing.T) {
	left, _ := hostnettest.Pair(t)
	p, err := xsk.Attach(xsk.ProgramConfig{Interface: "left", NetNS: left.Namespace().FD(), Takeover: true, Mode: xsk.Native}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f := gatherOne(t, left, "left")
	f.Process.Forwarders = []int{1}
	if got := finding(t, f, "xdp-program"); got.Severity != OK || !strings.Contains(got.Found, ourPrograms) {
		t.Errorf("got %+v, want our own program", got)
	}
}

// What a device has on, against ethtool.
func TestDeviceIsSeenAsEthtoolSeesIt(t *testing.T) {
	left, _ := hostnettest.Pair(t)
	hostnettest.Run(t, left.Namespace(), "ip", "link", "add", "many", "numrxqueues", "3", "numtxqueues", "4", "type", "veth", "peer", "few")
	hostnettest.Run(t, left.Namespace(), "ethtool", "-K", "many", "rxvlan", "off")
	for _, name := range []string{"left", "many"} {
		t.Run(name, func(t *testing.T) {
			d := gatherOne(t, left, name).Devices[0]
			driver := hostnettest.Run(t, left.Namespace(), "ethtool", "-i", name)
			if !strings.Contains(driver, "driver: "+d.Link.Driver+"\n") {
				t.Errorf("driver is %q, ethtool says\n%s", d.Link.Driver, driver)
			}
			_, inUse, _ := strings.Cut(hostnettest.Run(t, left.Namespace(), "ethtool", "-l", name), "Current hardware settings:")
			if got := strings.Fields(inUse); got[1] != itoa(d.Channels.Rx) || got[3] != itoa(d.Channels.Tx) {
				t.Errorf("channels are %+v, ethtool says%s", d.Channels, inUse)
			}
			shown := hostnettest.Run(t, left.Namespace(), "ethtool", "-k", name)
			for kernel, word := range map[string]string{"rx-vlan-hw-parse": "rx-vlan-offload", "rx-gro-hw": "rx-gro-hw", "rx-lro": "large-receive-offload", "rx-gro": "generic-receive-offload"} {
				if on := strings.Contains(shown, word+": on"); on != d.Offloads[kernel] {
					t.Errorf("%s is %v, ethtool says %v", kernel, d.Offloads[kernel], on)
				}
			}
		})
	}
}

// The other end's checksum offload is found through namespaces, and the advice
// given is the command that mends it.
func TestChecksumOfTheOtherEnd(t *testing.T) {
	left, right := hostnettest.Pair(t)
	before := finding(t, gatherOne(t, left, "left"), "tx-checksum")
	if before.Severity != Fault || !strings.Contains(before.Found, "other end right") {
		t.Fatalf("got %+v, want a fault of right", before)
	}
	hostnettest.Run(t, hostOf(t), strings.Fields(before.Advice)...)
	if on, err := right.Offload("right", "tx"); err != nil || on {
		t.Errorf("after `%s` it is on: %v, %v", before.Advice, on, err)
	}
	if after := finding(t, gatherOne(t, left, "left"), "tx-checksum"); after.Severity != OK {
		t.Errorf("got %+v after the advice was followed", after)
	}
}

// hostOf is the namespace that the test runs in.
func hostOf(t *testing.T) *hostnet.Namespace {
	t.Helper()
	ns, err := hostnet.OpenNamespace("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func TestDeviceConditions(t *testing.T) {
	left, right := hostnettest.Pair(t)
	run := func(command ...string) { hostnettest.Run(t, left.Namespace(), command...) }
	run("ip", "link", "add", "narrow", "numtxqueues", "1", "numrxqueues", "1", "type", "veth", "peer", "wide", "numtxqueues", "4", "numrxqueues", "4")
	run("ip", "link", "add", "br0", "type", "bridge")
	run("ip", "link", "add", "inbridge", "type", "veth", "peer", "other")
	run("ip", "link", "set", "inbridge", "master", "br0")
	run("ip", "link", "set", "left", "mtu", "9000")
	if err := left.Namespace().SetSysfs("left", "napi_defer_hard_irqs", "10"); err != nil {
		t.Fatal(err)
	}
	if err := left.Namespace().SetSysfs("left", "gro_flush_timeout", "400000"); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		device, check string
		severity      Severity
		says          string
	}{
		"native XDP":            {"left", "xdp", OK, "native XDP"},
		"generic XDP":           {"narrow", "xdp", Warning, "other end wide has 4 receive queues and this end 1"},
		"a device that is down": {"narrow", "device", Fault, "is down"},
		"a jumbo MTU":           {"left", "mtu", Note, "MTU 9000"},
		"deferred interrupts":   {"left", "napi", Warning, "napi_defer_hard_irqs 10, gro_flush_timeout 400µs"},
		"part of a bridge":      {"inbridge", "owner", Warning, "bridge br0"},
		"not there":             {"absent", "device", Fault, "no such link"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := finding(t, gatherOne(t, left, tt.device), tt.check)
			if got.Severity != tt.severity || !strings.Contains(got.Found, tt.says) {
				t.Errorf("got %+v, want a %v with %q", got, tt.severity, tt.says)
			}
		})
	}
	if err := right.SetDown("right"); err != nil {
		t.Fatal(err)
	}
	hostnettest.Eventually(t, "the carrier is seen to be gone", func() bool {
		return strings.Contains(finding(t, gatherOne(t, left, "left"), "device").Found, "no carrier")
	})
}

func TestHostIsSeen(t *testing.T) {
	h := hostnettest.Host(t)
	run := func(command ...string) { hostnettest.Run(t, h.Namespace(), command...) }
	run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.ip_local_port_range=40000 50000", "net.ipv4.ip_local_reserved_ports=40100-40200,45000")
	run("ip", "tuntap", "add", "dev", "margay0", "mode", "tun")
	run("ip", "tuntap", "add", "dev", "margay-old", "mode", "tun")
	run("ip", "tuntap", "add", "dev", "vpn0", "mode", "tun")
	for _, name := range []string{"margay0", "margay-old", "vpn0"} {
		run("ip", "link", "set", name, "up")
	}
	run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.margay0.rp_filter=1")
	path := filepath.Join(t.TempDir(), "state", "journal")
	j, err := journal.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.SetSysctl(h.Namespace(), "net.ipv6.conf.all.forwarding", "1"); err != nil {
		t.Fatal(err)
	}
	got, err := look{root: t.TempDir()}.host(h, Options{Journal: path})
	if err != nil {
		t.Fatal(err)
	}
	if got.Forward4 != "1" || got.Forward6 != "1" || got.ReversePath != 1 {
		t.Errorf("forwarding %q and %q, reverse path %d: want 1, 1, 1", got.Forward4, got.Forward6, got.ReversePath)
	}
	if want := []PortRange{{40100, 40200}, {45000, 45000}}; got.LocalPorts != (PortRange{40000, 50000}) || !slices.Equal(got.Reserved, want) {
		t.Errorf("ports %v, reserved %v", got.LocalPorts, got.Reserved)
	}
	if got.HostPort == nil || got.HostPort.Carrier || !slices.Equal(got.StaleTUN, []string{"margay-old"}) {
		t.Errorf("host port %+v, stale %v", got.HostPort, got.StaleTUN)
	}
	if len(got.Journal) != 1 || !strings.Contains(got.Journal[0], "forwarding") || got.JournalError != "" {
		t.Errorf("journal has %q, error %q", got.Journal, got.JournalError)
	}
}

// The doctor is asked often, by probes and people: it must not take long.
func TestGatherIsQuick(t *testing.T) {
	left, _ := hostnettest.Pair(t)
	start := time.Now()
	gatherOne(t, left, "left")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}
