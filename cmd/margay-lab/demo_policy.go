//go:build linux

package main

import (
	"context"
	_ "embed" // the demo's policies
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/lab/probe"
	"margay.dev/margay/internal/lab/truth"
	"margay.dev/margay/internal/render"
)

// What policy the demo applies.
var (
	//go:embed demo/deny.yaml
	demoDeny string
	//go:embed demo/open.yaml
	demoOpen string
)

const (
	openPort = 8080
	shutPort = 9090
)

// ways are who tries to talk to whom: on one node and across, with and
// without a role that policy knows.
var ways = [...][2]string{{"ann", "bob"}, {"ann", "cleo"}, {"dave", "bob"}}

// policy denies everything, opens one port, and takes all of it back.
func (d *demonstration) policy(ctx context.Context) error {
	prober, err := d.prober()
	if err != nil {
		return err
	}
	err = errors.Join(d.judged(ctx, prober), prober.Close())
	if err != nil {
		return err
	}
	d.step("take policy back: everybody reaches everybody again")
	if err := d.change(ctx, "delete", nil, demoDeny, demoOpen); err != nil {
		return err
	}
	return d.everybodyReaches(ctx)
}

// judged shows what policy comes to.
func (d *demonstration) judged(ctx context.Context, prober *probe.Prober) error {
	d.step("policy, as Calico writes it, in the store: nobody reaches anybody")
	fmt.Fprint(d.out, demoDeny)
	if err := d.change(ctx, "apply", nil, demoDeny); err != nil {
		return err
	}
	if err := d.tryAll(ctx, prober, func(string, uint16) bool { return false }); err != nil {
		return err
	}
	d.step("one port is opened: ann, a client, reaches web servers by TCP on port %d, and that is all", openPort)
	fmt.Fprint(d.out, demoOpen)
	if err := d.change(ctx, "apply", nil, demoOpen); err != nil {
		return err
	}
	if err := d.tryAll(ctx, prober, func(from string, port uint16) bool { return from == "ann" && port == openPort }); err != nil {
		return err
	}
	return errors.Join(d.explained(ctx), d.looked(ctx))
}

// explained has margayctl say why one connection may be opened and another not.
func (d *demonstration) explained(ctx context.Context) error {
	bob, _ := d.lab.Topology().Pod("bob").Addr(false) // of the demo's topology, as cleo
	cleo, _ := d.lab.Topology().Pod("cleo").Addr(true)
	d.step("why the one is allowed, and the other is not")
	return errors.Join(
		d.ctl(ctx, "north", "allowed by NetworkPolicy default/web ingress rule", "why", "ann", bob.String(), fmt.Sprint(openPort)),
		d.ctl(ctx, "north", "dropped (egress-denied)", "why", "ann", cleo.String(), fmt.Sprint(shutPort)))
}

// looked has margayctl show what judges a pod, and which connections that let in.
func (d *demonstration) looked(ctx context.Context) error {
	bob, _ := d.lab.Topology().Pod("bob").Addr(false) // of the demo's topology
	d.step("what judges bob, and the connections that were let through: the forwarder's live tables")
	if err := d.ctl(ctx, "north", "NetworkPolicy default/web", "policy", "show", "bob"); err != nil {
		return err
	}
	return d.ctl(ctx, "north", "egress default/clients[0], ingress default/web[0]", "flows", "--endpoint", "ann", "--host", bob.String(), "--port", fmt.Sprint(openPort))
}

// ctl runs margayctl at a node, and wants a text in what it says.
func (d *demonstration) ctl(ctx context.Context, node, want string, args ...string) error {
	fmt.Fprintf(d.out, "$ margayctl %s\n", strings.Join(args, " "))
	out, err := exec.CommandContext(ctx, beside("margayctl"), append([]string{"--socket", d.lab.Socket(node)}, args...)...).CombinedOutput()
	fmt.Fprintf(d.out, "%s", out)
	switch {
	case err != nil:
		return fmt.Errorf("margayctl %s: %w", args[0], err)
	case !strings.Contains(string(out), want):
		return fmt.Errorf("margayctl %s says nothing of %s", args[0], want)
	}
	return nil
}

// change has margayctl change the store by manifests, and waits until every node is
// at that.
func (d *demonstration) change(ctx context.Context, how string, flags []string, texts ...string) error {
	if err := d.store(ctx, strings.Join(texts, "\n---\n"), append([]string{how, "-f", "-"}, flags...)...); err != nil {
		return err
	}
	return d.lab.Settle(ctx)
}

