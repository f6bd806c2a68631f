//go:build linux

package hostnet_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// ipLink is what ip -json tells of a link.
type ipLink struct {
	Index    int      `json:"ifindex"`
	Name     string   `json:"ifname"`
	Flags    []string `json:"flags"`
	MTU      int      `json:"mtu"`
	Address  string   `json:"address"`
	RxQueues int      `json:"num_rx_queues"`
	TxQueues int      `json:"num_tx_queues"`
	Promisc  int      `json:"promiscuity"`
	Info     struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
}

func witness(t *testing.T, h *hostnet.Host, name string) ipLink {
	t.Helper()
	return hostnettest.JSON[[]ipLink](t, h.Namespace(), "ip", "-j", "-d", "link", "show", name)[0]
}

// agree holds what we read of a link against what ip and ethtool read.
func agree(t *testing.T, h *hostnet.Host, name string) hostnet.Link {
	t.Helper()
	got, err := h.Link(name)
	if err != nil {
		t.Fatal(err)
	}
	w := witness(t, h, name)
	mac := w.Address
	if got.MAC.IsZero() {
		mac = got.MAC.String()
	}
	want := hostnet.Link{
		Name: w.Name, Index: w.Index, MTU: w.MTU, RxQueues: w.RxQueues, TxQueues: w.TxQueues, Kind: w.Info.Kind,
		Up: slices.Contains(w.Flags, "UP"), Carrier: slices.Contains(w.Flags, "LOWER_UP"),
		Promiscuous: slices.Contains(w.Flags, "PROMISC"),
		MAC:         got.MAC, Peer: got.Peer, Driver: got.Driver,
	}
	if got != want || got.MAC.String() != mac {
		t.Errorf("read %+v\nip says %+v", got, w)
	}
	byIndex, err := h.LinkByIndex(got.Index)
	if err != nil || byIndex != got {
		t.Errorf("by index it is %+v (%v), by name %+v", byIndex, err, got)
	}
	all, err := h.Links()
	if err != nil || !slices.Contains(all, got) {
		t.Errorf("Links tells %+v (%v), want %+v among them", all, err, got)
	}
	return got
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestAddVeth(t *testing.T) {
	mac, err := hostnet.ParseMAC("02:00:00:00:0a:01")
	must(t, err)
	tests := map[string]hostnet.VethConfig{
		"with nothing said":             {},
		"with queues of its own":        {RxQueues: 4, TxQueues: 3, PeerRxQueues: 2, PeerTxQueues: 5},
		"with addresses and an MTU":     {MAC: mac, PeerMAC: hostnet.MAC{2, 0, 0, 0, 0x0b, 2}, MTU: 3498},
		"with everything in two spaces": {RxQueues: 2, TxQueues: 2, PeerRxQueues: 2, PeerTxQueues: 2, MTU: 9000, MAC: mac},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			here := hostnettest.Host(t)
			there := here
			if strings.Contains(name, "two spaces") {
				there = hostnettest.Host(t)
				c.PeerNS = there.Namespace()
			}
			c.Name, c.Peer = "near", "far"
			must(t, here.AddVeth(c))
			near, far := agree(t, here, "near"), agree(t, there, "far")
			if near.Kind != "veth" || near.Driver != "veth" || near.Peer != far.Index || far.Peer != near.Index {
				t.Errorf("not the ends of a veth: %+v and %+v", near, far)
			}
			queues := []int{near.RxQueues, near.TxQueues, far.RxQueues, far.TxQueues}
			want := []int{max(c.RxQueues, 1), max(c.TxQueues, 1), max(c.PeerRxQueues, 1), max(c.PeerTxQueues, 1)}
			if !slices.Equal(queues, want) {
				t.Errorf("queues are %v, want %v", queues, want)
			}
			if c.MTU != 0 && (near.MTU != c.MTU || far.MTU != c.MTU) {
				t.Errorf("MTUs are %d and %d, want %d", near.MTU, far.MTU, c.MTU)
			}
			if !c.MAC.IsZero() && near.MAC != c.MAC || !c.PeerMAC.IsZero() && far.MAC != c.PeerMAC {
				t.Errorf("MACs are %v and %v, want %v and %v", near.MAC, far.MAC, c.MAC, c.PeerMAC)
			}
			if err := here.AddVeth(c); err == nil {
				t.Error("the names were taken twice")
			}
			must(t, here.DeleteLink("near"), here.DeleteLink("near"))
			if _, err := there.Link("far"); !errors.Is(err, hostnet.ErrNoLink) {
				t.Errorf("the far end outlived the near one: %v", err)
			}
		})
	}
}

