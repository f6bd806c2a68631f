package xdpgen

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/pkt"
)

// pair is two namespaces joined by a veth, and a stream from left to right.
func pair(t *testing.T, size int, ipv6 bool) (left, right *hostnet.Host, s Stream) {
	t.Helper()
	left, right = hostnettest.Pair(t)
	from, err := left.Link("left")
	if err != nil {
		t.Fatal(err)
	}
	to, err := right.Link("right")
	if err != nil {
		t.Fatal(err)
	}
	s = Stream{SrcMAC: from.MAC, DstMAC: to.MAC, Size: size, Ports: 100}
	s.Src, s.Dst = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")
	if ipv6 {
		s.Src, s.Dst = netip.MustParseAddr("fd01::1"), netip.MustParseAddr("fd01::2")
	}
	return left, right, s
}

func source(t *testing.T, h *hostnet.Host, s Stream) *Source {
	t.Helper()
	g, err := NewSource(h.Namespace(), "left", 0, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func sink(t *testing.T, h *hostnet.Host) *Sink {
	t.Helper()
	k, err := NewSink(h.Namespace(), "right")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func frames(t *testing.T, k *Sink) uint64 {
	t.Helper()
	a, err := k.Arrived()
	if err != nil {
		t.Fatal(err)
	}
	return a.Frames
}

func TestAllThatIsSentIsCounted(t *testing.T) {
	tests := map[string]struct {
		size int
		ipv6 bool
		rate float64
	}{
		"IPv4, small, as fast as can be": {MinSize, false, 0},
		"IPv4, large":                    {MaxSize, false, 50_000},
		"IPv6, small":                    {MinSize, true, 200_000},
		"IPv6, large, as fast as can be": {MaxSize, true, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			left, right, s := pair(t, tt.size, tt.ipv6)
			g, k := source(t, left, s), sink(t, right)
			var sent uint64
			for range 3 { // one pace after another
				got, err := g.Send(t.Context(), tt.rate, 30*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				if got.Frames == 0 || got.Took <= 0 {
					t.Fatalf("sent %+v", got)
				}
				sent += got.Frames
			}
			hostnettest.Eventually(t, "all frames are counted", func() bool { return frames(t, k) >= sent })
			if n := frames(t, k); n != sent {
				t.Errorf("%d frames were sent and %d counted", sent, n)
			}
		})
	}
}

func TestRateIsKept(t *testing.T) {
	left, right, s := pair(t, MinSize, false)
	g, k := source(t, left, s), sink(t, right)
	for _, rate := range []float64{20_000, 100_000, 500_000} {
		const d = 50 * time.Millisecond
		best := 0.0 // of what the time on the CPU allowed
		for try := 0; try < 20 && best < 0.95; try++ {
			if err := k.Reset(); err != nil {
				t.Fatal(err)
			}
			waited := waits(t)
			sent, err := g.Send(t.Context(), rate, d)
			if err != nil {
				t.Fatal(err)
			}
			if most := rate*sent.Took.Seconds() + burst; float64(sent.Frames) > most {
				t.Errorf("%d frames in %v at %.0f a second, want at most %.0f", sent.Frames, sent.Took, rate, most)
			}
			hostnettest.Eventually(t, "they arrive", func() bool { return frames(t, k) == sent.Frames })
			a, err := k.Arrived()
			if err != nil {
				t.Fatal(err)
			}
			if a.Frames > 10*mark && (a.Rate < 0.8*sent.Rate() || a.Rate > 1.25*sent.Rate()) {
				t.Errorf("of %.0f frames a second %.0f arrived, and none was lost", sent.Rate(), a.Rate)
			}
			if had := sent.Took - (waits(t) - waited); had > d/4 {
				best = max(best, float64(sent.Frames)/(rate*had.Seconds()))
			}
		}
		if best < 0.95 {
			t.Errorf("asked for %.0f frames a second it sent %.2f of them at best, of the time that it had a CPU", rate, best)
		}
	}
}

// waits is how long all threads together have waited for a CPU.
func waits(t *testing.T) (sum time.Duration) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil || len(files) == 0 {
		t.Fatal("there is no schedstat", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has just ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// Frames come in at the receive queue that Queue says, and a sink counts each
// queue's apart, also while several sources send at once.
func TestQueueFollowsTheSendersCPU(t *testing.T) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			_, right, s := pair(t, MinSize, ipv6)
			const queues = 3
			left, ns := right, hostnettest.Host(t)
			err := left.AddVeth(hostnet.VethConfig{
				Name: "broad", Peer: "end", PeerNS: ns.Namespace(), RxQueues: queues, TxQueues: queues, PeerRxQueues: queues, PeerTxQueues: queues,
			})
			if err = errors.Join(err, left.SetUp("broad"), ns.SetUp("end")); err != nil {
				t.Fatal(err)
			}
			k, err := NewSink(ns.Namespace(), "end")
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			var sources []*Source
			want := make([]uint64, queues)
			for cpu := range min(queues, runtime.NumCPU()) {
				g, err := NewSource(left.Namespace(), "broad", cpu, s)
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				sources = append(sources, g)
			}
			sent, err := SendAll(t.Context(), sources, 50_000, 50*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			for cpu, n := range sent {
				want[Queue(cpu, queues)] += n.Frames
				if n.Frames == 0 {
					t.Errorf("the source of CPU %d sent nothing", cpu)
				}
			}
			var got Arrived
			hostnettest.Eventually(t, "all frames are counted, each by its queue", func() bool {
				got, err = k.Arrived()
				return err == nil && slices.Equal(got.Queues, want)
			})
			if total := sum(want); got.Frames != total || got.Rate <= 0 {
				t.Errorf("%d frames were sent and %+v counted", total, got)
			}
			if err := k.Reset(); err != nil {
				t.Fatal(err)
			}
			if got, err := k.Arrived(); err != nil || got.Frames != 0 || sum(got.Queues) != 0 {
				t.Errorf("after a reset: %+v, %v", got, err)
			}
		})
	}
}

func sum(all []uint64) (n uint64) {
	for _, v := range all {
		n += v
	}
	return n
}

// Sources that send together begin together, however long each takes to be set up.
func TestSourcesBeginAtOnce(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs, one for each source")
	}
	left, right, s := pair(t, MinSize, false)
	sink(t, right)
	var sources []*Source
	for cpu := range 2 {
		g, err := NewSource(left.Namespace(), "left", cpu, s)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		sources = append(sources, g)
	}
	var at [2]pace
	for range 3 {
		sent, err := SendAll(t.Context(), sources, 20_000, 20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		for i, g := range sources {
			if err := g.pace.Lookup(uint32(0), &at[i]); err != nil {
				t.Fatal(err)
			}
			if sent[i].Took > 20*time.Millisecond {
				t.Errorf("it sent for %v, want 20ms at most", sent[i].Took)
			}
			if sent[i].Frames == 0 {
				t.Errorf("source %d sent nothing", i)
			}
		}
		if at[0].Start != at[1].Start || at[0].Start == 0 || at[0].Start == held {
			t.Errorf("they begin at %d and %d of the kernel's clock", at[0].Start, at[1].Start)
		}
	}
	lame, err := NewSource(left.Namespace(), "left", 4000, s)
	if err != nil {
		t.Fatal(err)
	}
	defer lame.Close()
	start := time.Now()
	if _, err := SendAll(t.Context(), append(sources, lame), 20_000, time.Millisecond); err == nil || !strings.Contains(err.Error(), "pin to CPU 4000") {
		t.Errorf("one that cannot send: %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the others waited %v for it", took)
	}
}

// The kernel takes the datagrams for true: header, checksum, every source port.
func TestKernelTakesTheDatagrams(t *testing.T) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			left, right, s := pair(t, 100, ipv6)
			bits := 24
			if ipv6 {
				bits = 64
			}
			if err := right.AddAddress("right", netip.PrefixFrom(s.Dst, bits), hostnet.NoDAD); err != nil {
				t.Fatal(err)
			}
			if err := right.SetOffload("right", "gro", true); err != nil { // so that it polls
				t.Fatal(err)
			}
			var c net.PacketConn
			err := right.Namespace().Do(func() (err error) {
				c, err = net.ListenPacket("udp", netip.AddrPortFrom(s.Dst, discard).String())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s.Ports = 7
			sent, err := source(t, left, s).Send(t.Context(), 1_000, 30*time.Millisecond) // few, so that the socket holds them
			if err != nil {
				t.Fatal(err)
			}
			ports := map[int]int{}
			b := make([]byte, 2048)
			for range sent.Frames {
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				n, from, err := c.ReadFrom(b)
				if err != nil {
					t.Fatalf("of %d datagrams: %v", sent.Frames, err)
				}
				if n != s.Size-s.transport()-8 {
					t.Fatalf("a datagram of %d bytes", n)
				}
				ports[from.(*net.UDPAddr).Port]++
			}
			if len(ports) != min(s.Ports, int(sent.Frames)) {
				t.Errorf("%d datagrams of %d ports, want %d ports in turn", sent.Frames, len(ports), s.Ports)
			}
		})
	}
}

