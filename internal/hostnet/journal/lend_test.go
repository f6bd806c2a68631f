//go:build linux

package journal

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// A journal that is lent can be opened by another process, and what that one
// wrote is there when it comes back.
func TestLentJournalComesBackWithWhatOthersWrote(t *testing.T) {
	near, _ := hostnettest.Pair(t)
	path := place(t)
	j := open(t, path)
	ours, theirs := hostnet.Route{Dst: prefix("10.3.0.0/16"), Kind: hostnet.Blackhole}, hostnet.Route{Dst: prefix("fd03::/48"), Kind: hostnet.Blackhole}
	must(t, j.AddRoutes(near.Namespace(), UntilExit, ours))
	if other, err := Open(path); err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Fatalf("a journal that is in use was opened: %v, %v", other, err)
	}
	must(t, j.Lend())
	if err := j.AddRoutes(near.Namespace(), UntilExit, theirs); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a lent journal took a change: %v", err)
	}
	other := open(t, path)
	must(t, other.AddRoutes(near.Namespace(), UntilExit, theirs), other.Close(), j.Regain())
	report := restore(t, j)
	if len(report.Restored) != 2 {
		t.Errorf("put back %v, want both routes", report)
	}
	routes, err := near.Routes(hostnet.RouteFilter{})
	must(t, err)
	for _, r := range routes {
		if r.Dst == ours.Dst || r.Dst == theirs.Dst {
			t.Errorf("route %v is still there", r.Dst)
		}
	}
}

// What the other process holds on to when the journal is wanted back comes back
// when it lets go: changes fail until then, and Restore waits.
func TestJournalComesBackLate(t *testing.T) {
	near, _ := hostnettest.Pair(t)
	path := place(t)
	j := open(t, path)
	ours, theirs := hostnet.Route{Dst: prefix("10.3.0.0/16"), Kind: hostnet.Blackhole}, hostnet.Route{Dst: prefix("fd03::/48"), Kind: hostnet.Blackhole}
	for name, change := range map[string]struct {
		do    func() error
		waits bool
	}{
		"a change": {func() error { return j.AddRoutes(near.Namespace(), UntilExit, ours) }, false},
		"restore":  {func() error { _, err := j.Restore(t.Context()); return err }, true},
	} {
		must(t, j.Lend())
		other := open(t, path)
		must(t, other.AddRoutes(near.Namespace(), UntilExit, theirs))
		if err := j.Regain(); !errors.Is(err, errInUse) {
			t.Fatalf("%s: a journal that another process has came back: %v", name, err)
		}
		if change.waits {
			time.AfterFunc(100*time.Millisecond, func() { _ = other.Close() })
		} else {
			if err := change.do(); !errors.Is(err, errInUse) {
				t.Errorf("%s: without the journal: %v", name, err)
			}
			must(t, other.Close())
		}
		must(t, change.do())
	}
	must(t, j.Close())
	if report := restore(t, open(t, path)); len(report.Unchanged) > 0 || len(report.Kept) > 0 {
		t.Errorf("the journal told %v", report)
	}
}
