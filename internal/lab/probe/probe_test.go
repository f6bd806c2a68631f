//go:build linux

package probe

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"margay.dev/margay/internal/hostnet"
	. "margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab/truth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var served = []truth.Port{
	{Protocol: truth.TCP, Number: 80}, {Protocol: truth.UDP, Number: 80}, {Protocol: truth.SCTP, Number: 80},
	{Protocol: truth.TCP, Number: 81}, {Protocol: truth.UDP, Number: 81}, {Protocol: truth.SCTP, Number: 81},
}

// pair is two pods on one wire, which live if they reach themselves.
func pair(t *testing.T, o Options) (p *Prober, left, right *hostnet.Namespace) {
	t.Helper()
	a, b := Pair(t)
	pods := []Pod{{Name: "n/a", Place: a.Namespace()}, {Name: "n/b", Place: b.Namespace()}}
	for i, h := range []*hostnet.Host{a, b} {
		device := [...]string{"left", "right"}[i]
		for _, text := range [][]string{{"10.9.0.1/24", "fd09::1/64"}, {"10.9.0.2/24", "fd09::2/64"}}[i] {
			prefix := netip.MustParsePrefix(text)
			if err := h.AddAddress(device, prefix, hostnet.NoDAD); err != nil {
				t.Fatal(err)
			}
			pods[i].Addresses = append(pods[i].Addresses, prefix.Addr())
		}
		if err := h.SetUp("lo"); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Open(pods, served, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, a.Namespace(), b.Namespace()
}

// filter has a kernel refuse.
func filter(t *testing.T, ns *hostnet.Namespace, rules string) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft, to have a kernel refuse: apt-get install nftables")
	}
	Run(t, ns, "nft", "table inet t { chain c { type filter hook input priority 0; "+rules+"; }; }")
}

// both asks for ports, one way and the other, in both families.
func both(ports ...truth.Port) (out []truth.Query) {
	for _, f := range truth.Families() {
		for _, p := range ports {
			out = append(out, truth.Query{From: "n/a", To: "n/b", Family: f, Protocol: p.Protocol, Port: p.Number},
				truth.Query{From: "n/b", To: "n/a", Family: f, Protocol: p.Protocol, Port: p.Number})
		}
	}
	return out
}

func ask(t *testing.T, p *Prober, queries []truth.Query) truth.Table {
	t.Helper()
	got, err := p.Ask(t.Context(), queries)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(queries) {
		t.Fatalf("%d queries have %d answers", len(queries), len(got))
	}
	return got
}

func check(t *testing.T, got truth.Table, want func(truth.Query) truth.Verdict) {
	t.Helper()
	must := truth.Table{}
	for q := range got {
		must[q] = want(q)
	}
	if d := truth.Compare(must, got); d != nil {
		t.Error(d)
	}
}

func TestOpenWireAllowsAll(t *testing.T) {
	p, _, _ := pair(t, Options{})
	for range 3 { // with other source ports each time
		check(t, ask(t, p, both(served...)), func(truth.Query) truth.Verdict { return truth.Allowed })
	}
	twice := append(both(served...), both(served...)...)
	got, err := p.Ask(t.Context(), twice)
	if err != nil || len(got) != len(twice)/2 {
		t.Errorf("%d queries, each of them twice, have %d answers and error %v", len(twice), len(got), err)
	}
}

func TestWhatAKernelDropsIsRefused(t *testing.T) {
	p, _, right := pair(t, Options{})
	filter(t, right, `iifname right ip version 4 tcp dport 81 drop; iifname right meta nfproto ipv6 udp dport 80 drop; iifname right sctp dport 80-81 drop`)
	check(t, ask(t, p, both(served...)), func(q truth.Query) truth.Verdict {
		shut := q.Family == 4 && q.Protocol == truth.TCP && q.Port == 81 || q.Family == 6 && q.Protocol == truth.UDP && q.Port == 80 || q.Protocol == truth.SCTP
		if q.To == "n/b" && shut {
			return truth.Refused
		}
		return truth.Allowed
	})
}

