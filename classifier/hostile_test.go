package classifier_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
)

// hostile are lists that make cutting compilers copy without end.
func hostile(n int) map[string][]classifier.Rule {
	host := func(i int) []netip.Prefix {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(i)*2654435761)
		return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(a), 32)}
	}
	lists := map[string][]classifier.Rule{}
	add := func(name string, rule func(i int, r *classifier.Rule)) {
		list := make([]classifier.Rule, n)
		for i := range list {
			list[i] = classifier.Rule{ID: uint32(i), Action: classifier.Allow}
			rule(i, &list[i])
		}
		lists[name] = list
	}
	add("all wildcards", func(int, *classifier.Rule) {})
	add("all log", func(_ int, r *classifier.Rule) { r.Action = classifier.Log })
	add("equal prefixes, distinct ports", func(i int, r *classifier.Rule) {
		r.Source.Nets = host(7)
		r.Destination.Ports = []classifier.Range{{First: uint16(i), Last: uint16(i)}}
	})
	add("nested port ranges", func(i int, r *classifier.Rule) {
		r.Source.Ports = []classifier.Range{{First: uint16(n - i), Last: 65535}}
		r.Destination.Ports = []classifier.Range{{First: 0, Last: uint16(i)}}
	})
	add("nested prefixes", func(i int, r *classifier.Rule) {
		r.Source.Nets = []netip.Prefix{netip.PrefixFrom(host(i / 33)[0].Addr(), 32-i%33)}
		r.Destination.Nets = []netip.Prefix{netip.PrefixFrom(host(i % 33)[0].Addr(), i/33%33)}
	})
	add("sources against destinations", func(i int, r *classifier.Rule) {
		if i%2 == 0 {
			r.Source.Nets = host(i)
		} else {
			r.Destination.Nets = host(i)
		}
	})
	add("five sides of a cross", func(i int, r *classifier.Rule) {
		switch i % 4 {
		case 0:
			r.Source.Nets = host(i)
		case 1:
			r.Destination.Nets = host(i)
		case 2:
			r.Source.Ports = []classifier.Range{{First: uint16(i), Last: uint16(i) + 9}}
		case 3:
			r.Destination.Ports = []classifier.Range{{First: uint16(i), Last: uint16(i) + 9}}
		}
	})
	return lists
}

func TestHostileListsStayWithinBounds(t *testing.T) {
	const n = 3000
	for name, list := range hostile(n) {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			p := classifiertest.Load(t, list, classifier.Options{})
			t.Logf("%v, %d bytes", time.Since(began), p.Size())
			if p.Size() > 2<<20 {
				t.Errorf("%d rules take %d bytes", n, p.Size())
			}
			rng := rand.New(rand.NewPCG(1, 6))
			agree(t, list, p, classifiertest.Probes(rng, list, 40))
		})
	}
}

func TestCompileOverBudgetIsRefused(t *testing.T) {
	ports := make([]classifier.Range, 300)
	for i := range ports {
		ports[i] = classifier.Range{First: uint16(2 * i), Last: uint16(2 * i)}
	}
	product := classifier.Rule{ID: 77, Action: classifier.Deny, Protocols: ports[:100], Source: classifier.Side{Ports: ports}, Destination: classifier.Side{Ports: ports}}
	rng := rand.New(rand.NewPCG(2, 6))
	tests := map[string]struct {
		list   []classifier.Rule
		budget int
		want   string
	}{
		"ports times ports times protocols":     {[]classifier.Rule{{Action: classifier.Allow}, product}, 0, "rule 1 (id 77) makes 9000000 boxes"},
		"more rules than bytes":                 {classifiertest.Rules(rng, 2000), 32 << 10, "the budget has room for 1024"},
		"rules that fit and tables that do not": {hostile(400)["sources against destinations"], 400 * 32, "raise the budget or split the list"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := classifier.Compile(tt.list, classifier.Options{Budget: tt.budget})
			if c != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
}
