package overhear_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/fastpath/overhear"
)

// scene is a pod that may do everything, a server of names beyond, and who listens.
type scene struct {
	*gt.Lab
	t           *testing.T
	pod, server netip.Addr
	heard       <-chan overhear.Heard
	stop        func()
}

func families(t *testing.T, f func(t *testing.T, s *scene)) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		s := &scene{Lab: gt.Standard(t, 1), t: t, pod: gt.Addr(ipv6, gt.NetPods, gt.PodHost), server: gt.Addr(ipv6, gt.NetRemote, 9)}
		s.Police(gt.Pod, &judge.Endpoint{Ingress: open(t), Egress: open(t), Account: 1})
		s.listen()
		f(t, s)
	})
}

func (s *scene) listen() { s.heard, s.stop = s.Tables.Court.Post.Listen() }

// open allows everything.
func open(t *testing.T) [2]*chain.Chain {
	t.Helper()
	image, err := classifier.Compile([]classifier.Rule{{ID: 1, Action: classifier.Allow}}, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := classifier.Load(image.Image)
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.NewChain(chain.Tier{List: chain.NewList(p), End: classifier.Deny})
	if err != nil {
		t.Fatal(err)
	}
	return [2]*chain.Chain{c, c}
}

// next is what was heard, in order.
func (s *scene) next() (out []overhear.Heard) {
	for len(s.heard) > 0 {
		out = append(out, <-s.heard)
	}
	return out
}

func (s *scene) ask(port uint16) {
	s.SendIP(gt.Pod, gt.UDPPorts(s.pod, s.server, 30, port, overhear.Port))
}
func (s *scene) answer(port uint16) { s.SendIP(gt.Up, s.reply(port)) }
func (s *scene) reply(port uint16) []byte {
	return gt.UDPPorts(s.server, s.pod, 60, overhear.Port, port)
}

// arrived wants so many packets to have come to the pod since the last look.
func (s *scene) arrived(want int, when string) {
	s.t.Helper()
	if got := len(s.Collect(gt.Pod)); got != want {
		s.t.Errorf("%s: %d packets came to the pod, want %d", when, got, want)
	}
}

func TestAnswerWaitsUntilItIsRead(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		s.ask(4000)
		s.answer(4000)
		s.arrived(0, "before the answer was read")
		heard := s.next()
		if len(heard) != 2 {
			t.Fatalf("%d packets were heard, want 2", len(heard))
		}
		q, a := &heard[0], &heard[1]
		payload := []byte(gt.Payload(60))
		switch {
		case q.ID != 0 || !q.Query || q.TCP || q.Client != s.pod || q.Server != s.server || q.ClientPort != 4000 || q.Size != 30:
			t.Errorf("the question is heard as %+v", q)
		case a.ID == 0 || a.Query || a.TCP || a.Client != s.pod || a.Server != s.server || a.ClientPort != 4000 || !bytes.Equal(a.Payload[:a.Size], payload):
			t.Errorf("the answer is heard as %+v", a)
		}
		post := s.Tables.Court.Post
		post.Read([]uint64{a.ID + 1, 0, 1<<64 - 1})
		s.Engine.Kick()
		s.Run()
		s.arrived(0, "after others were read")
		post.Read([]uint64{a.ID})
		s.Engine.Kick()
		s.Run()
		s.arrived(1, "after it was read")
		s.ask(4000) // a known flow now, both ways
		s.answer(4000)
		if heard = s.next(); len(heard) != 2 || heard[1].ID == a.ID {
			t.Fatalf("of a known flow: %d packets were heard", len(heard))
		}
		s.arrived(0, "of a known flow, before it was read")
		s.Advance(time.Second)
		s.arrived(1, "after a second")
		if got, want := post.Stats(), (overhear.Stats{Shown: 4, Read: 1, Overdue: 1}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// Who asks a pod for names from beyond a host's port might do so in anybody's name, of a
// server of his own: nothing is learned from that, and nothing waits.
func TestStrangersTeachNobody(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		s.Police(gt.Up, &judge.Endpoint{Host: true, Ingress: open(t), Egress: open(t), Account: 2})
		for range 2 { // judged, and by its flow
			s.SendIP(gt.Up, gt.UDPPorts(s.server, s.pod, 30, 4000, overhear.Port))
			s.arrived(1, "a stranger's question")
			s.SendIP(gt.Pod, gt.UDPPorts(s.pod, s.server, 60, overhear.Port, 4000))
			if n := len(s.Collect(gt.Up)); n != 1 {
				t.Errorf("%d answers went to the stranger, want 1", n)
			}
		}
		if heard := s.next(); len(heard) != 0 {
			t.Errorf("heard %+v", heard)
		}
		s.ask(4001)
		if n := len(s.next()); n != 1 {
			t.Errorf("%d questions of the pod's own were heard, want 1", n)
		}
	})
}

func TestNobodyWaitsForNobody(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		s.ask(4000)
		s.stop()
		s.answer(4000)
		s.arrived(1, "while nobody listens")
		s.listen()
		s.answer(4000)
		s.arrived(0, "while somebody listens")
		s.stop()
		s.Advance(50 * time.Millisecond)
		s.arrived(1, "when nobody listens any more")
		s.listen()
		old := s.stop
		s.listen()
		old()
		s.answer(4000)
		if n := len(s.next()); n != 1 {
			t.Errorf("the later listener hears %d packets, want 1: the former one's end is not its own", n)
		}
	})
}

