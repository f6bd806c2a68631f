package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"sync"

	"margay.dev/margay/internal/lab/load"
)

// Command prepares argv to run inside a pod's or node's namespace. Its caller
// sets the streams and runs it by Run.
func (l *Lab) Command(ctx context.Context, of string, argv ...string) (*Command, error) {
	if len(argv) == 0 {
		return nil, errors.New("there is no command to run")
	}
	ns, err := l.Namespace(of)
	if err != nil {
		return nil, err
	}
	return &Command{Cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), place: ns}, nil
}

// A Command runs in a namespace.
type Command struct {
	*exec.Cmd
	place load.Place
}

// Run starts the command in its namespace and waits for its end.
func (c *Command) Run() error {
	if err := c.place.Do(c.Start); err != nil {
		return fmt.Errorf("run %s: %w", c.Args[0], err)
	}
	return c.Wait()
}

// ends are two pods with an address of one family each.
type ends struct {
	from, to load.Place
	src, dst netip.Addr
	mtu      int
}

func (l *Lab) between(from, to string, six bool) (e ends, err error) {
	a, b := l.Topology().Pod(from), l.Topology().Pod(to)
	for name, p := range map[string]*Pod{from: a, to: b} {
		if p == nil {
			return e, l.Topology().errNoPod(name)
		}
	}
	var ok [2]bool
	e.src, ok[0] = a.Addr(six)
	e.dst, ok[1] = b.Addr(six)
	if !ok[0] || !ok[1] {
		return e, fmt.Errorf("pods %s and %s have no address of %s both", from, to, familyName(six))
	}
	e.mtu = min(a.MTU, b.MTU)
	for i := range l.Topology().Links { // the path's MTU, for what links there are
		e.mtu = min(e.mtu, l.Topology().Links[i].MTU)
	}
	if e.from, err = l.Namespace(from); err != nil {
		return e, err
	}
	e.to, err = l.Namespace(to)
	return e, err
}

func familyName(six bool) string {
	if six {
		return "IPv6"
	}
	return "IPv4"
}

// Ping pings one pod from another.
func (l *Lab) Ping(ctx context.Context, from, to string, six bool, p load.Ping) (load.Pinged, error) {
	e, err := l.between(from, to, six)
	if err != nil {
		return load.Pinged{}, err
	}
	return p.Run(ctx, e.from, e.src, e.dst)
}

// Perf loads the way from one pod to another. The addresses and places of p are
// filled in here.
func (l *Lab) Perf(ctx context.Context, from, to string, six bool, p load.Perf) (load.Result, error) {
	e, err := l.between(from, to, six)
	if err != nil {
		return load.Result{}, err
	}
	p.From, p.To, p.Source, p.Target, p.MTU = e.from, e.to, e.src, e.dst, e.mtu
	return p.Run(ctx)
}

// Reach is how one pod reaches another.
type Reach struct {
	From string      `json:"from"`
	To   string      `json:"to"`
	IPv6 bool        `json:"ipv6"`
	Ping load.Pinged `json:"ping"`
	Err  string      `json:"error,omitempty"`
}

// atOnce is how many pings of a matrix run side by side.
const atOnce = 8

// Matrix pings every ordered pair of pods in every family that both have.
func (l *Lab) Matrix(ctx context.Context, p load.Ping) []Reach {
	var out []Reach
	pods := l.Topology().Pods
	for _, six := range []bool{false, true} {
		for i := range pods {
			for j := range pods {
				_, a := pods[i].Addr(six)
				if _, b := pods[j].Addr(six); a && b && i != j {
					out = append(out, Reach{From: pods[i].Name, To: pods[j].Name, IPv6: six})
				}
			}
		}
	}
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range out {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			r := &out[i]
			var err error
			if r.Ping, err = l.Ping(ctx, r.From, r.To, r.IPv6, p); err == nil {
				err = r.Ping.Last
			}
			if err != nil {
				r.Err = err.Error()
			}
		})
	}
	wg.Wait()
	return out
}
