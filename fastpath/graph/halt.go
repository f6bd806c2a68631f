package graph

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Orders to a worker. It answers comeOut by isOut, and ends; until it has, the
// order can be taken back.
const (
	goOn uint32 = iota
	comeOut
	isOut
)

// comesOut is asked by the worker between two passes: whether it ends now.
func (w *Worker) comesOut() bool {
	return w.order.Load() != goOn && w.order.CompareAndSwap(comeOut, isOut)
}

// launch lets w run. Its clock goes on from its first launch: nodes have timers.
func (w *Worker) launch() {
	if w.started.IsZero() {
		w.started = time.Now()
	}
	w.order.Store(goOn)
	w.left = make(chan struct{})
	go w.run() // callOut waits for it
}

// Start lets the workers run, each on an OS thread of its own. After a Halt they
// go on where they stood. While they run, and after Stop, it does nothing.
func (e *Engine) Start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running || e.ended {
		return
	}
	e.running = true
	for _, w := range e.workers {
		w.launch()
	}
}

// Halt stops the workers between two passes. What they handed to each other has
// been transmitted, and what nodes hold stays held; from then on until Start
// nobody touches a queue, a cache or a node. It takes as long as the passes that
// are under way. When ctx ends before, all workers run on and nothing is lost;
// until then those that were not in a pass have stood still. On an engine that
// does not run it has nothing to wait for.
func (e *Engine) Halt(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return errors.New("halt workers: the engine has been stopped")
	}
	if err := e.callOut(ctx); err != nil {
		return fmt.Errorf("halt workers: %w", err)
	}
	for again := true; again; {
		again = false
		for _, w := range e.workers {
			again = w.passOn() || again
		}
	}
	return nil
}

// Stop ends the workers for good and waits for them. Packets they hold stay
// held; those on their way from one worker to another are dropped. After Halt
// there are none, and it touches no buffer.
func (e *Engine) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	_ = e.callOut(context.Background()) // which does not end
	e.ended = true
	for _, w := range e.workers {
		w.dropHanded()
		w.park.close()
	}
}

// callOut has every worker end and waits for it. When ctx ends before, all of
// them run on.
func (e *Engine) callOut(ctx context.Context) error {
	if !e.running {
		return nil
	}
	for _, w := range e.workers {
		w.order.Store(comeOut)
		w.park.rouse()
	}
	for _, w := range e.workers {
		select {
		case <-w.left:
		case <-ctx.Done():
			e.callBack()
			return fmt.Errorf("worker %d does not come to the end of its pass: %w", w.id, context.Cause(ctx))
		}
	}
	e.running = false
	return nil
}

// callBack takes the order to come out back from those that have not, and starts
// the others again.
func (e *Engine) callBack() {
	for _, w := range e.workers {
		if !w.order.CompareAndSwap(comeOut, goOn) {
			<-w.left // it is on its way out
			w.launch()
		}
	}
}

// passOn transmits what others handed to w, in the place of w, which does not
// run. It says whether there was something.
func (w *Worker) passOn() bool {
	if now := w.wiring.Load(); now != w.wired {
		w.rewire(now)
	}
	any := false
	for w.handed() {
		any, w.used = true, 0
		for _, r := range w.wired.handed {
			w.takeFrom(r, VectorMax)
		}
		w.flush()
		w.poll()
	}
	return any
}
