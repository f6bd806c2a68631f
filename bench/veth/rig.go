package veth

import (
	"context"
	"fmt"
	"time"

	"margay.dev/margay/bench/harness"
)

// rig is a bed for so many workers, and who takes turns on it.
type rig struct {
	workers int
	bed     *bed // nil where none could be raised, which every contestant tells
	all     []*contestant
}

func newRig(ctx context.Context, forwarder string, workers int, loads []load) *rig {
	r := &rig{workers: workers}
	cpus, err := allowed()
	if err == nil {
		var at placement
		if at, err = place(cpus, workers); err == nil {
			r.bed, err = raise(ctx, forwarder, at, loads)
		}
	}
	r.all = contestants(r.bed)
	if err != nil {
		for _, c := range r.all {
			c.why = err.Error()
		}
	}
	return r
}

func (r *rig) close() {
	if r.bed != nil {
		r.bed.close()
	}
}

// takeTurns has everyone measured, round by round, as long as there is time.
func takeTurns(ctx context.Context, s *harness.Session, rigs []*rig, p plan) {
	start := time.Now()
	var round time.Duration
	for i := range p.rounds {
		if ctx.Err() != nil || i > 0 && harness.Left(ctx, round) < round {
			return
		}
		for _, r := range rigs {
			r.round(ctx, s, p)
		}
		round = time.Since(start) / time.Duration(i+1)
	}
}

// round is one turn of everyone who can.
func (r *rig) round(ctx context.Context, s *harness.Session, p plan) {
	for _, c := range r.all {
		if c.why != "" || ctx.Err() != nil {
			continue
		}
		if err := r.bed.turn(ctx, s, c, p); err != nil && ctx.Err() == nil {
			c.why = fmt.Sprintf("%s: %v", c.name, err)
			s.Say("%s", c.why)
		}
	}
}
