package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/internal/lab/load"
)

const lone = `
name: lone
pools: [10.6.0.0/16, "fd06::/48"]
nodes: [{name: near}]
pods:
  - {name: a, node: near, addresses: [10.6.1.1, "fd06::1:1"]}
  - {name: b, node: near, addresses: [10.6.1.2, "fd06::1:2"], port: xsk}
`

// standIn writes a program that does what it is told where it should take over,
// and else is the real forwarder. $old is the process of the one before.
func standIn(t *testing.T, real, does string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "margay-forwarder")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *--take-over*) old=$(cat \"$2.pid\"); %s;; esac\necho $$ >\"$2.pid\"\nexec %s \"$1\" \"$2\"\n", does, real)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTakeOver(t *testing.T) {
	const ends = "kill %s $old; while kill -0 $old 2>/dev/null; do sleep 0.01; done"
	tests := map[string]struct {
		does   string
		want   string // is in the error; empty for none
		pass   bool   // the next one is the node's forwarder then
		within func(context.Context) (context.Context, context.CancelFunc)
	}{
		"it does":             {does: fmt.Sprintf(ends, "-TERM"), pass: true},
		"the old one crashes": {does: fmt.Sprintf(ends, "-KILL"), pass: true, want: "signal: killed"},
		"the next one fails":  {does: "echo 'no such thing'; exit 3", want: "no such thing"},
		"the next one sleeps": {does: "exec sleep 1000", want: "deadline", within: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 200*time.Millisecond)
		}},
	}
	l := raise(t, lone)
	real := l.options.Forwarder
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l.options.Forwarder = standIn(t, real, tt.does)
			if l.Running("near") {
				if err := l.StopForwarder("near", false); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.TakeOver(t.Context(), "near"); err == nil || !strings.Contains(err.Error(), "nothing to take over") {
				t.Errorf("with nobody to take over from: %v", err)
			}
			if err := l.StartForwarder(t.Context(), "near"); err != nil {
				t.Fatal(err)
			}
			before := l.PID("near")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if tt.within != nil {
				ctx, cancel = tt.within(ctx)
				defer cancel()
			}
			err := l.TakeOver(ctx, "near")
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("taking over gives %v, want %q in it", err, tt.want)
			}
			if after := l.PID("near"); after == 0 || (after != before) != tt.pass {
				t.Errorf("process %d was the forwarder, %d is", before, after)
			}
			reached(t, l)
		})
	}
}

// reached wants one pod to reach the other, in both families, soon.
func reached(t *testing.T, l *Lab) {
	t.Helper()
	for _, six := range []bool{false, true} {
		var got load.Pinged
		for end := time.Now().Add(time.Minute); !got.OK() && time.Now().Before(end); {
			var err error
			if got, err = l.Ping(t.Context(), "a", "b", six, load.Ping{}); err != nil {
				t.Fatal(err)
			}
		}
		if !got.OK() {
			t.Errorf("IPv6 %v: a does not reach b: %v", six, got.Last)
		}
	}
}
