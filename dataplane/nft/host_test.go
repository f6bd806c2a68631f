package nft

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// host is a namespace with three interfaces, and a peer behind all of them that
// sends what it likes:
//
//	peer p0 ── eth0 ┐
//	peer p1 ── eth1 ├ host, with 10.9.0.0/16 and 2001:db8:9::/48 of its own
//	peer p2 ── cali1┘
//
// A table of the test's own notes which packets came through all of ours, by the
// number that each has as its IPv4 ID, or its IPv6 flow label, and drops them.
type host struct {
	t          testing.TB
	ns, peer   *hostnet.Namespace
	table      *Table
	fds        [3]int // of the peer's interfaces
	index      [3]int
	macs       [3][]byte
	raw4, raw6 int // of the host, to send itself
}

// interfaces of the host, and the network behind each: 10.N.0.0/16, 2001:db8:N::/48.
var interfaces = [3]string{"eth0", "eth1", "cali1"}

const ownNetwork = 9

const probe = `table inet probe {
	set in4 { typeof ip id; flags dynamic; size 65535; }
	set in6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
	set forward4 { typeof ip id; flags dynamic; size 65535; }
	set forward6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
	set out4 { typeof ip id; flags dynamic; size 65535; }
	set out6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
	chain in { type filter hook input priority 300; add @in4 { ip id } drop; add @in6 { ip6 flowlabel } drop; }
	chain forward { type filter hook forward priority 300; add @forward4 { ip id } drop; add @forward6 { ip6 flowlabel } drop; }
	chain out { type filter hook postrouting priority 300; ip ttl != 77 drop; ip6 hoplimit != 77 drop; add @out4 { ip id } drop; add @out6 { ip6 flowlabel } drop; }
}
`

func newHost(t testing.TB, o Options) *host {
	t.Helper()
	h := &host{t: t, ns: hostnettest.Namespace(t), peer: hostnettest.Namespace(t)}
	hostnettest.Run(t, h.ns, "sysctl", "-qw",
		"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
		"net.ipv4.conf.all.accept_local=1", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0",
	)
	lines, peers := "link set lo up\nroute add local 10.9.0.0/16 dev lo\nroute add local 2001:db8:9::/48 dev lo\n", ""
	for i, name := range interfaces {
		lines += fmt.Sprintf(`link add %[2]s type veth peer name p%[1]d netns %[4]s
link set %[2]s up
addr add 10.20%[1]d.0.1/24 dev %[2]s
addr add 2001:db8:20%[1]d::1/64 dev %[2]s nodad
neigh add 10.20%[1]d.0.2 lladdr 02:00:00:00:00:01 dev %[2]s nud permanent
neigh add 2001:db8:20%[1]d::2 lladdr 02:00:00:00:00:01 dev %[2]s nud permanent
route add 10.%[3]d.0.0/16 via 10.20%[1]d.0.2
route add 2001:db8:%[3]d::/48 via 2001:db8:20%[1]d::2
`, i, name, i+1, h.peer.Path())
		peers += fmt.Sprintf("link set p%d up\n", i)
	}
	h.ip(h.ns, lines)
	h.ip(h.peer, peers)
	hostnettest.Run(t, h.ns, "nft", probe)
	hostnettest.Run(t, h.ns, "sysctl", "-qw", "net.netfilter.nf_conntrack_checksum=0")
	h.inHost(func() (err error) {
		h.table, err = Open(o)
		return err
	})
	t.Cleanup(h.table.Close)
	h.open()
	return h
}

// ip runs lines of ip's in a namespace.
func (h *host) ip(ns *hostnet.Namespace, lines string) {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "lines")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		h.t.Fatal(err)
	}
	hostnettest.Run(h.t, ns, "ip", "-batch", file)
}

func (h *host) inHost(f func() error) {
	h.t.Helper()
	if err := h.ns.Do(f); err != nil {
		h.t.Fatal(err)
	}
}

// open opens the sockets that send.
func (h *host) open() {
	h.t.Helper()
	h.inHost(func() (err error) {
		for i, name := range interfaces {
			link, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			h.macs[i] = link.HardwareAddr
		}
		if h.raw4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW); err != nil {
			return err
		}
		h.raw6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW)
		return err
	})
	err := h.peer.Do(func() (err error) {
		for i := range h.fds {
			link, err := net.InterfaceByName(fmt.Sprintf("p%d", i))
			if err != nil {
				return err
			}
			h.index[i] = link.Index
			if h.fds[i], err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		for _, fd := range append(h.fds[:], h.raw4, h.raw6) {
			_ = unix.Close(fd)
		}
	})
}

// hops is what our packets may go yet: those that the host answers with have other
// numbers, and are not taken for ours.
const hops = 77

