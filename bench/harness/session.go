package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Scenario is a family of cases that share a subject.
type Scenario struct {
	Name  string
	About string // one line
	// Run measures what s wants and reports it. It returns soon after ctx ends.
	Run func(ctx context.Context, s *Session) error
}

// quickTime is how long a quick run of a scenario may measure; what then still
// runs is given the rest of 50 s to end.
const quickTime = 40 * time.Second

// Options say how scenarios run.
type Options struct {
	Quick  bool          // end each scenario within 50 s
	Limit  time.Duration // per scenario, instead of what Quick says; 0 means none
	Filter string        // only cases of which scenario/case contains it
	Out    func(Result) error
	Log    io.Writer // progress
	// Forwarder is the program that scenarios with real processes start.
	Forwarder string
	// Rules and Trace are files for the scenario classifier, instead of those that
	// come with it; a trace that is empty is made.
	Rules, Trace string
}

// Session is one run of one scenario.
type Session struct {
	Options
	Meter    *Meter
	scenario string
	machine  Machine
	started  time.Time
	errs     []error
	reported int
}

// Run runs scenarios one after another. What one cannot do keeps no other from
// running.
func Run(ctx context.Context, o Options, scenarios ...Scenario) error {
	m := &Meter{}
	var errs []error
	for _, sc := range scenarios {
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
		errs = append(errs, runOne(ctx, o, m, sc))
	}
	return errors.Join(errs...)
}

func runOne(ctx context.Context, o Options, m *Meter, sc Scenario) error {
	if o.Quick && o.Limit == 0 {
		o.Limit = quickTime
	}
	s := &Session{Options: o, Meter: m, scenario: sc.Name, started: time.Now()}
	if o.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Limit)
		defer cancel()
	}
	s.machine = ThisMachine(ctx)
	s.Say("%s: %s, kernel %s, score %.0f / %.1f, load %.2f", sc.Name, s.machine.CPU, s.machine.Kernel,
		s.machine.Score.CPU, s.machine.Score.Memmove, load())
	err := sc.Run(ctx, s)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		s.errs = append(s.errs, err)
	}
	if s.reported == 0 && len(s.errs) == 0 {
		s.errs = append(s.errs, fmt.Errorf("no case of it was run: see margay-bench list and --filter"))
	}
	s.Say("%s: done in %.1f s", sc.Name, time.Since(s.started).Seconds())
	if err := errors.Join(s.errs...); err != nil {
		return fmt.Errorf("run %s: %w", sc.Name, err)
	}
	return nil
}

// Wants says whether the filter lets a case through.
func (s *Session) Wants(caseName string) bool {
	return strings.Contains(s.scenario+"/"+caseName, s.Filter)
}

// WantsMore is Wants for a case that a quick run leaves out, unless there is a
// filter, which asks for it.
func (s *Session) WantsMore(caseName string) bool {
	return s.Wants(caseName) && !(s.Quick && s.Filter == "")
}

// Left is the time that ctx leaves, at most otherwise.
func Left(ctx context.Context, otherwise time.Duration) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return otherwise
	}
	return min(otherwise, max(0, time.Until(end)))
}

// Share is the time for one of n cases that are left, at most most, and in a
// quick run at most a second.
func (s *Session) Share(ctx context.Context, n int, most time.Duration) time.Duration {
	if s.Quick {
		most = min(most, time.Second)
	}
	return min(most, Left(ctx, most*time.Duration(n))/time.Duration(max(1, n)))
}

// Report passes a result on.
func (s *Session) Report(r Result) {
	r.Scenario, r.Machine = s.scenario, s.machine
	s.reported++
	if err := s.Out(r); err != nil {
		s.errs = append(s.errs, err)
	}
}

// Say tells the person who waits what happens.
func (s *Session) Say(format string, args ...any) {
	fmt.Fprintf(s.Log, "%6.1fs  "+format+"\n", append([]any{time.Since(s.started).Seconds()}, args...)...)
}
