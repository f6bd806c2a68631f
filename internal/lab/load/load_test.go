//go:build linux

package load

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"margay.dev/margay/internal/hostnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// two kernel stacks with a veth between them:
//
//	a 10.8.0.1 ── veth ── b 10.8.0.2
func two(t *testing.T) (a, b *hostnet.Namespace) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	open := func(name string) (*hostnet.Namespace, *hostnet.Host) {
		full := fmt.Sprintf("mgtest-load-%d-%s", os.Getpid(), name)
		ns, err := hostnet.CreateNamespace(full)
		if err != nil {
			t.Fatal(err)
		}
		h, err := hostnet.NewHost(ns)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			h.Close()
			ns.Close()
			if err := hostnet.DeleteNamespace(full); err != nil {
				t.Error(err)
			}
		})
		if err := ns.SetSysctl("net.ipv4.ping_group_range", "0 2147483647"); err != nil {
			t.Fatal(err)
		}
		return ns, h
	}
	a, ha := open("a")
	b, hb := open("b")
	if err := ha.AddVeth(hostnet.VethConfig{Name: "v", Peer: "v", PeerNS: b}); err != nil {
		t.Fatal(err)
	}
	for i, h := range []*hostnet.Host{ha, hb} {
		for _, p := range []string{fmt.Sprintf("10.8.0.%d/24", i+1), fmt.Sprintf("fd08::%d/64", i+1)} {
			if err := h.AddAddress("v", netip.MustParsePrefix(p), hostnet.NoDAD); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.SetUp("v"); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, a)
	return a, b
}

// waitFor waits until the link carries.
func waitFor(t *testing.T, a *hostnet.Namespace) {
	t.Helper()
	for _, f := range families {
		var got Pinged
		for range 50 {
			var err error
			if got, err = (Ping{Timeout: 100 * time.Millisecond}).Run(t.Context(), a, f.src, f.dst); err != nil {
				t.Fatal(err)
			}
			if got.OK() {
				break
			}
		}
		if !got.OK() {
			t.Fatalf("no ping between %v and %v: %v", f.src, f.dst, got.Last)
		}
	}
}

var families = []struct {
	name     string
	src, dst netip.Addr
	nobody   netip.Addr
}{
	{"ip4", netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("10.8.0.77")},
	{"ip6", netip.MustParseAddr("fd08::1"), netip.MustParseAddr("fd08::2"), netip.MustParseAddr("fd08::77")},
}

func TestPing(t *testing.T) {
	a, _ := two(t)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			got, err := Ping{Count: 20, Size: 1000}.Run(t.Context(), a, f.src, f.dst)
			if err != nil || !got.OK() || got.Sent != 20 || got.Min <= 0 || got.P50 < got.Min || got.Max < got.P99 {
				t.Errorf("20 pings gave %+v, %v", got, err)
			}
			got, err = Ping{Count: 2, Timeout: 20 * time.Millisecond}.Run(t.Context(), a, f.src, f.nobody)
			if err != nil || got.OK() || got.Sent != 2 || got.Received != 0 || got.Last == nil {
				t.Errorf("pings to nobody gave %+v, %v", got, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			began := time.Now()
			if _, err := (Ping{Timeout: time.Minute}).Run(ctx, a, f.src, f.nobody); err == nil || time.Since(began) > 5*time.Second {
				t.Errorf("an ended context gave %v after %v", err, time.Since(began))
			}
		})
	}
}

func TestPerfMeasuresWhatArrives(t *testing.T) {
	a, b := two(t)
	for _, f := range families {
		for name, p := range map[string]Perf{
			"tcp":         {Streams: 2},
			"udp":         {UDP: true, Streams: 2},
			"udp at rate": {UDP: true, Streams: 2, Size: 500, Rate: 8_000_000},
		} {
			t.Run(f.name+" "+name, func(t *testing.T) {
				p.From, p.To, p.Source, p.Target, p.Duration = a, b, f.src, f.dst, 500*time.Millisecond
				got, err := p.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got.Bytes == 0 || got.GbitPerS <= 0 || got.Seconds < 0.5 || got.RTT.Received == 0 || got.RTT.P99 < got.RTT.P50 {
					t.Errorf("measured %+v", got)
				}
				if p.UDP && (got.Received > got.Sent || got.Bytes != got.Received*uint64(got.Size)) {
					t.Errorf("account does not add up: %+v", got)
				}
				// 1,000 datagrams in the half second; fewer where others have the CPUs, for what is missed is not made up for.
				if p.Rate != 0 && (got.Sent < 100 || got.Sent > 1100 || got.Loss > 0.02) {
					t.Errorf("8 Mbit/s of 500 bytes for 0.5 s sent %d datagrams and lost %v, want 1000 and none", got.Sent, got.Loss)
				}
				if !strings.HasSuffix(got.Proto, f.name[2:]) {
					t.Errorf("proto is %q", got.Proto)
				}
			})
		}
	}
}

func TestPerfSaysWhyItCannot(t *testing.T) {
	a, b := two(t)
	f := families[0]
	good := Perf{From: a, To: b, Source: f.src, Target: f.dst, Duration: 10 * time.Millisecond}
	tests := map[string]struct {
		change func(*Perf)
		want   string
	}{
		"two families":          {func(p *Perf) { p.Target = families[1].dst }, "one family"},
		"a rate for TCP":        {func(p *Perf) { p.Rate = 1 }, "rate"},
		"too many streams":      {func(p *Perf) { p.Streams = 10_000 }, "streams"},
		"a datagram too small":  {func(p *Perf) { p.UDP, p.Size = true, 4 }, "size"},
		"a datagram too large":  {func(p *Perf) { p.UDP, p.Size = true, 65508 }, "size"},
		"an address not theirs": {func(p *Perf) { p.Target = f.nobody }, "assign requested address"},
		"a negative duration":   {func(p *Perf) { p.Duration = -1 }, "duration"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := good
			tt.change(&p)
			if _, err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to mention %q", err, tt.want)
			}
		})
	}
}

func TestLossIsToldByWhere(t *testing.T) {
	a, b := two(t)
	for _, f := range families {
		before, err := droppedAt(b)
		if err != nil {
			t.Fatal(err)
		}
		to, err := listenUDP(b, f.dst)
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if err := to.SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		from, err := dialUDP(a, f.src, to)
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		for range 100 {
			if _, err := from.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(settle)
		after, err := droppedAt(b)
		if n := after.receiving - before.receiving; err != nil || n < 50 || n > 100 {
			t.Errorf("%s: of 100 datagrams to a socket with no room %d count as dropped by it, %v", f.name, n, err)
		}
	}
	const dev = "Inter-| Receive | Transmit\n eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n lo: 0 0 0 0 0 0 0 0 0 0 0 30 0 0 0 0\n"
	if n := transmitDrops([]byte(dev)); n != 42 {
		t.Errorf("transmit drops are %d, want 12 and 30", n)
	}
}

func TestPercentilesAreNearestRank(t *testing.T) {
	var trips []time.Duration
	for i := 200; i >= 1; i-- {
		trips = append(trips, time.Duration(i))
	}
	want := RTT{Sent: 210, Received: 200, Min: 1, P50: 100, P90: 180, P99: 198, Max: 200}
	if got := summarize(210, trips); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := summarize(1, []time.Duration{7}); got != (RTT{1, 1, 7, 7, 7, 7, 7}) {
		t.Errorf("of one trip: %+v", got)
	}
	if got := summarize(3, nil); got != (RTT{Sent: 3}) {
		t.Errorf("of none: %+v", got)
	}
}
