// Package outage is the scenarios "restart", "reload" and "handover": what two
// pods lose while something happens to the forwarder between them, again and
// again under load.
//
//	pod a ── TUN ── margay-forwarder ── AF_XDP ── pod b      it happens to this one
//	pod A ── veth ── kernel's router ── veth ── pod B        the control: to this one nothing happens
//
// Both carry the same load at the same time: numbered datagrams at one rate over
// four paths (IPv4 and IPv6, there and back), and a TCP connection over each that
// has to live through it all. The receivers know of every datagram whether it
// came; what was lost on the path that lost most, divided by the rate, is how long
// traffic was blocked by one event. Every datagram belongs to some event: none
// that is lost goes unseen because it was between two.
//
// Where the control loses too, or stands still, the machine was too busy for the
// load, and the results say so.
package outage

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"margay.dev/margay/bench/harness"
)

// trial is a case: something that happens again and again.
type trial struct {
	name    string
	budgets map[string]float64 // by metric; none where it is not named
	// begin readies the bed. What it returns happens, and ends the trial.
	begin func(ctx context.Context, b *bed) (happen func(ctx context.Context, i int) error, end func(), err error)
}

// scenario is one of the package's, whose trials are made of full events each, or
// of quick in a quick run.
func scenario(name, about string, full, quick int, trials func() []trial) harness.Scenario {
	return harness.Scenario{Name: name, About: about, Run: func(ctx context.Context, s *harness.Session) error {
		if s.Quick {
			return run(ctx, s, quick, trials())
		}
		return run(ctx, s, full, trials())
	}}
}

func run(ctx context.Context, s *harness.Session, events int, trials []trial) error {
	trials = slices.DeleteFunc(trials, func(t trial) bool { return !s.Wants(t.name) })
	if len(trials) == 0 {
		return nil
	}
	s.Say("raise two pods by the forwarder, and two by the kernel for the control")
	b, err := raise(ctx, s.Forwarder)
	if err != nil {
		for _, t := range trials {
			report(s, t, tally{}, err.Error())
		}
		return nil
	}
	defer b.close()
	for i, t := range trials {
		limited, cancel := context.WithTimeout(ctx, harness.Left(ctx, noLimit)/time.Duration(len(trials)-i))
		got, err := b.try(limited, s, t, events)
		over := limited.Err() != nil // then an event was cut short, and says nothing
		cancel()
		why := ""
		switch {
		case err != nil && !over:
			why = fmt.Sprintf("%s: %s", t.name, strings.Join(strings.Fields(err.Error()), " ")) // logs have lines
			s.Say("%s", why)
		case len(got.blocked) == 0:
			why = "no time was left for this case: run it alone with --filter"
		}
		report(s, t, got, why)
	}
	return nil
}