func TestWhatIsNotHeard(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		other := gt.Addr(s.pod.Is6(), gt.NetPods, gt.VethHost) // an endpoint without policy
		s.SendIP(gt.Pod, gt.UDPPorts(s.pod, s.server, 30, 4000, 5353), gt.UDPPorts(s.pod, s.server, 30, overhear.Port, 9))
		s.SendIP(gt.Up, gt.UDPPorts(s.server, s.pod, 30, 5353, 4000), gt.UDPPorts(s.server, s.pod, 30, 9, overhear.Port))
		s.Police(gt.Up, &judge.Endpoint{Ingress: open(t), Egress: open(t), Host: true, Account: 2})
		s.SendIP(gt.Up, gt.UDPPorts(s.server, s.pod, 30, 4000, overhear.Port)) // the pod is asked
		s.SendIP(gt.Pod, gt.UDPPorts(s.pod, s.server, 30, overhear.Port, 4000))
		s.SendIP(gt.Veth, gt.UDPPorts(other, s.server, 30, 4000, overhear.Port))
		s.SendIP(gt.Up, gt.UDPPorts(s.server, s.pod, 30, overhear.Port, 4001)) // nobody has asked
		if heard := s.next(); len(heard) > 0 {
			t.Errorf("heard %d packets, the first from %v to port %d", len(heard), heard[0].Client, heard[0].ClientPort)
		}
		s.arrived(4, "of what is not heard")
		s.Police(gt.Pod, &judge.Endpoint{Account: 1})
		s.ask(4002)
		s.answer(4002)
		if len(s.next()) > 0 {
			t.Error("what policy denies is heard")
		}
	})
}

// A pod that asks from the port of servers is heard in the right way round.
func TestQuestionFromThePortOfServers(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		s.ask(overhear.Port)
		s.answer(overhear.Port)
		heard := s.next()
		if len(heard) != 2 || !heard[0].Query || heard[1].Query || heard[0].Client != s.pod || heard[1].Client != s.pod {
			t.Errorf("heard %d packets, or the wrong way round", len(heard))
		}
	})
}

func TestPlacesAreShared(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		veth := gt.Addr(s.pod.Is6(), gt.NetPods, gt.VethHost)
		s.Police(gt.Veth, &judge.Endpoint{Ingress: open(t), Egress: open(t), Account: 2})
		var flood [][]byte
		for i := range uint16(200) {
			s.ask(1000 + i)
			flood = append(flood, s.reply(1000+i))
		}
		s.next()
		s.SendIP(gt.Up, flood...)
		heard := s.next()
		if n := len(s.Collect(gt.Pod)); n+len(heard) != 200 || len(heard) == 0 || n == 0 {
			t.Errorf("%d packets passed at once, %d are heard; want 200 together", n, len(heard))
		}
		s.SendIP(gt.Veth, gt.UDPPorts(veth, s.server, 30, 4000, overhear.Port))
		s.SendIP(gt.Up, gt.UDPPorts(s.server, veth, 60, overhear.Port, 4000))
		if other := s.next(); len(other) != 2 || len(s.Collect(gt.Veth)) != 0 {
			t.Errorf("another pod has no place: %d packets are heard", len(other))
		}
		s.Advance(time.Second)
		s.arrived(len(heard), "in the end")
		if got := s.Tables.Court.Post.Stats(); got.Lost != 200-uint64(len(heard)) || got.Overdue != uint64(len(heard))+1 {
			t.Errorf("counted %+v", got)
		}
	})
}

