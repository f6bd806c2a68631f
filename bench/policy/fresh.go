package policy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"margay.dev/margay/bench/byhand"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/graph"
)

const (
	freshFlows = 1 << 16 // that the table has room for, several times what is made between two ends
	freshRound = 16      // rounds of frames after which the flows of old are ended
	flatBudget = 1.3     // how much more a packet may cost under the most rules than under the fewest
)

// freshRules are how many rules each endpoint's list has, the fewest first.
func freshRules() []int { return []int{10, 100, 1000, 10_000} }

// fresh is packets which all open a flow, on a bed of their own.
type fresh struct {
	*bed
	talk   *talk
	rules  int
	next   uint32        // number of the next conversation
	rounds int           // since flows were ended
	passed time.Duration // by which the bed's clock runs ahead
}

func newFresh(ctx context.Context, k kind, rules int) (*fresh, error) {
	b, err := newBed(ctx, k, rules, freshFlows)
	if err != nil {
		return nil, err
	}
	return &fresh{bed: b, talk: newTalk(b.arena, k, rules, frames), rules: rules}, nil
}

// round opens as many conversations as there are frames, by so many steps of their
// handshakes, and returns the graph's time alone.
func (f *fresh) round(steps int) (took time.Duration) {
	if f.rounds == freshRound {
		f.end()
	}
	f.rounds++
	for i := range f.talk.dialogs {
		f.talk.dialogs[i] = newDialog(f.next)
		f.next++
	}
	for _, s := range f.talk.handshake()[:steps] {
		for i := range f.talk.metas {
			f.talk.frame(&f.talk.metas[i], &f.talk.dialogs[i], s.side, s.flags, s.length)
		}
		start := time.Now()
		for v := range vectors {
			f.step(s.side, f.talk.metas[v*graph.VectorMax:(v+1)*graph.VectorMax])
		}
		took += time.Since(start)
	}
	f.made += frames
	return took
}

// end lets so much time pass that every flow ends, and its memory is used again.
func (f *fresh) end() {
	const idle = 2 * time.Hour
	f.age(f.passed)
	f.passed += idle
	f.engine.Advance(idle)
	f.age(f.passed)
	f.ended, f.rounds = f.made, 0
}

// nanos is what one of the packets costs that open a conversation.
func (f *fresh) nanos(d time.Duration) float64 {
	return byhand.Nanos(frames, d, func() time.Duration { return f.round(1) })
}

// freshCase names a case.
func freshCase(k kind, rules int) string { return "new/rules=" + count(rules) + k.String() }
func flatCase(k kind) string             { return "new/flat" + k.String() }
func connectionsCase(k kind) string      { return "new/connections" + k.String() }

// measureFresh lets beds with lists of different lengths take turns.
func (k kind) measureFresh(ctx context.Context, s *harness.Session, d time.Duration) error {
	var beds []*fresh
	defer func() {
		for _, f := range beds {
			f.close()
		}
	}()
	var sides []harness.Side
	for _, rules := range freshRules() {
		if !s.Wants(freshCase(k, rules)) && !s.Wants(flatCase(k)) {
			continue
		}
		f, err := newFresh(ctx, k, rules)
		if err != nil {
			return err
		}
		beds = append(beds, f)
		sides = append(sides, harness.Side{Name: freshCase(k, rules), Window: f.nanos})
	}
	floorOf := newLoop(k)
	sides = append(sides, harness.Side{Name: loop, Window: func(d time.Duration) float64 { return floor(floorOf, beds[0].talk, d) }})
	turns := s.Meter.Compare(ctx, d, sides...)
	for i, f := range beds {
		if err := f.report(s, k, turns, i); err != nil {
			return fmt.Errorf("%s: %w", sides[i].Name, err)
		}
	}
	if most := len(freshRules()); len(beds) == most && s.Wants(flatCase(k)) {
		reportFlat(s, k, turns.Sides[:most])
	}
	return nil
}

// report checks one bed, and tells what its packets cost.
func (f *fresh) report(s *harness.Session, k kind, turns harness.Turns, i int) error {
	f.end()
	allocs := harness.Allocations(8*frames, func() {
		for range 8 {
			f.round(1)
		}
	})
	if err := f.check(); err != nil {
		return err
	}
	name := freshCase(k, f.rules)
	if !s.Wants(name) {
		return nil
	}
	ours, floor := turns.Sides[i], turns.Sides[len(turns.Sides)-1]
	if ours == nil {
		skip(s, name, nanosPerPacket(), loop, 0)
		return nil
	}
	s.Say("%-30s %.1f ns; %s %.1f", name, ours.Median, loop, floor.Median)
	r := harness.New(name, nanosPerPacket(), ours, loop, floor, 0, "")
	r.Allocs, r.Noise = &allocs, &turns.Noise
	s.Report(r)
	return nil
}

// reportFlat tells how much more a packet costs under the most rules than under
// the fewest.
func reportFlat(s *harness.Session, k kind, sides []*harness.Estimate) {
	m := harness.Metric{Name: "most_to_fewest_rules", Unit: "ratio"}
	if slices.Contains(sides, nil) {
		skip(s, flatCase(k), m, "", flatBudget)
		return
	}
	more := sides[len(sides)-1].Median / sides[0].Median
	s.Report(harness.New(flatCase(k), m, harness.Exactly(more), "", nil, flatBudget, ""))
}

// measureConnections tells how many connections a worker opens in a second, with
// the three packets of their handshakes.
func (k kind) measureConnections(ctx context.Context, s *harness.Session, d time.Duration) error {
	f, err := newFresh(ctx, k, knownRules)
	if err != nil {
		return err
	}
	defer f.close()
	steps := len(f.talk.handshake())
	perSecond := func(d time.Duration) float64 {
		return 1e9 / byhand.Nanos(frames, d, func() time.Duration { return f.round(steps) })
	}
	turns := s.Meter.Compare(ctx, d, harness.Side{Name: "ours", Window: perSecond})
	allocs := harness.Allocations(8*steps*frames, func() {
		for range 8 {
			f.round(steps)
		}
	})
	if err := f.check(); err != nil {
		return fmt.Errorf("%s: %w", connectionsCase(k), err)
	}
	m := harness.Metric{Name: "connections_per_second", Unit: "1/s", More: true}
	if turns.Sides[0] == nil {
		skip(s, connectionsCase(k), m, "", 0)
		return nil
	}
	s.Say("%-30s %.0f a second", connectionsCase(k), turns.Sides[0].Median)
	r := harness.New(connectionsCase(k), m, turns.Sides[0], "", nil, 0, "")
	r.Allocs, r.Noise = &allocs, &turns.Noise
	s.Report(r)
	return nil
}
