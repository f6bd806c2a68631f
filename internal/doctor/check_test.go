//go:build linux

package doctor

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostbpf"
	"margay.dev/margay/internal/hostnet"
)

// healthy is a node with one veth port on which every check is content.
func healthy() Facts {
	yes := Answer{State: Yes}
	return Facts{
		Kernel:  Kernel{Release: "6.18.1-test", Major: 6, Minor: 18, AFXDP: yes, Tun: yes, USO: yes, Memfd: yes, BTF: yes, JIT: "1"},
		Process: Process{Capabilities: math.MaxUint64, Memlock: math.MaxUint64, CPUs: 4, GoThreads: 4, Forwarders: []int{7}},
		Host:    Host{Forward4: "0", Forward6: "0", ReversePath: -1, LocalPorts: PortRange{32768, 60999}},
		Devices: []Device{{
			Spec: DeviceSpec{Name: "p0", Sockets: 2},
			Link: hostnet.Link{Name: "p0", Up: true, Carrier: true, MTU: 1500, Driver: "veth", Kind: "veth", RxQueues: 2, TxQueues: 2,
				MAC: hostnet.MAC{2, 0, 0, 0, 0, 1}},
			Capability: hostnet.XDPCapability{Features: hostnet.XDPBasic | hostnet.XDPRedirect | hostnet.XDPMultiRx},
			Channels:   hostnet.Channels{Rx: 2, Tx: 2, MaxRx: 2, MaxTx: 2},
			Offloads:   map[string]bool{},
			Peer:       &Peer{Name: "q0", RxQueues: 2},
		}},
		Expected: Options{Workers: 2, Inside: true},
	}
}

func TestHealthyNodeHasNoComplaint(t *testing.T) {
	findings := Check(healthy())
	if len(findings) != len(nodeChecks)+len(deviceChecks) {
		t.Errorf("%d findings of %d checks", len(findings), len(nodeChecks)+len(deviceChecks))
	}
	for _, f := range findings {
		if f.Severity != OK {
			t.Errorf("%+v", f)
		}
		if f.Found == "" {
			t.Errorf("check %s says nothing", f.Check)
		}
	}
}

// ailing is one thing wrong with a healthy node, and how it must be told.
type ailing struct {
	wrong    func(*Facts)
	check    string
	severity Severity
	says     string // part of what is found
	advice   string // part of what to do
}

// expect runs checks on ailing nodes: the one named must complain, and no other.
func expect(t *testing.T, tests map[string]ailing) {
	t.Helper()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			tt.wrong(&f)
			said := false
			for _, finding := range Check(f) {
				if finding.Check != tt.check {
					if finding.Severity > OK {
						t.Errorf("another check complains: %+v", finding)
					}
					continue
				}
				said = said || finding.Severity == tt.severity && strings.Contains(finding.Found, tt.says) && strings.Contains(finding.Advice, tt.advice)
				if finding.Severity > OK && finding.Advice == "" {
					t.Errorf("a complaint without advice: %+v", finding)
				}
			}
			if !said {
				t.Errorf("check %s does not tell a %v with %q and advice %q:\n%+v", tt.check, tt.severity, tt.says, tt.advice, Check(f))
			}
		})
	}
}

// leave ends the forwarder of a node: it is looked at from outside.
func leave(f *Facts) { f.Process.Forwarders, f.Expected.Inside = nil, false }

func device(change func(*Device)) func(*Facts) {
	return func(f *Facts) { change(&f.Devices[0]) }
}

