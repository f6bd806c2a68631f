// Package latency is the scenario "latency": how long a pod waits for the answer
// of another pod of its node, by the forwarder (TUN) and by the kernel's routed
// veth.
//
// A client asks by 64 bytes, a server answers by as many, and the next question
// is asked when the answer is there. Both sleep in the kernel meanwhile, without
// busy polling (SO_BUSY_POLL is 0), on threads that nothing binds to a CPU. A
// window is all questions of a while; its figures are of all of its round trips,
// in a histogram whose buckets are 1 % wide. A datagram that is not answered in
// 200 ms counts as a round trip of that time. Ours and the kernel take turns,
// window by window.
//
// In "idle" nothing else is sent, so whoever is next has to be woken, and on a
// virtual machine a CPU with nothing to do has to be given back first: round trips
// may well be longer than under load. In "load=50" one stream of TCP goes the same
// way as the questions, between the same pods: iperf3, which the client's kernel
// paces to half of what the slower of the two paths carries of such a stream
// when nothing holds it back, measured at the start. Both paths get the same
// load, since pods send what they send whoever carries it; the faster path is
// thereby below half of what it can. What really arrived in the windows is told
// beside the figures.
package latency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
	"margay.dev/margay/bench/tcp"
)

const (
	// otherLimit is the share of the machine that others may take in a window.
	otherLimit = 0.05
	loadShare  = 0.5
	// aroundTime is what a window takes beside itself, the start of its load above all.
	aroundTime = 500 * time.Millisecond
)

// Scenario is latency.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "latency",
		About: "round trips of 64 B between two pods of a node (TUN), idle and under load, against the kernel's routed veth",
		Run:   func(ctx context.Context, s *harness.Session) error { return run(ctx, s, planOf(s)) },
	}
}

// kind is a kind of round trips.
type kind struct{ tcp, ipv6, loaded bool }

// String is the case's name in results.
func (k kind) String() string {
	s := "udp"
	if k.tcp {
		s = "tcp"
	}
	if k.ipv6 {
		s += "/ipv6"
	}
	if k.loaded {
		return fmt.Sprintf("%s/load=%d", s, int(100*loadShare))
	}
	return s + "/idle"
}

// plan says how much is run.
type plan struct {
	kinds   []kind
	rounds  int
	window  time.Duration
	probes  int // runs that find what a path carries
	seconds int // of each
}

func planOf(s *harness.Session) plan {
	p := plan{rounds: 9, window: 1500 * time.Millisecond, probes: 3, seconds: 2}
	if s.Quick {
		p = plan{rounds: 5, window: 500 * time.Millisecond, probes: 1, seconds: 1}
	}
	for _, ipv6 := range []bool{false, true} {
		for _, loaded := range []bool{false, true} {
			for _, tcp := range []bool{false, true} {
				k := kind{tcp, ipv6, loaded}
				if s.WantsMore(k.String()) || !ipv6 && s.Wants(k.String()) {
					p.kinds = append(p.kinds, k)
				}
			}
		}
	}
	return p
}

// contestant is somebody between client and server, and what was measured.
type contestant struct {
	name    string
	path    *stage.Path
	why     string // it is not there
	windows map[kind][]window
}

// contest is one run of the scenario.
type contest struct {
	*harness.Session
	plan
	all   []*contestant    // ours is the first
	loads map[bool]float64 // bit/s, by whether it is IPv6
	why   map[bool]error   // there is no load
}

func run(ctx context.Context, s *harness.Session, p plan) error {
	c := &contest{Session: s, plan: p, loads: map[bool]float64{}, why: map[bool]error{}}
	if len(c.kinds) == 0 {
		return nil
	}
	defer c.close()
	c.raise(ctx)
	for _, k := range c.kinds {
		if k.loaded && c.loads[k.ipv6] == 0 && c.why[k.ipv6] == nil {
			c.loads[k.ipv6], c.why[k.ipv6] = c.findLoad(ctx, k.ipv6)
		}
	}
	c.takeTurns(ctx)
	for _, k := range c.kinds {
		c.report(k)
	}
	return nil
}

func (c *contest) raise(ctx context.Context) {
	for _, r := range []struct {
		name string
		pair func() ([]*stage.Path, error)
	}{
		{"ours", func() ([]*stage.Path, error) { return stage.OursPairs(ctx, "rtt", c.Forwarder, 1, 1) }},
		{"kernel-veth", func() ([]*stage.Path, error) { return stage.KernelPairs(1) }},
	} {
		c.Say("raise %s", r.name)
		one := &contestant{name: r.name, windows: map[kind][]window{}}
		c.all = append(c.all, one)
		pair, err := r.pair()
		if err != nil {
			one.why = fmt.Sprintf("%s: %v", r.name, err)
			c.Say("%s", one.why)
			continue
		}
		one.path = pair[0]
	}
}

