package xsk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// exchange has the kernel send datagrams of size bytes and read them back.
func exchange(t *testing.T, u *UMEM, c *net.UDPConn, size, count int, ports ...*port) {
	t.Helper()
	sent, back := make([]byte, size), make([]byte, size+1)
	for i := range count {
		for j := range sent {
			sent[j] = byte(rand.Uint32())
		}
		if _, err := c.Write(sent); err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		before := ports[0].packets
		until(t, u, func() bool { return ports[0].packets > before }, ports...)
		c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(back)
		if err != nil {
			t.Fatalf("datagram %d did not come back: %v", i, err)
		}
		if !bytes.Equal(back[:n], sent) {
			t.Fatalf("datagram %d came back changed", i)
		}
	}
}

// The kernel's UDP socket talks to us over a veth pair and gets its own back:
//
//	far: 10.7.0.1 ── v0 ══ v0 ── Socket, reflect
func TestKernelGetsBackWhatItSends(t *testing.T) {
	for _, mode := range []AttachMode{Native, Generic} {
		for name, size := range map[string]int{"small": 32, "full": 1472, "jumbo of three chunks": 8900} {
			t.Run(fmt.Sprintf("%v/%s", mode, name), func(t *testing.T) {
				near, far := newNamespace(t), newNamespace(t)
				near.veth(far, "v0", 9000, "")
				far.address("v0")
				u := copyUMEM(t, 64)
				s := open(t, u, near, "v0")
				s.Fill(addresses(0, 64))
				program := takeOver(t, near, "v0", s, mode)
				p := &port{socket: s, change: reflect}
				p.to = p
				exchange(t, u, far.udp(kernel4, ours4), size, 40, p)
				exchange(t, u, far.udp(kernel6, ours6), size, 40, p)
				if want := 1 + size/3900; p.chunks != want {
					t.Errorf("packets of %d chunks, want %d", p.chunks, want)
				}
				witness(t, program, s, 80)
			})
		}
	}
}

// witness checks that our program and socket had the packets, and lost none.
func witness(t *testing.T, p *Program, s *Socket, packets uint64) {
	t.Helper()
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.Redirected < packets || c.Passed != 0 {
		t.Errorf("program counted %+v, want %d redirected and none passed", c, packets)
	}
	st, err := s.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	if st.RxDropped+st.RxRingFull+st.RxInvalidDescs+st.TxInvalidDescs != 0 {
		t.Errorf("socket lost packets: %+v", st)
	}
}

// Frames pass between two ports without a copy; the first port goes, another comes:
//
//	a: 10.7.0.1 ── v0 ══ v0 ┐              ┌ v1 ══ v1 ── 10.7.0.2 :b
//	                        └ Sockets, one UMEM
//	c: 10.7.0.1 ── v2 ══ v2 ┘
func TestForwardingOutlivesTheFirstPort(t *testing.T) {
	mid, a, b, c := newNamespace(t), newNamespace(t), newNamespace(t), newNamespace(t)
	u := copyUMEM(t, 192)
	mid.veth(a, "v0", 1500, "")
	mid.veth(b, "v1", 1500, "")
	forwarder := func(name string, first int) (*port, *Program) {
		s := open(t, u, mid, name)
		s.Fill(addresses(first, 64))
		return &port{socket: s}, takeOver(t, mid, name, s, Native)
	}
	p0, program := forwarder("v0", 0)
	p1, _ := forwarder("v1", 64)
	p0.to, p1.to = p1, p0
	b.ip("addr add 10.7.0.2/24 dev v1")
	b.ip("addr add fd07::2/64 dev v1 nodad")
	connect(t, u, a, b, "v0", p0, p1)

	program.Close()
	p0.socket.Close()
	mid.ip("link del v0")
	mid.veth(c, "v2", 1500, "")
	p2, _ := forwarder("v2", 128)
	p2.to, p1.to = p1, p2
	b.ip("neigh flush dev v1")
	connect(t, u, c, b, "v2", p2, p1)
}