func TestKernelChecks(t *testing.T) {
	expect(t, map[string]ailing{
		"an old kernel": {func(f *Facts) { f.Kernel.Major, f.Kernel.Minor, f.Kernel.Release = 6, 1, "6.1.0-debian" },
			"kernel", Fault, "6.1.0-debian is older than 6.6", "6.6 or newer"},
		"a release that is no number": {func(f *Facts) { f.Kernel.Major, f.Kernel.Minor, f.Kernel.Release = 0, 0, "next" }, "kernel", Note, `"next"`, "6.6"},
		"no AF_XDP":                   {func(f *Facts) { f.Kernel.AFXDP = Answer{No, "address family not supported"} }, "af-xdp", Fault, "address family not supported", "CONFIG_XDP_SOCKETS"},
		"AF_XDP not to be tried":      {func(f *Facts) { f.Kernel.AFXDP = Answer{Unknown, "operation not permitted"} }, "af-xdp", Note, "not found out", "root"},
		"no TUN":                      {func(f *Facts) { f.Kernel.Tun = Answer{No, "no such file"} }, "tun", Fault, "no such file", "modprobe tun"},
		"no USO":                      {func(f *Facts) { f.Kernel.USO = Answer{No, "invalid argument"} }, "tun-uso", Warning, "UDP segmentation", "6.2"},
		"no memfd":                    {func(f *Facts) { f.Kernel.Memfd = Answer{No, "function not implemented"} }, "memfd", Fault, "memfd", "seccomp"},
		"no BTF":                      {func(f *Facts) { f.Kernel.BTF = Answer{No, "no such file"} }, "btf", Note, "BTF", "nothing of ours needs it"},
		"no JIT":                      {func(f *Facts) { f.Kernel.JIT = "0" }, "bpf-jit", Warning, "interpreted", "bpf_jit_enable=1"},
		"a JIT that logs":             {func(f *Facts) { f.Kernel.JIT = "2" }, "bpf-jit", Warning, "log", "bpf_jit_enable=1"},
		"a JIT not to be seen":        {func(f *Facts) { f.Kernel.JIT = "" }, "bpf-jit", Note, "could not be read", "bpf_jit_enable"},
	})
}

func TestProcessChecks(t *testing.T) {
	without := func(bits ...int) uint64 {
		all := uint64(math.MaxUint64)
		for _, b := range bits {
			all &^= 1 << b
		}
		return all
	}
	expect(t, map[string]ailing{
		"a forwarder without CAP_BPF":  {func(f *Facts) { f.Process.Capabilities = without(unix.CAP_BPF) }, "capabilities", Fault, "CAP_BPF (loading", "AmbientCapabilities"},
		"a visitor without capability": {func(f *Facts) { f.Process.Capabilities, f.Expected.Inside = 0, false }, "capabilities", Note, "CAP_NET_ADMIN", "as root"},
		"a limit below the memory": {func(f *Facts) {
			f.Process.Memlock, f.Process.Capabilities, f.Expected.Memory = 8<<20, without(unix.CAP_IPC_LOCK), 64<<20
		}, "memlock", Fault, "may lock 8 MiB and registers 64 MiB", "LimitMEMLOCK"},
		"a limit above the memory": {func(f *Facts) {
			f.Process.Memlock, f.Process.Capabilities, f.Expected.Memory = 2<<30, without(unix.CAP_IPC_LOCK), 64<<20
		}, "memlock", Warning, "2.0 GiB", "LimitMEMLOCK"},
		"a visitor's limit": {func(f *Facts) {
			f.Process.Memlock, f.Process.Capabilities, f.Expected.Inside = 64<<10, without(unix.CAP_IPC_LOCK), false
		}, "memlock", Note, "64 KiB", "own limit"},
		"more workers than CPUs":         {func(f *Facts) { f.Process.CPUs = 1 }, "cpus", Warning, "2 workers share 1 CPUs", "as many workers as CPUs"},
		"GOMAXPROCS without room":        {func(f *Facts) { f.Process.GoThreads = 3 }, "cpus", Warning, "GOMAXPROCS is 3 for 2 workers", "4 or more"},
		"two forwarders in one place":    {func(f *Facts) { f.Process.Forwarders = []int{7, 9} }, "forwarders", Fault, "2 forwarders run", "stop all but one"},
		"two forwarders are both named":  {func(f *Facts) { f.Process.Forwarders = []int{7, 9} }, "forwarders", Fault, "processes 7, 9", "stop"},
		"a limit lifted by a capability": {func(f *Facts) { f.Process.Memlock = 8 << 20 }, "memlock", OK, "CAP_IPC_LOCK lifts", ""},
	})
}

