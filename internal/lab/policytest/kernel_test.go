package policytest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/probe"
	"margay.dev/margay/internal/lab/truth"
)

var every = flag.Bool("every", false, "put every case into kernel packet filters, not only a few; takes minutes")

// few cases have between them: both directions, all protocols, ranges and names of
// ports, addresses with exceptions in both families, policies that are added up,
// everything refused, and pods and a namespace that come and go.
var few = []int{1, 22, 147, 172, 183, 196, 205, 219}

// kernelFilters plays cases against packet filters of the pods' own kernels.
func (w *world) kernelFilters(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft, to have the pods' kernels refuse: apt-get install nftables")
	}
	s, prober := w.suite, w.prober(t, probe.Options{})
	began, steps, refused := time.Now(), 0, 0
	apply := func(ctx context.Context, state truth.State) error {
		steps++
		return w.filter(ctx, t, state)
	}
	some := few
	if testing.Short() {
		some = few[:3]
	}
	for i := range s.Cases {
		c := &s.Cases[i]
		if !*every && !slices.Contains(some, c.ID) {
			continue
		}
		faults, err := c.Play(t.Context(), apply, prober.Ask)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range faults {
			t.Error(f)
		}
		for _, step := range c.Steps {
			for _, v := range step.Want {
				if v == truth.Refused {
					refused++
				}
			}
		}
	}
	t.Logf("%d steps in %v, %d refusals", steps, time.Since(began).Round(time.Millisecond), refused)
	if err := w.filter(t.Context(), t, truth.State{Pods: s.World.Pods}); err != nil { // lets everything through
		t.Error(err)
	}
}

// filter has the kernel of every pod do what policies say of the pod.
func (w *world) filter(ctx context.Context, t *testing.T, state truth.State) error {
	r, err := read(state, w.suite.World.Ports)
	if err != nil {
		return err
	}
	for _, pod := range r.Pods {
		var always []string // the node may, whatever policies say; and neighbours must find each other
		for _, n := range w.Topology().Nodes {
			if n.Name == pod.Node {
				for _, a := range addresses(n.Addresses) {
					always = append(always, fmt.Sprintf("%s saddr %s accept", family(a), a))
				}
			}
		}
		text := ruleset(always, r.grants(pod, "Ingress"), r.grants(pod, "Egress"))
		if w.filters[pod.Key()] == text {
			continue // a step is about few pods
		}
		w.filters[pod.Key()] = text
		if err := nft(ctx, w.place(t, inLab(pod.Key())), text); err != nil {
			return fmt.Errorf("filter in pod %s: %w\n%s", pod.Key(), err, text)
		}
	}
	return nil
}

func nft(ctx context.Context, ns *hostnet.Namespace, text string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, &out)
	}
	return nil
}

// ruleset replaces what an earlier one has put in force.
func ruleset(always []string, in, out grants) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("table inet truth\ndelete table inet truth\ntable inet truth {")
	for _, d := range []struct {
		hook, peer string
		grants
	}{{"input", "saddr", in}, {"output", "daddr", out}} {
		if d.all {
			continue
		}
		line("chain %s {\ntype filter hook %s priority 0; policy drop;", d.hook, d.hook)
		line("ct state established accept\nmeta l4proto ipv6-icmp accept")
		if d.hook == "input" {
			line("%s", strings.Join(always, "\n"))
		}
		for _, g := range d.list {
			g.lines(d.peer, line)
		}
		line("}")
	}
	line("}")
	return b.String()
}

// lines are the grant's rules, one for each protocol.
func (g grant) lines(side string, line func(string, ...any)) {
	peer := ""
	if c := g.peer.CIDR; c.IsValid() {
		peer = fmt.Sprintf("%s %s %s ", family(c.Addr()), side, c)
		for _, e := range g.peer.Except {
			peer += fmt.Sprintf("%s %s != %s ", family(c.Addr()), side, e)
		}
	}
	for _, proto := range []string{truth.TCP, truth.UDP, truth.SCTP} {
		if g.protocol == "" || g.protocol == proto {
			line("%s%s dport %d-%d accept", peer, strings.ToLower(proto), g.first, g.last)
		}
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}
