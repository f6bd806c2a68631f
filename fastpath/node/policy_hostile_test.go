package node_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// siege is a pod that may be sent TCP to port 80 and UDP to port 2222, and a
// client far away that has a connection and a conversation with it. Whatever
// others send meanwhile, both go on.
type siege struct {
	*gt.Lab
	t           *testing.T
	ipv6        bool
	client, pod netip.Addr
	sent        uint32 // bytes of the client's that its connection has carried
}

func besieged(t *testing.T, ipv6 bool) *siege {
	s := &siege{gt.Standard(t, 1), t, ipv6, gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetPods, gt.PodHost), 0}
	s.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(1, tcp, web), allow(2, udp, 2222)), Egress: open(t), Account: 1})
	s.SendIP(gt.Up, segment(s.client, s.pod, 1000, web, 100, 0, "S", 0))
	s.SendIP(gt.Pod, segment(s.pod, s.client, web, 1000, 500, 101, "SA", 0))
	s.SendIP(gt.Up, segment(s.client, s.pod, 1000, web, 101, 501, "A", 0), gt.UDP(s.client, s.pod, 10))
	if n := left(s.Lab, gt.Pod); n != 3 {
		t.Fatalf("%d packets came, want 3: %v", n, s.Engine.Total().Drops)
	}
	s.goesOn("at the beginning")
	return s
}

// goesOn wants connection and conversation to carry something more both ways.
func (s *siege) goesOn(when string) {
	s.t.Helper()
	s.CollectAll()
	s.SendIP(gt.Up, segment(s.client, s.pod, 1000, web, 101+s.sent, 501, "A", 50), gt.UDP(s.client, s.pod, 10))
	s.sent += 50
	s.SendIP(gt.Pod, segment(s.pod, s.client, web, 1000, 501, 101+s.sent, "A", 0), gt.UDPPorts(s.pod, s.client, 10, 2222, 1111))
	if in, out := left(s.Lab, gt.Pod), left(s.Lab, gt.Up); in != 2 || out != 2 {
		s.t.Errorf("%s: %d and %d packets of those that talk came, want 2 and 2: %v", when, in, out, s.Engine.Total().Drops)
	}
}

// meets sends a packet and wants it dropped for a reason, or passed if there is none.
func (s *siege) meets(name string, from uint16, ip []byte, why graph.Reason) {
	s.t.Helper()
	s.CollectAll()
	before := s.Engine.Total()
	s.SendIP(from, ip)
	after, to := s.Engine.Total(), gt.Pod
	if from == gt.Pod {
		to = gt.Up
	}
	n := left(s.Lab, to)
	if why == graph.NoReason && n != 1 || why != graph.NoReason && (n != 0 || after.Drops[why] != before.Drops[why]+1) {
		s.t.Errorf("%s: %d packets came, want dropped for %v: drops were %v, are %v", name, n, why, before.Drops, after.Drops)
	}
}

// told wants every packet that the table of connections has refused to be dropped
// for that reason, and no other.
func (s *siege) told() {
	s.t.Helper()
	drops, refused := s.Engine.Total().Drops, s.Tables.Court.Flows.Stats().Refused
	for why := flow.NoReason + 1; why < flow.Reason(flow.Reasons); why++ {
		if why == flow.UnknownQuote || why == flow.FragmentUnknown { // judged as a packet like any; asked twice, for its first may be beside it
			continue
		}
		if got, want := drops[graph.FlowReason(uint8(why))], refused[why]; got != want {
			s.t.Errorf("%d packets are dropped for %v, and the table has refused %d", got, why, want)
		}
	}
}

func TestForgedSegmentsMeetAConnection(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		s := besieged(t, ipv6)
		there := func(seq, ack uint32, flags string, n int) []byte {
			return segment(s.client, s.pod, 1000, web, seq, ack, flags, n)
		}
		back := func(seq, ack uint32, flags string, n int) []byte {
			return segment(s.pod, s.client, web, 1000, seq, ack, flags, n)
		}
		for _, m := range []struct {
			name string
			from uint16
			ip   []byte
			why  graph.Reason
		}{
			{"data far beyond the window", gt.Up, there(1<<30, 501, "A", 20), graph.FlowOutOfWindow},
			{"data half the numbers away", gt.Up, there(101+1<<31, 501, "A", 20), graph.FlowOutOfWindow},
			{"an acknowledgement of what was never sent", gt.Up, there(151, 90000, "A", 20), graph.FlowBadAck},
			{"a reset beyond the window", gt.Up, there(70000, 0, "R", 0), graph.FlowBadReset},
			{"a reset from behind it", gt.Up, there(50, 0, "R", 0), graph.FlowBadReset},
			{"a reset of the other side's beyond the window", gt.Pod, back(1<<30, 0, "R", 0), graph.FlowBadReset},
			{"a segment with no flags", gt.Up, there(151, 501, "", 0), graph.FlowBadFlags},
			{"SYN and FIN", gt.Up, there(151, 501, "SF", 0), graph.FlowBadFlags},
			{"SYN and RST", gt.Up, there(151, 501, "SR", 0), graph.FlowBadFlags},
			{"data of a connection that nobody knows", gt.Up, segment(s.client, s.pod, 1001, web, 1, 1, "A", 9), graph.FlowMidFlow},
			{"a reset of one that nobody knows", gt.Up, segment(s.client, s.pod, 1001, web, 1, 1, "R", 0), graph.FlowMidFlow},
		} {
			s.meets(m.name, m.from, m.ip, m.why)
			s.goesOn("after " + m.name)
		}
		s.told()
	})
}

