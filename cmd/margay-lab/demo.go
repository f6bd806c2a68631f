//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/render"
)

const (
	demoTime  = 110 * time.Second // for all of it
	demoPings = 5                 // of each pair in each family
)

func (p *program) demoCommand() *cobra.Command {
	var forwarder, agent string
	var keep bool
	var seconds float64
	c := &cobra.Command{
		Use:   "demo",
		Short: "Two nodes, four pods, real traffic between them, policy, and proof of who did it",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := contextWithin(c.Context(), demoTime, "the demo did not end")
			defer cancel()
			c.SetContext(ctx)
			p.format = render.Text
			p.errOut = p.out // one story, in order
			d := &demonstration{program: p, began: time.Now(), each: time.Duration(seconds * float64(time.Second))}
			err := d.run(c, forwarder, agent)
			if d.lab != nil && !keep {
				d.step("take all down")
				err = errors.Join(err, d.lab.Down())
			} else if d.lab != nil {
				d.lab.Close()
			}
			if err != nil {
				return fmt.Errorf("demo: FAILED: %w", err)
			}
			fmt.Fprintln(p.out, "demo: ok")
			return nil
		},
	}
	addPrograms(c, &forwarder, &agent)
	c.Flags().BoolVar(&keep, "keep", false, "leave the lab up")
	c.Flags().Float64Var(&seconds, "seconds", 2, "how long each load runs")
	return c
}

// demonstration is one run of the demo.
type demonstration struct {
	*program
	lab   *lab.Lab
	began time.Time
	each  time.Duration // of a load
}

// step tells what comes now.
func (d *demonstration) step(format string, args ...any) {
	fmt.Fprintf(d.out, "\n[%5.1f s] "+format+"\n", append([]any{time.Since(d.began).Seconds()}, args...)...)
}

func (d *demonstration) run(c *cobra.Command, forwarder, agent string) error {
	t, err := lab.Demo()
	if err != nil {
		return err
	}
	d.step("raise an etcd, two nodes joined by an AF_XDP uplink, each with forwarder and agent, four pods (three TUN, one AF_XDP), IPv4 and IPv6")
	if d.lab, err = d.raise(c, t, forwarder, agent, true); err != nil {
		return err
	}
	for _, part := range []func(context.Context) error{d.kernelIsOut, d.firstContact, d.exactly, d.loads, d.witness, d.policy, d.host, d.withoutForwarder, d.onePacket} {
		if err := part(c.Context()); err != nil {
			return err
		}
	}
	return nil
}

func (d *demonstration) kernelIsOut(context.Context) error {
	d.step("the kernels forward nothing: ip_forward is 0, no route to a pod but to the host port")
	var errs []error
	for _, n := range d.lab.Topology().Nodes {
		errs = append(errs, d.lab.KernelForwardsNothing(n.Name))
	}
	return errors.Join(errs...)
}

// firstContact waits until all is resolved. A first packet may be lost while a
// carrier comes up; nothing may be lost after that.
func (d *demonstration) firstContact(ctx context.Context) error {
	d.step("first contact: every pod pings every other")
	return d.everybodyReaches(ctx)
}

func (d *demonstration) everybodyReaches(ctx context.Context) error {
	var bad []string
	for range 3 {
		bad = bad[:0]
		for _, r := range d.lab.Matrix(ctx, load.Ping{Timeout: time.Second}) {
			if !r.Ping.OK() {
				bad = append(bad, fmt.Sprintf("%s to %s (IPv6 %v): %s", r.From, r.To, r.IPv6, r.Err))
			}
		}
		if len(bad) == 0 {
			return nil
		}
	}
	return fmt.Errorf("not everybody reaches everybody:\n\t%s", strings.Join(bad, "\n\t"))
}

