// Package metrics shows the forwarder to Prometheus, to probes and to pprof, by
// HTTP on a loopback address. Counters are read when they are asked for.
// docs/METRICS.md lists every metric.
package metrics

import (
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"margay.dev/margay/forwarder/inspect"
	"margay.dev/margay/forwarder/plane"
)

// Handler serves /metrics, /healthz, /readyz and /debug/pprof. healthy and
// ready tell what is amiss, nil for nothing.
func Handler(p *plane.Plane, facts inspect.Facts, node string, healthy, ready func() error) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(p, facts, node),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", probe(healthy))
	mux.HandleFunc("/readyz", probe(ready))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n")) // a prober that is gone needs no answer
	}
}