func TestSinkLeavesOtherTrafficAlone(t *testing.T) {
	left, right, s := pair(t, MinSize, false)
	for h, name := range map[*hostnet.Host]string{left: "left", right: "right"} {
		for _, a := range []string{"10.1.0.%/24", "fd01::%/64"} {
			p := netip.MustParsePrefix(strings.Replace(a, "%", map[string]string{"left": "1", "right": "2"}[name], 1))
			if err := h.AddAddress(name, p, hostnet.NoDAD); err != nil {
				t.Fatal(err)
			}
		}
	}
	k := sink(t, right)
	for _, to := range []string{s.Dst.String(), "fd01::2"} {
		hostnettest.Run(t, left.Namespace(), "ping", "-c", "1", "-W", "5", to)
	}
	if n := frames(t, k); n != 0 {
		t.Errorf("it counted %d frames of a ping", n)
	}
}

func TestCaughtFrameIsTheOneThatCame(t *testing.T) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			left, right, s := pair(t, 300, ipv6)
			g, k := source(t, left, s), sink(t, right)
			if err := k.Catch(); err != nil {
				t.Fatal(err)
			}
			if head, _, err := k.Caught(); head != nil || err != nil {
				t.Errorf("before anything came it caught %x, %v", head, err)
			}
			if _, err := g.Send(t.Context(), 10_000, 10*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			var head []byte
			var size int
			hostnettest.Eventually(t, "one is caught", func() bool {
				head, size, _ = k.Caught()
				return head != nil
			})
			if want := s.Frame()[:MinSize]; !bytes.Equal(head, want) || size != s.Size {
				t.Errorf("caught %d bytes\n%x\nwant %d\n%x", size, head, s.Size, want)
			}
		})
	}
}

