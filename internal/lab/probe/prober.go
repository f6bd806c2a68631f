//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/lab/truth"
)

const (
	rounds     = 3                     // unanswered, and alive, until a query counts as refused
	quiet      = 40 * time.Millisecond // in which answers come, mostly
	askForLife = time.Second           // for how long a round waits for signs of life
	atOnce     = 1024                  // queries of a round: sockets, and packets that queues must hold
)

// A Node is where pods are asked from whether they live.
type Node struct {
	Name      string
	Place     load.Place
	Addresses []netip.Addr // IPv4, IPv6
}

// A Pod is asked about, and asks.
type Pod struct {
	Name      string // as tables know it
	Place     load.Place
	Addresses []netip.Addr // IPv4, IPv6
	Node      *Node        // whose packets to the pod nothing may refuse; nil: the pod itself
}

// A Prober has servers in pods, and asks them. Close it.
type Prober struct {
	pods     map[string]*station
	stations []*station // also nodes
	ports    []truth.Port
	limit    time.Duration

	asking sync.Mutex
}

// Options say how to probe.
type Options struct {
	// Limit is for how long queries are asked again whose destination shows no
	// life, until their answer is truth.Unknown; 0: 20 s.
	Limit time.Duration
}

// Open starts servers on all ports in all pods.
func Open(pods []Pod, ports []truth.Port, o Options) (*Prober, error) {
	p := &Prober{pods: map[string]*station{}, ports: ports, limit: o.Limit}
	if p.limit == 0 {
		p.limit = 20 * time.Second
	}
	nodes := map[*Node]*station{}
	for _, pod := range pods {
		s, err := p.open(pod.Name, pod.Place, pod.Addresses, ports)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.pods[pod.Name] = s
		if pod.Node == nil {
			s.node = s
			continue
		}
		if nodes[pod.Node] == nil {
			if nodes[pod.Node], err = p.open("node "+pod.Node.Name, pod.Node.Place, pod.Node.Addresses, nil); err != nil {
				return nil, errors.Join(err, p.Close())
			}
		}
		s.node = nodes[pod.Node]
	}
	return p, nil
}

func (p *Prober) open(name string, place load.Place, addrs []netip.Addr, ports []truth.Port) (*station, error) {
	if len(addrs) != 2 || !addrs[0].Is4() || !addrs[1].Is6() {
		return nil, fmt.Errorf("probe %s: its addresses are %v, want one of each family", name, addrs)
	}
	s := &station{name: name, place: place, addrs: addrs, next: map[kind]uint16{}}
	p.stations = append(p.stations, s)
	if err := place.Do(func() error { return s.listen(ports) }); err != nil {
		return nil, fmt.Errorf("serve in %s: %w", name, err)
	}
	return s, nil
}

