package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"margay.dev/margay/control/converge"
)

// askTime is how long the agent's loop may take to answer before it counts as hung.
// A calculation for a large cluster takes a second or two.
const askTime = 10 * time.Second

// web serves metrics and health.
func (a *Agent) web() *http.Server {
	mux := http.NewServeMux()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), a.collector(), a.refusing())
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/liveness", answer(a.alive))
	mux.Handle("/readiness", answer(a.ready))
	return &http.Server{Handler: mux, ReadHeaderTimeout: askTime}
}

// answer is 200, or 503 and why not.
func answer(check func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := check(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok") // who asked may have gone
	}
}

// ask asks the loop how it stands.
func (a *Agent) ask(ctx context.Context) (converge.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return a.core.Stats(ctx)
}

// alive tells whether the agent still moves: a restart would help if not.
func (a *Agent) alive(ctx context.Context) error {
	_, err := a.ask(ctx)
	return err
}

// ready tells whether the node is at what the store says.
func (a *Agent) ready(ctx context.Context) error {
	s, err := a.ask(ctx)
	refused := a.store.Refused()
	switch {
	case err != nil:
		return err
	case refused != nil:
		return fmt.Errorf("the store is not believed: %w", refused)
	case !s.Synced:
		return errors.New("the store has not told all that it holds")
	case s.Held:
		return errors.New("the store is being mended, as ClusterInformation says: nothing is changed")
	case !s.InForce:
		return errors.New("the forwarder has acknowledged nothing")
	case s.Away:
		return errors.New("the store does not answer: what it has told stays in force")
	}
	return nil
}
