package forward

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/byhand"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/fib/fibtest"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/pkt"
)

func families(t *testing.T, f func(t *testing.T, ipv6 bool)) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) { f(t, ipv6) })
	}
}

// What is measured must be forwarding: every frame leaves with its hop count one
// less, a right checksum, and the address of the neighbour that its route names,
// and the plain loop does the same to it.
func TestBothSidesForwardEveryFrameAlike(t *testing.T) {
	families(t, func(t *testing.T, ipv6 bool) {
		r := smallRig(t, ipv6, 300)
		for _, vec := range []int{1, 7, 256} {
			st := newStream(r.bed.arena, 512, destinations(r.routes, 1000), vec == 7)
			r.bed.round(st, vec)
			ours := frames(st)
			st.at = 0
			st.write()
			r.plain.Forward(st.mem, st.metas, vec)
			for i, theirs := range frames(st) {
				if ours[i] != theirs {
					t.Fatalf("vec %d: frame %d left as\n% x by the graph,\n% x by the plain loop", vec, i, ours[i], theirs)
				}
				checkFrame(t, []byte(theirs), ipv6)
			}
		}
		if err := r.check(); err != nil {
			t.Error(err)
		}
		if r.plain.Sent != 3*512 || r.bed.sent != 3*512 {
			t.Errorf("sent %d and %d frames, want %d each", r.bed.sent, r.plain.Sent, 3*512)
		}
	})
}

// smallRig is a rig over a small table; longer routes lie within a covering one.
func smallRig(t *testing.T, ipv6 bool, routes int) *rig {
	t.Helper()
	list := table(ipv6, 1)
	if ipv6 {
		list = append(list, fibtest.Internet6(routes, 1)...)
	} else {
		list = append(list, fibtest.Internet4(routes, 1)...)
	}
	b, err := newBed(t.Context(), ipv6, list, 512)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return &rig{bed: b, plain: byhand.NewLoop(ipv6, list, ourMAC(), peerMAC()), routes: list}
}

func frames(s *stream) (all []string) {
	for _, m := range s.metas {
		all = append(all, string(s.mem[m.Off:m.Off+frameSize]))
	}
	return all
}

func checkFrame(t *testing.T, f []byte, ipv6 bool) {
	t.Helper()
	ours := ourMAC()
	if string(f[6:12]) != string(ours[:]) || f[5] < 16 || f[5] >= 16+nextHops {
		t.Fatalf("the frame went to % x from % x", f[:6], f[6:12])
	}
	switch {
	case ipv6 && f[21] != 63:
		t.Fatalf("hop limit is %d, want 63", f[21])
	case !ipv6 && (f[22] != 63 || pkt.Fold(pkt.Sum(f[14:34])) != 0xffff):
		t.Fatalf("TTL is %d, want 63; the header sums to %#x", f[22], pkt.Fold(pkt.Sum(f[14:34])))
	}
}