// Close ends the servers.
func (p *Prober) Close() error {
	var errs []error
	for _, s := range p.stations {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// Ask finds out the answers to queries. Who asks meanwhile has to wait.
func (p *Prober) Ask(ctx context.Context, queries []truth.Query) (truth.Table, error) {
	p.asking.Lock()
	defer p.asking.Unlock()
	for _, q := range queries {
		if err := p.check(q); err != nil {
			return nil, fmt.Errorf("probe %v: %w", q, err)
		}
	}
	out := truth.Table{}
	for part := range slices.Chunk(queries, atOnce) {
		if err := p.settle(ctx, part, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p *Prober) check(q truth.Query) error {
	for _, name := range []string{q.From, q.To} {
		if p.pods[name] == nil {
			return fmt.Errorf("there is no pod %s", name)
		}
	}
	if !slices.Contains(truth.Families(), q.Family) {
		return fmt.Errorf("family is %d, want 4 or 6", q.Family)
	}
	return checkProtocol(q.Protocol)
}

// settle asks round after round, until no query is open.
func (p *Prober) settle(ctx context.Context, open []truth.Query, out truth.Table) error {
	unanswered := map[truth.Query]int{}
	last := time.Now() // that something was learnt
	for len(open) > 0 {
		r := &round{Prober: p, answers: make(chan answer, 3*len(open))} // a query and two signs of life: nobody waits to answer
		err := r.run(ctx, open)
		r.end()
		if err != nil {
			return err
		}
		learnt := false
		open = slices.DeleteFunc(slices.Clone(open), func(q truth.Query) bool {
			switch {
			case r.asked[q].answered:
				out[q] = truth.Allowed
			case !r.lives(q):
				return false
			default:
				unanswered[q]++
				out[q] = truth.Refused
				learnt = true
				return unanswered[q] == rounds
			}
			learnt = true
			return true
		})
		if learnt {
			last = time.Now()
		} else if time.Since(last) > p.limit {
			for _, q := range open {
				out[q] = truth.Unknown
			}
			return nil
		}
	}
	return nil
}

// sign is a question about a pod's life.
type sign struct {
	of   *station
	kind kind
	port uint16
}

// round asks each query once, and whether those live who did not answer.
type round struct {
	*Prober
	answers chan answer
	readers sync.WaitGroup

	asked   map[truth.Query]*attempt
	signs   map[sign]*attempt
	open    int           // queries without an answer
	silent  int           // signs of life without an answer
	slowest time.Duration // answer
}

// run ends with an error, or when more waiting would bring no more answers.
func (r *round) run(ctx context.Context, queries []truth.Query) error {
	if err := r.ask(queries); err != nil {
		return err
	}
	if err := r.wait(ctx, quiet, func() bool { return r.open == 0 }); err != nil || r.open == 0 {
		return err
	}
	if err := r.askWhoLives(queries); err != nil {
		return err
	}
	if err := r.wait(ctx, askForLife, func() bool { return r.open == 0 || r.silent == 0 }); err != nil {
		return err
	}
	return r.wait(ctx, max(quiet, 2*r.slowest), func() bool { return r.open == 0 })
}

// ask sends every query.
func (r *round) ask(queries []truth.Query) error {
	r.asked = map[truth.Query]*attempt{}
	byPod := map[*station][]*attempt{}
	var order []*station
	for _, q := range queries {
		if r.asked[q] != nil {
			continue // asked twice is asked once
		}
		from := r.pods[q.From]
		if byPod[from] == nil {
			order = append(order, from)
		}
		a := &attempt{to: r.pods[q.To], kind: kind{q.Protocol, q.Family}, port: q.Port}
		r.asked[q] = a
		byPod[from] = append(byPod[from], a)
	}
	r.open = len(r.asked)
	for _, from := range order {
		if err := r.send(from, byPod[from]); err != nil {
			return err
		}
	}
	return nil
}

// askWhoLives asks for the lives that unanswered queries need: that of what they
// asked for, and that of the pod that asked.
func (r *round) askWhoLives(queries []truth.Query) error {
	r.signs = map[sign]*attempt{}
	byNode := map[*station][]*attempt{}
	for _, q := range queries {
		if r.asked[q].answered {
			continue
		}
		for _, s := range r.signsFor(q) {
			if r.signs[s] == nil {
				r.signs[s] = &attempt{to: s.of, kind: s.kind, port: s.port, life: true}
				byNode[s.of.node] = append(byNode[s.of.node], r.signs[s])
			}
		}
	}
	r.silent = len(r.signs)
	for node, attempts := range byNode {
		if err := r.send(node, attempts); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) signsFor(q truth.Query) [2]sign {
	return [2]sign{
		{r.pods[q.To], kind{q.Protocol, q.Family}, q.Port},
		{r.pods[q.From], kind{r.ports[0].Protocol, q.Family}, r.ports[0].Number},
	}
}

// lives tells whether an answer could have come.
func (r *round) lives(q truth.Query) bool {
	for _, s := range r.signsFor(q) {
		if a := r.signs[s]; a == nil || !a.answered {
			return false
		}
	}
	return true
}

// wait takes answers until enough have come, or for a while.
func (r *round) wait(ctx context.Context, d time.Duration, enough func() bool) error {
	late := time.NewTimer(d)
	defer late.Stop()
	for !enough() {
		select {
		case a := <-r.answers:
			if a.by != "" && a.by != a.to.name {
				return fmt.Errorf("probe %s by %v: %s has answered in its place", a.to.name, a.kind, a.by)
			}
			a.answered = true
			r.slowest = max(r.slowest, a.took)
			if a.life {
				r.silent--
			} else {
				r.open--
			}
		case <-late.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// end lets go of all sockets and waits for who reads them.
func (r *round) end() {
	for _, a := range r.asked {
		a.end()
	}
	for _, a := range r.signs {
		a.end()
	}
	r.readers.Wait()
}

// firstPort is the least source port; above are more than a run of many tables needs.
const firstPort = 10000

// port is the next source port of a kind: a different one each time, as far as
// numbers go, so that no packet belongs to a conversation that was seen before.
func (s *station) port(k kind) uint16 {
	n, ok := s.next[k]
	if !ok || n < firstPort {
		n = firstPort + uint16(rand.N(1<<16-firstPort))
		if ok {
			n = firstPort
		}
	}
	s.next[k] = n + 1
	return n
}