func TestLinkSettingsAreWhatIPShows(t *testing.T) {
	h := hostnettest.Host(t)
	must(t, h.AddVeth(hostnet.VethConfig{Name: "a", Peer: "b"}))
	if l := agree(t, h, "a"); l.Up || l.Carrier {
		t.Errorf("a new link is up: %+v", l)
	}
	must(t, h.SetUp("a"))
	if l := agree(t, h, "a"); !l.Up || l.Carrier {
		t.Errorf("up without a peer that is: %+v", l)
	}
	must(t, h.SetUp("b"))
	hostnettest.Eventually(t, "carrier", func() bool { l, err := h.Link("a"); return err == nil && l.Carrier })
	agree(t, h, "a")
	must(t, h.SetMTU("a", 1600), h.SetMAC("a", hostnet.MAC{2, 1, 2, 3, 4, 5}), h.SetPromiscuous("a", true))
	l := agree(t, h, "a")
	if l.MTU != 1600 || l.MAC != (hostnet.MAC{2, 1, 2, 3, 4, 5}) || !l.Promiscuous {
		t.Errorf("settings did not take: %+v", l)
	}
	must(t, h.SetPromiscuous("a", false), h.SetDown("a"), h.RenameLink("a", "c"))
	if l := agree(t, h, "c"); l.Promiscuous || l.Up {
		t.Errorf("settings did not go: %+v", l)
	}
	other := hostnettest.Host(t)
	must(t, h.MoveLink("c", other.Namespace()))
	agree(t, other, "c")
	if _, err := h.Link("c"); !errors.Is(err, hostnet.ErrNoLink) {
		t.Errorf("the link moved and stayed: %v", err)
	}
	agree(t, h, "lo")
}