func (c *contest) close() {
	for _, one := range c.all {
		if one.path != nil {
			one.path.Close()
		}
	}
}

// findLoad is the share of what the slower path carries, in bit/s.
func (c *contest) findLoad(ctx context.Context, ipv6 bool) (least float64, err error) {
	if err := tcp.Installed(); err != nil {
		return 0, err
	}
	for _, one := range c.all {
		if one.path == nil {
			continue
		}
		var rates []float64
		for range c.probes {
			got, err := tcp.Measure(ctx, one.path, tcp.Case{IPv6: ipv6, Streams: 1}, c.seconds)
			if err != nil {
				return 0, fmt.Errorf("find what %s carries: %w", one.name, err)
			}
			rates = append(rates, got.Gbit)
		}
		rate := harness.Summary(rates).Median
		c.Say("%s carries %.2f Gbit/s of one stream, IPv6 %v", one.name, rate, ipv6)
		if least == 0 || rate < least {
			least = rate
		}
	}
	return loadShare * least * 1e9, nil
}

// takeTurns has everyone measured, round by round, as long as there is time.
func (c *contest) takeTurns(ctx context.Context) {
	start := time.Now()
	round := time.Duration(len(c.all)*len(c.kinds)) * (c.window + aroundTime)
	for i := range c.rounds {
		if ctx.Err() != nil || i > 0 && harness.Left(ctx, round) < round {
			return
		}
		for _, k := range c.kinds {
			for _, one := range c.all {
				if one.path != nil && ctx.Err() == nil && (!k.loaded || c.loads[k.ipv6] > 0) {
					c.turn(ctx, one, k)
				}
			}
		}
		round = time.Since(start) / time.Duration(i+1)
	}
}

// turn takes one window.
func (c *contest) turn(ctx context.Context, one *contestant, k kind) {
	rate := 0.0
	if k.loaded {
		rate = c.loads[k.ipv6]
	}
	w, err := measure(ctx, one.path, k, rate, c.window)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
			one.why = fmt.Sprintf("%s: %v", one.name, err)
			c.Say("%s", one.why)
		}
		return
	}
	one.windows[k] = append(one.windows[k], w)
	c.Say("%-16v %-12s p50 %6.1f  p99 %6.1f  p99.9 %7.1f us of %d, %.2f Gbit/s beside; others took %.0f%%",
		k, one.name, w.at[0], w.at[1], w.at[2], w.trips, w.load, 100*w.other)
}

// report compares ours with the kernel, in all figures of a kind.
func (c *contest) report(k kind) {
	why := ""
	for _, one := range c.all {
		switch {
		case len(one.windows[k]) > 0 || why != "":
		case one.why != "":
			why = one.why
		case k.loaded && c.why[k.ipv6] != nil:
			why = c.why[k.ipv6].Error()
		default:
			why = "no time was left for " + one.name
		}
	}
	ours, peer := c.all[0], c.all[1]
	for i, f := range figures {
		got := judge(c.all, k, func(w window) float64 { return w.at[i] })
		r := harness.New(k.String(), harness.Metric{Name: f.name, Unit: "us"}, got.Sides[0], peer.name, got.Sides[1], 0, why)
		r.Noise = &got.Noise
		r.Extra = map[string]float64{}
		describe(r.Extra, "", ours.windows[k])
		describe(r.Extra, "peer_", peer.windows[k])
		if k.loaded {
			r.Extra["asked_gbit_per_s"] = c.loads[k.ipv6] / 1e9
		}
		c.Report(r)
	}
}

// describe tells what figures rest on.
func describe(extra map[string]float64, prefix string, all []window) {
	var trips, lost uint64
	var loads []float64
	for _, w := range all {
		trips, lost, loads = trips+w.trips, lost+w.lost, append(loads, w.load)
	}
	extra[prefix+"trips"], extra[prefix+"lost"] = float64(trips), float64(lost)
	if e := harness.Summary(loads); e != nil {
		extra[prefix+"arrived_gbit_per_s"] = e.Median
	}
}

func judge(all []*contestant, k kind, of func(window) float64) harness.Turns {
	windows := make([][]harness.Window, len(all))
	for i, one := range all {
		for _, w := range one.windows[k] {
			windows[i] = append(windows[i], harness.Window{Value: of(w), Wait: w.other})
		}
	}
	return harness.Judge(windows, harness.Limits{Wait: otherLimit, Slow: 1, Fewest: 3})
}
