package pending_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/pending"
	"margay.dev/margay/datastore"
)

// lone is a store that holds one change, whose maker had another clock.
type lone struct {
	datastore.Store // nil: nothing else is asked
	change          *v3.PendingChange
	again           *v3.PendingChange // what it is written as half a minute later; nil: it is not
	undone          chan struct{}     // closed with the change's end
}

func (s *lone) Get(context.Context, datastore.Key) (v3.Object, error) { return s.change, nil }

func (s *lone) List(context.Context, datastore.Scope) (*datastore.Listing, error) {
	return &datastore.Listing{Objects: []v3.Object{s.change}}, nil
}

func (s *lone) Watch(ctx context.Context, _ datastore.Scope, _ datastore.Revision, deliver func([]datastore.Event)) error {
	if s.again != nil {
		time.Sleep(30 * time.Second)
		deliver([]datastore.Event{{Type: datastore.Changed, Key: datastore.KeyOf(s.again), Object: s.again}})
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *lone) UpdateStatus(_ context.Context, o v3.Object) (v3.Object, error) { return o, nil }

func (s *lone) Delete(context.Context, datastore.Key, datastore.Precondition) error {
	close(s.undone)
	return nil
}

// Whatever the clock of who made a change says, nobody waits longer than the change
// says; and it is undone sooner only by as much as the clock says that it is old.
func TestClocksThatDiffer(t *testing.T) {
	const within = time.Minute
	at := func(d time.Duration) func(time.Time) time.Time {
		return func(now time.Time) time.Time { return now.Add(d) }
	}
	tests := map[string]struct {
		made  func(now time.Time) time.Time
		again func(now time.Time) time.Time // what it is said to be made at later
		want  time.Duration
	}{
		"the same clock":                  {made: at(0), want: within},
		"within the second of a creation": {made: at(-999 * time.Millisecond), want: within},
		"a clock ahead":                   {made: at(time.Hour), want: within},
		"a clock at the end of time":      {made: func(time.Time) time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, want: within},
		"a clock half a minute behind":    {made: at(-30 * time.Second), want: 31 * time.Second},
		"a clock an hour behind":          {made: at(-time.Hour), want: 0},
		"a clock at the beginning":        {made: func(time.Time) time.Time { return time.Unix(0, 0) }, want: 0},
		"no time at all":                  {made: func(time.Time) time.Time { return time.Time{} }, want: 0},
		"a clock that jumps ahead":        {made: at(0), again: at(time.Hour), want: within},
		"a clock that jumps back":         {made: at(0), again: at(-time.Hour), want: within},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &v3.PendingChange{ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "u", CreationTimestamp: metav1.NewTime(tt.made(time.Now()))}}
				c.Spec.Within.Duration = within
				s := &lone{change: c, undone: make(chan struct{})}
				if tt.again != nil {
					s.again = c.DeepCopy()
					s.again.CreationTimestamp = metav1.NewTime(tt.again(time.Now()))
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				began := time.Now()
				go func() { ended <- (&pending.Keeper{Store: s, Log: slog.New(slog.DiscardHandler)}).Run(ctx) }()
				select {
				case <-s.undone:
				case <-time.After(24 * time.Hour):
					t.Error("it is never undone")
				}
				if took := time.Since(began); took != tt.want {
					t.Errorf("it is undone after %v, want %v", took, tt.want)
				}
				time.Sleep(within) // also what is written of it later
				cancel()
				<-ended
			})
		})
	}
}