// connect has both ends find each other by ARP and ND, and exchange datagrams.
func connect(t *testing.T, u *UMEM, a, b *namespace, name string, ports ...*port) {
	t.Helper()
	a.ip("addr add 10.7.0.1/24 dev " + name)
	a.ip("addr add fd07::1/64 dev " + name + " nodad")
	for local, remote := range map[string][2]string{"v4": {kernel4.String(), ours4.String()}, "v6": {kernel6.String(), ours6.String()}} {
		from, to := a.listen(remote[0]), b.listen(remote[1])
		for i := range 20 {
			message := fmt.Sprintf("%s %d", local, i)
			if _, err := from.WriteTo([]byte(message), to.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			buf, got := make([]byte, 100), make(chan string, 1)
			go func() {
				to.SetReadDeadline(time.Now().Add(patience))
				n, _, _ := to.ReadFrom(buf)
				got <- string(buf[:n])
			}()
			var answer string
			until(t, u, func() bool {
				select {
				case answer = <-got:
					return true
				default:
					return false
				}
			}, ports...)
			if answer != message {
				t.Fatalf("got %q, want %q", answer, message)
			}
		}
		from.Close()
		to.Close()
	}
}

// listen opens a UDP socket on an address of the namespace.
func (n *namespace) listen(address string) net.PacketConn {
	n.t.Helper()
	return n.listenPort(address, "0")
}

// counts of what a process can leak.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func ringMappings(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "socket:")
}