func TestChecksumIsTrueForEveryPort(t *testing.T) {
	for name, addrs := range map[string][2]string{"IPv4": {"10.0.0.1", "10.0.0.2"}, "IPv6": {"fd00::1", "fd00::2"}} {
		s := Stream{Src: netip.MustParseAddr(addrs[0]), Dst: netip.MustParseAddr(addrs[1]), Size: 65, Ports: 1}
		f := s.Frame()
		udp := f[s.transport():]
		for port := range 1 << 16 {
			udp[0], udp[1], udp[8], udp[9] = byte(port>>8), byte(port), ^byte(port>>8), ^byte(port)
			both := append(s.Src.AsSlice(), s.Dst.AsSlice()...)
			if got := pkt.Fold(pkt.PseudoSum(both, pkt.ProtoUDP, len(udp)) + pkt.Sum(udp)); got != 0xffff {
				t.Fatalf("%s: with port %d the sum is %#x", name, port, got)
			}
		}
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	left, right, good := pair(t, MinSize, false)
	tests := map[string]struct {
		link   string
		change func(*Stream)
		says   string
	}{
		"too small":             {"left", func(s *Stream) { s.Size = 63 }, "size is 63, want 64 to 1514"},
		"too large":             {"left", func(s *Stream) { s.Size = 1515 }, "size is 1515"},
		"no ports":              {"left", func(s *Stream) { s.Ports = 0 }, "ports are 0"},
		"addresses of two ages": {"left", func(s *Stream) { s.Dst = netip.MustParseAddr("fd00::1") }, "want two of one family"},
		"no address":            {"left", func(s *Stream) { s.Src = netip.Addr{} }, "want two of one family"},
		"no such link":          {"absent", func(*Stream) {}, "absent"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := good
			tt.change(&s)
			if g, err := NewSource(left.Namespace(), tt.link, 0, s); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, %v; want an error with %q", g, err, tt.says)
			}
		})
	}
	g, err := NewSource(left.Namespace(), "left", 4000, good)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.Send(t.Context(), 0, time.Millisecond); err == nil || !strings.Contains(err.Error(), "pin to CPU 4000") {
		t.Errorf("a CPU that is not there: %v", err)
	}
	for _, rate := range []float64{-1, 1e9} {
		if _, err := g.Send(t.Context(), rate, time.Millisecond); err == nil {
			t.Errorf("rate %g was taken", rate)
		}
	}
	sink(t, right)
	if _, err := NewSink(right.Namespace(), "right"); err == nil || !strings.Contains(err.Error(), "make sink at right") {
		t.Errorf("a second sink: %v", err)
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	left, _, s := pair(t, MinSize, false)
	g := source(t, left, s)
	before := affinity(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := g.Send(ctx, 1000, time.Hour); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it ended %v after it began", took)
	}
	if after := affinity(t); after != before {
		t.Errorf("the process may run on %d CPUs after it, %d before", after, before)
	}
}

// affinity is the fewest CPUs that any of some threads may run on.
func affinity(t *testing.T) int {
	t.Helper()
	least := runtime.NumCPU()
	done := make(chan int)
	const threads = 8
	for range threads {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			time.Sleep(10 * time.Millisecond)
			done <- cpus()
		}()
	}
	for range threads {
		least = min(least, <-done)
	}
	return least
}

func cpus() int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return 0
	}
	return set.Count()
}
