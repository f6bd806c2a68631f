package node_test

import (
	"slices"
	"testing"
	"time"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/flow"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// logs is a rule that logs what allow would allow.
func logs(id uint32, proto, port uint16) classifier.Rule {
	r := allow(id, proto, port)
	r.Action = classifier.Log
	return r
}

// told is what was logged since it was read last.
func told(l *gt.Lab) (all []judge.Logged) {
	l.Tables.Court.Log.Read(func(e *judge.Logged) { all = append(all, *e) })
	return all
}

// A packet that meets a Log rule is told of and goes on to the next rule; the
// packets of a known connection meet no rules.
func TestLogRulesTellOfJudgedPackets(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		any := classifier.Rule{ID: 30, Action: classifier.Log}
		pass := classifier.Rule{ID: 31, Action: classifier.Pass}
		c, err := chain.NewChain(
			chain.Tier{List: chain.NewList(program(t, logs(20, udp, web), any, pass, classifier.Rule{ID: 32, Action: classifier.Log})), End: classifier.Deny},
			chain.Tier{List: chain.NewList(program(t, logs(21, udp, 9), allow(40, udp, web), logs(22, udp, web))), End: classifier.Deny})
		if err != nil {
			t.Fatal(err)
		}
		l.Police(gt.Pod, &judge.Endpoint{Ingress: [2]*chain.Chain{c, c}, Account: 7, Ends: [2]judge.Ends{{}, {{51, 52, 53}, {51, 52, 53}}}})
		l.Police(gt.Veth, &judge.Endpoint{Egress: only(t, logs(50, udp, 9)), Account: 8})
		client, pod, veth := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetPods, gt.VethHost)
		key := func(ip []byte) (k flow.Key) {
			s, d := client, pod
			if ip == nil {
				s, d = veth, pod
			}
			return flow.NewKey(s, d, udp, 1000, web, 0)
		}
		there := gt.UDPPorts(client, pod, 10, 1000, web)
		l.SendIP(gt.Up, there, there)
		var rules []uint32
		for _, e := range told(l) {
			rules = append(rules, e.Rule)
			if e.Verdict != classifier.NewVerdict(classifier.Allow, 40, 1) || e.Egress || e.Account != 7 || e.InPort != gt.Up || e.Packet != key(there) ||
				e.Segments != 1 || int(e.Bytes) != len(there) || e.Suppressed != 0 {
				t.Errorf("logged %+v", e)
			}
		}
		// Both came in one vector, before any of them had made the flow.
		if want := []uint32{20, 30, 20, 30}; !slices.Equal(rules, want) {
			t.Errorf("rules that logged are %v, want %v", rules, want)
		}
		l.SendIP(gt.Up, there)
		l.Tables.Court.Moved()
		l.SendIP(gt.Up, there)
		if more := told(l); len(more) != 0 {
			t.Errorf("packets of a known flow are logged: %+v", more)
		}
		l.SendIP(gt.Veth, gt.UDPPorts(veth, pod, 10, 1000, 9))
		if got := told(l); len(got) != 1 || got[0].Rule != 50 || !got[0].Egress || got[0].Account != 8 || got[0].InPort != gt.Veth ||
			got[0].Verdict != classifier.NewVerdict(classifier.Deny, classifier.EndOfTier, 0) {
			t.Errorf("a denied packet is logged as %+v", got)
		}
		l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1000, 9))
		if got := told(l); len(got) != 2 || got[0].Rule != 30 || got[1].Rule != 21 || got[1].End != 52 {
			t.Errorf("a packet that the second tier denies is logged as %+v", got)
		}
	})
}

