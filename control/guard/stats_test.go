package guard

import (
	"testing"

	"margay.dev/margay/policy"
)

// What does not fit, and how programs come about, is counted.
func TestStats(t *testing.T) {
	g, p := New("here"), newPlane(t)
	want := func(programs int, compiled uint64, refused int) {
		t.Helper()
		s := g.Stats()
		if s.Programs != programs || s.Compiled != compiled || s.Refused != refused || s.Edited != 0 || s.Folded != 0 {
			t.Errorf("stats are %+v, want %d programs, %d compiled, %d refused", s, programs, compiled, refused)
		}
	}
	want(0, 0, 0)
	upsert(t, g, endpoint("server", map[string]string{"role": "server"}, "10.1.0.1"), judges(t, "o", "server", 80))
	flush(t, g, p)
	want(1, 1, 0)
	g.options.Budget = 1
	upsert(t, g, judges(t, "o", "server", 81))
	flush(t, g, p)
	want(1, 1, 1)
	g.options.Budget = 0
	g.Delete(policy.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "server"})
	flush(t, g, p)
	want(0, 1, 0)
}
