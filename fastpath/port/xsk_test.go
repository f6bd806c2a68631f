package port

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
)

const ringSize = 512

// MAC addresses of the veth pair: the kernel's end and ours.
func kernelMAC() []byte { return []byte{2, 0, 0, 0, 0, 1} }
func ourMAC() []byte    { return []byte{2, 0, 0, 0, 0, 2} }

// vethLab is a veth pair whose one end is ours:
//
//	kernel 10.91.0.2 ── eth0 ═ up0 ┤ XSK
type vethLab struct {
	kernel, fwd netns
	umem        *xsk.UMEM
	port        *XSK
	io          *graph.IO
}

func newVethLab(t testing.TB, a *umem.Arena, mtu int) *vethLab {
	t.Helper()
	l := &vethLab{kernel: newNetns(t), fwd: newNetns(t), io: graph.NewIO(a, a.Cache(0))}
	l.fwd.ip("link add up0 type veth peer name eth0 netns " + l.kernel.name)
	l.fwd.ip("link set up0 address 02:00:00:00:00:02")
	l.kernel.ip("link set eth0 address 02:00:00:00:00:01")
	l.fwd.sysctl("net.ipv6.conf.up0.disable_ipv6", "1")
	l.kernel.exec("ethtool", "-K", "eth0", "tx", "off")
	for _, end := range []struct {
		ns  netns
		dev string
	}{{l.fwd, "up0"}, {l.kernel, "eth0"}} {
		end.ns.ip(fmt.Sprintf("link set %s mtu %d up", end.dev, mtu))
	}
	l.kernel.up("eth0", "10.91.0.2/24", "fd91::2/64")
	for _, addr := range []string{"10.91.0.1", "fd91::1"} {
		l.kernel.ip("neigh replace " + addr + " lladdr 02:00:00:00:00:02 dev eth0")
	}
	u, err := xsk.NewCopyUMEM(a.FrameArea(), umem.ChunkSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	l.umem = u
	l.open(t, a, u, mtu)
	return l
}

// open opens the port and steers everything to it.
func (l *vethLab) open(t testing.TB, a *umem.Arena, u *xsk.UMEM, mtu int) {
	t.Helper()
	ns, err := unix.Open("/var/run/netns/"+l.fwd.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	l.port, err = OpenXSK(XSKConfig{
		Name: "up0", NetNS: ns, Queues: 1, RingSize: ringSize, MTU: mtu, MAC: ourMAC(), UMEM: u, Arena: a, Holder: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	program, err := xsk.Attach(xsk.ProgramConfig{Interface: "up0", NetNS: ns, Takeover: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := program.SetSocket(0, l.port.Sockets()[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := program.Close(); err != nil {
			t.Log(err) // the device may be gone
		}
		if err := l.port.Close(a.Cache(0)); err != nil {
			t.Error(err)
		}
		if n := a.Lent(1); n != 0 {
			t.Errorf("%d frames are still lent to the closed port", n)
		}
	})
}

// addLink puts an Ethernet header for the kernel's end in front of a packet.
func (l *vethLab) addLink(m *graph.Meta) bool {
	kind := []byte{8, 0}
	if l.io.Mem[m.Off]>>4 == 6 {
		kind = []byte{0x86, 0xdd}
	}
	m.Off -= 14
	m.Len += 14
	m.Head += 14
	m.L3 = 14
	if m.Flags&graph.Partial != 0 {
		m.CsumStart += 14
	}
	copy(l.io.Mem[m.Off:], append(append(kernelMAC(), ourMAC()...), kind...))
	return true
}

// dropLink takes the Ethernet header off and drops what is not IP.
func (l *vethLab) dropLink(m *graph.Meta) bool {
	kind := binary.BigEndian.Uint16(l.io.Mem[m.Off+12:])
	m.Off += 14
	m.Len -= 14
	m.Head -= 14
	return kind == 0x0800 || kind == 0x86dd
}

// withTUN joins the lab to a pod by a TUN device and a pump:
//
//	pod 10.91.0.1 ── mg0 ┤ pump ├ XSK ═ eth0 ── 10.91.0.2 kernel
func (l *vethLab) withTUN(t testing.TB, a *umem.Arena, mtu int) (pod netns, tun *TUN, p *pump) {
	t.Helper()
	pod = newNetns(t)
	tun = pod.openTUN(TUNConfig{Name: "mg0", Queues: 1, MTU: mtu}, a)
	pod.up("mg0", "10.91.0.1/24", "fd91::1/64")
	p = &pump{io: l.io, a: tun.Queues(), b: l.port.Queues(), aToB: l.addLink, bToA: l.dropLink}
	return pod, tun, p.start(t)
}

// transfer sends n random bytes by TCP from one namespace to another and
// compares what arrives.
func transfer(t testing.TB, from, to netns, addr string, n int) {
	t.Helper()
	var listener net.Listener
	var conn net.Conn
	if err := to.do(func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(addr, "7777"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	arrived := make(chan [32]byte, 1)
	go func() {
		var sum [32]byte
		defer func() { arrived <- sum }()
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		h := sha256.New()
		if _, err := io.Copy(h, c); err == nil {
			sum = [32]byte(h.Sum(nil))
		}
	}()
	if err := from.do(func() (err error) {
		conn, err = net.DialTimeout("tcp", net.JoinHostPort(addr, "7777"), 5*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	h := sha256.New()
	_, err := io.CopyN(io.MultiWriter(conn, h), rand.NewChaCha8([32]byte{1}), int64(n))
	_ = conn.Close()
	if got := <-arrived; err != nil || got != [32]byte(h.Sum(nil)) {
		t.Fatalf("%d bytes to %s did not arrive as sent (%v)", n, addr, err)
	}
}

func TestTCPBetweenTUNAndVeth(t *testing.T) {
	needRoot(t)
	size := 64 << 20
	if testing.Short() {
		size = 8 << 20
	}
	for _, mtu := range []int{1500, 9000} {
		t.Run(fmt.Sprint("MTU ", mtu), func(t *testing.T) {
			a := newArena(t, 8192, 64)
			l := newVethLab(t, a, mtu)
			pod, tun, p := l.withTUN(t, a, mtu)
			for _, v := range []struct{ pod, kernel string }{{"10.91.0.1", "10.91.0.2"}, {"fd91::1", "fd91::2"}} {
				l.kernel.exec("ping", "-c", "2", "-i", "0.05", "-W", "2", "-s", fmt.Sprint(mtu-48), v.pod)
				start := time.Now()
				transfer(t, pod, l.kernel, v.kernel, size)
				toKernel := time.Since(start)
				transfer(t, l.kernel, pod, v.pod, size)
				t.Logf("%s: TUN to veth %.2f Gbit/s, veth to TUN %.2f Gbit/s", v.kernel,
					float64(size*8)/toKernel.Seconds()/1e9, float64(size*8)/(time.Since(start)-toKernel).Seconds()/1e9)
			}
			p.halt()
			stats := map[string]uint64{}
			for _, s := range append(tun.Statistics(), l.port.Statistics()...) {
				stats[s.Name] = s.Value
			}
			t.Logf("%v, refused %v", stats, p.failures)
			if stats["gro-trains"] == 0 || stats["gro-bad-checksums"] != 0 {
				t.Errorf("%d trains coalesced, %d wrong checksums", stats["gro-trains"], stats["gro-bad-checksums"])
			}
			if n := stats["tx-invalid-descriptors"] + stats["rx-invalid-descriptors"]; n != 0 {
				t.Errorf("%d invalid descriptors", n)
			}
			for r, n := range p.failures {
				if n > 0 && graph.Reason(r) != graph.TxFull {
					t.Errorf("%d packets refused: %v", n, graph.Reason(r))
				}
			}
		})
	}
}

func TestUDPSuperpacketsReachTheKernelAsDatagrams(t *testing.T) {
	a := newArena(t, 4096, 64)
	l := newVethLab(t, a, 1500)
	pod, tun, p := l.withTUN(t, a, 1500)
	var supers atomic.Int32
	p.halt()
	p = &pump{io: p.io, a: p.a, b: p.b, bToA: l.dropLink, aToB: func(m *graph.Meta) bool {
		if m.GSO == graph.GSOUDP && m.Segments == 10 {
			supers.Add(1)
		}
		return l.addLink(m)
	}}
	p.start(t)
	for i, addr := range []string{"10.91.0.2", "fd91::2"} {
		data := make([]byte, 13_000)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		for at, got := range datagrams(t, pod, l.kernel, addr, data, 1400) {
			if want := data[at*1400 : min(at*1400+1400, len(data))]; !bytes.Equal(got, want) {
				t.Errorf("datagram %d to %s has %d bytes and is not what was sent", at, addr, len(got))
			}
		}
	}
	if n := supers.Load(); n != 2 && len(tun.Fallbacks()) == 0 {
		t.Errorf("%d UDP superpackets came from the pod, want 2", n)
	}
}

// datagrams sends data by one system call that has the kernel cut it into
// datagrams of size bytes, and returns what arrives.
func datagrams(t *testing.T, from, to netns, addr string, data []byte, size int) (all [][]byte) {
	t.Helper()
	var in, out net.Conn
	if err := to.do(func() error {
		c, err := net.ListenPacket("udp", net.JoinHostPort(addr, "7778"))
		if err == nil {
			in = c.(*net.UDPConn)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := from.do(func() (err error) {
		out, err = net.Dial("udp", net.JoinHostPort(addr, "7778"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	raw, err := out.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(data); err != nil {
		t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(time.Minute))
	for range (len(data) + size - 1) / size {
		b := make([]byte, 2000)
		n, err := in.Read(b)
		if err != nil {
			t.Fatalf("after %d datagrams: %v", len(all), err)
		}
		all = append(all, b[:n])
	}
	return all
}

// frame is a packet for the kernel's end in one frame.
func (l *vethLab) frame(t testing.TB, payload int) graph.Meta {
	t.Helper()
	p, m := packetSpec{udp: true, payload: payload, src: "10.91.0.1", dst: "10.91.0.2"}.build()
	m = place(t, l.io, p, m, true)
	l.addLink(&m)
	return m
}

// send transmits one frame and tells why not.
func (l *vethLab) send(t testing.TB, payload int) graph.Reason {
	t.Helper()
	v := graph.NewVector(l.frame(t, payload))
	if l.port.Queues()[0].TxBurst(l.io, v) == 0 {
		return graph.NoReason
	}
	l.io.Free(v.Meta(0))
	return v.Meta(0).Reason
}

func TestXSKPortThatIsDownUpAndGone(t *testing.T) {
	a := newArena(t, 2048, 4)
	l := newVethLab(t, a, 1500)
	q := l.port.Queues()[0]
	in := func() int { return l.kernel.counter("UdpNoPorts") }
	before := in()
	if r := l.send(t, 100); r != graph.NoReason {
		t.Fatalf("refused: %v", r)
	}
	eventually(t, "the packet", func() bool { return in() == before+1 })
	if r := l.send(t, 1473); r != graph.TxOversize {
		t.Errorf("a packet of 1501 bytes: %v, want %v", r, graph.TxOversize)
	}
	l.fwd.ip("link set up0 down")
	_ = l.send(t, 100) // finds out
	if r := l.send(t, 100); r != graph.TxDown {
		t.Errorf("to a port that is down: %v, want %v", r, graph.TxDown)
	}
	if q.Poll(l.io) {
		t.Error("a port that is down keeps its worker awake")
	}
	l.fwd.ip("link set up0 up")
	eventually(t, "the port to send again", func() bool { return l.send(t, 100) == graph.NoReason && in() > before+1 })
	l.fwd.ip("link del up0")
	_ = l.send(t, 100)
	if r := l.send(t, 100); r != graph.TxDown {
		t.Errorf("to a port that is gone: %v, want %v", r, graph.TxDown)
	}
	if q.Poll(l.io) {
		t.Error("a port that is gone keeps its worker awake")
	}
	poll := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 50); n != 0 || err != nil {
		t.Errorf("the socket of a port that is gone keeps its worker awake: %#x, %v", poll[0].Revents, err)
	}
	ms := make([]graph.Meta, 64)
	for n := q.RxBurst(l.io, ms); n > 0; n = q.RxBurst(l.io, ms) { // what came before
		for i := range ms[:n] {
			l.io.Free(&ms[i])
		}
	}
}

func TestStarvedFillRingRecovers(t *testing.T) {
	a := newArena(t, 256, 4) // fewer than the fill ring wants
	l := newVethLab(t, a, 1500)
	q := l.port.Queues()[0]
	q.Poll(l.io)
	const most = 256 - 256/8 // the rest is for packets on their way
	if n := a.Lent(1); n != most {
		t.Fatalf("the kernel has %d frames, want %d of 256", n, most)
	}
	p := l.kernel.command("ping", "-c", "400", "-i", "0.002", "-W", "1", "10.91.0.1")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	var kept []graph.Meta
	ms := make([]graph.Meta, 64)
	eventually(t, "every frame to come with a packet", func() bool { // none goes back: the ring runs dry
		n := q.RxBurst(l.io, ms)
		q.Poll(l.io)
		kept = append(kept, ms[:n]...)
		return len(kept) == most
	})
	_ = p.Wait() // its packets now find no frame
	for i := range kept {
		l.io.Free(&kept[i])
	}
	q.Poll(l.io)
	if n := a.Lent(1); n != most {
		t.Errorf("the kernel has %d frames again, want %d of 256", n, most)
	}
	p = l.kernel.command("ping", "-c", "1", "-W", "1", "10.91.0.1")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Wait()
	eventually(t, "a packet after the drought", func() bool {
		n := q.RxBurst(l.io, ms)
		for i := range ms[:n] {
			l.io.Free(&ms[i])
		}
		return n > 0
	})
	for _, s := range l.port.Statistics() {
		if s.Name == "fill-starved" && s.Value == 0 {
			t.Error("the drought was not counted")
		}
	}
}

func TestXSKBurstsAllocateNothingAndLoseNothing(t *testing.T) {
	a := newArena(t, 2048, 8)
	l := newVethLab(t, a, 1500)
	q := l.port.Queues()[0]
	q.Poll(l.io)
	super, k := packetSpec{payload: 20_000, gso: 1400, link: true}.build()
	base := place(t, l.io, super, k, false)
	one := l.frame(t, 500)
	ms := make([]graph.Meta, 64)
	v := graph.NewVector(base, one)
	burst := func() {
		m := base
		m.Buf, _ = l.io.Cache.Super()
		m.Off = l.io.Arena.Start(m.Buf) + umem.Headroom
		copy(l.io.Mem[m.Off:], super)
		*v.Meta(0) = m
		m = one
		m.Buf, _ = l.io.Cache.Frame()
		m.Off = l.io.Arena.Start(m.Buf) + umem.Headroom
		m.Flags = 0
		copy(l.io.Mem[m.Off:m.Off+m.Len], l.io.Mem[one.Off:])
		*v.Meta(1) = m
		if q.TxBurst(l.io, v) != 0 {
			t.Fatalf("refused: %v", v.Meta(0).Reason)
		}
		n := q.RxBurst(l.io, ms)
		for i := range ms[:n] {
			l.io.Free(&ms[i])
		}
		q.Poll(l.io)
	}
	if n := testing.AllocsPerRun(200, burst); n != 0 {
		t.Errorf("%v allocations per burst, want 0", n)
	}
	eventually(t, "every sent frame to come back", func() bool {
		q.Poll(l.io)
		return a.Lent(1) <= ringSize
	})
	l.io.Free(&base)
	l.io.Free(&one)
}

func TestOpenXSKTellsWhatIsWrong(t *testing.T) {
	if _, err := OpenXSK(XSKConfig{Name: "up0"}); err == nil {
		t.Error("a port of no queues was opened")
	}
	if os.Geteuid() != 0 {
		return
	}
	a := newArena(t, 64, 0)
	u, err := xsk.NewCopyUMEM(a.FrameArea(), umem.ChunkSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_, err = OpenXSK(XSKConfig{Name: "nothere", NetNS: -1, Queues: 1, RingSize: 64, MTU: 1500, UMEM: u, Arena: a, Holder: 1})
	if err == nil {
		t.Error("a port without device was opened")
	}
}