// Each rule has its own rate: what is beyond is counted and told with the next.
func TestLogIsRateLimitedByRule(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		log := &l.Tables.Court.Log
		log.Expect(slices.Values([]uint32{1, 2}))
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, logs(1, udp, 9), logs(2, udp, 10))})
		client, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		send := func(port uint16, n int) {
			for range n {
				l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1000, port))
			}
		}
		const burst = 10
		send(9, burst+7)
		if got := told(l); len(got) != burst {
			t.Errorf("%d packets of a rule are logged at once, want %d", len(got), burst)
		}
		send(10, 1)
		if got := told(l); len(got) != 1 || got[0].Suppressed != 0 {
			t.Errorf("another rule is logged as %+v", got)
		}
		l.Engine.Advance(time.Second)
		send(9, 2)
		if got := told(l); len(got) != 1 || got[0].Suppressed != 7 {
			t.Errorf("after a second there is %+v, want one that tells of 7", got)
		}
		if s := log.Stats(); s != (judge.LogStats{Logged: burst + 2, Suppressed: 8}) {
			t.Errorf("the log counts %+v", s)
		}
		l.Engine.Advance(time.Hour) // which saves up no more than before
		send(9, burst+3)
		if got := told(l); len(got) != burst {
			t.Errorf("after an hour %d packets are logged at once, want %d", len(got), burst)
		}
		log.Reset(1)
		send(9, 1)
		if got := told(l); len(got) != 1 || got[0].Suppressed != 0 {
			t.Errorf("a rule with the id of one that is gone tells of its packets: %+v", got)
		}
	})
}

// Nobody waits for who does not read: what finds no room is counted.
func TestFullLogHoldsNobodyUp(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		rules := []classifier.Rule{}
		for i := range uint32(40) {
			rules = append(rules, logs(1+i, udp, 9))
		}
		l.Tables.Court.Log.Expect(slices.Values([]uint32{40}))
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, append(rules, allow(99, udp, 9))...)})
		client, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		for i := range uint16(20) {
			l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1000+i, 9))
		}
		if n := left(l, gt.Pod); n != 20 {
			t.Errorf("%d packets passed, want 20", n)
		}
		s := l.Tables.Court.Log.Stats()
		if s.Logged != 256 || s.Lost == 0 || s.Logged+s.Lost+s.Suppressed != 20*40 {
			t.Errorf("the log counts %+v, want 256 and the rest of %d", s, 20*40)
		}
		if got := told(l); len(got) != 256 {
			t.Errorf("%d are read, want 256", len(got))
		}
		l.Engine.Advance(time.Minute)
		l.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 999, 9))
		sum := uint64(0)
		for _, e := range told(l) {
			sum += e.Suppressed
		}
		if sum != s.Lost+s.Suppressed {
			t.Errorf("the next lines tell of %d packets that were passed over, want %d", sum, s.Lost+s.Suppressed)
		}
	})
}

// What is judged, counted, logged and compared with what is staged allocates nothing.
func TestTellingAllocatesNothing(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		rules := []classifier.Rule{}
		for i := range uint32(20) {
			rules = append(rules, logs(1+i, udp, 9))
		}
		l.Police(gt.Pod, &judge.Endpoint{
			Ingress: only(t, append(rules, allow(99, udp, 10))...),
			Staged:  [2]*judge.Staged{1: {Chain: only(t, allow(98, udp, 9)), Permits: 5}},
		})
		client, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		l.Queue(gt.Up, 0).Loop(gt.Packet{Bytes: gt.Framed(gt.Up, gt.UDPPorts(client, pod, 10, 1000, 9))})
		for range 10 {
			l.Engine.Step()
		}
		n := testing.AllocsPerRun(100, func() {
			l.Engine.Step()
			l.Engine.Advance(time.Second)
			l.Tables.Court.Log.Read(func(*judge.Logged) {})
		})
		l.Queue(gt.Up, 0).End()
		if n != 0 {
			t.Errorf("a pass allocates %v times", n)
		}
		if c := l.Tables.Court.Ends.Count(5); c.Packets == 0 {
			t.Error("nothing was judged")
		}
	})
}
