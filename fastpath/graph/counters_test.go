package graph_test

import (
	"testing"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/graph/graphtest"
)

// A counter that Add leaves out is lost as soon as there are two workers.
func TestAddAddsEveryCounter(t *testing.T) {
	t.Run("account", func(t *testing.T) { adds(t, (*graph.Counters).Add) })
	t.Run("node", func(t *testing.T) { adds(t, (*graph.NodeCounters).Add) })
	t.Run("port", func(t *testing.T) { adds(t, (*graph.PortCounters).Add) })
}

// adds numbers every counter: added to nothing all come out, and nothing added to
// them leaves them as they are.
func adds[T comparable](t *testing.T, add func(*T, *T)) {
	t.Helper()
	var numbered, sum, nothing T
	graphtest.Number(&numbered)
	if add(&sum, &numbered); sum != numbered {
		t.Errorf("nothing and %+v make %+v", numbered, sum)
	}
	if add(&sum, &nothing); sum != numbered {
		t.Errorf("%+v and nothing make %+v", numbered, sum)
	}
}