func TestReopeningLeavesNothingBehind(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	u := copyUMEM(t, 64)
	steering, err := NewSteering()
	if err != nil {
		t.Fatal(err)
	}
	defer steering.Close()
	round := func() {
		s, err := u.Open(SocketConfig{Interface: "v0", NetNS: near.fd, RingSize: 64})
		if err != nil {
			t.Fatal(err)
		}
		p, err := Attach(ProgramConfig{Interface: "v0", NetNS: near.fd}, steering)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.SetSocket(0, s); err != nil {
			t.Fatal(err)
		}
		if ringMappings(t) != 4 {
			t.Fatalf("%d mappings of rings while a socket is open, want 4", ringMappings(t))
		}
		if err := errors.Join(p.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	round()
	before := descriptors(t)
	for range 100 {
		round()
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors after 100 rounds, %d before", after, before)
	}
	if n := ringMappings(t); n != 0 {
		t.Errorf("%d mappings of rings are left", n)
	}
}

func TestRefusedOpenLeavesNothingBehind(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	u := copyUMEM(t, 64)
	before := descriptors(t)
	for range 20 {
		if _, err := u.Open(SocketConfig{Interface: "v0", NetNS: near.fd, RingSize: 64, Queue: 7}); err == nil {
			t.Fatal("a queue that is not there was opened")
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors after refusals, %d before", after, before)
	}
	if n := ringMappings(t); n != 0 {
		t.Errorf("%d mappings of rings are left", n)
	}
}

func TestClosedUMEMKeepsItsSockets(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	far.address("v0")
	u := copyUMEM(t, 64)
	s := open(t, u, near, "v0")
	s.Fill(addresses(0, 64))
	takeOver(t, near, "v0", s, Native)
	if err := errors.Join(u.Close(), u.Close()); err != nil {
		t.Fatal(err)
	}
	p := &port{socket: s, change: reflect}
	p.to = p
	exchange(t, u, far.udp(kernel4, ours4), 100, 5, p)
	if _, err := u.Open(SocketConfig{Interface: "v0", NetNS: near.fd, RingSize: 64}); !errors.Is(err, ErrClosed) {
		t.Errorf("open on a closed UMEM: %v, want ErrClosed", err)
	}
}

func TestKickTellsThePortsState(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	u := copyUMEM(t, 64)
	s := open(t, u, near, "v0")
	frame := Desc{Addr: 0, Len: 60}
	s.Transmit([]Desc{frame, frame, frame})
	if errno := s.Kick(); errno != 0 {
		t.Errorf("kick with room: %v", errno)
	}
	if s.TransmitQueued() != 0 || s.KickNeeded() {
		t.Errorf("%d left on the tx ring after a kick", s.TransmitQueued())
	}
	near.ip("link set v0 down")
	s.Transmit([]Desc{frame})
	if errno := s.Kick(); errno != unix.ENETDOWN {
		t.Errorf("kick on a port that is down: %v, want %v", errno, unix.ENETDOWN)
	}
	if !s.KickNeeded() || s.TransmitQueued() != 1 {
		t.Errorf("%d on the tx ring of a port that is down, want 1", s.TransmitQueued())
	}
	near.ip("link del v0")
	if errno := s.Kick(); errno != unix.ENXIO {
		t.Errorf("kick on a port that is gone: %v, want %v", errno, unix.ENXIO)
	}
	if errno := s.WakeReceive(); errno != unix.ENXIO {
		t.Errorf("wake on a port that is gone: %v, want %v", errno, unix.ENXIO)
	}
}

func TestKickSendsAtMostItsBudget(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	u := copyUMEM(t, 256)
	for _, tt := range []struct{ budget, left int }{{0, 200 - DefaultTxBudget}, {256, 0}, {1, 168}} {
		s, err := u.Open(SocketConfig{Interface: "v0", NetNS: near.fd, RingSize: 256, TxBudget: tt.budget})
		if err != nil {
			t.Fatal(err)
		}
		var d []Desc
		for _, a := range addresses(0, 200) {
			d = append(d, Desc{Addr: a, Len: 60})
		}
		s.Transmit(d)
		errno := s.Kick()
		if want := tt.left > 0; (errno == unix.EAGAIN) != want || int(s.TransmitQueued()) != tt.left {
			t.Errorf("budget %d: kick returns %v and leaves %d, want %d left", tt.budget, errno, s.TransmitQueued(), tt.left)
		}
		if f := s.Fallbacks(); len(f) != 0 {
			t.Errorf("fell back: %v", f)
		}
		s.Close()
	}
}

func TestEmptyFillRingLosesAndRecovers(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	far.address("v0")
	u := copyUMEM(t, 64)
	s := open(t, u, near, "v0")
	takeOver(t, near, "v0", s, Native)
	c := far.udp(kernel4, ours4)
	for range 10 {
		c.Write([]byte("lost"))
	}
	var st Statistics
	for deadline := time.Now().Add(time.Second); st.RxFillRingEmptyDescs < 10; {
		var err error
		if st, err = s.Statistics(); err != nil || time.Now().After(deadline) {
			t.Fatalf("statistics after 10 packets without a frame: %+v, %v", st, err)
		}
	}
	s.Fill(addresses(0, 64))
	p := &port{socket: s, change: reflect}
	p.to = p
	exchange(t, u, c, 100, 5, p)
}

func TestDescriptorOutsideTheMemoryIsCounted(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	u := copyUMEM(t, 64)
	s := open(t, u, near, "v0")
	s.Transmit([]Desc{{Addr: 64 * 4096, Len: 60}, {Addr: 0, Len: 60}})
	s.Kick() // stops at the invalid one
	s.Kick()
	st, err := s.Statistics()
	if err != nil || st.TxInvalidDescs != 1 {
		t.Errorf("statistics %+v, %v; want one invalid descriptor", st, err)
	}
	if s.TransmitQueued() != 0 {
		t.Errorf("the descriptor after it is stuck")
	}
}

func TestBusyPollIsSet(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	u := copyUMEM(t, 64)
	s, err := u.Open(SocketConfig{Interface: "v0", NetNS: near.fd, RingSize: 64,
		BusyPoll: BusyPoll{Prefer: true, Time: 20 * time.Microsecond, Budget: 64}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.Fallbacks()) != 0 {
		t.Errorf("fell back: %v", s.Fallbacks())
	}
	for option, want := range map[int]int{unix.SO_PREFER_BUSY_POLL: 1, unix.SO_BUSY_POLL: 20} {
		if got, err := unix.GetsockoptInt(s.FD(), unix.SOL_SOCKET, option); err != nil || got != want {
			t.Errorf("option %d is %d, %v; want %d", option, got, err, want)
		}
	}
	if errno := s.WakeReceive(); errno != 0 {
		t.Errorf("wake: %v", errno)
	}
}
