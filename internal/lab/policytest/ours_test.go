package policytest

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/internal/lab/policies"
	"margay.dev/margay/internal/lab/probe"
	"margay.dev/margay/internal/lab/truth"
)

// ours plays cases against policy in the forwarders, from manifests all the way.
func (w *world) ours(t *testing.T) {
	driver, err := policies.New(w.Lab, func(namespace, name string) string { return inLab(namespace + "/" + name) })
	if err != nil {
		t.Fatal(err)
	}
	apply := func(ctx context.Context, state truth.State) error {
		manifests, err := state.Manifests()
		if err != nil {
			return err
		}
		var objects []metav1.Object
		for _, m := range manifests {
			o, err := policies.Read(m)
			if err != nil {
				return err
			}
			objects = append(objects, o...)
		}
		return driver.Apply(ctx, objects)
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
	if err := driver.Open(t.Context()); err != nil { // for the tests that come behind
		t.Error(err)
	}
}
