package classify

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"margay.dev/margay/bench/classbench"
	"margay.dev/margay/bench/classify/rteacl"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/classifier"
)

const (
	// chunkSize is how many headers are timed together: so few that a chunk
	// falls between two disturbances now and then.
	chunkSize = 512
	mostTurns = 41
	leastTurn = 3
)

// side is one of a contest: a walker of ours, or a method of the peer.
type side struct {
	name string
	// pass goes over the trace once. It puts the nanoseconds of each chunk into
	// took and returns how many answers were wrong.
	pass func(took []float64) (int, error)

	fastest []float64 // of each chunk over all passes
	whole   []float64 // nanoseconds a header of each pass
	wrong   int       // of the worst pass
}

// best is nanoseconds a header if every chunk had taken its fastest pass.
func (s *side) best(headers int) float64 { return sum(s.fastest) / float64(headers) }

// estimate is best, with the median of whole passes as its upper spread.
func (s *side) estimate(headers int) *harness.Estimate {
	best := s.best(headers)
	return &harness.Estimate{Median: best, Q1: best, Q3: s.median(), Runs: len(s.whole)}
}

func (s *side) median() float64 { return harness.Summary(s.whole).Median }

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

// contest lets sides take turns, a pass each, until d is over or more passes
// would tell no more. It ends early when ctx does, or a side cannot go on.
func contest(ctx context.Context, d time.Duration, headers int, sides []*side) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	took := make([]float64, chunks(headers))
	end := time.Now().Add(d)
	for turn := range mostTurns {
		if turn >= leastTurn && time.Now().After(end) {
			break
		}
		for _, s := range sides {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			wrong, err := s.pass(took)
			if err != nil {
				return err
			}
			s.add(took, wrong, headers)
		}
	}
	return nil
}

func (s *side) add(took []float64, wrong, headers int) {
	s.whole = append(s.whole, sum(took)/float64(headers))
	s.wrong = max(s.wrong, wrong)
	if s.fastest == nil {
		s.fastest = slices.Clone(took)
	}
	for i, t := range took {
		s.fastest[i] = min(s.fastest[i], t)
	}
}

// chunks is how many chunks so many headers make.
func chunks(headers int) int { return (headers + chunkSize - 1) / chunkSize }

// ours walks over a trace in bursts.
type ours struct {
	set   *set
	prog  *classifier.Program
	keys  []classifier.Key
	out   []classifier.Verdict
	burst int
}

func newOurs(s *set, prog *classifier.Program, burst int) *ours {
	keys := make([]classifier.Key, len(s.trace))
	for i := range keys {
		keys[i] = s.trace[i].Key
	}
	return &ours{s, prog, keys, make([]classifier.Verdict, len(keys)), burst}
}

func (o *ours) pass(took []float64) (int, error) {
	for c := range took {
		from := c * chunkSize
		end := min(from+chunkSize, len(o.keys))
		start := time.Now()
		o.walk(from, end)
		took[c] = float64(time.Since(start).Nanoseconds())
	}
	return o.set.wrong(o.out), nil
}

// walk judges the keys from to end, in bursts: of one by MatchOne.
func (o *ours) walk(from, end int) {
	if o.burst == 1 {
		for i := from; i < end; i++ {
			o.out[i] = o.prog.MatchOne(&o.keys[i])
		}
		return
	}
	for i := from; i < end; i += o.burst {
		to := min(i+o.burst, end)
		o.prog.Match(o.keys[i:to], o.out[i:to])
	}
}

// theirs are the methods of a peer, each a side.
func theirs(p *rteacl.Peer, burst int) (all []*side) {
	if p == nil {
		return nil
	}
	for _, m := range p.Methods {
		all = append(all, &side{name: m, pass: func(took []float64) (int, error) { return p.Pass(m, burst, took) }})
	}
	return all
}

// fastestOf is the side with the best figure, nil of none.
func fastestOf(sides []*side, headers int) (first *side) {
	for _, s := range sides {
		if first == nil || s.best(headers) < first.best(headers) {
			first = s
		}
	}
	return first
}

// compiled is a set's program and what it took.
type compiled struct {
	prog   *classifier.Program
	millis float64 // compiled and loaded, the fastest of a few goes
	bytes  int     // of the image
}

func compile(s *set) (c compiled, err error) {
	for range leastTurn {
		start := time.Now()
		made, err := classifier.Compile(s.list, classifier.Options{})
		if err != nil {
			return c, err
		}
		prog, err := classifier.Load(made.Image)
		if err != nil {
			return c, err
		}
		millis := time.Since(start).Seconds() * 1000
		if c.prog == nil || millis < c.millis {
			c = compiled{prog, millis, len(made.Image)}
		}
	}
	return c, nil
}

// spent is how many headers could be told apart by their answers: those that a
// rule other than the last decides.
func spent(trace []classbench.Header, rules int) (n int) {
	for _, h := range trace {
		if h.Answer != classbench.None && int(h.Answer) != rules-1 {
			n++
		}
	}
	return n
}
