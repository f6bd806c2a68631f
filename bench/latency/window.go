package latency

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"time"

	"margay.dev/margay/bench/stage"
	"margay.dev/margay/bench/tcp"
)

const (
	warmUp = 100 * time.Millisecond
	fewest = 1000 // questions of a window: below, there is no p99.9
)

// figure is one of those that a window has.
type figure struct {
	name  string
	share float64 // of the round trips that take no longer
}

var figures = [...]figure{{"p50_us", 0.5}, {"p99_us", 0.99}, {"p99.9_us", 0.999}}

// window is what the round trips of a while came to.
type window struct {
	at          [len(figures)]float64 // microseconds
	trips, lost uint64
	load        float64 // Gbit/s that arrived meanwhile at the server's device, questions among it
	other       float64 // share of the machine's CPU time that others took
}

// measure takes a window of d over a path, with a load of rate bit/s beside it, 0
// for none.
func measure(ctx context.Context, p *stage.Path, k kind, rate float64, d time.Duration) (window, error) {
	t, err := open(ctx, p, k.tcp, k.ipv6)
	if err != nil {
		return window{}, err
	}
	defer t.close()
	t.serve()
	own := []usage{func() (time.Duration, error) { return stage.CPU(os.Getpid()) }}
	if p.CPU != nil {
		own = append(own, p.CPU)
	}
	if rate == 0 {
		return take(p, t, d, own)
	}
	beside, err := tcp.Pace(ctx, p, k.ipv6, rate)
	if err != nil {
		return window{}, err
	}
	w, err := take(p, t, d, append(own, beside.CPU))
	return w, errors.Join(err, beside.Stop())
}

func take(p *stage.Path, t *talk, d time.Duration, own []usage) (w window, err error) {
	h := new(histogram)
	if err := t.ask(h, warmUp, 1); err != nil {
		return w, err
	}
	*h = histogram{}
	lost := t.lost
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	before, err := read(p, own)
	if err != nil {
		return w, err
	}
	if err := t.ask(h, d, fewest); err != nil {
		return w, err
	}
	after, err := read(p, own)
	if err != nil {
		return w, err
	}
	took := after.at.Sub(before.at)
	for i, f := range figures {
		w.at[i] = float64(h.rank(f.share)) / float64(time.Microsecond)
	}
	w.trips, w.lost = h.total, t.lost-lost
	w.load = float64(after.octets-before.octets) * 8 / 1e9 / took.Seconds()
	w.other = stage.Others(after.busy-before.busy, after.own-before.own, took)
	return w, nil
}

// usage is the CPU time that somebody who takes part has taken.
type usage func() (time.Duration, error)

// reading is what was used and carried up to a moment.
type reading struct {
	at        time.Time
	busy, own time.Duration
	octets    uint64
}

func read(p *stage.Path, own []usage) (r reading, err error) {
	r.at = time.Now()
	for _, of := range own {
		took, err := of()
		if err != nil {
			return r, err
		}
		r.own += took
	}
	if r.busy, err = stage.Busy(); err != nil {
		return r, err
	}
	r.octets, err = p.Received()
	return r, err
}
