package port

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

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
	eventually(t, "iperf3 to listen", func() bool {
		return from.t != nil && len(to.exec("ss", "-Hltn", "sport = :5301")) > 0
	})
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
	if left := l.Fallbacks(); len(left) > 0 {
		t.Logf("fallbacks: %v", left)
	}
	t.Logf("moved %d segments, refused %v", p.moved, p.failures)
	if p.moved < 60_000 { // 100 MB in wire segments: the kernel must not take the credit
		t.Errorf("the pump moved %d wire segments", p.moved)
	}
}

func TestTUNSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds, and measures")
	}
	a := newArena(t, 4096, 64)
	left, right, l, r := twoTUNs(t, a, 1, 1500)
	io := [2]*graph.IO{graph.NewIO(a, a.Cache(0)), graph.NewIO(a, a.Cache(1))}
	_ = io
	(&pump{io: io[0], a: l.Queues(), b: r.Queues()}).start(t)
	time.Sleep(100 * time.Millisecond)
	for range 3 {
		fmt.Printf("%.1f Gbit/s\n", iperf(t, left, right, "10.91.0.2", "-t", "3")/1e9)
	}
}
