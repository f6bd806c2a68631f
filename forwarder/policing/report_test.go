package policing

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/flow"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
)

// plain is a log of attributes alone.
func plain(to *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestLinesOfLoggedPackets(t *testing.T) {
	b, _ := counting(t, 1)
	b.pass(&pb.Chunk{
		Programs: []*pb.ProgramPart{program(t, 1)}, Ports: []*pb.Port{{Name: "a", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}},
		Rules:     []*pb.RuleName{named(5, "NetworkPolicy x/p"), {Id: 6, Policy: "Profile q", Egress: true}},
		Endpoints: []*pb.Endpoint{{Id: "pod", Port: "a", Policy: pb.Endpoint_POLICY_ENFORCED, Ingress: []*pb.Stage{{Name: "t", Program4: 1}}}},
	}, true)
	l := b.Ledger()
	l.Name(4, "eth0")
	end := l.ends[End{"pod", false, TierDenies, false, "t"}]
	all := l.ends[End{"pod", false, TierDenies, false, ""}]
	key := func(src, dst string, proto uint8, from, to uint16) flow.Key {
		return flow.NewKey(netip.MustParseAddr(src), netip.MustParseAddr(dst), proto, from, to, 0)
	}
	deny := classifier.NewVerdict(classifier.Deny, classifier.EndOfTier, 0)
	tests := map[string]struct {
		e    judge.Logged
		want string
	}{
		"TCP, allowed": {judge.Logged{Rule: 5, Verdict: classifier.NewVerdict(classifier.Allow, 6, 1), InPort: 4, Packet: key("10.0.0.1", "10.0.0.2", 6, 1000, 80), Bytes: 60, Segments: 1},
			`tier=default policy="NetworkPolicy x/p" rule=1 direction=ingress endpoint=pod in_port=eth0 protocol=tcp source=10.0.0.1:1000 destination=10.0.0.2:80 bytes=60 segments=1 verdict=allow by="rule 0 of Profile q"`},
		"UDP, by the end of a tier": {judge.Logged{Rule: 5, Verdict: deny, End: end, InPort: 4, Packet: key("fd00::1", "fd00::2", 17, 1000, 53), Bytes: 9000, Segments: 7, Suppressed: 12},
			`tier=default policy="NetworkPolicy x/p" rule=1 direction=ingress endpoint=pod in_port=eth0 protocol=udp source=[fd00::1]:1000 destination=[fd00::2]:53 bytes=9000 segments=7 verdict=deny by="the end of tier t" suppressed=12`},
		"ICMP, past all tiers": {judge.Logged{Rule: 6, Egress: true, End: all, Packet: key("10.0.0.1", "10.0.0.2", 1, 77, 8<<8|3)},
			`tier="" policy="Profile q" rule=0 direction=egress endpoint=pod in_port="" protocol=icmp source=10.0.0.1 destination=10.0.0.2 type=8 code=3 bytes=0 segments=0 verdict=deny by="the end of all tiers"`},
		"ICMPv6": {judge.Logged{Rule: 6, Egress: true, Packet: key("fd00::1", "fd00::2", 58, 77, 128<<8)},
			`tier="" policy="Profile q" rule=0 direction=egress endpoint=pod in_port="" protocol=icmpv6 source=fd00::1 destination=fd00::2 type=128 code=0 bytes=0 segments=0 verdict=deny by="the end of all tiers"`},
		"another protocol, of what nobody knows": {judge.Logged{Rule: 9, Account: 99, Verdict: classifier.NewVerdict(classifier.Deny, 10, 1), Packet: key("10.0.0.1", "10.0.0.2", 47, 0, 0)},
			`tier="" policy="" rule=0 direction=ingress endpoint="" in_port="" protocol=47 source=10.0.0.1 destination=10.0.0.2 bytes=0 segments=0 verdict=deny by="rule 10, which nobody named"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			plain(&out).LogAttrs(context.Background(), slog.LevelInfo, "", l.line(&tt.e)...)
			if got := strings.TrimSuffix(out.String(), "\n"); got != tt.want {
				t.Errorf("the line is\n%s, want\n%s", got, tt.want)
			}
		})
	}
}

// What waits when the forwarder ends is told, too.
func TestReportTellsOfWhatWaits(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		lab := gt.Standard(t, 2)
		b := &bed{New(), t, desired.Empty()}
		b.Ledger().Keep(&lab.Tables.Court.Record)
		b.Ledger().Name(gt.Up, "uplink")
		compiled, err := classifier.Compile([]classifier.Rule{{ID: 7, Action: classifier.Log}}, classifier.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := classifier.Load(compiled.Image)
		if err != nil {
			t.Fatal(err)
		}
		c, err := chain.NewChain(chain.Tier{List: chain.NewList(p), End: classifier.Deny})
		if err != nil {
			t.Fatal(err)
		}
		lab.Police(gt.Pod, &judge.Endpoint{Ingress: [2]*chain.Chain{c, c}})
		client, pod := gt.Addr(ipv6, gt.NetRemote, 9), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		lab.SendIP(gt.Up, gt.UDPPorts(client, pod, 10, 1, 2), gt.UDPPorts(client, pod, 10, 3, 4))
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b.Ledger().Report(ctx, plain(&out))
		if got := strings.Count(out.String(), "in_port=uplink protocol=udp source="); got != 2 {
			t.Errorf("%d packets are told of, want 2:\n%s", got, out.String())
		}
	})
}
