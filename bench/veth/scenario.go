// Package veth is the scenarios "veth-forward" and "scaling": frames from one veth
// to another by the forwarder on AF_XDP, by DPDK's testpmd on AF_XDP, and by the
// kernel's own router, on the same pair of veths in turn.
//
//	pod a                 node                          pod b
//	eth0 ═════════════════ p-a ── who forwards ── p-b ═════════════════ eth0
//	  ▲ Source, CPU 0             CPU 1                   Sink ▼
//
// The Source sends from CPU 0, and what the kernel does to receive on p-a follows
// it there: for AF_XDP the copy into the socket's memory, for the kernel's router
// the making of socket buffers, which RPS then hands to CPU 1. All that comes
// after, up to the Sink, is on CPU 1. Veths have no zero copy and no hardware
// offloads, so all AF_XDP is copy mode under native XDP.
//
// For N workers each veth has N queues, and each queue a Source, a worker and a
// CPU for either. A veth puts what a Source sends into the receive queue that is
// the Source's CPU modulo N (xdpgen.Queue), so the Sources' CPUs are chosen to feed
// all queues alike; worker i has queue i of both veths, and the Sink counts what
// left by each.
//
// Sizes are those of the Ethernet frame, without the check sequence that no veth
// carries. "saturation" is what arrives when twice a million frames a second are
// offered to each worker; "loss-free" the greatest rate, found by bisection, of
// which at most lossAllowed is lost.
package veth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
)

const (
	// overload is offered at saturation, in frames a second for each worker:
	// over twice what any of them forwards, and no more, since a flood without
	// bounds measures who gets the CPU, not who forwards.
	overload = 2e6
	// lossAllowed is the share that may be lost of what counts as loss-free:
	// a machine that others use as well takes a CPU away now and then.
	lossAllowed = 1e-4
	// otherLimit is the share of the machine that other programs may take.
	otherLimit = 0.05
)

// Scenario is veth-forward.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "veth-forward",
		About: "frames between two veths (AF_XDP, one worker), against DPDK testpmd and the kernel's ip_forward",
		Run:   run,
	}
}

// load is a kind of frame.
type load struct {
	size int // bytes
	ipv6 bool
}

func (l load) String() string {
	if l.ipv6 {
		return fmt.Sprintf("%dB/ipv6", l.size)
	}
	return fmt.Sprintf("%dB", l.size)
}

// figure is one of two that a load has.
type figure struct {
	name string
	of   func(sample) float64
}

func figures() []figure {
	return []figure{
		{"saturation", saturated},
		{"loss-free", func(x sample) float64 { return x.free }},
	}
}

func saturated(x sample) float64 { return x.saturated }

func caseName(l load, f figure) string { return fmt.Sprintf("%v/workers=1/%s", l, f.name) }

// plan says how much is run.
type plan struct {
	loads  []load
	rounds int           // turns of each contestant
	window time.Duration // of one offer
	steps  int           // of the bisection; 0 leaves it out
}

// everyLoad is all loads there are.
func everyLoad() []load {
	return []load{{size: 64}, {size: 1500}, {size: 64, ipv6: true}, {size: 1500, ipv6: true}}
}

func planOf(s *harness.Session) plan {
	p := plan{rounds: 9, window: 200 * time.Millisecond, steps: 7}
	if s.Quick {
		p.rounds, p.window, p.steps = 3, 60*time.Millisecond, 5
	}
	for _, l := range everyLoad() {
		if slices.ContainsFunc(figures(), func(f figure) bool { return s.Wants(caseName(l, f)) }) {
			p.loads = append(p.loads, l)
		}
	}
	return p
}

func run(ctx context.Context, s *harness.Session) error {
	p := planOf(s)
	if len(p.loads) == 0 {
		return nil
	}
	r := newRig(ctx, s.Forwarder, 1, p.loads)
	defer r.close()
	takeTurns(ctx, s, []*rig{r}, p)
	for _, l := range p.loads {
		report(s, r.all, l)
	}
	return nil
}

// sample is what one turn found for a load.
type sample struct {
	saturated float64 // frames a second that arrived
	offered   float64 // of so many
	free      float64 // the greatest rate without loss
	other     float64 // share of the machine that other programs took meanwhile
}

// turn has one contestant forward every load.
func (b *bed) turn(ctx context.Context, s *harness.Session, c *contestant, p plan) error {
	on, err := c.start(ctx)
	if err != nil {
		return err
	}
	err = b.ready(ctx, p.loads[0], on.ended)
	if err == nil {
		err = b.accounted(ctx, on, func() error { return b.measureAll(ctx, s, c, on.pid, p) })
	}
	return errors.Join(err, on.stop())
}

// accounted checks that every frame that is lost while f runs is counted by
// somebody, where it can be known.
func (b *bed) accounted(ctx context.Context, on running, f func() error) error {
	if on.drops == nil {
		return f()
	}
	before, err := on.drops(ctx)
	if err != nil {
		return err
	}
	lost := b.arrived - b.sent // wraps, and comes back below
	if err := f(); err != nil {
		return err
	}
	lost += b.sent - b.arrived
	after, err := on.drops(ctx)
	if err != nil {
		return err
	}
	if counted := after.sum() - before.sum(); counted < lost {
		return fmt.Errorf("of %d frames that were lost only %d were counted: %v before, %v after", lost, counted, before, after)
	}
	return nil
}

