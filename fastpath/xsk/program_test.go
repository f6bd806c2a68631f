package xsk

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// received says whether a socket of the kernel gets a datagram before long: of one
// that is to come at its leisure, of one that is not soon.
func received(c net.PacketConn, due bool) bool {
	wait := 100 * time.Millisecond
	if due {
		wait = patience
	}
	c.SetReadDeadline(time.Now().Add(wait))
	_, _, err := c.ReadFrom(make([]byte, 100))
	return err == nil
}

// The kernel of near listens on a port of ours and on one that is not. Ours it must
// never see while the program is there, with or without a socket:
//
//	far: 10.7.0.1 ── v0 ══ v0 ── steering ── 10.7.0.2 :near
func TestWhatIsOursNeverReachesTheKernel(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	near.ip("addr add 10.7.0.2/24 dev v0")
	near.ip("addr add fd07::2/64 dev v0 nodad")
	far.ip("addr add 10.7.0.1/24 dev v0")
	far.ip("addr add fd07::1/64 dev v0 nodad")
	s, u := localService(t, 5000), copyUMEM(t, 64)
	for name, a := range map[string]struct{ from, at string }{"v4": {"10.7.0.1", "10.7.0.2"}, "v6": {"fd07::1", "fd07::2"}} {
		t.Run(name, func(t *testing.T) {
			our, other, from := near.listenPort(a.at, "5000"), near.listenPort(a.at, "5001"), far.listen(a.from)
			reach := func(c net.PacketConn, due bool) bool {
				t.Helper()
				if _, err := from.WriteTo([]byte("hello"), c.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				return received(c, due)
			}
			if !reach(our, true) {
				t.Fatal("the kernel does not get what comes without a program")
			}
			p, err := Attach(ProgramConfig{Interface: "v0", NetNS: near.fd}, s)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if reach(our, false) {
				t.Error("the kernel got what is ours while no socket was there")
			}
			if c, err := p.Counters(); err != nil || c.NoSocket == 0 {
				t.Errorf("counters %+v, %v; want drops for want of a socket", c, err)
			}
			socket := open(t, u, near, "v0")
			socket.Fill(addresses(0, 64))
			if err := p.SetSocket(0, socket); err != nil {
				t.Fatal(err)
			}
			if reach(our, false) {
				t.Error("the kernel got what is ours")
			}
			if n := socket.Receive(make([]Desc, 16)); n != 1 {
				t.Errorf("the socket got %d packets, want 1", n)
			}
			if !reach(other, true) {
				t.Error("the kernel did not get what is its own")
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if !reach(our, true) {
				t.Error("the kernel does not get all once the program is closed")
			}
		})
	}
}

// localService owns a UDP port on the addresses of near.
func localService(t *testing.T, port uint16) *Steering {
	t.Helper()
	s, err := NewSteering()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	four, _ := ours4.Prefix(32)
	six, _ := ours6.Prefix(128)
	if err := errors.Join(s.SetPrefix(four, Local), s.SetPrefix(six, Local), s.SetService(unix.IPPROTO_UDP, port, port)); err != nil {
		t.Fatal(err)
	}
	return s
}

func (n *namespace) listenPort(address, port string) (c net.PacketConn) {
	n.t.Helper()
	n.do(func() (err error) {
		c, err = net.ListenPacket("udp", net.JoinHostPort(address, port))
		return err
	})
	n.t.Cleanup(func() { c.Close() })
	return c
}

func TestSocketComesAndGoes(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "numrxqueues 2 numtxqueues 2")
	near.veth(far, "v1", 1500, "")
	u := copyUMEM(t, 64)
	p, err := Attach(ProgramConfig{Interface: "v0", NetNS: near.fd, Takeover: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := open(t, u, near, "v0")
	tests := map[string]struct {
		err  error
		want string // in the error; empty for none
	}{
		"the right queue":         {p.SetSocket(0, s), ""},
		"the same again":          {p.SetSocket(0, s), ""},
		"another queue":           {p.SetSocket(1, s), "bound to queue 0 of v0"},
		"a queue beyond the last": {p.SetSocket(2, s), "queues 0 to 1"},
		"a negative queue":        {p.SetSocket(-1, s), "queues 0 to 1"},
		"another port's socket":   {p.SetSocket(0, open(t, u, near, "v1")), "bound to queue 0 of v1"},
	}
	for name, tt := range tests {
		if tt.want == "" && tt.err != nil || tt.want != "" && (tt.err == nil || !strings.Contains(tt.err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, tt.err, tt.want)
		}
	}
	if err := p.SetSocket(0, s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	var fd uint32
	if err := p.maps.Sockets.Lookup(uint32(0), &fd); err == nil {
		t.Error("a closed socket stays in the map")
	}
}

func TestModeIsTheOneAskedFor(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	near.ip("link set lo up")
	tests := map[string]struct {
		device    string
		mode      AttachMode
		want      AttachMode
		fallbacks int
		err       error
	}{
		"auto where the driver can":       {"v0", Auto, Native, 0, nil},
		"native where the driver can":     {"v0", Native, Native, 0, nil},
		"generic where the driver can":    {"v0", Generic, Generic, 0, nil},
		"auto where the driver cannot":    {"lo", Auto, Generic, 1, nil},
		"native where the driver cannot":  {"lo", Native, 0, 0, unix.EOPNOTSUPP},
		"generic where the driver cannot": {"lo", Generic, Generic, 0, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := Attach(ProgramConfig{Interface: tt.device, NetNS: near.fd, Takeover: true, Mode: tt.mode}, nil)
			if !errors.Is(err, tt.err) {
				t.Fatalf("%v, want %v", err, tt.err)
			}
			if tt.err != nil {
				return
			}
			defer p.Close()
			if p.Mode() != tt.want || len(p.Fallbacks()) != tt.fallbacks {
				t.Errorf("mode %v with fallbacks %v, want %v and %d", p.Mode(), p.Fallbacks(), tt.want, tt.fallbacks)
			}
			flag := map[AttachMode]string{Native: " xdp ", Generic: " xdpgeneric "}[tt.want]
			if out := near.ip("-o link show dev " + tt.device); !strings.Contains(out, flag) {
				t.Errorf("the kernel says %q, want%s", out, flag)
			}
		})
	}
}

func TestForeignProgramIsLeftAlone(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	before := descriptors(t)
	near.ip("link set v0 xdp object steer_bpfel.o section xdp.frags program margay_takeover")
	for _, mode := range []AttachMode{Auto, Native, Generic} {
		_, err := Attach(ProgramConfig{Interface: "v0", NetNS: near.fd, Takeover: true, Mode: mode}, nil)
		var refused *Error
		if !errors.As(err, &refused) || !strings.Contains(refused.Advice, "another XDP program is on this port") {
			t.Errorf("%v: %v, want an error that names the foreign program", mode, err)
		}
	}
	if out := near.ip("-o link show dev v0"); !strings.Contains(out, " xdp ") {
		t.Errorf("the foreign program is gone: %s", out)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors after refusals, %d before", after, before)
	}
}

// TestDeathTakesTheProgramOff kills a process that holds a port.
func TestDeathTakesTheProgramOff(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	holder := exec.Command("/proc/self/exe", "-test.run=^TestHoldPort$")
	holder.Env = append(os.Environ(), "XSK_HOLD_NAMESPACE="+near.name)
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	attached := func() bool { return strings.Contains(near.ip("-o link show dev v0"), " xdp ") }
	soon(t, "the program is not attached", attached)
	holder.Process.Kill()
	soon(t, "the program outlives its process", func() bool { return !attached() })
	u := copyUMEM(t, 8)
	takeOver(t, near, "v0", open(t, u, near, "v0"), Native) // the queue is free again, too
}

// TestHoldPort is the process that TestDeathTakesTheProgramOff kills.
func TestHoldPort(t *testing.T) {
	name := os.Getenv("XSK_HOLD_NAMESPACE")
	if name == "" {
		t.Skip("is run by TestDeathTakesTheProgramOff, in a process of its own")
	}
	fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := &namespace{t: t, name: name, fd: fd}
	takeOver(t, n, "v0", open(t, copyUMEM(t, 8), n, "v0"), Native)
	time.Sleep(time.Minute)
}

func soon(t *testing.T, complaint string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(complaint)
		}
	}
}

func TestAttachNeedsToKnowWhatIsOurs(t *testing.T) {
	if _, err := Attach(ProgramConfig{Interface: "lo", NetNS: -1}, nil); err == nil {
		t.Error("attached without steering on a port that is not taken over")
	}
}