func TestHostChecks(t *testing.T) {
	expect(t, map[string]ailing{
		"the kernel forwards IPv4":  {func(f *Facts) { f.Host.Forward4 = "1" }, "ip-forward", Note, "IPv4", "net.ipv4.ip_forward=0"},
		"the kernel forwards IPv6":  {func(f *Facts) { f.Host.Forward6 = "1" }, "ip-forward", Note, "IPv6", "net.ipv6.conf.all.forwarding=0"},
		"a strict reverse path":     {func(f *Facts) { f.Host.ReversePath = 1 }, "rp-filter", Warning, "strict reverse-path filter on margay0", "conf.margay0.rp_filter=2"},
		"a loose reverse path":      {func(f *Facts) { f.Host.ReversePath = 2 }, "rp-filter", OK, "no strict", ""},
		"another name for the port": {func(f *Facts) { f.Host.ReversePath, f.Expected.HostPort = 1, "host9" }, "rp-filter", Warning, "on host9", "conf.host9."},
		"NAT ports that clash":      {func(f *Facts) { f.Expected.NodePorts = []PortRange{{60000, 62000}} }, "local-ports", Fault, "ports 60000-60999 are ours", "ip_local_reserved_ports: 60000-60999"},
		"NAT ports below the range": {func(f *Facts) { f.Expected.NodePorts = []PortRange{{30000, 32767}} }, "local-ports", OK, "none of our ports", ""},
		"NAT ports that are reserved": {func(f *Facts) {
			f.Expected.NodePorts, f.Host.Reserved = []PortRange{{40000, 40009}}, []PortRange{{40000, 49999}}
		}, "local-ports", OK, "none", ""},
		"a hole in the reservation": {func(f *Facts) {
			f.Expected.NodePorts, f.Host.Reserved = []PortRange{{40000, 40009}}, []PortRange{{40000, 40004}, {40006, 40009}}
		}, "local-ports", Fault, "ports 40005 are ours", "40005"},
		"a range not to be read": {func(f *Facts) { f.Expected.NodePorts, f.Host.LocalPorts = []PortRange{{1, 2}}, PortRange{} }, "local-ports", Note, "could not be read", "root"},
		"a host port left alone": {func(f *Facts) {
			leave(f)
			f.Host.HostPort = &hostnet.Link{Name: "margay0", Up: true}
		}, "leftovers", Note, "stays on purpose", "ip link delete margay0"},
		"a TUN that nobody holds": {func(f *Facts) { f.Host.StaleTUN = []string{"margay-x"} }, "leftovers", Warning, "margay-x", "ip link delete margay-x"},
		"a journal after a crash": {func(f *Facts) {
			leave(f)
			f.Expected.Journal, f.Host.Journal = "/j", []string{"a", "b", "c", "d", "e"}
		}, "journal", Warning, "left 5 settings changed: a, b, c and 2 more", "start the forwarder"},
		"a forwarder by another name": {func(f *Facts) {
			f.Process.Forwarders, f.Expected.Journal, f.Host.Journal = nil, "/j", []string{"a"}
		}, "journal", OK, "owner", ""},
		"a journal in use":           {func(f *Facts) { f.Expected.Journal, f.Host.Journal = "/j", []string{"a"} }, "journal", OK, "owner", ""},
		"a journal not to be read":   {func(f *Facts) { f.Expected.Journal, f.Host.JournalError = "/j", "version is 9" }, "journal", Warning, "version is 9", "start the forwarder"},
		"networkd and foreign route": {func(f *Facts) { f.Host.Networkd = Networkd{Running: true} }, "networkd", Warning, "removes routes", "ManageForeignRoutes=no"},
		"networkd and the host port": {func(f *Facts) { f.Host.Networkd = Networkd{Running: true, KeepsRoutes: true, OwnsHostPort: true} }, "networkd", Warning, "host port margay0", "Unmanaged=yes"},
		"networkd told to keep off":  {func(f *Facts) { f.Host.Networkd = Networkd{Running: true, KeepsRoutes: true} }, "networkd", OK, "leaves our routes alone", ""},
	})
}