// icmp is an ICMP error of the family's that quotes n bytes of a packet. word is
// what stands before the quote: an MTU.
func icmp(src, dst netip.Addr, kind, code uint8, word uint32, quote []byte, n int) []byte {
	body := append(binary.BigEndian.AppendUint32(nil, word), quote[:n]...)
	if src.Is4() {
		head := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code), Id: uint16(word >> 16), Seq: uint16(word)}
		return gt.Frame(gt.IP(src, dst, layers.IPProtocolICMPv4), head, gopacket.Payload(body[4:]))
	}
	return gt.Frame(gt.IP(src, dst, layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}, gopacket.Payload(body))
}

func TestForgedErrorsMeetAConnection(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		s := besieged(t, ipv6)
		router := gt.Addr(ipv6, gt.NetUp, gt.Gateway)
		unreachable, code, tooBig, big, least := uint8(3), uint8(1), uint8(3), uint8(4), uint32(68)
		head := 20
		if ipv6 {
			unreachable, code, tooBig, big, least, head = 1, 4, 2, 0, 1280, 40
		}
		answer := func(seq uint32) []byte { return segment(s.pod, s.client, web, 1000, seq, 101, "A", 0) }
		datagram := gt.UDPPorts(s.pod, s.client, 10, 2222, 1111)
		stranger := gt.UDPPorts(s.pod, s.client, 10, 2223, 1111)
		to := func(dst netip.Addr, kind, code uint8, word uint32, quote []byte, n int) []byte {
			return icmp(router, dst, kind, code, word, quote, n)
		}
		for _, m := range []struct {
			name string
			ip   []byte
			why  graph.Reason
		}{
			{"true, about a datagram", to(s.pod, unreachable, code, 0, datagram, head+8), 0},
			{"true, about what is sent next", to(s.pod, unreachable, code, 0, answer(501), head+8), 0},
			{"about a segment that was never sent", to(s.pod, unreachable, code, 0, answer(90000), head+8), graph.FlowForgedQuote},
			{"asking for an MTU below the least", to(s.pod, tooBig, big, least-1, datagram, head+8), graph.FlowForgedQuote},
			{"about what another has sent", to(s.pod, unreachable, code, 0, gt.UDPPorts(gt.Addr(ipv6, gt.NetPods, gt.VethHost), s.client, 10, 2222, 1111), head+8), graph.FlowBadQuote},
			{"with a quote cut short", to(s.pod, unreachable, code, 0, datagram, head+7), graph.FlowBadQuote},
			{"with half a header", to(s.pod, unreachable, code, 0, datagram, head/2), graph.FlowBadQuote},
			{"with nothing", to(s.pod, unreachable, code, 0, datagram, 0), graph.FlowBadQuote},
			{"about an error", to(s.pod, unreachable, code, 0, to(s.client, unreachable, code, 0, datagram, head+8), head+16), graph.FlowBadQuote},
			{"about a flow that there is not", to(s.pod, unreachable, code, 0, stranger, head+8), graph.IngressDenied},
		} {
			s.meets(m.name, gt.Up, m.ip, m.why)
			s.goesOn("after an error " + m.name)
		}
		s.told()
	})
}

