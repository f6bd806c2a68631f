//go:build linux

package journal

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// The test binary runs itself as the process that is killed; these say how.
const (
	childMode      = "JOURNAL_TEST_MODE"
	childJournal   = "JOURNAL_TEST_PATH"
	childNamespace = "JOURNAL_TEST_NAMESPACE"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		if err := beChild(mode); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func killSelf() error {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		return err
	}
	select {} // no line below runs
}

func beChild(mode string) error {
	ns, err := hostnet.OpenNamespace(os.Getenv(childNamespace))
	if err != nil {
		return err
	}
	j, err := Open(os.Getenv(childJournal))
	if err != nil {
		return err
	}
	if mode == "own" {
		own, err := hostnet.OpenNamespace("")
		if err != nil {
			return err
		}
		fmt.Println("set")
		return j.SetSysctl(own, "net.ipv4.ip_forward", "1")
	}
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return err
	}
	l, err := h.Link("left")
	if err != nil {
		return err
	}
	all := settings(l.Index)
	stage, name, _ := strings.Cut(mode, ":")
	switch stage {
	case "written":
		return writeAndDie(j, ns, name, all[name].half)
	case "changed":
		return errors.Join(all[name].set(j, ns), killSelf())
	case "forever":
		return changeForever(j, ns, all)
	}
	return fmt.Errorf("no such mode %q", mode)
}

// writeAndDie writes down what a setting will do, and dies before it is done.
func writeAndDie(j *Journal, ns *hostnet.Namespace, name string, what changes) error {
	die := func(*site) error { return killSelf() }
	switch name {
	case "IPv4 address", "IPv6 address":
		p := map[string]string{"IPv4 address": "10.7.0.1/32", "IPv6 address": "fd07::1/128"}[name]
		return j.bring(ns, die, func(s *site) (Entry, error) {
			l, err := s.host.Link("left")
			return Entry{Kind: KindAddress, Link: l.Name, LinkIndex: l.Index, Name: prefix(p).String()}, err
		})
	case "link":
		return j.AddLink(ns, UntilExit, "margay0", "tun", killSelf)
	}
	s, err := j.openSite(ns)
	if err != nil {
		return err
	}
	list, err := what(s)
	if err != nil {
		return err
	}
	if _, err := j.prepare(s, list); err != nil {
		return err
	}
	return killSelf()
}

// changeForever makes settings, takes some back, and never stops by itself.
func changeForever(j *Journal, ns *hostnet.Namespace, all map[string]setting) error {
	names := slices.Sorted(maps.Keys(all))
	fmt.Println("ready")
	for {
		if err := all[names[rand.IntN(len(names))]].set(j, ns); err != nil {
			return err
		}
		var err error
		switch rand.IntN(4) {
		case 0:
			err = j.RemoveLink(ns, "margay0")
		case 1:
			err = j.RemoveRoutes(ns, hostnet.Route{Dst: prefix("fd09::/48"), Metric: 50})
		case 2:
			err = j.SetSysctl(ns, "net.ipv4.conf.left.rp_filter", "1")
		}
		if err != nil {
			return err
		}
	}
}

func childCommand(ns *hostnet.Namespace, path, mode string) *exec.Cmd {
	args := []string{"--", os.Args[0]}
	if mode == "own" {
		args = append([]string{"--net=" + ns.Path()}, args...)
	}
	cmd := exec.Command("nsenter", args...)
	cmd.Env = append(os.Environ(), childMode+"="+mode, childJournal+"="+path, childNamespace+"="+ns.Path())
	return cmd
}

// child runs one to its end, by whatever death.
func child(t *testing.T, ns *hostnet.Namespace, path, mode string) string {
	t.Helper()
	out, err := childCommand(ns, path, mode).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.Exited()) {
		t.Fatalf("child %s: %v\n%s", mode, err, out)
	}
	return string(out)
}

func TestKilledBetweenRecordAndChangeAndAfterIt(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	for name := range settings(leftIndex(t, h)) {
		for _, stage := range []string{"written", "changed"} {
			t.Run(name+" "+stage, func(t *testing.T) {
				path := place(t)
				before := settled(t, ns)
				child(t, ns, path, stage+":"+name)
				if now := settled(t, ns); (now == before) != (stage == "written" || name == "rephrased number") {
					t.Fatalf("the child did not die where it should:\n%s", diff(before, now))
				}
				j := open(t, path)
				n := len(j.Entries())
				r := restore(t, j)
				if stage == "written" && (n == 0 || len(r.Unchanged) != n) || stage == "changed" && (n == 0 || len(r.Restored) != n) {
					t.Errorf("%v of %d entries", r, n)
				}
				if after := settled(t, ns); after != before {
					t.Errorf("not as before:\n%s", diff(before, after))
				}
			})
		}
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	h := node(t)
	ns, path := h.Namespace(), place(t)
	before := settled(t, ns)
	total := 0
	for round := range 25 {
		cmd := childCommand(ns, path, "forever")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		line := make([]byte, 64)
		if n, _ := out.Read(line); !strings.HasPrefix(string(line[:n]), "ready") {
			t.Fatalf("child said %q", line[:n])
		}
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
		must(t, cmd.Process.Kill())
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
			t.Fatalf("round %d: child ended by itself: %v", round, err)
		}
		j := open(t, path)
		r := restore(t, j)
		total += len(r.Restored)
		if len(r.Kept)+len(r.Vanished) != 0 || j.Damage() != nil {
			t.Errorf("round %d: %v, damage %v\n%v", round, r, j.Damage(), r.Kept)
		}
		must(t, j.Close())
		if after := settled(t, ns); after != before {
			t.Fatalf("round %d: not as before:\n%s", round, diff(before, after))
		}
	}
	if total < 50 {
		t.Errorf("only %d settings were in force when the children died", total)
	}
}

func TestRestoreKilledHalfWayIsDoneByTheNext(t *testing.T) {
	h := node(t)
	ns, path := h.Namespace(), place(t)
	before := settled(t, ns)
	j := open(t, path)
	for _, st := range settings(leftIndex(t, h)) {
		must(t, st.set(j, ns))
	}
	// As a Restore that was killed before it wrote the file anew: half is put back, all is on record.
	s, err := j.openSite(ns)
	must(t, err)
	defer s.close()
	for i, e := range slices.Backward(j.sorted()) {
		if i >= len(j.entries)/2 {
			_, err := s.putBack(e)
			must(t, err)
		}
	}
	must(t, j.Close())
	r := restore(t, open(t, path))
	if len(r.Restored) == 0 || len(r.Unchanged) == 0 || len(r.Kept)+len(r.Vanished) != 0 {
		t.Errorf("%v, want half of each", r)
	}
	if after := settled(t, ns); after != before {
		t.Errorf("not as before:\n%s", diff(before, after))
	}
}

func TestJournalLeaksNothing(t *testing.T) {
	h := node(t)
	ns := h.Namespace()
	round := func() {
		j := open(t, place(t))
		for _, st := range settings(leftIndex(t, h)) {
			must(t, st.set(j, ns))
		}
		restore(t, j)
		must(t, j.Close())
	}
	round()
	descriptors, threads := hostnettest.Descriptors(t), hostnettest.Threads(t)
	for range 5 {
		round()
	}
	if d, n := hostnettest.Descriptors(t), hostnettest.Threads(t); d > descriptors || n > threads+3 {
		t.Errorf("%d descriptors and %d threads before, %d and %d after", descriptors, threads, d, n)
	}
}
