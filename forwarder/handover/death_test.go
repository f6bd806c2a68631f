package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a process is told that plays one side of a hand-over.
const (
	roleKey = "MARGAY_TEST_ROLE" // "taker", "giver" or "heir", who takes and then gives
	pathKey = "MARGAY_TEST_PATH"
	stepKey = "MARGAY_TEST_STEP" // the step after which it dies, or sleeps for good
	wayKey  = "MARGAY_TEST_WAY"  // "sleep", or nothing for death
)

// play is such a process.
func play(role string) int {
	var err error
	switch role {
	case "taker":
		_, err = playTaker()
	case "giver":
		var l *net.UnixListener
		if l, err = Listen(os.Getenv(pathKey)); err == nil {
			err = playGiver(l)
		}
	case "heir":
		var b Bundle
		if b, err = playTaker(); err == nil {
			var l net.Listener
			if l, err = net.FileListener(os.NewFile(uintptr(b.FDs[0]), "listener")); err == nil {
				err = playGiver(l.(*net.UnixListener))
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func playTaker() (Bundle, error) {
	ctx := context.Background()
	t, b, err := take(ctx, os.Getenv(pathKey), facts(), patient())
	if err != nil {
		return b, err
	}
	endAt("take")
	if _, err := t.Ready(ctx); err != nil {
		return b, err
	}
	endAt("ready")
	if err := t.Applied(ctx); err != nil {
		return b, err
	}
	endAt("applied")
	if err := t.Running(); err != nil {
		return b, err
	}
	endAt("running")
	return b, nil
}

func playGiver(l *net.UnixListener) error {
	die := func(step string) func(context.Context) error {
		return func(context.Context) error {
			endAt(step)
			return nil
		}
	}
	g := &fake{bundle: Bundle{Image: []byte("image")}, flight: []byte("flight"), prepare: die("prepare"), freeze: die("freeze")}
	return serve(context.Background(), l, g, slog.Default(), patient())
}

// endAt ends this process where it is to.
func endAt(step string) {
	if os.Getenv(stepKey) != step {
		return
	}
	if os.Getenv(wayKey) == "sleep" {
		time.Sleep(time.Hour)
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

// process runs the other side, which ends with the test.
func process(t *testing.T, role, path, step, way string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), roleKey+"="+role, pathKey+"="+path, stepKey+"="+step, wayKey+"="+way)
	c.Stderr = t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}

// killed waits for a process and checks that it was killed.
func killed(t *testing.T, c *exec.Cmd) {
	t.Helper()
	late := time.AfterFunc(30*time.Second, func() {
		t.Error("the process still runs")
		_ = c.Process.Kill()
	})
	defer late.Stop()
	var end *exec.ExitError
	if err := c.Wait(); !errors.As(err, &end) || !strings.Contains(end.Error(), "killed") {
		t.Errorf("the process ends with %v, want a kill", err)
	}
}

// At every step a taker dies. The giver goes on, and the next taker comes through.
func TestTheTakerDies(t *testing.T) {
	const no, yes = "resume touched=false", "resume touched=true"
	tests := map[string]struct {
		step            string // where it kills itself
		during          string // where the giver's method kills it
		prepareSucceeds bool
		calls           []string
	}{
		"while the giver prepares, which ends then":  {during: "prepare", calls: []string{"prepare"}},
		"while the giver prepares, which goes on":    {during: "prepare", prepareSucceeds: true, calls: []string{"prepare", no}},
		"while it builds":                            {step: "take", calls: []string{"prepare", no}},
		"while the giver freezes":                    {during: "freeze", calls: []string{"prepare", "freeze", no}},
		"while it applies the flight":                {step: "ready", calls: []string{"prepare", "freeze", no}},
		"when it was told to go":                     {step: "applied", calls: []string{"prepare", "freeze", yes}},
		"when it runs, and is as any forwarder then": {step: "running", calls: []string{"prepare", "freeze", "done"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			child := make(chan *exec.Cmd, 1)
			g := &fake{}
			kill := func(ctx context.Context) error {
				c := <-child
				child <- c
				_ = c.Process.Kill()
				<-ctx.Done() // a giver hears of it while it works
				if tt.prepareSucceeds {
					return nil
				}
				return context.Cause(ctx)
			}
			switch tt.during {
			case "prepare":
				g.prepare = kill
			case "freeze":
				g.freeze = kill
			}
			s := serveFake(t, g, patient())
			c := process(t, "taker", s.path, tt.step, "")
			child <- c
			g.did(t, tt.calls...)
			killed(t, c)
			if tt.step == "running" {
				return
			}
			g.prepare, g.freeze = nil, nil
			g.forget() // by its lock the giver sees that too
			takeAll(t, s.path)
			g.did(t, "prepare", "freeze", "done")
		})
	}
}

// At every step the giver dies. Before the flight the taker fails; after it
// nobody else drives, and it goes on.
func TestTheGiverDies(t *testing.T) {
	tests := map[string]struct {
		step  string // where it kills itself
		after string // the step of the taker after which it is killed
		fails string // the step of the taker that fails
	}{
		"while it prepares":        {step: "prepare", fails: "take"},
		"while the taker builds":   {after: "take", fails: "ready"},
		"while it freezes":         {step: "freeze", fails: "ready"},
		"when the flight was sent": {after: "ready"},
		"when it gave its word":    {after: "applied"},
	}
	for _, role := range []string{"giver", "heir"} {
		for name, tt := range tests {
			t.Run(role+" "+name, func(t *testing.T) {
				noLeak(t)
				path, c := childGiver(t, role, tt.step)
				kill := func(step string) {
					if tt.after == step {
						_ = c.Process.Kill()
						_ = c.Wait()
					}
				}
				failed, alone := takeWith(t, path, kill)
				if failed != tt.fails {
					t.Errorf("the step that fails is %q, want %q", failed, tt.fails)
				}
				if failed == "" && !alone {
					t.Error("the taker goes on without knowing that it is alone")
				}
			})
		}
	}
}

// childGiver starts a giver in a process of its own: one that listens itself,
// or one that has taken over from another, socket and all.
func childGiver(t *testing.T, role, step string) (path string, c *exec.Cmd) {
	t.Helper()
	if role == "giver" {
		path = socketPath(t)
		return path, process(t, "giver", path, step, "")
	}
	g := &fake{}
	s := serveFake(t, g, patient())
	g.hands(listenerFD(t, s.l))
	c = process(t, "heir", s.path, step, "")
	g.did(t, "prepare", "freeze", "done")
	if err := <-s.over; err != nil {
		t.Fatal(err)
	}
	return s.path, c
}

// takeWith takes over, calls after each step, and tells which failed and
// whether the taker was alone in the end.
func takeWith(t *testing.T, path string, after func(step string)) (failed string, alone bool) {
	t.Helper()
	var taking *Taking
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if taking, _, err = take(t.Context(), path, facts(), patient()); !errors.Is(err, ErrNobody) {
			break // it listens
		}
	}
	if err != nil {
		t.Log(err)
		return "take", false
	}
	defer taking.Abort(errors.New("the test is over"))
	after("take")
	if _, err := taking.Ready(t.Context()); err != nil {
		t.Log(err)
		return "ready", false
	}
	after("ready")
	if err := taking.Applied(t.Context()); err != nil {
		t.Log(err)
		return "applied", false
	}
	after("applied")
	if err := taking.Running(); err != nil {
		t.Log(err)
		return "running", false
	}
	return "", taking.Alone()
}

// A taker that was told to go and says nothing more is ended before the giver
// goes on: it might wake up and move packets too.
func TestASilentTakerThatWasToldToGoIsEnded(t *testing.T) {
	noLeak(t)
	g := &fake{}
	lim := patient()
	lim.step = 2 * time.Second
	s := serveFake(t, g, lim)
	c := process(t, "taker", s.path, "applied", "sleep")
	g.did(t, "prepare", "freeze", "resume touched=true")
	killed(t, c)
}
