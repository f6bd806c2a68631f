package port

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

// twoTUNs joins two namespaces by two TUN devices and a pump:
//
//	left 10.91.0.1 ── mg0 ┤ pump ├ mg0 ── 10.91.0.2 right
func twoTUNs(t testing.TB, a *umem.Arena, queues, mtu int) (left, right netns, l, r *TUN) {
	left, right = newNetns(t), newNetns(t)
	cfg := TUNConfig{Name: "mg0", Queues: queues, MTU: mtu}
	l, r = left.openTUN(cfg, a), right.openTUN(cfg, a)
	left.up("mg0", "10.91.0.1/24", "fd91::1/64")
	right.up("mg0", "10.91.0.2/24", "fd91::2/64")
	return left, right, l, r
}

// iperf runs one iperf3 transfer from one namespace to another and returns what
// arrived, in bit/s.
func iperf(t testing.TB, from, to netns, addr string, args ...string) float64 {
	t.Helper()
	server := to.command("iperf3", "-s", "-1", "-p", "5301")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	eventually(t, "iperf3 to listen", func() bool { return len(to.exec("ss", "-Hltn", "sport = :5301")) > 0 })
	args = append([]string{"iperf3", "-c", addr, "-p", "5301", "-J"}, args...)
	out, err := from.command(args...).Output()
	var result struct {
		Error string
		End   struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			Sum struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			}
		}
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("iperf3: %v\n%s", err, out)
	}
	if err != nil || result.Error != "" {
		t.Fatalf("iperf3: %v: %s", err, result.Error)
	}
	return max(result.End.SumReceived.BitsPerSecond, result.End.Sum.BitsPerSecond)
}

func TestTUNCarriesPingAndTCP(t *testing.T) {
	a := newArena(t, 4096, 64)
	left, right, l, r := twoTUNs(t, a, 2, 1500)
	p := (&pump{io: graph.NewIO(a, a.Cache(0)), a: l.Queues(), b: r.Queues()}).start(t)
	for _, addr := range []string{"10.91.0.2", "fd91::2"} {
		left.exec("ping", "-c", "3", "-i", "0.05", "-W", "2", addr)
		if rate := iperf(t, left, right, addr, "-n", "50M"); rate < 1e8 {
			t.Errorf("TCP to %s went at %.2g bit/s", addr, rate)
		}
	}
	p.halt()
	if f := append(l.Fallbacks(), r.Fallbacks()...); len(f) > 0 {
		t.Logf("fallbacks: %v", f)
	}
	if p.moved < 60_000 { // 100 MB in wire segments: the kernel must not take the credit
		t.Errorf("the pump moved %d wire segments", p.moved)
	}
}

func TestTUNIsReattachedAfterItsProcessDied(t *testing.T) {
	a := newArena(t, 1024, 32)
	ns := newNetns(t)
	cfg := TUNConfig{Name: "mg0", Queues: 2, MTU: 1400, Persist: true, Inside: ns.do}
	first, err := OpenTUN(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ns.up("mg0", "10.91.0.1/24", "fd91::1/64")
	if err := first.closeAll(); err != nil { // as the kernel does it after kill -9
		t.Fatal(err)
	}
	second, err := OpenTUN(cfg)
	if err != nil {
		t.Fatal(err)
	}
	io := graph.NewIO(a, a.Cache(0))
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		ns.exec("ping", "-c", "1", "-W", "5", "10.91.0.9")
	}()
	echoOnce(t, io, second)
	<-answered
	if err := second.Remove(a.Cache(0)); err != nil {
		t.Fatal(err)
	}
	if out, err := ns.command("ip", "link", "show", "mg0").CombinedOutput(); err == nil {
		t.Errorf("the device is still there:\n%s", out)
	}
}

