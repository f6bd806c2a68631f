package node_test

import (
	"net/netip"
	"testing"
	"time"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
)

// scanner sends to neighbours in a net of its own.
type scanner struct {
	in       uint16
	net, src int // where its packets come from
	to       int // the net it looks through
}

var (
	podScans     = scanner{gt.Pod, gt.NetPods, gt.PodHost, gt.NetUp}
	vethScans    = scanner{gt.Veth, gt.NetPods, gt.VethHost, gt.NetSmall}
	stationScans = scanner{gt.Up, gt.NetUp, gt.Station, gt.NetTag}
	nodeScans    = scanner{gt.Host, gt.NetUp, gt.Ours, gt.NetSide}
)

// scan sends one packet to each of n neighbours, from the first on.
func (s scanner) scan(l *gt.Lab, ipv6 bool, first, n int) {
	for i := range n {
		l.Inject(s.in, gt.Framed(s.in, gt.UDP(gt.Addr(ipv6, s.net, s.src), gt.Addr(ipv6, s.to, 10+first+i), 10)))
	}
	l.Run()
}

// wantTold gives up all that waits, and fails t unless each scanner is told of
// as many neighbours as it had places for.
func wantTold(t *testing.T, l *gt.Lab, want map[scanner]int) {
	t.Helper()
	waitInVain(l)
	all, sum := l.CollectAll(), 0
	for s, n := range want {
		if got := len(all[s.in]); got != n {
			t.Errorf("port %d had %d places, want %d", s.in, got, n)
		}
		sum += n
	}
	l.WantDrops(t, map[graph.Reason]uint64{graph.Unresolved: uint64(sum)})
}

// However many neighbours one port asks for, another finds a place at once.
func TestScanKeepsNobodyFromAsking(t *testing.T) {
	tests := map[string]struct{ greedy, modest scanner }{
		"a pod beside a pod":            {podScans, vethScans},
		"pods in one net":               {podScans, scanner{gt.Veth, gt.NetPods, gt.VethHost, gt.NetUp}},
		"a station outside beside pods": {stationScans, podScans},
		"a pod beside the node":         {vethScans, nodeScans},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				tt.greedy.scan(l, ipv6, 0, 200)
				l.WantDrops(t, map[graph.Reason]uint64{graph.HoldFull: 72})
				tt.modest.scan(l, ipv6, 210, 1)
				l.WantDrops(t, map[graph.Reason]uint64{graph.HoldFull: 1}) // one of the greedy port's gave way
				tt.greedy.scan(l, ipv6, 0, 1)                              // and does not come back
				l.WantDrops(t, map[graph.Reason]uint64{graph.HoldFull: 1})
				wantTold(t, l, map[scanner]int{tt.greedy: 127, tt.modest: 1})
			})
		}
	})
}

// Ports that all scan have equal shares, in whatever order they came.
func TestScansShareThePlaces(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		t.Run("two one after the other", func(t *testing.T) {
			l := gt.Standard(t, 1)
			podScans.scan(l, ipv6, 0, 200)
			vethScans.scan(l, ipv6, 0, 200)
			podScans.scan(l, ipv6, 130, 70) // none of which found a place before
			wantTold(t, l, map[scanner]int{podScans: 64, vethScans: 64})
		})
		t.Run("three at once", func(t *testing.T) {
			l := gt.Standard(t, 1)
			for i := range 200 {
				for _, s := range []scanner{podScans, vethScans, stationScans} {
					s.scan(l, ipv6, i, 1)
				}
			}
			wantTold(t, l, map[scanner]int{podScans: 43, vethScans: 43, stationScans: 42})
		})
		t.Run("two, one of which had them all before", func(t *testing.T) {
			l := gt.Standard(t, 1)
			vethScans.scan(l, ipv6, 0, 128)
			wantTold(t, l, map[scanner]int{vethScans: 128})
			podScans.scan(l, ipv6, 0, 128)
			vethScans.scan(l, ipv6, 0, 128)
			wantTold(t, l, map[scanner]int{podScans: 64, vethScans: 64})
		})
	})
}

// Of the greedy port's neighbours the one goes that was asked for longest ago.
func TestOldestNeighbourGivesWay(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		at := 14 + 19 // where a destination's last byte is
		if ipv6 {
			at = 14 + 39
		}
		l := gt.Standard(t, 1)
		podScans.scan(l, ipv6, 0, 60)
		l.Advance(10 * time.Millisecond)
		podScans.scan(l, ipv6, 60, 68)
		vethScans.scan(l, ipv6, 0, 60)
		l.Change()
		l.Collect(gt.Up)
		l.Route(gt.Net(ipv6, gt.NetUp), l.Adjacency(l.Rewrite(gt.Up, ipv6, gt.StationMAC(0, 9), netip.Addr{})))
		l.Engine.Kick()
		l.Run()
		out := l.Collect(gt.Up)
		if len(out) != 68 {
			t.Errorf("%d packets left, want those 68 that came last", len(out))
		}
		for _, p := range out {
			if host := p.Bytes[at]; host < 70 {
				t.Errorf("a packet to host %d left", host)
			}
		}
	})
}

// What we make ourselves has a share like a port: errors to senders that nobody
// knows do not keep pods from asking.
func TestOurOwnPacketsHaveAShare(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		for i := range 150 {
			l.Inject(gt.Up, gt.Framed(gt.Up, gt.UDPTTL(gt.Addr(ipv6, gt.NetSmall, 10+i), gt.Addr(ipv6, gt.NetRemote, 9), 10, 1)))
		}
		l.Run()
		if held := l.Engine.Total().Held; held != 128 {
			t.Fatalf("%d errors wait for their neighbour, want 128", held)
		}
		l.Change()
		podScans.scan(l, ipv6, 0, 1)
		l.WantDrops(t, map[graph.Reason]uint64{graph.HoldFull: 1})
		waitInVain(l)
		wantOne(t, l, gt.Pod)
		l.WantDrops(t, map[graph.Reason]uint64{graph.Unresolved: 128})
	})
}