func TestListenerThatIsBehind(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		for i := range uint16(300) {
			s.ask(1000 + i)
		}
		s.answer(1000)
		s.arrived(1, "for whom nobody has an ear")
		if got := s.Tables.Court.Post.Stats(); got.Lost == 0 || got.Shown+got.Lost != 301 {
			t.Errorf("counted %+v", got)
		}
	})
}

// segment is of TCP.
func segment(src, dst netip.Addr, from, to uint16, seq, ack uint32, syn bool, payload string) []byte {
	h := &layers.TCP{SrcPort: layers.TCPPort(from), DstPort: layers.TCPPort(to), Seq: seq, Ack: ack, SYN: syn, ACK: ack != 0, Window: 5000}
	return gt.Frame(gt.IP(src, dst, layers.IPProtocolTCP), h, gopacket.Payload(payload))
}

func TestTCP(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		s.SendIP(gt.Pod, segment(s.pod, s.server, 4000, overhear.Port, 100, 0, true, ""))
		s.SendIP(gt.Up, segment(s.server, s.pod, overhear.Port, 4000, 500, 101, true, ""))
		s.SendIP(gt.Pod, segment(s.pod, s.server, 4000, overhear.Port, 101, 501, false, "question"))
		s.SendIP(gt.Up, segment(s.server, s.pod, overhear.Port, 4000, 501, 109, false, ""))
		s.arrived(2, "the handshake")
		s.SendIP(gt.Up, segment(s.server, s.pod, overhear.Port, 4000, 501, 109, false, "answer"))
		s.arrived(0, "an answer")
		var got []string
		for _, h := range s.next() {
			got = append(got, fmt.Sprint(h.TCP, h.Query, h.Begins, h.Sequence, h.ID != 0, string(h.Payload[:h.Size])))
		}
		if want := []string{fmt.Sprint(true, false, true, 500, true, ""), fmt.Sprint(true, false, false, 501, true, "answer")}; !slices.Equal(got, want) {
			t.Errorf("heard %q, want %q", got, want)
		}
		s.Advance(time.Second)
		s.arrived(1, "later")
	})
}

func TestWhatCannotBeRead(t *testing.T) {
	s := &scene{Lab: gt.Standard(t, 1), t: t, pod: gt.Addr(false, gt.NetPods, gt.PodHost), server: gt.Addr(false, gt.NetRemote, 9)}
	s.Police(gt.Pod, &judge.Endpoint{Ingress: open(t), Egress: open(t), Account: 1})
	s.listen()
	s.ask(4000)
	s.next()
	first := gt.UDPPorts(s.server, s.pod, 56, overhear.Port, 4000) // of a multiple of 8 bytes
	first[6] |= 0x20                                               // more fragments follow
	first[10], first[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(first[i])<<8 | uint32(first[i+1])
	}
	sum = sum&0xffff + sum>>16
	first[10], first[11] = ^byte(sum>>8), ^byte(sum)
	s.SendIP(gt.Up, first)
	s.arrived(1, "a fragment")
	if got := s.Tables.Court.Post.Stats(); got.Unreadable != 1 || len(s.next()) > 0 {
		t.Errorf("counted %+v", got)
	}
}

// What is held goes on in the process that takes over, once, and is not held again.
func TestHandOver(t *testing.T) {
	families(t, func(t *testing.T, s *scene) {
		s.ask(4000)
		s.answer(4000)
		s.arrived(0, "held")
		next := s.HandOver(func(tb testing.TB, cfg gt.Config) *gt.Lab { return gt.StandardConfig(tb, cfg) })
		heard, stop := next.Tables.Court.Post.Listen()
		defer stop()
		next.Police(gt.Pod, &judge.Endpoint{Ingress: open(t), Egress: open(t), Account: 1})
		next.Advance(50 * time.Millisecond)
		if n := len(next.Collect(gt.Pod)); n != 1 || len(heard) != 0 {
			t.Errorf("%d packets came to the pod, %d were heard again", n, len(heard))
		}
	})
}