func (b *bed) measureAll(ctx context.Context, s *harness.Session, c *contestant, pid int, p plan) error {
	for _, l := range p.loads {
		if err := b.check(ctx, l, c.hops); err != nil {
			return err
		}
		if _, err := b.offer(ctx, l, b.overload()/4, p.window); err != nil { // caches, tables, clocks
			return err
		}
		watch, err := newWatch(pid)
		if err != nil {
			return err
		}
		x, err := b.measure(ctx, l, p)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if x.other, err = watch.others(); err != nil {
			return err
		}
		c.samples[l] = append(c.samples[l], x)
		free := ""
		if p.steps > 0 {
			free = fmt.Sprintf(", %7.0f without loss", x.free/1e3)
		}
		s.Say("%-10v x%-2d %-18s %7.0f kpps saturated%s; others took %.0f%%", l, len(b.place.workers), c.name, x.saturated/1e3, free, 100*x.other)
	}
	return nil
}

// overload is what is offered to all workers together.
func (b *bed) overload() float64 { return overload * float64(len(b.place.workers)) }

// measure finds the figures of a load.
func (b *bed) measure(ctx context.Context, l load, p plan) (x sample, err error) {
	t, err := b.offer(ctx, l, b.overload(), p.window)
	if err != nil {
		return x, err
	}
	x.saturated, x.offered = t.arrived.Rate, t.sent.Rate()
	x.free, err = bisect(1.1*x.saturated, p.steps, func(rate float64) (float64, error) {
		for range 2 { // once may be bad luck
			t, err := b.offer(ctx, l, rate, p.window)
			if err != nil || ctx.Err() != nil {
				return 0, err
			}
			if float64(t.lost()) <= lossAllowed*float64(t.sent.Frames) {
				return t.sent.Rate(), nil
			}
		}
		return 0, nil
	})
	return x, err
}

// bisect looks for the greatest rate up to top that can be carried. carry tells
// what was carried when rate was asked for, 0 if some was lost.
func bisect(top float64, steps int, carry func(rate float64) (float64, error)) (best float64, err error) {
	low, high := 0.0, top
	for range steps {
		rate := (low + high) / 2
		got, err := carry(rate)
		if err != nil {
			return best, err
		}
		if got == 0 {
			high = rate
			continue
		}
		low, best = rate, max(best, got)
	}
	return best, nil
}

// watch tells how much of the machine others take.
type watch struct {
	pids        []int
	at          time.Time
	all, partys time.Duration
}

// newWatch begins to watch. pid is the contestant's, 0 for the kernel.
func newWatch(pid int) (w watch, err error) {
	w.pids = []int{os.Getpid()}
	if pid != 0 {
		w.pids = append(w.pids, pid)
	}
	w.at = time.Now()
	w.all, w.partys, err = w.read()
	return w, err
}

func (w watch) read() (all, partys time.Duration, err error) {
	for _, pid := range w.pids {
		d, err := stage.ProgramOf(pid)
		if err != nil {
			return 0, 0, err
		}
		partys += d
	}
	all, err = stage.Programs()
	return all, partys, err
}

// others is their share of the machine since the watch began.
func (w watch) others() (float64, error) {
	all, partys, err := w.read()
	return stage.Others(all-w.all, partys-w.partys, time.Since(w.at)), err
}

// report compares ours with each peer, in both figures of a load.
func report(s *harness.Session, all []*contestant, l load) {
	for _, f := range figures() {
		if !s.Wants(caseName(l, f)) {
			continue
		}
		got := judge(all, l, f.of)
		for peer := 1; peer < len(all); peer++ {
			r := beside(caseName(l, f), all, peer, l, got)
			r.WantRatio(1)
			s.Report(r)
		}
	}
}

// beside is the result of ours and a peer.
func beside(name string, all []*contestant, peer int, l load, got harness.Turns) harness.Result {
	ours, theirs := all[0], all[peer]
	r := harness.New(name, harness.Metric{Name: "pps", Unit: "frames/s", More: true},
		got.Sides[0], theirs.name, got.Sides[peer], 0, why(ours, theirs, l))
	r.Noise = &got.Noise
	r.Extra = map[string]float64{"offered_pps": offered(ours.samples[l]), "peer_offered_pps": offered(theirs.samples[l])}
	return r
}

// why is the reason that a comparison has no value.
func why(ours, peer *contestant, l load) string {
	for _, c := range []*contestant{ours, peer} {
		switch {
		case len(c.samples[l]) > 0:
		case c.why != "":
			return c.why
		default:
			return "no time was left for " + c.name
		}
	}
	return ""
}

// offered is the median of what was offered at saturation.
func offered(samples []sample) float64 {
	var all []float64
	for _, x := range samples {
		all = append(all, x.offered)
	}
	if e := harness.Summary(all); e != nil {
		return e.Median
	}
	return 0
}

func judge(all []*contestant, l load, of func(sample) float64) harness.Turns {
	windows := make([][]harness.Window, len(all))
	for i, c := range all {
		for _, x := range c.samples[l] {
			windows[i] = append(windows[i], harness.Window{Value: of(x), Wait: x.other})
		}
	}
	return harness.Judge(windows, harness.Limits{Wait: otherLimit, Slow: 1, Fewest: 3})
}
