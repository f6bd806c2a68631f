package forwarder_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// programOf is a compiled list, in one part.
func programOf(t *testing.T, id uint32, rules ...classifier.Rule) *pb.ProgramPart {
	t.Helper()
	c, err := classifier.Compile(rules, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &pb.ProgramPart{Id: id, Size: uint32(len(c.Image)), Image: c.Image}
}

// metric is a metric's value, 0 while it is not there.
func (l *lab) metric(at, name string) (n int) {
	l.t.Helper()
	_, body := l.get(at, "/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				l.t.Fatal(err)
			}
			return int(f)
		}
	}
	return 0
}

// What policy decides is logged and counted, and counted on by who takes over.
func TestWhatPolicyDecidesIsTold(t *testing.T) {
	const at = "127.0.0.1:9481"
	l := newLab(t)
	l.start("--metrics", at)
	s := l.snapshot()
	s.Programs = []*pb.ProgramPart{
		programOf(t, 1, classifier.Rule{ID: 1, Action: classifier.Log}, classifier.Rule{ID: 2, Action: classifier.Allow}),
		programOf(t, 2, classifier.Rule{ID: 3, Action: classifier.Deny}),
	}
	for i := range uint32(3) {
		s.Rules = append(s.Rules, &pb.RuleName{Id: 1 + i, Tier: "default", Policy: "NetworkPolicy x/p", Index: i})
	}
	for _, e := range s.Endpoints {
		if e.Id == "b" {
			e.Policy = pb.Endpoint_POLICY_ENFORCED
			e.Ingress = []*pb.Stage{{Name: "default", Program4: 1, Program6: 1}}
			e.StagedIngress = []*pb.Stage{{Name: "default", Program4: 2, Program6: 2}}
		}
	}
	l.connect().must(true, s)
	counters := map[string]int{
		`margay_policy_staged_turned_packets_total{direction="ingress",endpoint="b",would="deny"}`: 0,
		`margay_policy_log_packets_total{outcome="logged"}`:                                        0,
		`margay_policy_end_denied_packets_total{direction="egress",endpoint="b",tier=""}`:          0,
	}
	opens := 0
	traffic := func() {
		t.Helper()
		opens += 2
		l.ping("a", "10.1.0.3")
		l.ping("a", "fd00::3")
		if out, err := l.tryPing(l.pods["b"], "10.1.0.2"); err == nil {
			t.Errorf("b may send nothing, and does:\n%s", out)
		}
		for name, was := range counters {
			want := opens
			if strings.Contains(name, "end_denied") {
				want = was + 1 // as often as ping asks
			}
			Eventually(t, fmt.Sprintf("%s is at least %d", name, want), func() bool { counters[name] = l.metric(at, name); return counters[name] >= want })
			if !strings.Contains(name, "end_denied") && counters[name] != want {
				t.Errorf("%s is %d, want %d", name, counters[name], want)
			}
		}
	}
	traffic()
	line := `msg="packet met a Log rule" tier=default policy="NetworkPolicy x/p" rule=0 direction=ingress endpoint=b in_port=a protocol=`
	for _, of := range []string{"icmp source=10.1.0.2 destination=10.1.0.3 type=8 code=0", "icmpv6 source=fd00::2 destination=fd00::3 type=128 code=0"} {
		Eventually(t, "there is a line", func() bool { return strings.Contains(l.log.String(), line+of) })
		if rest := l.log.String()[strings.Index(l.log.String(), line+of):]; !strings.HasPrefix(strings.SplitAfter(rest, "segments=1")[1], ` verdict=allow by="rule 1 of NetworkPolicy x/p"`) {
			t.Errorf("the line says %.400s", rest)
		}
	}
	l.takeOver("--metrics", at)
	traffic()
}