func TestDeviceChecks(t *testing.T) {
	hardware := func(change func(*Device)) func(*Facts) {
		return device(func(d *Device) {
			d.Link.Kind, d.Link.Driver, d.Peer = "", "mlx5_core", nil
			d.Channels = hostnet.Channels{Combined: 2, MaxCombined: 16}
			change(d)
		})
	}
	expect(t, map[string]ailing{
		"a device that is not there": {device(func(d *Device) { *d = Device{Spec: DeviceSpec{Name: "p0"}, Missing: "no such link"} }), "device", Fault, "no such link", "ip link"},
		"a device that is down":      {device(func(d *Device) { d.Link.Up = false }), "device", Fault, "is down", "ip link set dev p0 up"},
		"a device without carrier":   {device(func(d *Device) { d.Link.Carrier = false }), "device", Warning, "no carrier", "cable"},
		"a driver without XDP":       {hardware(func(d *Device) { d.Capability.Features = 0 }), "xdp", Warning, "mlx5_core has generic XDP only", "native XDP"},
		"a veth with too few queues": {device(func(d *Device) { d.Capability.Features, d.Peer.RxQueues = 0, 8 }), "xdp", Warning, "other end q0 has 8 receive queues", "numtxqueues"},
		"a kernel that does not say": {device(func(d *Device) { d.NoCapability = "no family netdev" }), "xdp", Note, "no family netdev", "show ports"},
		"zero-copy":                  {hardware(func(d *Device) { d.Capability.Features |= hostnet.XDPZeroCopy }), "xdp", OK, "copied once: the forwarder does not ask for the driver's zero-copy", ""},
		"somebody else's program": {device(func(d *Device) {
			d.Link.XDP, d.Program = hostnet.XDP{Mode: hostnet.XDPNative, Program: 9}, hostbpf.Program{Name: "cil_xdp_entry"}
		}), "xdp-program", Fault, "cil_xdp_entry (id 9, native)", "ip link set dev p0 xdp off"},
		"a program without a name": {device(func(d *Device) { d.Link.XDP = hostnet.XDP{Mode: hostnet.XDPGeneric, Program: 9} }), "xdp-program", Fault, "without a name (id 9, generic)", "bpftool"},
		"another of ours on it": {device(func(d *Device) {
			d.Spec.Program, d.Link.XDP, d.Program = 8, hostnet.XDP{Mode: hostnet.XDPNative, Program: 9}, hostbpf.Program{Name: "margay_steer"}
		}), "xdp-program", Fault, "somebody else", "take it off"},
		"our own was taken off": {device(func(d *Device) { d.Spec.Program = 9 }), "xdp-program", Fault, "(id 9) was taken off", "restart the forwarder"},
		"our own in the driver": {device(func(d *Device) {
			d.Spec.Program, d.Link.XDP, d.Program = 9, hostnet.XDP{Mode: hostnet.XDPNative, Program: 9}, hostbpf.Program{Name: "margay_steer"}
		}), "xdp-program", OK, "our XDP program margay_steer", ""},
		"our own in generic mode": {device(func(d *Device) {
			d.Link.XDP, d.Program = hostnet.XDP{Mode: hostnet.XDPGeneric, Program: 9}, hostbpf.Program{Name: "margay_steer"}
		}), "xdp-program", Warning, "copied once more", "check xdp"},
		"our own and no forwarder": {func(f *Facts) {
			leave(f)
			f.Devices[0].Link.XDP, f.Devices[0].Program = hostnet.XDP{Mode: hostnet.XDPNative, Program: 9}, hostbpf.Program{Name: "margay_takeover"}
		}, "xdp-program", Warning, "no forwarder runs here", "bpftool link"},
		"queues without sockets":    {hardware(func(d *Device) { d.Channels.Combined = 4 }), "queues", Fault, "4 queues receive, 2 sockets stand on them", "ethtool -L p0 combined 2"},
		"fewer queues than workers": {hardware(func(d *Device) { d.Channels.Combined, d.Spec.Sockets = 1, 1 }), "queues", Note, "1 queue for 2 workers", "ethtool -L p0 combined 2"},
		"a veth with one queue":     {device(func(d *Device) { d.Channels = hostnet.Channels{Rx: 1, Tx: 1, MaxRx: 1, MaxTx: 1}; d.Spec.Sockets = 1 }), "queues", Note, "1 queue for 2 workers", "numrxqueues 2"},
		"far more queues than need": {hardware(func(d *Device) { d.Channels.Combined, d.Spec.Sockets = 8, 8 }), "queues", Note, "more queues than needed", "combined 2"},
		"the largest MTU of one":    {device(func(d *Device) { d.Link.MTU = 3566 }), "mtu", OK, "fits one frame", ""},
		"a jumbo MTU":               {device(func(d *Device) { d.Link.MTU = 9000 }), "mtu", Note, "up to 3 frames", "jumbo"},
		"an MTU one over a frame":   {device(func(d *Device) { d.Link.MTU = 3567 }), "mtu", Note, "up to 2 frames", "jumbo"},
		"a jumbo MTU without frags": {device(func(d *Device) { d.Link.MTU, d.Capability.Features = 9000, hostnet.XDPBasic|hostnet.XDPRedirect }), "mtu", Fault, "cannot do", "mtu 3566"},
		"LRO":                       {device(func(d *Device) { d.Offloads["rx-lro"] = true }), "lro", Fault, "merges packets", "ethtool -K p0 lro off"},
		"hardware GRO":              {device(func(d *Device) { d.Offloads["rx-gro-hw"] = true }), "hw-gro", Fault, "merges packets", "ethtool -K p0 rx-gro-hw off"},
		"VLAN stripping":            {hardware(func(d *Device) { d.Offloads["rx-vlan-hw-parse"] = true }), "rxvlan", Warning, "look untagged", "ethtool -K p0 rxvlan off"},
		"VLAN stripping of a veth":  {device(func(d *Device) { d.Offloads["rx-vlan-hw-parse"] = true }), "rxvlan", Note, "look untagged", "rxvlan off"},
		"a sender of half a sum": {device(func(d *Device) { d.Peer.Checksum, d.Peer.Namespace = true, "/run/netns/pod" }),
			"tx-checksum", Fault, "q0 sends with partial checksums", "nsenter --net=/run/netns/pod ethtool -K q0 tx off"},
		"a sender out of sight":    {device(func(d *Device) { d.Peer, d.NoPeer, d.Link.Peer = nil, "in no namespace to see", 12 }), "tx-checksum", Note, "no namespace to see", "index 12"},
		"an address not its own":   {device(func(d *Device) { d.Spec.MAC = hostnet.MAC{2, 0, 0, 0, 0, 9} }), "mac", Fault, "answers to 02:00:00:00:00:09", "promisc on"},
		"the same, let through":    {device(func(d *Device) { d.Spec.MAC, d.Link.Promiscuous = hostnet.MAC{2, 0, 0, 0, 0, 9}, true }), "mac", OK, "promiscuous", ""},
		"interrupts put off long":  {device(func(d *Device) { d.DeferIRQs, d.FlushTimeout = 10, 500*time.Microsecond }), "napi", Warning, "rings overflow: napi_defer_hard_irqs 10, gro_flush_timeout 500µs", "200000"},
		"interrupts put off a bit": {device(func(d *Device) { d.DeferIRQs, d.FlushTimeout = 2, 200*time.Microsecond }), "napi", OK, "200µs", ""},
		"interrupts left put off": {func(f *Facts) {
			leave(f)
			f.Devices[0].DeferIRQs, f.Devices[0].FlushTimeout = 2, 200*time.Microsecond
		}, "napi", Note, "while no forwarder runs", "/sys/class/net/p0/"},
		"a device in a bridge":     {device(func(d *Device) { d.Above = "bridge br0" }), "owner", Warning, "part of bridge br0", "bridge"},
		"a device somebody manage": {device(func(d *Device) { d.Owner = "NetworkManager" }), "owner", OK, "NetworkManager configures it", ""},
	})
}