// echoOnce answers one IPv4 echo request that comes in by any queue.
func echoOnce(t *testing.T, io *graph.IO, tun *TUN) {
	t.Helper()
	ms := make([]graph.Meta, 16)
	eventually(t, "an echo request", func() bool {
		for _, q := range tun.Queues() {
			n := q.RxBurst(io, ms)
			for i := range ms[:n] {
				p := io.Mem[ms[i].Off : ms[i].Off+ms[i].Len]
				if p[0]>>4 != 4 || p[9] != 1 || p[20] != 8 {
					io.Free(&ms[i])
					continue
				}
				src := [4]byte(p[12:16])
				copy(p[12:16], p[16:20])
				copy(p[16:20], src[:])
				p[20] = 0
				p[22], p[23] = 0, 0
				sum := ^plainFold(plainWords(p[20:]))
				p[22], p[23] = byte(sum>>8), byte(sum)
				if q.TxBurst(io, graph.NewVector(ms[i])) != 0 {
					t.Error("the answer was refused")
				}
				return true
			}
		}
		return false
	})
}

func TestTUNThatIsDownOrGone(t *testing.T) {
	a := newArena(t, 1024, 32)
	ns := newNetns(t)
	tun := ns.openTUN(TUNConfig{Name: "mg0", Queues: 1, MTU: 1500}, a)
	io := graph.NewIO(a, a.Cache(0))
	q := tun.Queues()[0]
	send := func() graph.Reason {
		p, m := packetSpec{payload: 100, whole: true}.build()
		v := graph.NewVector(place(t, io, p, m, true))
		if q.TxBurst(io, v) == 0 {
			return graph.NoReason
		}
		r := v.Meta(0).Reason
		io.Free(v.Meta(0))
		return r
	}
	if r := send(); r != graph.TxDown {
		t.Errorf("to a device that is down: %v, want %v", r, graph.TxDown)
	}
	ns.up("mg0", "10.91.1.1/24")
	if r := send(); r != graph.NoReason {
		t.Errorf("to a device that is up: %v", r)
	}
	ns.ip("link del mg0")
	ms := make([]graph.Meta, 4)
	if n := q.RxBurst(io, ms); n != 0 {
		t.Errorf("received %d packets from a device that is gone", n)
	}
	if r := send(); r != graph.TxDown {
		t.Errorf("to a device that is gone: %v, want %v", r, graph.TxDown)
	}
	poll := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 50); n != 0 || err != nil {
		t.Errorf("the queue of a device that is gone keeps its worker awake: %d events %#x, %v", n, poll[0].Revents, err)
	}
	for _, s := range tun.Statistics() {
		if s.Name == "queues-vanished" && s.Value != 1 {
			t.Errorf("%d queues vanished, want 1", s.Value)
		}
	}
}

