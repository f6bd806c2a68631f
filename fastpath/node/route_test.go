package node_test

import (
	"net/netip"
	"testing"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

// Who may send what where. Packets that are refused do not leave, and nobody
// is told.
func TestPolicyOfPorts(t *testing.T) {
	type at struct{ net, host int }
	pod, veth, mute := at{gt.NetPods, gt.PodHost}, at{gt.NetPods, gt.VethHost}, at{gt.NetPods, gt.MuteHost}
	station, remote := at{gt.NetUp, gt.Station}, at{gt.NetRemote, 9}
	tests := map[string]struct {
		in       uint16
		src, dst at
		out      uint16
		want     graph.Reason
	}{
		"a pod speaks for itself":                   {gt.Pod, pod, remote, gt.Up, graph.NoReason},
		"a pod speaks for another pod":              {gt.Pod, veth, remote, 0, graph.SpoofedSource},
		"a pod speaks for a station":                {gt.Pod, station, veth, 0, graph.SpoofedSource},
		"a pod speaks for us":                       {gt.Pod, at{gt.NetUp, gt.Ours}, veth, 0, graph.SpoofedSource},
		"a pod speaks for an address without route": {gt.Pod, at{gt.NetNowhere, 1}, veth, 0, graph.SpoofedSource},
		"a pod speaks for an unused pod address":    {gt.Pod, at{gt.NetPods, 99}, veth, 0, graph.SpoofedSource},
		"a veth pod speaks for a TUN pod":           {gt.Veth, pod, remote, 0, graph.SpoofedSource},
		"a pod lies to us":                          {gt.Pod, veth, at{gt.NetUp, gt.Ours}, 0, graph.SpoofedSource},
		"a pod lies where no route is":              {gt.Pod, veth, at{gt.NetNowhere, 1}, 0, graph.SpoofedSource},
		"a pod speaks to itself by us":              {gt.Pod, pod, pod, 0, graph.Loop},
		"a veth pod speaks to itself by us":         {gt.Veth, veth, veth, 0, graph.Loop},
		"a pod without policy sends to a pod":       {gt.Mute, mute, pod, 0, graph.NoPolicy},
		"a pod without policy sends to us":          {gt.Mute, mute, at{gt.NetUp, gt.Ours}, 0, graph.NoPolicy},
		"a pod without policy sends away":           {gt.Mute, mute, remote, 0, graph.NoPolicy},
		"a pod sends to a pod without policy":       {gt.Pod, pod, mute, 0, graph.NoPolicy},
		"a station sends to a pod without policy":   {gt.Up, station, mute, 0, graph.NoPolicy},
		"the host sends to a pod without policy":    {gt.Host, at{gt.NetUp, gt.Ours}, mute, 0, graph.NoPolicy},
		"a station speaks for another":              {gt.Up, at{gt.NetSide, 9}, pod, gt.Pod, graph.NoReason}, // routers do
		"to an address of a pod that is gone":       {gt.Up, station, at{gt.NetPods, 99}, 0, graph.Blackhole},
		"into a black hole":                         {gt.Pod, pod, at{gt.NetBlackhole, 1}, 0, graph.Blackhole},
		"the host sends to itself by us":            {gt.Host, remote, at{gt.NetUp, gt.Ours}, 0, graph.NoHostPort},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				src, dst := gt.Addr(ipv6, tt.src.net, tt.src.host), gt.Addr(ipv6, tt.dst.net, tt.dst.host)
				ip := gt.UDP(src, dst, 30)
				l.SendIP(tt.in, ip, gt.UDPTTL(src, dst, 30, 64)) // the same twice
				if tt.want != graph.NoReason {
					wantNone(t, l)
					l.WantDrops(t, map[graph.Reason]uint64{tt.want: 2})
					return
				}
				if n := len(l.Collect(tt.out)); n != 2 {
					t.Errorf("%d packets left, want 2", n)
				}
			})
		}
	})
}

// What was proven of one source says nothing of another, nor of the same by
// another port.
func TestLiarsAmongOthers(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		pod, veth := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		to := gt.Addr(ipv6, gt.NetRemote, 9)
		other := gt.Framed(gt.Pod, gt.UDP(gt.Addr(!ipv6, gt.NetPods, gt.PodHost), gt.Addr(!ipv6, gt.NetRemote, 9), 30))
		for _, from := range []struct {
			port      uint16
			own, lent netip.Addr
		}{{gt.Pod, pod, veth}, {gt.Veth, veth, pod}} { // one vector: each begins with what the other ends with
			own, lie := gt.Framed(from.port, gt.UDP(from.own, to, 30)), gt.Framed(from.port, gt.UDP(from.lent, to, 30))
			l.Inject(from.port, lie, own, own, lie, own, lie, lie, own)
			if from.port == gt.Pod {
				l.Inject(from.port, other, lie, other, own)
			}
		}
		l.Run()
		if n := len(l.Collect(gt.Up)); n != 11 {
			t.Errorf("%d packets left, want 11", n)
		}
		l.WantDrops(t, map[graph.Reason]uint64{graph.SpoofedSource: 9})
	})
}

// A pod that lies is not answered either: no error, no reply.
func TestLiarsAreNotAnswered(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		victim := gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		l.SendIP(gt.Pod, gt.Echo(victim, gt.Addr(ipv6, gt.NetUp, gt.Ours), 8),
			gt.UDPTTL(victim, gt.Addr(ipv6, gt.NetRemote, 1), 8, 1), gt.UDP(victim, gt.Addr(ipv6, gt.NetSmall, gt.Station), 1400))
		wantNone(t, l)
		l.WantDrops(t, map[graph.Reason]uint64{graph.SpoofedSource: 3})
	})
}

func TestWithoutHostPortNothingIsPunted(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		l.Publish(func(s *node.State) { s.HostPort = graph.NoPort })
		w := toPod(ipv6)
		l.SendIP(gt.Up, gt.UDP(w.src, gt.Addr(ipv6, gt.NetUp, gt.Ours), 10))
		wantNone(t, l)
		l.WantDrops(t, map[graph.Reason]uint64{graph.NoHostPort: 1})
	})
}

// What a port refuses is counted for its reason, and freed.
func TestRefusedByThePort(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for _, r := range []graph.Reason{graph.TxFull, graph.TxDown, graph.TxOversize} {
			l := gt.Standard(t, 1)
			l.Queue(gt.Up, 0).Refuse(r)
			w := fromPod(ipv6)
			p := superpacket(ipv6, false, 5000, 1000)
			l.InjectPackets(gt.Pod, p)
			l.SendIP(gt.Pod, gt.UDP(w.src, w.dst, 10))
			wantNone(t, l)
			l.WantDrops(t, map[graph.Reason]uint64{r: 6})
		}
	})
}