func TestUnreadableOffloadsAreTold(t *testing.T) {
	f := healthy()
	f.Devices[0].Offloads = nil
	var told []string
	for _, finding := range Check(f) {
		if finding.Severity == Note {
			told = append(told, finding.Check)
		}
	}
	if want := []string{"lro", "hw-gro", "rxvlan"}; !slices.Equal(told, want) {
		t.Errorf("told by %v, want %v", told, want)
	}
}

func TestNoFaultIsFoundOnWhatNobodyCalledAPort(t *testing.T) {
	f := healthy()
	f.Devices[0].Link.Up = false
	f.Devices[0].Peer.Checksum = true
	if worst := Worst(Check(f)); worst != Fault {
		t.Fatalf("a named device: worst is %v", worst)
	}
	f.Devices[0].Spec.Candidate = true
	if worst := Worst(Check(f)); worst != Warning {
		t.Errorf("a candidate: worst is %v, want a warning", worst)
	}
}

func TestMerge(t *testing.T) {
	local := []Finding{{Check: "kernel", Found: "a"}, {Check: "memlock", Severity: Note}, {Check: "mtu", Subject: "p0", Found: "outside"}, {Check: "lro", Subject: "p1"}}
	inside := []Finding{{Check: "later", Subject: ""}, {Check: "queues", Subject: "p0"}, {Check: "memlock", Found: "b"}, {Check: "mtu", Subject: "p0", Found: "inside"}}
	want := []Finding{{Check: "kernel", Found: "a"}, {Check: "memlock", Found: "b"}, {Check: "later"},
		{Check: "queues", Subject: "p0"}, {Check: "mtu", Subject: "p0", Found: "inside"}, {Check: "lro", Subject: "p1"}}
	if got := Merge(local, inside); !slices.Equal(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestFindingsPassTheWire(t *testing.T) {
	f := healthy()
	f.Host.Forward4 = "1"
	f.Devices[0].Link.Carrier, f.Devices[0].Peer.Checksum = false, true
	sent := Check(f)
	if got := FromWire(ToWire(sent)); !slices.Equal(got, sent) {
		t.Errorf("got\n%+v\nwant\n%+v", got, sent)
	}
	later := ToWire(sent[:1])
	later.Findings[0].Severity = 9
	if got := FromWire(later)[0].Severity; got != Fault {
		t.Errorf("a severity of a later version is %v, want a fault", got)
	}
	if got := FromWire(nil); got != nil {
		t.Errorf("no answer is %v", got)
	}
}
