package graph

import (
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// Samples of a profile can be told apart by worker.
func TestProfilesNameTheWorker(t *testing.T) {
	e, _ := engine(t, 2, passSpec(0))
	e.Start()
	defer e.Stop()
	for _, want := range []string{`# labels: {"worker":"0"}`, `# labels: {"worker":"1"}`} {
		waitFor(t, want, func() bool {
			var b strings.Builder
			if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(b.String(), want)
		})
	}
}

// Who reads the counters may be slow, or stopped in the middle: no worker waits
// for the lock that it holds.
func TestWorkersDoNotWaitForAReader(t *testing.T) {
	e, _ := engine(t, 1, passSpec(1))
	addPort(t, e, 1, &loopQueue{left: 1 << 60})
	w := e.workers[0]
	w.pub.mu.Lock()
	e.Start()
	defer e.Stop()
	defer w.pub.mu.Unlock()
	time.Sleep(2 * publishEvery) // by now it wanted to publish
	seen := w.epoch.Load()
	waitFor(t, "the worker to move on", func() bool { return w.epoch.Load() > seen+100 })
}
