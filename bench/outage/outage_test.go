package outage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/bench/harness"
	"margay.dev/margay/internal/built"
	"margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab/load"
)

// TestMain makes the test the client that a trial kills, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == HoldCommand {
		if err := Hold(context.Background(), os.Args[2], os.Args[3], os.Args[4], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func forwarder(t *testing.T) string {
	t.Helper()
	hostnettest.NeedRoot(t)
	hostnettest.OfProcesses(t)
	bin, err := built.Program("margay-forwarder")
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// results runs trials with so many events each, by case and metric.
func results(t *testing.T, forwarder string, events int, trials []trial) map[string]harness.Result {
	t.Helper()
	got := map[string]harness.Result{}
	o := harness.Options{Log: io.Discard, Forwarder: forwarder}
	o.Out = func(r harness.Result) error { got[r.Case+" "+r.Metric] = r; return nil }
	short := harness.Scenario{Name: "outage", Run: func(ctx context.Context, s *harness.Session) error { return run(ctx, s, events, trials) }}
	if err := harness.Run(t.Context(), o, short); err != nil {
		t.Fatal(err)
	}
	if want := 5 * len(trials); len(got) != want {
		t.Fatalf("%d results, want %d", len(got), want)
	}
	return got
}

func TestEveryEventIsMeasured(t *testing.T) {
	const events = 3 // of routes in use, each kind
	got := results(t, forwarder(t), events, append(restarts(), reloads()...))
	value := func(of, metric string) float64 {
		r := got[of+" "+metric]
		if r.Ours == nil || r.Runs != events {
			t.Fatalf("%s %s: %v of %d events (%s), want a value of %d", of, metric, r.Ours, r.Runs, r.Why, events)
		}
		return *r.Ours
	}
	for _, tr := range append(restarts(), reloads()...) {
		lost, sent := value(tr.name, packetsLost), got[tr.name+" "+packetsLost].Extra["sent"]
		median, p99, most := value(tr.name, blockedMedian), value(tr.name, blockedP99), value(tr.name, blockedMost)
		if median > p99 || p99 > most || sent < 100 {
			t.Errorf("%s: of %v packets, blocked for %v, %v, %v ms", tr.name, sent, median, p99, most)
		}
		restarted := strings.HasPrefix(tr.name, "forwarder-")
		if restarted && (median < 1 || lost < events) { // nobody forwards while nobody is there
			t.Errorf("%s: lost %v packets, blocked for %v ms", tr.name, lost, median)
		}
		if !restarted && lost > sent/10 { // a machine that others use loses some, a forwarder that stops for it many more
			t.Errorf("%s: lost %v of %v packets", tr.name, lost, sent)
		}
		if n := value(tr.name, resets); n != 0 || got[tr.name+" "+resets].Extra["bytes_bent"] != 0 {
			t.Errorf("%s: %v connections lost: %+v", tr.name, n, got[tr.name+" "+resets])
		}
		if _, has := tr.budgets[packetsLost]; has != (got[tr.name+" "+packetsLost].Met != nil) {
			t.Errorf("%s: budget %v, result %+v", tr.name, tr.budgets, got[tr.name+" "+packetsLost])
		}
	}
}

func TestWithoutForwarderTheReasonIsReported(t *testing.T) {
	hostnettest.NeedRoot(t)
	for name, r := range results(t, filepath.Join(t.TempDir(), "none"), 2, restarts()) {
		if r.Ours != nil || r.Met != nil || !strings.Contains(r.Why, "make build") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// One that breaks keeps no other from being measured.
func TestAForwarderThatDoesNotComeBackIsTold(t *testing.T) {
	b, err := raise(t.Context(), forwarder(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	b.patience = 500 * time.Millisecond
	s := &harness.Session{Options: harness.Options{Log: io.Discard}}
	gone := trial{name: "gone", begin: func(context.Context, *bed) (func(context.Context, int) error, func(), error) {
		return func(context.Context, int) error { return b.lab.StopForwarder(node, true) }, func() {}, nil
	}}
	if got, err := b.try(t.Context(), s, gone, 2); err == nil || !strings.Contains(err.Error(), "nothing arrives at") || len(got.blocked) != 0 {
		t.Errorf("a forwarder that is gone: %+v, %v", got, err)
	}
	refused := errors.New("refused")
	broken := trial{name: "broken", begin: func(context.Context, *bed) (func(context.Context, int) error, func(), error) {
		return nil, nil, refused
	}}
	if _, err := b.try(t.Context(), s, broken, 2); !errors.Is(err, refused) {
		t.Errorf("an event that cannot be: %v", err)
	}
}

// Routes in use do change: what is measured is not nothing.
func TestRoutesInUseChange(t *testing.T) {
	b, err := raise(t.Context(), forwarder(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	happen, end, err := routesInUse(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, want := range []bool{true, true, false, true} {
		if err := happen(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		all := b.routes(t)
		for _, p := range []string{"10.85.0.10/32", "fd85::10/128", "10.85.0.20/32", "fd85::20/128"} {
			hop, has := all[p]
			if has != want {
				t.Errorf("turn %d: there is a route to %s: %v, want %v", i, p, has, want)
			}
			seen[fmt.Sprint(p, hop)] = true
			wide := netip.MustParsePrefix(p)
			if _, has := all[netip.PrefixFrom(wide.Addr(), wide.Bits()-1).String()]; !has {
				t.Errorf("turn %d: there is no wider route to %s", i, p)
			}
		}
	}
	if len(seen) != 3*4 {
		t.Errorf("each route should be seen with two next hops and without: %v", seen)
	}
	end()
	if _, has := b.routes(t)["10.85.0.10/31"]; has {
		t.Error("the state is not what it was before")
	}
}

// routes are the prefixes that the forwarder has, and what it says of them.
func (b *bed) routes(t *testing.T) map[string]string {
	t.Helper()
	inspect, err := b.lab.Inspect(node)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := inspect.ListRoutes(t.Context(), &v1.ListRoutesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range m.GetRoutes() {
			out[r.GetPrefix()] = fmt.Sprint(r)
		}
	}
}

func TestOnlyWhatTheFilterLetsThroughIsRaised(t *testing.T) {
	reported := 0
	o := harness.Options{Log: io.Discard, Filter: "nobody", Out: func(harness.Result) error { reported++; return nil }}
	for _, sc := range []harness.Scenario{Restart(), Reload(), Handover()} {
		if err := harness.Run(t.Context(), o, sc); err == nil || reported != 0 {
			t.Errorf("%s: %d results, %v", sc.Name, reported, err)
		}
	}
}

// What is cut short is no failure, and what was measured before it stands.
func TestARunThatIsCutShort(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cut := trial{name: "cut", begin: func(context.Context, *bed) (func(context.Context, int) error, func(), error) {
		return func(_ context.Context, i int) error {
			if i == 1 {
				cancel()
				return errors.New("cut\nshort")
			}
			return nil
		}, func() {}, nil
	}}
	fails := trial{name: "fails", begin: func(context.Context, *bed) (func(context.Context, int) error, func(), error) {
		return nil, nil, errors.New("several\n\tlines")
	}}
	var got []harness.Result
	o := harness.Options{Log: io.Discard, Forwarder: forwarder(t), Out: func(r harness.Result) error { got = append(got, r); return nil }}
	short := harness.Scenario{Name: "outage", Run: func(ctx context.Context, s *harness.Session) error {
		return run(ctx, s, 3, []trial{fails, cut})
	}}
	if err := harness.Run(ctx, o, short); err != nil {
		t.Fatal(err)
	}
	if len(got) != 10 || got[0].Why != "fails: several lines" || got[0].Ours != nil {
		t.Fatalf("%d results, the first %+v", len(got), got[0])
	}
	if r := got[5]; r.Case != "cut" || r.Ours == nil || r.Runs != 1 || strings.Contains(r.Why, "cut") {
		t.Errorf("a trial that was cut short: %+v", r)
	}
}

func TestBlockedIsOfThePathThatLostMost(t *testing.T) {
	tests := map[string]struct {
		fates []load.Fate
		want  float64 // ms
	}{
		"none lost":       {[]load.Fate{{Sent: 100}, {Sent: 100}}, 0},
		"one path":        {[]load.Fate{{Sent: 100}, {Sent: 100, Lost: 20}}, 10},
		"several":         {[]load.Fate{{Lost: 3}, {Lost: 2000}, {Lost: 4}}, 1000},
		"a single packet": {[]load.Fate{{Lost: 1}, {Lost: 1}}, 0.5},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := blocked(tt.fates); got != tt.want {
				t.Errorf("blocked for %v ms, want %v", got, tt.want)
			}
		})
	}
}

func TestDoubtsAreTold(t *testing.T) {
	with := func(change func(*tally)) (got tally) {
		got.lived = load.Lived{Connections: 4, Sent: 100, Received: 100}
		change(&got)
		return got
	}
	tests := map[string]struct {
		got  tally
		want string // is in it; empty: there is no doubt
	}{
		"none":               {with(func(*tally) {}), ""},
		"packets were lost":  {with(func(g *tally) { g.lost = 5 }), ""},
		"the control too":    {with(func(g *tally) { g.lost, g.control.lost = 5, 1 }), "the load was too high"},
		"the control alone":  {with(func(g *tally) { g.control.lost, g.control.gap = 1, 300 }), ""},
		"it stood still":     {with(func(g *tally) { g.lost, g.control.gap = 5, 300 }), "stood still for 300 ms"},
		"it hardly stood":    {with(func(g *tally) { g.lost, g.control.gap = 5, 30 }), ""},
		"bytes are missing":  {with(func(g *tally) { g.lived.Received = 98 }), "2 bytes sent by TCP had not come"},
		"bytes are bent":     {with(func(g *tally) { g.lived.Bent = 7 }), "7 bytes"},
		"a connection ended": {with(func(g *tally) { g.lived.Resets, g.lived.First = 1, errors.New("reset by peer") }), "reset by peer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.got.doubt(); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("the doubt is %q, want %q in it", got, tt.want)
			}
		})
	}
}

// taker writes a program that stands in for a forwarder that takes over: it ends
// the one before, and starts with its state.
func taker(t *testing.T, real string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "margay-forwarder")
	script := `#!/bin/sh
case "$*" in
--help) echo "      --take-over   take over"; exit 0;;
*--take-over*) old=$(cat "$2.pid"); kill "$old"; while kill -0 "$old" 2>/dev/null; do sleep 0.01; done;;
esac
echo $$ >"$2.pid"
exec ` + real + ` "$1" "$2"
`
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHandoversAreMeasured(t *testing.T) {
	got := results(t, taker(t, forwarder(t)), 2, handovers())
	for metric, r := range got {
		if r.Ours == nil || r.Runs != 2 {
			t.Fatalf("%s: %+v", metric, r)
		}
	}
	// The stand-in is no better than a restart.
	p99, lost := got["take-over "+blockedP99], got["take-over "+packetsLost]
	if *p99.Ours < 1 || p99.Budget == nil || *p99.Budget != 50 || *p99.Met != (*p99.Ours <= 50) || *lost.Ours < 2 {
		t.Errorf("blocked for %v ms (budget %v), %v packets lost", *p99.Ours, p99.Budget, *lost.Ours)
	}
	if r := got["take-over "+resets]; *r.Ours != 0 || r.Met == nil || !*r.Met {
		t.Errorf("resets: %+v", r)
	}
}

func TestAForwarderThatCannotTakeOverIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "margay-forwarder")
	script := "#!/bin/sh\n[ \"$1\" = --help ] && exit 0\nexec " + forwarder(t) + " \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for metric, r := range results(t, path, 2, handovers()) {
		if r.Ours != nil || r.Met != nil || !strings.Contains(r.Why, "has no --take-over") {
			t.Errorf("%s: %+v", metric, r)
		}
	}
}

// The client that a trial kills does hold the session, until then.
func TestClientHoldsItsSession(t *testing.T) {
	b, err := raise(t.Context(), forwarder(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	inspect, err := b.lab.Inspect(node)
	if err != nil {
		t.Fatal(err)
	}
	connected := func() bool {
		s, err := inspect.GetStatus(t.Context(), &v1.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return s.GetClientConnected()
	}
	b.lab.Disconnect(node)
	hostnettest.Eventually(t, "there is no client", func() bool { return !connected() })
	c, err := startClient(t.Context(), b.lab)
	if err != nil {
		t.Fatal(err)
	}
	if !connected() {
		t.Error("a client says it holds a session, and the forwarder has none")
	}
	c.kill()
	hostnettest.Eventually(t, "the client that was killed is gone", func() bool { return !connected() })
	if err := b.lab.StopForwarder(node, true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if c, err := startClient(ctx, b.lab); err == nil {
		c.kill()
		t.Error("a client holds a session with nobody")
	}
}

// A client that cannot hold a session says why.
func TestClientsOfNoLab(t *testing.T) {
	if err := Hold(t.Context(), t.TempDir(), "none", node, strings.NewReader(""), io.Discard); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a client of no lab: %v", err)
	}
}

func TestTrialsAreThoseOfTheDesign(t *testing.T) {
	var names []string
	for _, tr := range slices.Concat(restarts(), reloads(), handovers()) {
		names = append(names, tr.name)
	}
	want := []string{"client-killed", "forwarder-stopped", "forwarder-killed", "same-snapshot", "other-routes=10000", "routes-in-use", "take-over"}
	if !slices.Equal(names, want) {
		t.Errorf("trials are %v", names)
	}
}