// exactly pings all pairs and holds the forwarders' count against what was sent.
func (d *demonstration) exactly(ctx context.Context) error {
	d.step("who reaches whom: %d pings of each pair, IPv4 and IPv6, median round trips", demoPings)
	before, err := d.rewrites(ctx)
	if err != nil {
		return err
	}
	all := d.lab.Matrix(ctx, load.Ping{Count: demoPings, Timeout: time.Second})
	if err := d.showMatrix(d.lab, all); err != nil {
		return err
	}
	want := map[string]uint64{}
	t := d.lab.Topology()
	for _, r := range all {
		for _, node := range t.Path(t.Pod(r.From).Node, t.Pod(r.To).Node) {
			want[node] += 2 * uint64(r.Ping.Sent) // request and answer
		}
	}
	after, err := d.rewrites(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range t.Nodes {
		got := after[n.Name] - before[n.Name]
		fmt.Fprintf(d.out, "node %s: rewrite counted %d packets, %d were sent through it\n", n.Name, got, want[n.Name])
		if got != want[n.Name] {
			errs = append(errs, fmt.Errorf("node %s: rewrite counted %d packets, want exactly %d", n.Name, got, want[n.Name]))
		}
	}
	return errors.Join(errs...)
}

// rewrites reads the counters of rewrite when nothing moves any more.
func (d *demonstration) rewrites(ctx context.Context) (map[string]uint64, error) {
	read := func() (map[string]uint64, error) {
		out := map[string]uint64{}
		for _, n := range d.lab.Topology().Nodes {
			c, err := d.lab.Counters(ctx, n.Name)
			if err != nil {
				return nil, err
			}
			out[n.Name] = c.Nodes["rewrite"]
		}
		return out, nil
	}
	last, err := read()
	for err == nil {
		time.Sleep(100 * time.Millisecond)
		var now map[string]uint64
		if now, err = read(); err == nil && maps.Equal(now, last) {
			return now, nil
		}
		last = now
	}
	return nil, err
}

func (d *demonstration) loads(ctx context.Context) error {
	d.step("load through the pods' kernels, %v each (round trips are of UDP echoes meanwhile)", d.each)
	var rows []perfOut
	for _, way := range []struct {
		from, to string
		six, udp bool
	}{
		{"ann", "bob", false, false}, {"ann", "bob", true, false}, {"ann", "bob", false, true}, // one node, TUN to TUN
		{"ann", "cleo", false, false}, {"ann", "cleo", true, false}, {"ann", "cleo", true, true}, // across, TUN to TUN
		{"bob", "dave", false, false}, {"dave", "bob", true, false}, // across, with AF_XDP
	} {
		p := load.Perf{UDP: way.udp, Duration: d.each}
		if way.udp {
			p.Rate = 100e6 // by what a busy machine of two cores can be expected to carry
		}
		r, err := d.lab.Perf(ctx, way.from, way.to, way.six, p)
		if err != nil {
			return fmt.Errorf("load from %s to %s: %w", way.from, way.to, err)
		}
		rows = append(rows, perfOut{way.from, way.to, r})
	}
	return d.showPerf(rows...)
}

// witness prints what the forwarders counted, and checks that every packet is
// accounted for.
func (d *demonstration) witness(ctx context.Context) error {
	d.step("the forwarders' counters as witness")
	if _, err := d.rewrites(ctx); err != nil { // at rest
		return err
	}
	nodes := render.NewTable("NODE", "PORT", "KIND", "MODE", ">RX", ">TX", ">TX DROPS")
	graph := render.NewTable("NODE", "STOP", ">PACKETS")
	drops := render.NewTable("NODE", "DROPPED BECAUSE", ">PACKETS")
	var errs []error
	for _, n := range d.lab.Topology().Nodes {
		c, err := d.lab.Counters(ctx, n.Name)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(c.Ports)) {
			q := c.Ports[name]
			nodes.Row(n.Name, name, q.Kind, q.Mode, fmt.Sprint(q.Rx), fmt.Sprint(q.Tx), fmt.Sprint(q.Drops))
		}
		for _, name := range []string{"eth-input", "ip-input", "flow", "route", "policy-out", "policy-in", "rewrite", "tx"} {
			graph.Row(n.Name, name, fmt.Sprint(c.Nodes[name]))
		}
		for _, reason := range slices.Sorted(maps.Keys(c.Drops)) {
			if c.Drops[reason] > 0 {
				drops.Row(n.Name, reason, fmt.Sprint(c.Drops[reason]))
			}
		}
		if err := c.Balance(); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.Name, err))
		}
	}
	if err := d.tables(nodes, graph, drops); err != nil {
		return err
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := fmt.Fprintln(d.out, "every packet is accounted for: rx + made = tx + punt + dropped + consumed + held")
	return err
}

