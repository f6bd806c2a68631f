package xsk

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the tests against the kernel share: namespaces, veth pairs, memory and a
// loop that plays the worker.

// namespace is a network namespace that goes away with its test.
type namespace struct {
	t    testing.TB
	name string
	fd   int
}

var namespaces atomic.Int32 // numbers names within this process

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces, AF_XDP sockets and XDP programs")
	}
	n := &namespace{t: t, name: fmt.Sprintf("xsk-%d-%d", os.Getpid(), namespaces.Add(1))}
	command(t, "ip", "netns", "add", n.name)
	t.Cleanup(func() { command(t, "ip", "netns", "del", n.name) })
	fd, err := unix.Open("/run/netns/"+n.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	n.fd = fd
	t.Cleanup(func() { unix.Close(fd) })
	return n
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ip runs ip(8) in the namespace.
func (n *namespace) ip(args string) string {
	n.t.Helper()
	return command(n.t, "ip", append([]string{"-n", n.name}, strings.Fields(args)...)...)
}

// do runs fn in the namespace.
func (n *namespace) do(fn func() error) {
	n.t.Helper()
	if err := inNamespace(n.fd, fn); err != nil {
		n.t.Fatal(err)
	}
}

// veth joins the namespace to another by a pair of the same name at both ends, up,
// without duplicate address detection, and without checksum offload at the far end:
// AF_XDP cannot see that a checksum is partial.
func (n *namespace) veth(far *namespace, name string, mtu int, extra string) {
	n.t.Helper()
	n.ip(fmt.Sprintf("link add %s %s type veth peer name %s netns %s", name, extra, name, far.name))
	for _, end := range []*namespace{n, far} {
		command(n.t, "ip", "netns", "exec", end.name, "sysctl", "-qw", "net.ipv6.conf."+name+".accept_dad=0")
		end.ip(fmt.Sprintf("link set %s mtu %d up", name, mtu))
	}
	command(n.t, "ip", "netns", "exec", far.name, "ethtool", "-K", name, "tx", "off")
}

// Addresses of the tests: the kernel's and ours on a veth pair.
var (
	kernel4, ours4 = netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2")
	kernel6, ours6 = netip.MustParseAddr("fd07::1"), netip.MustParseAddr("fd07::2")
)

// address gives the kernel's end its addresses and ours as neighbours.
func (n *namespace) address(name string) {
	n.t.Helper()
	n.ip(fmt.Sprintf("addr add %s/24 dev %s", kernel4, name))
	n.ip(fmt.Sprintf("addr add %s/64 dev %s nodad", kernel6, name))
	n.ip(fmt.Sprintf("neigh replace %s lladdr 02:00:00:00:00:02 dev %s", ours4, name))
	n.ip(fmt.Sprintf("neigh replace %s lladdr 02:00:00:00:00:02 dev %s", ours6, name))
}

// memory maps a memfd of n frames.
func memory(t testing.TB, frames int) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("xsk-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(frames)*4096); err != nil {
		t.Fatal(err)
	}
	area, err := unix.Mmap(fd, 0, frames*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(area) })
	return area
}

// copyUMEM makes a UMEM that is closed with the test.
func copyUMEM(t testing.TB, frames int) *UMEM {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: registers memory with the kernel")
	}
	u, err := NewCopyUMEM(memory(t, frames), 4096, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// addresses lists the frames from first to first+n-1.
func addresses(first, n int) []uint64 {
	a := make([]uint64, n)
	for i := range a {
		a[i] = uint64(first+i) * 4096
	}
	return a
}

// open opens a socket on queue 0 of a device, closed with the test.
func open(t testing.TB, u *UMEM, n *namespace, name string) *Socket {
	t.Helper()
	s, err := u.Open(SocketConfig{Interface: name, NetNS: n.fd, RingSize: 256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// takeOver attaches the takeover program and gives queue 0 to the socket.
func takeOver(t testing.TB, n *namespace, name string, s *Socket, mode AttachMode) *Program {
	t.Helper()
	p, err := Attach(ProgramConfig{Interface: name, NetNS: n.fd, Takeover: true, Mode: mode}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if err := p.SetSocket(0, s); err != nil {
		t.Fatal(err)
	}
	return p
}

// port is a socket and its place in a loop.
type port struct {
	socket  *Socket
	to      *port                 // where what it receives is sent
	change  func(packet [][]byte) // what is done to each packet on the way; may be nil
	packets int                   // received
	chunks  int                   // most chunks of a packet
}

// turn moves one burst of each port; it is what a worker does in a round.
func turn(t testing.TB, u *UMEM, ports ...*port) (moved int) {
	t.Helper()
	d, a := make([]Desc, 64), make([]uint64, 64)
	for _, p := range ports {
		if n := p.socket.Complete(a); n > 0 {
			p.giveBack(t, a[:n])
		}
		n := p.socket.Receive(d[:min(len(d), int(p.to.socket.TransmitFree()))])
		p.visit(u, d[:n])
		if sent := p.to.socket.Transmit(d[:n]); sent != n {
			t.Errorf("transmitted %d of %d", sent, n)
		}
		if p.to.socket.KickNeeded() {
			p.to.socket.Kick()
		}
		moved += n
	}
	return moved
}

// giveBack fills frames that were sent; since all ports have the same number of
// frames to begin with, one that sent more than it received passes them on.
func (p *port) giveBack(t testing.TB, a []uint64) {
	t.Helper()
	for _, q := range []*port{p.to, p} {
		a = a[q.socket.Fill(a):]
	}
	if len(a) != 0 {
		t.Errorf("%d frames found no room on a fill ring", len(a))
	}
}

// visit counts the packets of a burst and has each changed.
func (p *port) visit(u *UMEM, d []Desc) {
	for len(d) > 0 {
		last := slices.IndexFunc(d, func(x Desc) bool { return x.Options&PktContd == 0 })
		var packet [][]byte
		for _, x := range d[:last+1] {
			packet = append(packet, u.Area()[x.Addr:][:x.Len])
		}
		p.packets++
		p.chunks = max(p.chunks, len(packet))
		if p.change != nil {
			p.change(packet)
		}
		d = d[last+1:]
	}
}

// patience is how long a test waits for what must come: a machine that does much
// else is slow, and not at fault.
const patience = time.Minute

// until turns the ports until done says so.
func until(t testing.TB, u *UMEM, done func() bool, ports ...*port) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("nothing came for %v", patience)
		}
		if turn(t, u, ports...) == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// reflect turns an IP packet round: addresses of Ethernet and IP, ports of UDP. The
// checksums stay right, since they are sums.
func reflect(packet [][]byte) {
	b := packet[0]
	swap := func(x, y, n int) {
		for i := range n {
			b[x+i], b[y+i] = b[y+i], b[x+i]
		}
	}
	swap(0, 6, 6)
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_IP:
		swap(14+12, 14+16, 4)
		swap(14+20, 14+22, 2)
	case unix.ETH_P_IPV6:
		swap(14+8, 14+24, 16)
		swap(14+40, 14+42, 2)
	}
}

// udp opens a socket of the kernel in the namespace, joined from its address to ours.
func (n *namespace) udp(local, remote netip.Addr) (c *net.UDPConn) {
	n.t.Helper()
	n.do(func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 4000)),
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 5000)))
		return err
	})
	n.t.Cleanup(func() { c.Close() })
	return c
}