func TestErrorsNameTheLink(t *testing.T) {
	h := hostnettest.Host(t)
	calls := map[string]error{
		"SetUp": h.SetUp("nosuch"), "SetDown": h.SetDown("nosuch"), "SetMTU": h.SetMTU("nosuch", 1500),
		"SetMAC": h.SetMAC("nosuch", hostnet.MAC{2}), "SetPromiscuous": h.SetPromiscuous("nosuch", true),
		"MoveLink": h.MoveLink("nosuch", h.Namespace()), "RenameLink": h.RenameLink("nosuch", "x"),
	}
	_, calls["Features"] = h.Features("nosuch")
	_, calls["Channels"] = h.Channels("nosuch")
	for call, err := range calls {
		if !errors.Is(err, hostnet.ErrNoLink) || !strings.Contains(err.Error(), "nosuch") {
			t.Errorf("%s of a link that is not there: %v, want ErrNoLink and its name", call, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a b", "sixteen-octets-x", "a:1"} {
		if _, err := h.Link(name); err == nil || errors.Is(err, hostnet.ErrNoLink) {
			t.Errorf("the name %q: %v, want it refused", name, err)
		}
	}
	if err := h.SetMTU("lo", -1); err == nil {
		t.Error("a negative MTU was taken")
	}
}

// ethtoolFeatures reads ethtool -k: "name: on [fixed]", features of a group indented below it.
func ethtoolFeatures(t *testing.T, h *hostnet.Host, link string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for line := range strings.Lines(hostnettest.Run(t, h.Namespace(), "ethtool", "-k", link)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok {
			out[name] = strings.HasPrefix(rest, "on")
		}
	}
	return out
}

func TestOffloadsAreWhatEthtoolShows(t *testing.T) {
	h := hostnettest.Host(t)
	must(t, h.AddVeth(hostnet.VethConfig{Name: "a", Peer: "b"}))
	same := func(what string) {
		t.Helper()
		ours, err := h.Features("a")
		must(t, err)
		theirs, compared := ethtoolFeatures(t, h, "a"), 0
		for name, f := range ours {
			if on, told := theirs[name]; told {
				compared++
				if on != f.Active {
					t.Errorf("%s: %s is %v, ethtool says %v", what, name, f.Active, on)
				}
			}
		}
		if compared < 40 {
			t.Errorf("%s: only %d features in both of %v and %v", what, compared, slices.Sorted(maps.Keys(ours)), theirs)
		}
	}
	same("new")
	// What ethtool -K takes off or puts on by the same name must leave the same features.
	for _, name := range []string{"tx", "tso", "gso", "gro", "sg", "rxvlan", "txvlan", "rx"} {
		for _, on := range []bool{false, true} {
			must(t, h.SetOffload("a", name, on))
			same(fmt.Sprintf("%s %v", name, on))
			ours, err := h.Features("a")
			must(t, err)
			hostnettest.Run(t, h.Namespace(), "ethtool", "-K", "a", name, map[bool]string{true: "off", false: "on"}[on])
			hostnettest.Run(t, h.Namespace(), "ethtool", "-K", "a", name, map[bool]string{true: "on", false: "off"}[on])
			theirs, err := h.Features("a")
			must(t, err)
			if !maps.Equal(ours, theirs) {
				t.Errorf("%s %v: we leave %v\nethtool leaves %v", name, on, ours, theirs)
			}
			if got, err := h.Offload("a", name); err != nil || got != on {
				t.Errorf("Offload(%s) is %v (%v) after it was set to %v", name, got, err, on)
			}
		}
	}
	for name, on := range map[string]bool{"lro": true, "nosuch-feature": false, "rx-gro-hw": true} {
		if err := h.SetOffload("a", name, on); !errors.Is(err, hostnet.ErrNotSupported) {
			t.Errorf("SetOffload(%s, %v) of a veth: %v, want ErrNotSupported", name, on, err)
		}
	}
	must(t, h.SetOffload("a", "lro", false), h.SetOffload("a", "rx-gro-hw", false)) // fixed off is off
	if err := h.SetOffload("lo", "tx-checksum-ip-generic", false); !errors.Is(err, hostnet.ErrNotSupported) {
		t.Errorf("switching off what is fixed on: %v, want ErrNotSupported", err)
	}
}

func TestChannelsAreWhatEthtoolShows(t *testing.T) {
	h := hostnettest.Host(t)
	must(t, h.AddVeth(hostnet.VethConfig{Name: "a", Peer: "b", RxQueues: 4, TxQueues: 3, PeerRxQueues: 2, PeerTxQueues: 4}))
	hostnettest.Run(t, h.Namespace(), "ethtool", "-L", "a", "rx", "2", "tx", "1")
	got, err := h.Channels("a")
	must(t, err)
	if want := (hostnet.Channels{Rx: 2, Tx: 1, MaxRx: 4, MaxTx: 3}); got != want {
		t.Errorf("channels are %+v, want %+v\n%s", got, want, hostnettest.Run(t, h.Namespace(), "ethtool", "-l", "a"))
	}
	if _, err := h.Channels("lo"); !errors.Is(err, hostnet.ErrNotSupported) {
		t.Errorf("channels of lo: %v, want ErrNotSupported", err)
	}
}

func TestDriverIsWhatEthtoolShows(t *testing.T) {
	h := hostnettest.Host(t)
	hostnettest.Run(t, h.Namespace(), "ip", "tuntap", "add", "t0", "mode", "tun")
	hostnettest.Run(t, h.Namespace(), "ip", "link", "add", "br0", "type", "bridge")
	for _, name := range []string{"t0", "br0"} {
		l := agree(t, h, name)
		if out := hostnettest.Run(t, h.Namespace(), "ethtool", "-i", name); !strings.Contains(out, "driver: "+l.Driver+"\n") {
			t.Errorf("driver of %s is %q, ethtool says\n%s", name, l.Driver, out)
		}
	}
}

// A program that somebody left attached comes off, as ip link set xdp off takes it
// off; one that a bpf_link holds stays, and that is said.
func TestXDPProgramIsDetached(t *testing.T) {
	left, _ := hostnettest.Pair(t)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "left_behind", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	attached := func() bool {
		return strings.Contains(hostnettest.Run(t, left.Namespace(), "ip", "link", "show", "left"), "xdp")
	}
	err = left.Namespace().Do(func() error {
		l, err := netlink.LinkByName("left")
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFd(l, p.FD())
	})
	if err != nil || !attached() {
		t.Fatalf("attach a program: %v", err)
	}
	for range 2 { // the second time there is none
		if err := left.DetachXDP("left"); err != nil || attached() {
			t.Errorf("still attached: %v, %v", attached(), err)
		}
	}
	l, err := left.Link("left")
	if err != nil {
		t.Fatal(err)
	}
	err = left.Namespace().Do(func() error {
		held, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: l.Index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { held.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := left.DetachXDP("left"); err == nil || !attached() {
		t.Errorf("what a bpf_link holds came off: %v", err)
	}
	if err := left.DetachXDP("absent"); !errors.Is(err, hostnet.ErrNoLink) {
		t.Errorf("a link that is not there: %v", err)
	}
}