func TestWhatAKernelRejectsIsRefused(t *testing.T) {
	p, _, right := pair(t, Options{})
	filter(t, right, `tcp dport 80-81 iifname right reject with tcp reset; udp dport 80-81 iifname right reject; sctp dport 80-81 iifname right reject`)
	check(t, ask(t, p, both(served...)), func(q truth.Query) truth.Verdict {
		if q.To == "n/b" {
			return truth.Refused
		}
		return truth.Allowed
	})
}

// TestLostPacketIsNoRefusal loses the first packet of each protocol and family.
func TestLostPacketIsNoRefusal(t *testing.T) {
	p, _, right := pair(t, Options{})
	var rules []string
	for _, f := range []string{"ipv4", "ipv6"} {
		for _, proto := range []string{"tcp", "udp", "sctp"} {
			rules = append(rules, "iifname right meta nfproto "+f+" "+proto+" dport 80 quota until 81 bytes counter drop")
		}
	}
	filter(t, right, strings.Join(rules, "; "))
	check(t, ask(t, p, both(served[:3]...)), func(truth.Query) truth.Verdict { return truth.Allowed })
	if out := Run(t, right, "nft", "list", "ruleset"); strings.Count(out, "counter packets 1 ") != 6 {
		t.Errorf("not one packet was lost by each rule:\n%s", out)
	}
}

func TestNoSignOfLifeIsUnknown(t *testing.T) {
	p, _, _ := pair(t, Options{Limit: 10 * time.Millisecond})
	check(t, ask(t, p, append(both(truth.Port{Protocol: truth.TCP, Number: 82}, truth.Port{Protocol: truth.SCTP, Number: 82}), both(served...)...)), func(q truth.Query) truth.Verdict {
		if q.Port == 82 { // nobody serves there
			return truth.Unknown
		}
		return truth.Allowed
	})
}

func TestWrongQuestions(t *testing.T) {
	p, _, _ := pair(t, Options{})
	for want, q := range map[string]truth.Query{
		"there is no pod n/c":                       {From: "n/a", To: "n/c", Family: 4, Protocol: truth.TCP, Port: 80},
		"family is 5, want 4 or 6":                  {From: "n/a", To: "n/b", Family: 5, Protocol: truth.TCP, Port: 80},
		`protocol is "ICMP", want TCP, UDP or SCTP`: {From: "n/a", To: "n/b", Family: 6, Protocol: "ICMP", Port: 80},
	} {
		if _, err := p.Ask(t.Context(), []truth.Query{q}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("asked %v: error is %v, want %q", q, err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := p.Ask(ctx, both(served...)); !errors.Is(err, why) {
		t.Errorf("asked without time: %v", err)
	}
	if _, err := Open([]Pod{{Name: "n/a", Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.1")}}}, served, Options{}); err == nil {
		t.Error("a pod without an IPv6 address was taken")
	}
	taken := []truth.Port{served[0], served[0]}
	if _, err := Open([]Pod{{Name: "n/c", Place: p.pods["n/a"].place, Addresses: p.pods["n/a"].addrs}}, taken, Options{}); err == nil {
		t.Error("a port was served twice")
	}
}

// TestAnotherPodsAnswerIsAnError: an address that leads to the wrong pod is worse
// than any verdict.
func TestAnotherPodsAnswerIsAnError(t *testing.T) {
	r := &round{answers: make(chan answer, 1)}
	r.answers <- answer{attempt: &attempt{to: &station{name: "n/a"}, kind: kind{truth.TCP, 6}}, by: "n/b"}
	if err := r.wait(t.Context(), time.Minute, func() bool { return false }); err == nil || !strings.Contains(err.Error(), "n/b") {
		t.Errorf("error is %v, want it to name n/b", err)
	}
}

func TestSourcePortsAreNewEachTime(t *testing.T) {
	s := &station{next: map[kind]uint16{}}
	k := kind{truth.UDP, 4}
	seen := map[uint16]bool{}
	for range 1<<16 - firstPort {
		n := s.port(k)
		if n < firstPort || seen[n] {
			t.Fatalf("port %d after %d others", n, len(seen))
		}
		seen[n] = true
	}
	if n := s.port(k); !seen[n] {
		t.Errorf("after all ports comes %d", n)
	}
	if a, b := s.port(kind{truth.TCP, 4}), s.port(kind{truth.TCP, 4}); slices.Contains([]uint16{a}, b) {
		t.Errorf("TCP port %d twice", a)
	}
}
