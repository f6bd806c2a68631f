package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"time"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/impair"
	"margay.dev/margay/internal/lab/process"
)

// PumpConfig is what RunPump is told, as JSON, in its one argument.
type PumpConfig struct {
	Namespace  string            `json:"namespace"` // path of the wire's
	Socket     string            `json:"socket"`    // where it takes changes
	Seed       uint64            `json:"seed"`
	Impairment impair.Impairment `json:"impairment"` // of both directions, to begin with
}

func (l *Lab) pumpConfig(k *Link) (PumpConfig, error) {
	path, err := hostnet.NamespacePath(l.Topology().NamespaceName(k.Name))
	seed := fnv.New64a()
	seed.Write([]byte(k.Name))
	return PumpConfig{path, l.pumpSocket(k.Name), seed.Sum64(), *k.Impairment}, err
}

func (l *Lab) pumpSocket(link string) string { return filepath.Join(l.dir, link+".sock") }

// startPump starts the pump of an impaired link, as a process or in this one.
func (l *Lab) startPump(ctx context.Context, k *Link) error {
	c, err := l.pumpConfig(k)
	if err != nil {
		return err
	}
	if len(l.options.Pump) == 0 {
		return l.pumpHere(c)
	}
	arg, err := json.Marshal(c)
	if err != nil {
		return err
	}
	log := filepath.Join(l.dir, k.Name+".log")
	p, err := process.Start(l.spaces[k.Name], log, append(l.options.Pump, string(arg))...)
	if err != nil {
		return err
	}
	l.mu.Lock()
	err = l.note("pump/"+k.Name, p)
	l.mu.Unlock()
	for ; err == nil; time.Sleep(5 * time.Millisecond) {
		if _, cerr := impair.Control(ctx, c.Socket, nil, nil); cerr == nil {
			return nil
		}
		if !p.Alive() {
			return fmt.Errorf("start the pump: %w:\n\t%s", process.ErrEnded, process.Tail(log))
		}
		err = context.Cause(ctx)
	}
	return err
}

// pumpHere pumps in this process until the Lab is closed.
func (l *Lab) pumpHere(c PumpConfig) error {
	w, err := c.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &pump{wire: w, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = w.Serve(ctx, c.Socket) // a pump that breaks is a wire that is cut: Impair tells
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pumps = append(l.pumps, p)
	return nil
}

func (c PumpConfig) open() (*impair.Wire, error) {
	ns, err := hostnet.OpenNamespace(c.Namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return impair.NewWire(impair.End{Place: ns, Link: wireEnd(0)}, impair.End{Place: ns, Link: wireEnd(1)}, c.Seed, c.Impairment, c.Impairment)
}

// RunPump is the pump of an impaired link as a process of its own, until ctx ends.
func RunPump(ctx context.Context, config string) error {
	var c PumpConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return fmt.Errorf("read the pump's configuration: %w", err)
	}
	w, err := c.open()
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Serve(ctx, c.Socket)
}

// Impair changes an impaired link in one direction or both (nil leaves one as
// it is) and tells how it is then. A to b is from the first end to the second.
func (l *Lab) Impair(ctx context.Context, link string, aToB, bToA *impair.Impairment) (impair.Status, error) {
	k := l.Topology().Link(link)
	switch {
	case k == nil:
		return impair.Status{}, fmt.Errorf("there is no link %q in lab %s", link, l.Topology().Name)
	case k.Impairment == nil:
		return impair.Status{}, fmt.Errorf("link %s is a plain wire: write \"impairment: {}\" at it in the topology and raise it anew", link)
	}
	s, err := impair.Control(ctx, l.pumpSocket(link), aToB, bToA)
	if err != nil {
		err = errors.Join(fmt.Errorf("impair link %s: %w", link, err))
	}
	return s, err
}