// withoutForwarder shows that without it nothing goes, on one node and across.
func (d *demonstration) withoutForwarder(ctx context.Context) error {
	const node = "north"
	try := func(reaches bool, p load.Ping) error {
		for _, to := range []string{"bob", "cleo"} {
			for _, six := range []bool{false, true} {
				r, err := d.lab.Ping(ctx, "ann", to, six, p)
				if err != nil && ctx.Err() != nil {
					return err
				}
				fmt.Fprintf(d.out, "ann to %s, IPv6 %v: %d of %d answered\n", to, six, r.Received, r.Sent)
				if reaches != r.OK() || !reaches && r.Received > 0 {
					return fmt.Errorf("ann to %s (IPv6 %v): %d of %d pings answered, want them to succeed: %v; %v", to, six, r.Received, r.Sent, reaches, errors.Join(err, r.Last))
				}
			}
		}
		return nil
	}
	d.step("kill the agent of %s: packets do not notice", node)
	if err := d.lab.StopAgent(node, true); err != nil {
		return err
	}
	if err := try(true, load.Ping{Count: 2, Timeout: time.Second}); err != nil {
		return err
	}
	d.step("stop the forwarder of %s, too: the same pings fail", node)
	if err := d.lab.StopForwarder(node, false); err != nil {
		return err
	}
	if err := errors.Join(try(false, load.Ping{Count: 2, Timeout: 300 * time.Millisecond}), d.lab.KernelForwardsNothing(node)); err != nil {
		return err
	}
	d.step("start the forwarder again, without an agent: it goes by the state it kept, and the pods are back")
	if err := d.lab.Launch(node); err != nil {
		return err
	}
	if err := d.restored(ctx, node); err != nil {
		return err
	}
	if err := try(true, load.Ping{Count: 2, Timeout: time.Second}); err != nil {
		return err
	}
	return d.lab.StartAgent(ctx, node)
}

// onePacket lets margayctl tell the way of a ping from stop to stop.
func (d *demonstration) onePacket(ctx context.Context) error {
	const node, from, to = "north", "ann", "cleo"
	addr, _ := d.lab.Topology().Pod(to).Addr(false)
	filter := "icmp and dst host " + addr.String()
	d.step("one packet, stop by stop: margayctl trace --filter '%s' at %s, while %s pings %s", filter, node, from, to)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctl := exec.CommandContext(ctx, beside("margayctl"), "--socket", d.lab.Socket(node), "trace", "--filter", filter)
	var told bytes.Buffer
	ctl.Stdout, ctl.Stderr = &told, &told
	if err := ctl.Start(); err != nil {
		return fmt.Errorf("trace a packet: %w; build margayctl with make build", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- ctl.Wait() }()
	for {
		_, lost := d.lab.Ping(ctx, from, to, false, load.Ping{Count: 1, Timeout: time.Second})
		select {
		case err := <-ended:
			fmt.Fprint(d.out, told.String())
			return errors.Join(err, wholeWay(told.String()))
		case <-time.After(50 * time.Millisecond):
			if lost != nil {
				cancel()
				return fmt.Errorf("trace a packet: ping from %s to %s: %w", from, to, errors.Join(lost, <-ended))
			}
		}
	}
}

// wholeWay wants every stop of a ping's way in a trace.
func wholeWay(told string) error {
	rest := told
	for _, stop := range []string{"received by pod-ann", "ip-input", "flow", "route", "policy-out", "policy-in", "rewrite", "offered to link-uplink"} {
		_, after, ok := strings.Cut(rest, stop)
		if !ok {
			return fmt.Errorf("a traced packet was not told of at %q, or too early:\n%s", stop, told)
		}
		rest = after
	}
	return nil
}

// restored waits until the forwarder has its state in force, from disk.
func (d *demonstration) restored(ctx context.Context, node string) error {
	if err := d.lab.AwaitPorts(ctx, node); err != nil {
		return err
	}
	inspect, err := d.lab.Inspect(node)
	if err != nil {
		return err
	}
	s, err := inspect.GetStatus(ctx, &v1.StatusRequest{})
	if err == nil && (!s.GetRestored() || s.GetGeneration() == 0) {
		err = fmt.Errorf("the forwarder of %s is at generation %d, restored %v", node, s.GetGeneration(), s.GetRestored())
	}
	return err
}