// Nobody reads: the kernel fills the device's queue and drops the rest. Once
// somebody reads again all goes on.
func TestTUNThatNobodyReads(t *testing.T) {
	a := newArena(t, 4096, 8)
	ns := newNetns(t)
	tun := ns.openTUN(TUNConfig{Name: "mg0", Queues: 1, MTU: 1500}, a)
	ns.up("mg0", "10.91.0.1/24")
	io := graph.NewIO(a, a.Cache(0))
	q := tun.Queues()[0]
	send := func(n int) {
		t.Helper()
		if err := ns.do(func() error {
			c, err := net.Dial("udp", "10.91.0.9:9")
			if err != nil {
				return err
			}
			defer c.Close()
			for range n {
				_, _ = c.Write([]byte("a datagram for nobody")) // ENOBUFS is what we are after
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	drain := func() (n int) {
		ms := make([]graph.Meta, 64)
		for got := q.RxBurst(io, ms); got > 0; got = q.RxBurst(io, ms) {
			for i := range ms[:got] {
				if p := gather(io, &ms[i]); p[0]>>4 == 4 && p[9] == 17 {
					n++
				}
				io.Free(&ms[i])
			}
		}
		return n
	}
	drain()
	send(2000)
	if n := drain(); n < 400 || n >= 2000 {
		t.Errorf("received %d packets that had waited, want a queue of about 500", n)
	}
	send(100)
	if n := drain(); n != 100 {
		t.Errorf("received %d packets after the flood, want 100", n)
	}
}

func TestTUNRefusesAForeignDevice(t *testing.T) {
	ns := newNetns(t)
	ns.ip("tuntap add dev mg0 mode tap")
	_, err := OpenTUN(TUNConfig{Name: "mg0", Queues: 1, MTU: 1500, Inside: ns.do})
	if err == nil || !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "delete it or choose another name") {
		t.Errorf("error is %v, want one that says what to do", err)
	}
	for _, cfg := range []TUNConfig{{}, {Name: "a-name-that-is-too-long", Queues: 1, MTU: 1500}, {Name: "a", Queues: 0, MTU: 1500}, {Name: "a", Queues: 1, MTU: 67}} {
		if _, err := OpenTUN(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// The kernel as oracle of segmentation: a superpacket goes in by one TUN device,
// is routed, and comes out of another one that takes no superpackets.
func TestSegmentsAreThoseOfTheKernel(t *testing.T) {
	ns := newNetns(t)
	a := newArena(t, 1024, 64)
	in := ns.openTUN(TUNConfig{Name: "in", Queues: 1, MTU: 9000}, a)
	out := ns.openTUN(TUNConfig{Name: "out", Queues: 1, MTU: 9000}, a)
	if err := unix.IoctlSetInt(out.Queues()[0].FD(), unix.TUNSETOFFLOAD, 0); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		ns.sysctl(key, "1")
	}
	ns.up("in", "10.91.1.1/24", "fd91:1::1/64")
	ns.up("out", "10.91.2.1/24", "fd91:2::1/64")
	io := graph.NewIO(a, a.Cache(0))
	for name, spec := range superpackets() {
		t.Run(name, func(t *testing.T) {
			spec.link = false
			p, m := spec.build()
			if in.Queues()[0].TxBurst(io, graph.NewVector(place(t, io, p, m, false))) != 0 {
				t.Fatal("refused")
			}
			theirs := receiveAll(t, io, out.Queues()[0], int(m.Segments))
			spec.ttl = 1 // the kernel has routed theirs
			p, m = spec.build()
			ours, reason := lowered(t, io, 9000, place(t, io, p, m, false))
			if reason != graph.NoReason || len(ours) != len(theirs) {
				t.Fatalf("%d segments (%v), the kernel makes %d", len(ours), reason, len(theirs))
			}
			for i := range ours {
				if !bytes.Equal(ours[i], theirs[i]) {
					t.Fatalf("segment %d is\n%x, the kernel's is\n%x", i, ours[i][:80], theirs[i][:80])
				}
			}
		})
	}
}

// receiveAll takes n test packets off a queue, and drops the kernel's chatter.
func receiveAll(t *testing.T, io *graph.IO, q graph.Queue, n int) (all [][]byte) {
	t.Helper()
	ms := make([]graph.Meta, 64)
	eventually(t, "segments", func() bool {
		got := q.RxBurst(io, ms)
		for i := range ms[:got] {
			p := gather(io, &ms[i])
			io.Free(&ms[i])
			if p[0]>>4 == 4 || p[6] != 0 && p[6] != 58 { // no router solicitations, no listener reports
				all = append(all, p)
			}
		}
		return len(all) >= n
	})
	return all
}

func TestWrongChecksumInATrainIsRejectedByThePod(t *testing.T) {
	ns := newNetns(t)
	a := newArena(t, 1024, 32)
	tun := ns.openTUN(TUNConfig{Name: "mg0", Queues: 1, MTU: 1500}, a)
	ns.up("mg0", "10.91.2.2/24", "fd91:2::2/64")
	ns.ip("route add default dev mg0")
	ns.ip("-6 route add default dev mg0")
	io := graph.NewIO(a, a.Cache(0))
	for _, v6 := range []bool{false, true} {
		bad, in := ns.counter("TcpInCsumErrors"), ns.counter("TcpInSegs")
		specs := trainOf(9, packetSpec{v6: v6, seq: 77})
		specs[4].corrupt = true
		var ms []graph.Meta
		for _, s := range specs {
			p, _ := s.build()
			ms = append(ms, place(t, io, p, graph.Meta{}, true))
		}
		if n := tun.Queues()[0].TxBurst(io, graph.NewVector(ms...)); n != 0 {
			t.Fatalf("%d refused", n)
		}
		// The kernel counts packets as it gets them: 4 in one, the wrong one, 4 in one.
		if got := ns.counter("TcpInCsumErrors") - bad; got != 1 {
			t.Errorf("v6 %v: the kernel rejected %d segments for their checksum, want 1", v6, got)
		}
		if got := ns.counter("TcpInSegs") - in; got != 3 {
			t.Errorf("v6 %v: the kernel saw %d packets, want 3", v6, got)
		}
	}
}
