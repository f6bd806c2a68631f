package policytest

import (
	"context"
	"testing"
	"time"

	"margay.dev/margay/internal/lab/policies"
	"margay.dev/margay/internal/lab/probe"
	"margay.dev/margay/internal/lab/truth"
)

// police puts manifests in force, and nothing else.
func (w *world) police(ctx context.Context, m policies.Manifests) error {
	return w.Police(ctx, func(policies.Manifests) (policies.Manifests, error) { return m, nil })
}

// ours plays cases against policy in the forwarders, from manifests all the way.
func (w *world) ours(t *testing.T) {
	apply := func(ctx context.Context, state truth.State) error {
		manifests, err := state.Manifests()
		if err != nil {
			return err
		}
		var all policies.Manifests
		for _, text := range manifests {
			m, err := policies.Read(text)
			if err != nil {
				return err
			}
			all = all.With(m)
		}
		return w.police(ctx, all)
	}
	prober := w.prober(t, probe.Options{})
	began, steps, refused := time.Now(), 0, 0
	for i := range w.suite.Cases {
		c := &w.suite.Cases[i]
		if testing.Short() && i%10 != 0 {
			continue
		}
		faults, err := c.Play(t.Context(), apply, prober.Ask)
		if err != nil {
			t.Fatalf("case %d, %s: %v", c.ID, c.Name, err)
		}
		for _, f := range faults {
			t.Error(f)
		}
		for _, step := range c.Steps {
			steps++
			for _, v := range step.Want {
				if v == truth.Refused {
					refused++
				}
			}
		}
	}
	t.Logf("%d steps in %v, %d refusals", steps, time.Since(began).Round(time.Millisecond), refused)
	if err := w.police(t.Context(), nil); err != nil { // for the tests that come behind
		t.Error(err)
	}
}