// An error that comes when its flow is to be judged anew is judged as what it quotes, though
// it goes the other way: a pod that lets nobody in hears of its own datagrams.
func TestErrorsAreJudgedAsWhatTheyQuote(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		pod, far, router := gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetUp, gt.Gateway)
		police := func(port uint16) {
			l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t), Egress: only(t, allow(1, udp, port))})
		}
		unreachable, code, head := uint8(3), uint8(1), 20
		if ipv6 {
			unreachable, code, head = 1, 4, 40
		}
		datagram := gt.UDPPorts(pod, far, 10, 1000, 2222)
		police(2222)
		l.SendIP(gt.Pod, datagram)
		for _, tt := range []struct{ port, came int }{{2222, 1}, {2223, 0}} {
			police(uint16(tt.port))
			l.SendIP(gt.Up, icmp(router, pod, unreachable, code, 0, datagram, head+8))
			if n := left(l, gt.Pod); n != tt.came {
				t.Errorf("while egress allows port %d, %d errors came, want %d: %v", tt.port, n, tt.came, l.Engine.Total().Drops)
			}
		}
		if n := l.Tables.Court.Rejudged(); n != 2 {
			t.Errorf("%d errors were judged, want 2", n)
		}
	})
}

// piece is a fragment of a datagram to UDP port 2222, or to another that policy
// denies.
func (s *siege) piece(id uint16, from, to int, more bool, port uint16) []byte {
	body := gt.Payload(to - from)
	if from == 0 {
		binary.BigEndian.PutUint16(body, 1111)
		binary.BigEndian.PutUint16(body[2:], port)
		binary.BigEndian.PutUint16(body[4:], 400)
		body[6], body[7] = 0, 0
	}
	p := part(s.ipv6, ends{s.client, s.pod}, from, more, body)
	renumber(p, id)
	return p
}

func TestFragmentsThatOverlapMeetAPolicy(t *testing.T) {
	type step struct {
		from, to int
		more     bool
		port     uint16
		why      graph.Reason
	}
	const overlap, repeated, unknown, denied = graph.FlowFragmentOverlap, graph.FlowFragmentRepeated, graph.FlowFragmentUnknown, graph.IngressDenied
	for name, steps := range map[string][]step{
		"whole":                     {{0, 80, true, 2222, 0}, {80, 160, true, 0, 0}, {160, 200, false, 0, 0}},
		"the last over the middle":  {{0, 80, true, 2222, 0}, {80, 160, true, 0, 0}, {152, 200, false, 0, overlap}, {160, 200, false, 0, overlap}},
		"the middle over the first": {{0, 80, true, 2222, 0}, {72, 160, true, 0, overlap}, {160, 200, false, 0, overlap}},
		"twice":                     {{0, 80, true, 2222, 0}, {80, 160, true, 0, 0}, {80, 160, true, 0, repeated}, {160, 200, false, 0, 0}},
		"the first, longer":         {{0, 80, true, 2222, 0}, {160, 200, false, 0, 0}, {0, 96, true, 2222, overlap}, {80, 160, true, 0, overlap}},
		"the first, denied":         {{0, 80, true, 22, denied}, {80, 160, true, 0, unknown}, {160, 200, false, 0, unknown}},
		"another first, denied":     {{0, 80, true, 2222, 0}, {0, 80, true, 22, denied}, {80, 200, false, 0, 0}},
		"two ends":                  {{0, 80, true, 2222, 0}, {160, 200, false, 0, 0}, {80, 120, false, 0, overlap}},
	} {
		t.Run(name, func(t *testing.T) {
			gt.Families(t, func(t *testing.T, ipv6 bool) {
				s := besieged(t, ipv6)
				for i, p := range steps {
					s.meets(fmt.Sprint("piece ", i), gt.Up, s.piece(7, p.from, p.to, p.more, p.port), p.why)
				}
				s.goesOn("after fragments")
				s.told()
			})
		})
	}
}

// Datagrams that never become whole fill what there is room for between two hosts,
// cost others nothing, and make room again in time.
func TestFragmentsThatNeverCompleteMeetAPolicy(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		s := besieged(t, ipv6)
		for id := range uint16(2000) {
			s.SendIP(gt.Up, s.piece(1000+id, 0, 80, true, 2222), s.piece(1000+id, 160, 240, true, 0))
		}
		stats := s.Tables.Court.Flows.Stats()
		if stats.Partial == 0 || stats.Partial > 16 || stats.Flows > 2 {
			t.Errorf("%d datagrams are awaited and %d flows are there, want up to 16, and 2", stats.Partial, stats.Flows)
		}
		s.goesOn("meanwhile")
		other := ends{gt.Addr(ipv6, gt.NetUp, gt.Gateway), s.pod}
		body := gt.UDP(other.src, other.dst, 392)[len(gt.UDP(other.src, other.dst, 0))-8:]
		for _, p := range [][]byte{part(ipv6, other, 0, true, body[:80]), part(ipv6, other, 80, false, body[80:])} {
			s.meets("a datagram of others", gt.Up, p, 0)
		}
		s.Advance(flow.DefaultTimeouts().Fragment + time.Second)
		s.meets("a first, in time", gt.Up, s.piece(9, 0, 80, true, 2222), 0)
		s.meets("its last", gt.Up, s.piece(9, 80, 160, false, 0), 0)
		s.told()
	})
}

