package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/fastpath/fib"
)

const (
	churnEvery  = time.Millisecond // a member and a route change
	churnBudget = 1.5              // how much more a packet of a known flow may cost meanwhile
	guests      = 4096             // strangers that join and leave, each of a set, and have a route
	leastRate   = 900              // of changes a second, below which the figure is in doubt
)

func (k known) churnCase() string { return k.String() + "/churn" }

// churn is a goroutine that changes members and routes of a bed, as the forwarder's
// plane does, of addresses that no conversation has.
type churn struct {
	b       *bed
	stop    context.CancelFunc
	ended   chan error
	changes int // of members, and of routes as many
	took    time.Duration
	// rejudged is packets of known flows that were judged anew, though nothing that
	// they are judged by changed; renewed is times that a flow was found to need it not.
	rejudged, renewed uint64
}

func startChurn(ctx context.Context, b *bed) *churn {
	ctx, cancel := context.WithCancel(ctx)
	c := &churn{b: b, stop: cancel, ended: make(chan error, 1)}
	go func() { c.ended <- c.run(ctx) }()
	return c
}

// end stops the changes, and tells what went wrong.
func (c *churn) end() error {
	c.stop()
	return <-c.ended
}

// run makes a change each millisecond, and catches up where it was kept from it.
func (c *churn) run(ctx context.Context) error {
	start := time.Now()
	defer func() { c.took = time.Since(start) }()
	for ctx.Err() == nil {
		for due := int(time.Since(start) / churnEvery); c.changes < due && ctx.Err() == nil; c.changes++ {
			if err := c.b.change(ctx, c.changes); err != nil {
				return fmt.Errorf("make change %d: %w", c.changes, err)
			}
		}
		time.Sleep(churnEvery / 4)
	}
	return nil
}

// rate is how many members, and how many routes, changed in a second.
func (c *churn) rate() float64 { return float64(c.changes) / c.took.Seconds() }

// change is the i-th: a guest joins a set and gets a route, or has both taken away.
// Its steps are those of the forwarder's plane (plane.converge).
func (b *bed) change(ctx context.Context, i int) error {
	number, leaves := uint32(i/2%guests), i/2/guests%2 == 1
	guest := stranger(i%2 == 1, others+number)
	m := &pb.SetMembers{Set: uint32(otherSet) + number%others}
	if leaves {
		m.Left = columns(guest)
	} else {
		m.Joined = columns(guest)
	}
	changes, err := b.writer.want(false, &pb.Chunk{Sets: []*pb.SetMembers{m}})
	if err != nil {
		return err
	}
	p, t := b.writer.police, b.tables
	if err := errors.Join(p.Join(b.writer.state, changes), b.writer.publish(t), b.route(guest, leaves)); err != nil {
		return err
	}
	t.Court.Moved()
	b.quiesce(ctx)
	p.Quiesced(p.Generation())
	err = p.Leave(b.writer.state, changes)
	t.Court.Moved()
	t.FIB.Quiesced(t.FIB.Generation())
	return err
}

// route gives a guest a route, or takes it away.
func (b *bed) route(guest netip.Addr, leaves bool) error {
	p := netip.PrefixFrom(guest, guest.BitLen())
	if !leaves {
		return b.tables.FIB.SetRoute(p, fib.NextHopID(1))
	}
	if !b.tables.FIB.DeleteRoute(p) {
		return fmt.Errorf("the route to %v is gone", p)
	}
	return nil
}

// quiesce waits until no pass is under way that had begun before.
func (b *bed) quiesce(ctx context.Context) {
	for seen := b.passes.Load(); seen%2 == 1 && b.passes.Load() == seen && ctx.Err() == nil; {
		runtime.Gosched()
	}
}

// measureChurn lets a bed whose members and routes change take turns with a quiet one.
func (k known) measureChurn(ctx context.Context, s *harness.Session, d time.Duration) error {
	var beds [2]*bed
	var sides []harness.Side
	for i, name := range []string{"churn", "quiet"} {
		b, t, err := underWay(ctx, k.kind, knownRules, k.flows)
		if err != nil {
			return err
		}
		defer b.close()
		beds[i] = b
		sides = append(sides, harness.Side{Name: name, Window: func(d time.Duration) float64 { return b.nanos(t, d) }})
	}
	court := beds[0].tables.Court
	rejudged, renewed := court.Rejudged(), court.Renewed()
	c := startChurn(ctx, beds[0])
	turns := s.Meter.Compare(ctx, d, sides...)
	if err := c.end(); err != nil {
		return err
	}
	for i, b := range beds {
		if err := b.check(); err != nil {
			return fmt.Errorf("%s, %s: %w", k.churnCase(), sides[i].Name, err)
		}
	}
	c.rejudged, c.renewed = court.Rejudged()-rejudged, court.Renewed()-renewed
	k.reportChurn(s, turns, c)
	return nil
}

// reportChurn tells what a packet costs meanwhile, and how much more that is.
func (k known) reportChurn(s *harness.Session, turns harness.Turns, c *churn) {
	m := harness.Metric{Name: "churn_to_quiet", Unit: "ratio"}
	if turns.Sides[0] == nil || turns.Sides[1] == nil {
		skip(s, k.churnCase(), m, "", churnBudget)
		return
	}
	why := ""
	if c.rate() < leastRate {
		why = fmt.Sprintf("only %.0f members and as many routes changed in a second: their writer had no CPU of its own", c.rate())
	}
	busy, quiet := turns.Sides[0], turns.Sides[1]
	s.Say("%-30s %.1f ns, %.1f quiet; %.0f members and routes changed a second; %d flows renewed, %d packets judged anew",
		k.churnCase(), busy.Median, quiet.Median, c.rate(), c.renewed, c.rejudged)
	r := harness.New(k.churnCase(), nanosPerPacket(), busy, "quiet", quiet, 0, why)
	r.Extra = map[string]float64{"members_per_second": c.rate(), "routes_per_second": c.rate(), "renewed": float64(c.renewed)}
	r.Noise = &turns.Noise
	s.Report(r)
	s.Report(harness.New(k.churnCase(), m, harness.Exactly(busy.Median/quiet.Median), "", nil, churnBudget, why))
	m = harness.Metric{Name: "rejudged", Unit: "packets"}
	r = harness.New(k.churnCase(), m, harness.Exactly(float64(c.rejudged)), "", nil, 0, "")
	r.Want(m, 0)
	s.Report(r)
}
