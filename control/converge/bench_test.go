package converge

import (
	"fmt"
	"runtime"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/forwarder/desired"
)

// city is a cluster of endpoints on nodes of a hundred each, and policies that pick
// some of them by one of as many labels.
func city(endpoints, policies int) (events []datastore.Event) {
	add := func(o v3.Object) {
		o.SetGeneration(1)
		o.Default(v3.ByLength)
		events = append(events, datastore.Event{Type: datastore.Changed, Key: datastore.KeyOf(o), Object: o})
	}
	open := &v3.Profile{Spec: v3.ProfileSpec{Ingress: []v3.Rule{{Action: v3.Allow}}, Egress: []v3.Rule{{Action: v3.Allow}}}}
	open.Name = "kns.shop"
	add(open)
	for i := range policies {
		p := &v3.NetworkPolicy{}
		p.Namespace, p.Name = "shop", fmt.Sprintf("p%d", i)
		p.Spec.Selector = fmt.Sprintf("app == '%d'", i)
		p.Spec.Ingress = []v3.Rule{{Action: v3.Allow, Source: v3.EntityRule{Selector: fmt.Sprintf("app == '%d'", (i+1)%policies)}}}
		add(p)
	}
	for i := range endpoints {
		add(resident(i, i%policies))
	}
	return events
}

// resident is one endpoint of the city.
func resident(i, app int) *v3.WorkloadEndpoint {
	w := &v3.WorkloadEndpoint{}
	w.Namespace, w.Name, w.Labels = "shop", fmt.Sprintf("w%d", i), map[string]string{"app": fmt.Sprint(app)}
	w.Spec = v3.WorkloadEndpointSpec{
		Node: fmt.Sprintf("n%d", i/100), Profiles: []string{"kns.shop"},
		IPNetworks: []string{fmt.Sprintf("10.%d.%d.%d/32", 1+i>>16, i>>8&255, i&255), fmt.Sprintf("fd01::%x/128", i+1)},
	}
	return w
}

// BenchmarkColdStart is from the first event of a store to the forwarder's
// acknowledgement.
func BenchmarkColdStart(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			events := append(append([]datastore.Event{begins}, city(n, n/5)...), synced)
			for b.Loop() {
				s := newScene(b)
				s.tell(events...)
				s.kill()
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapSys)/(1<<20), "MiB")
		})
	}
}

// BenchmarkRelabel has one endpoint of another node change its labels, to and fro.
func BenchmarkRelabel(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			s := newScene(b)
			s.tell(append(append([]datastore.Event{begins}, city(n, n/5)...), synced)...)
			before := len(s.f.commits)
			s.f.look(func(*desired.State) { s.f.quick = true })
			calculating := func() float64 {
				stats, err := s.core.Stats(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				return float64(stats.Calculating.Microseconds())
			}
			i, spent := 0, calculating()
			for b.Loop() {
				i++
				w := resident(n-1, i%2)
				w.SetGeneration(1)
				s.tell(datastore.Event{Type: datastore.Changed, Key: datastore.KeyOf(w), Object: w})
			}
			b.ReportMetric(float64(len(s.f.commits)-before)/float64(i), "commits/op")
			b.ReportMetric((calculating()-spent)/float64(i), "µs-calculating/op") // the rest is waiting
		})
	}
}