// A benchmark of drops would be a fast one.
func TestDropsAreNoticed(t *testing.T) {
	families(t, func(t *testing.T, ipv6 bool) {
		r := smallRig(t, ipv6, 10)
		nowhere := netip.MustParseAddr("127.0.0.1")
		if ipv6 {
			nowhere = netip.IPv6Loopback()
		}
		st := newStream(r.bed.arena, 64, []netip.Addr{r.routes[0].Addr().Next(), nowhere}, false)
		r.bed.round(st, 64)
		if err := r.bed.check(); err == nil || !strings.Contains(err.Error(), "given 64 frames and sent 32") {
			t.Errorf("error is %v", err)
		}
	})
	p := byhand.NewLoop(false, table(false, 1), ourMAC(), peerMAC())
	a, err := umem.New(umem.Config{Frames: 64, Caches: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	st := newStream(a, 64, []netip.Addr{netip.MustParseAddr("21.0.0.1")}, false)
	st.write()
	p.Forward(st.mem, st.metas, 64)
	if err := (&rig{plain: p}).check(); err == nil {
		t.Error("the plain loop forwarded where no route leads")
	}
}

func TestStreamsAreWrittenAnewWithTheirNextDestinations(t *testing.T) {
	families(t, func(t *testing.T, ipv6 bool) {
		a, err := umem.New(umem.Config{Frames: 64, Caches: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		dsts := destinations(table(ipv6, 1), 100)
		st := newStream(a, 64, dsts, true)
		seen, offsets := 0, map[uint32]bool{}
		for range 5 {
			st.write()
			for _, m := range st.metas {
				f := st.mem[m.Off:][:frameSize]
				dst, ok := netip.AddrFromSlice(f[30:34])
				if ipv6 {
					dst, ok = netip.AddrFromSlice(f[38:54])
				}
				if want := dsts[seen%len(dsts)]; !ok || dst != want {
					t.Fatalf("frame %d goes to %v, want %v", seen, dst, want)
				}
				if !ipv6 && pkt.Fold(pkt.Sum(f[14:34])) != 0xffff {
					t.Fatalf("frame %d to %v has a wrong checksum", seen, dst)
				}
				offsets[m.Off%umem.ChunkSize] = true
				seen++
			}
		}
		if len(offsets) < 16 {
			t.Errorf("frames that are spread lie at %d offsets of their chunks", len(offsets))
		}
	})
}

func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range variants(false) {
		if seen[v.String()] {
			t.Errorf("%s comes twice", v)
		}
		seen[v.String()] = true
	}
	for _, v := range variants(true) {
		if !seen[v.String()] {
			t.Errorf("%s is in a quick run only", v)
		}
	}
	for name, want := range map[string]float64{
		"ip4/64B/dst=1k/vec=256": 20, "ip4/64B/dst=1k/vec=32": 24, "ip4/64B/dst=1k/vec=8": 35, "ip4/64B/dst=1k/vec=1": 150,
		"ip6/64B/dst=1k/vec=256": 28, "ip4/64B/dst=1M/vec=256/routes=1M": 60,
		"ip6/64B/dst=1k/vec=1": 0, "ip4/64B/dst=1k/vec=256/node=route": 0, "ip4/64B/dst=1k/vec=256/frames=16k": 0,
		"ip4/64B/dst=64k/vec=256": 0,
	} {
		found := false
		for _, v := range variants(true) {
			if v.String() == name {
				found = true
				if got := budget(v); got != want {
					t.Errorf("budget of %s is %v, want %v", name, got, want)
				}
			}
		}
		if !found {
			t.Errorf("a quick run leaves out %s", name)
		}
	}
}

func TestScenarioRuns(t *testing.T) {
	tests := map[string]struct {
		filter string
		peers  []string // of each case
		cases  int
	}{
		"IPv4 has a published peer too": {"ip4/64B/dst=1k/vec=32", []string{loop, vpp}, 1},
		"IPv6":                          {"ip6/64B/dst=1k/vec=32", []string{loop}, 1},
		"node by node":                  {"ip4/64B/dst=1k/vec=256/node=", []string{vpp}, 5},
		"what no node takes":            {"ip6/64B/dst=1k/vec=256/node=engine", []string{""}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []harness.Result
			o := harness.Options{Quick: true, Limit: 40 * time.Second, Filter: tt.filter, Log: io.Discard}
			o.Out = func(r harness.Result) error {
				if !strings.HasSuffix(r.Case, engineNode) || tt.cases == 1 {
					got = append(got, r)
				}
				return nil
			}
			if err := harness.Run(t.Context(), o, Scenario()); err != nil {
				t.Fatal(err)
			}
			if len(got) != tt.cases*len(tt.peers) {
				t.Fatalf("%d results, want %d against each of %v", len(got), tt.cases, tt.peers)
			}
			for i, r := range got {
				switch want := tt.peers[i%len(tt.peers)]; {
				case r.Peer != want || r.Ours == nil || (r.Ratio == nil) != (want == ""):
					t.Errorf("want a ratio against %q: %+v", want, r)
				case r.Allocs == nil || *r.Allocs != 0:
					t.Errorf("%s allocates: %+v", r.Case, r)
				case *r.Ours <= 0 && want != "": // what is left over may come out below nothing on a busy machine
					t.Errorf("%s takes %v ns", r.Case, *r.Ours)
				}
			}
		})
	}
}