// store runs a command of margayctl that works on the lab's store.
func (d *demonstration) store(ctx context.Context, input string, args ...string) error {
	fmt.Fprintf(d.out, "$ margayctl %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, beside("margayctl"), append(args, "--etcd-endpoints", d.lab.StoreEndpoint())...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	fmt.Fprintf(d.out, "%s", out)
	if err != nil {
		return fmt.Errorf("margayctl %s: %w", args[0], err)
	}
	return nil
}

// prober has servers on both ports in every pod.
func (d *demonstration) prober() (*probe.Prober, error) {
	t := d.lab.Topology()
	nodes := map[string]*probe.Node{}
	for _, n := range t.Nodes {
		place, err := d.lab.Namespace(n.Name)
		if err != nil {
			return nil, err
		}
		nodes[n.Name] = &probe.Node{Name: n.Name, Place: place, Addresses: plain(n.Addresses)}
	}
	var pods []probe.Pod
	for _, p := range t.Pods {
		place, err := d.lab.Namespace(p.Name)
		if err != nil {
			return nil, err
		}
		pods = append(pods, probe.Pod{Name: p.Name, Place: place, Addresses: plain(p.Addresses), Node: nodes[p.Node]})
	}
	return probe.Open(pods, []truth.Port{{Protocol: truth.TCP, Number: openPort}, {Protocol: truth.TCP, Number: shutPort}}, probe.Options{})
}

func plain(list []lab.Addr) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, a.Addr)
	}
	return out
}

// tryAll has the pods connect to both ports, and ping, by IPv4 and IPv6; want says
// which connections must succeed. No ping must.
func (d *demonstration) tryAll(ctx context.Context, prober *probe.Prober, want func(from string, port uint16) bool) error {
	table := truth.Table{}
	for _, w := range ways {
		for _, f := range truth.Families() {
			for _, port := range []uint16{openPort, shutPort} {
				verdict := truth.Refused
				if want(w[0], port) {
					verdict = truth.Allowed
				}
				table[truth.Query{From: w[0], To: w[1], Family: f, Protocol: truth.TCP, Port: port}] = verdict
			}
		}
	}
	found, err := prober.Ask(ctx, table.Queries())
	if err != nil {
		return err
	}
	pings, err := d.refusedPings(ctx)
	if err := errors.Join(d.showTried(found, pings), err); err != nil {
		return err
	}
	if wrong := truth.Compare(table, found); wrong != nil {
		return fmt.Errorf("policy is not what pods meet: %v", wrong)
	}
	return nil
}

// refusedPings pings every way once; an answer is an error.
func (d *demonstration) refusedPings(ctx context.Context) (told map[[2]string]string, err error) {
	told = map[[2]string]string{}
	for _, w := range ways {
		var cells []string
		for _, six := range []bool{false, true} {
			r, perr := d.lab.Ping(ctx, w[0], w[1], six, load.Ping{Timeout: 100 * time.Millisecond})
			if perr != nil && ctx.Err() != nil {
				return told, perr
			}
			word := "refused"
			if r.Received > 0 {
				word = "answered"
				err = errors.Join(err, fmt.Errorf("%s pings %s (IPv6 %v), and no policy allows that", w[0], w[1], six))
			}
			cells = append(cells, word)
		}
		told[w] = strings.Join(cells, " / ")
	}
	return told, err
}

func (d *demonstration) showTried(found truth.Table, pings map[[2]string]string) error {
	t := render.NewTable("FROM", "TO", fmt.Sprintf("TCP %d v4 / v6", openPort), fmt.Sprintf("TCP %d v4 / v6", shutPort), "PING v4 / v6")
	word := map[truth.Verdict]string{truth.Allowed: "connected", truth.Refused: "refused", truth.Unknown: "no life"}
	for _, w := range ways {
		row := []string{w[0], w[1]}
		for _, port := range []uint16{openPort, shutPort} {
			var cells []string
			for _, f := range truth.Families() {
				cells = append(cells, word[found[truth.Query{From: w[0], To: w[1], Family: f, Protocol: truth.TCP, Port: port}]])
			}
			row = append(row, strings.Join(cells, " / "))
		}
		t.Row(append(row, pings[w])...)
	}
	return t.Write(d.out)
}