// Nine pods take turns to have opened to them what each may have of the table of
// connections, until it is full: then a new one is refused for that, whoever's it is, those
// that are known go on, and there is room again when some have ended.
func TestFullTableMeetsAPolicy(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		s := besieged(t, ipv6)
		flows, drops := s.Tables.Court.Flows, func() map[graph.Reason]uint64 { return s.drops(graph.FlowTableFull, graph.FlowOverShare) }
		n := 0
		for account := uint32(0); drops()[graph.FlowTableFull] == 0 && account < uint32(gt.Ports); account++ {
			s.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(1, tcp, web), allow(2, udp, 2222)), Egress: open(t), Account: account})
			for was := drops(); maps.Equal(was, drops()); {
				var burst [][]byte
				for range 64 {
					n++
					burst = append(burst, gt.UDPPorts(gt.Addr(ipv6, gt.NetUp, 4+n/60000), s.pod, 10, uint16(2000+n%60000), 2222))
				}
				s.SendIP(gt.Up, burst...)
			}
		}
		if stats := flows.Stats(); stats.Flows != flows.Limit() || drops()[graph.FlowTableFull] == 0 {
			t.Fatalf("there are %d flows of %d, and dropped was %v", stats.Flows, flows.Limit(), drops())
		}
		s.goesOn("with a full table")
		s.meets("a new connection", gt.Up, segment(s.client, s.pod, 1001, web, 100, 0, "S", 0), graph.FlowTableFull)
		s.meets("one of the pod's own", gt.Pod, segment(s.pod, s.client, 1002, 99, 100, 0, "S", 0), graph.FlowTableFull)
		s.Advance(2 * flow.DefaultTimeouts().UDPOneWay)
		for flows.Advance(flow.TickAt(3*flow.DefaultTimeouts().UDPOneWay), 1<<16) {
		}
		flows.Quiesced(flows.Generation())
		s.meets("a new connection, in time", gt.Up, segment(s.client, s.pod, 1001, web, 100, 0, "S", 0), 0)
		s.told()
	})
}

// drops is what was dropped for some reasons.
func (s *siege) drops(why ...graph.Reason) map[graph.Reason]uint64 {
	out, all := map[graph.Reason]uint64{}, s.Engine.Total().Drops
	for _, r := range why {
		out[r] = all[r]
	}
	return out
}

func TestHostileTCPOptionsMeetAPolicy(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		s := besieged(t, ipv6)
		head := 20
		if ipv6 {
			head = 40
		}
		for i, options := range [][]byte{
			{8, 0, 3, 3, 7, 0, 0, 0}, {8, 1, 3, 3, 7, 0, 0, 0}, {3, 0, 3, 0}, {1, 1, 1, 3}, {3, 255, 7, 0}, {3, 3, 255, 1},
			{2, 4, 0, 0}, {5, 255, 0, 0}, {5, 2, 5, 2}, {255, 255, 255, 255}, bytes.Repeat([]byte{1}, 40), bytes.Repeat([]byte{3, 3, 14, 1}, 10),
			bytes.Repeat([]byte{8, 0}, 20), bytes.Repeat([]byte{4, 1}, 20),
		} {
			// Room for options is made by data, which a longer header takes in.
			port := uint16(3000 + i)
			syn := segment(s.client, s.pod, port, web, 100, 0, "S", len(options))
			copy(syn[head+20:], options)
			syn[head+12] = byte(5+len(options)/4) << 4
			s.meets(fmt.Sprintf("a SYN with options %v", options), gt.Up, syn, 0)
			s.meets("its answer", gt.Pod, segment(s.pod, s.client, web, port, 500, 101, "SA", 0), 0)
			s.meets("the third of the handshake", gt.Up, segment(s.client, s.pod, port, web, 101, 501, "A", 0), 0)
			s.meets("data", gt.Up, segment(s.client, s.pod, port, web, 101, 501, "A", 90), 0)
			s.meets("data far beyond", gt.Up, segment(s.client, s.pod, port, web, 1<<30, 501, "A", 90), graph.FlowOutOfWindow)
		}
		beyond := segment(s.client, s.pod, 2999, web, 100, 0, "S", 0)
		beyond[head+12] = 15 << 4
		s.meets("a header longer than its segment", gt.Up, beyond, graph.L4Length)
		short := segment(s.client, s.pod, 2999, web, 100, 0, "S", 0)
		short[head+12] = 4 << 4
		s.meets("a header shorter than one", gt.Up, short, graph.L4Length)
		s.goesOn("after hostile options")
		s.told()
	})
}