// packet is one that is sent; from is the interface that it comes in by, -1: the
// host sends it itself.
type packet struct {
	from                        int
	source, destination         netip.Addr
	protocol                    uint8
	sourcePort, destinationPort uint16 // of ICMP type<<8|code in the second
}

func (p *packet) String() string {
	return fmt.Sprintf("from %d: %v:%d -> %v:%d protocol %d", p.from, p.source, p.sourcePort, p.destination, p.destinationPort, p.protocol)
}

// out is the interface that the packet leaves by, -1: it is for the host.
func (p *packet) out() int {
	n := p.destination.As16()[5] - 1
	if p.destination.Is4() {
		n = p.destination.As4()[1] - 1
	}
	if n == ownNetwork-1 {
		return -1
	}
	return int(n)
}

// bytes is the packet, from its IP header on.
func (p *packet) bytes(number uint16) []byte {
	body := make([]byte, 20)
	switch p.protocol {
	case 1, 58:
		binary.BigEndian.PutUint16(body, p.destinationPort)
	case 6, 17, 132:
		binary.BigEndian.PutUint16(body, p.sourcePort)
		binary.BigEndian.PutUint16(body[2:], p.destinationPort)
	}
	switch p.protocol {
	case 6:
		body[12], body[13] = 5<<4, 2 // SYN
	case 17:
		body[5] = byte(len(body))
	}
	if !p.source.Is4() {
		head := make([]byte, 40)
		head[0] = 6 << 4
		binary.BigEndian.PutUint16(head[2:], number)
		binary.BigEndian.PutUint16(head[4:], uint16(len(body)))
		head[6], head[7] = p.protocol, hops
		copy(head[8:], p.source.AsSlice())
		copy(head[24:], p.destination.AsSlice())
		return append(head, body...)
	}
	head := make([]byte, 20)
	head[0], head[3] = 4<<4|5, byte(20+len(body))
	binary.BigEndian.PutUint16(head[4:], number)
	head[8], head[9] = hops, p.protocol
	copy(head[12:], p.source.AsSlice())
	copy(head[16:], p.destination.AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(head[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(head[10:], ^uint16(sum&0xffff+sum>>16))
	return append(head, body...)
}

// send sends packets and reports which came through. It has them numbered from 1,
// for a number of 0 is not kept.
func (h *host) send(packets []packet) []bool {
	h.t.Helper()
	h.forget()
	for i := range packets {
		h.sendOne(&packets[i], uint16(i+1))
	}
	through := h.through()
	came := make([]bool, len(packets))
	for i := range packets {
		switch p := &packets[i]; {
		case p.from < 0:
			came[i] = through["out"][i+1]
		case p.out() < 0:
			came[i] = through["in"][i+1]
		default:
			came[i] = through["forward"][i+1]
		}
	}
	return came
}

func (h *host) sendOne(p *packet, number uint16) {
	h.t.Helper()
	b := p.bytes(number)
	var err error
	switch {
	case p.from >= 0:
		frame := append(append([]byte{}, h.macs[p.from]...), 2, 0, 0, 0, 0, 1, 0x08, 0x00)
		if !p.source.Is4() {
			frame[12], frame[13] = 0x86, 0xdd
		}
		err = unix.Sendto(h.fds[p.from], append(frame, b...), 0, &unix.SockaddrLinklayer{Ifindex: h.index[p.from]})
	case p.source.Is4():
		err = unix.Sendto(h.raw4, b, 0, &unix.SockaddrInet4{Addr: p.destination.As4()})
	default:
		err = unix.Sendto(h.raw6, b, 0, &unix.SockaddrInet6{Addr: p.destination.As16()})
	}
	if err != nil && err != unix.EPERM {
		h.t.Fatalf("send %v: %v", p, err)
	}
}

// forget empties the probe's sets.
func (h *host) forget() {
	h.t.Helper()
	var text strings.Builder
	for _, set := range []string{"in4", "in6", "forward4", "forward6", "out4", "out6"} {
		text.WriteString("flush set inet probe " + set + "; ")
	}
	hostnettest.Run(h.t, h.ns, "nft", text.String())
}

// through are the numbers in the probe's sets, by their names without the family.
func (h *host) through() map[string]map[int]bool {
	h.t.Helper()
	var list struct {
		Nftables []struct {
			Set *struct {
				Name string
				Elem []int
			}
		}
	}
	text := hostnettest.Run(h.t, h.ns, "nft", "-j", "list", "table", "inet", "probe")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		h.t.Fatalf("read the probe: %v\n%s", err, text)
	}
	out := map[string]map[int]bool{}
	for _, n := range list.Nftables {
		if n.Set == nil {
			continue
		}
		name := strings.TrimRight(n.Set.Name, "46")
		if out[name] == nil {
			out[name] = map[int]bool{}
		}
		for _, number := range n.Set.Elem {
			out[name][number] = true
		}
		delete(out[name], 0) // packets of the kernel's own
	}
	return out
}
