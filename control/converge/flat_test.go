package converge

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"margay.dev/margay/datastore"
	"margay.dev/margay/forwarder/desired"
)

// What one label costs in a cluster of some size, and what it may cost in one that is
// five times larger. Whatever walks through the cluster costs several times as much there.
const (
	flatSmall, flatLarge = 1000, 5 * 1000 // endpoints
	flatMost             = 1.25           // times as much: how often the agent is asked how it stands differs from run to run
)

// relabels has an endpoint of another node change its labels so often, in a cluster of
// some size, and calls before and after with the scene at rest.
func relabels(t *testing.T, endpoints, times int, before, after func()) {
	s := newScene(t)
	s.tell(append(append([]datastore.Event{begins}, city(endpoints, endpoints/5)...), synced)...)
	s.f.look(func(*desired.State) { s.f.quick = true })
	commits := 0
	for i := range times + 50 {
		if i == 50 {
			before()
			s.f.look(func(*desired.State) { commits = len(s.f.commits) })
		}
		w := resident(endpoints-1, i%2)
		w.SetGeneration(1)
		s.tell(datastore.Event{Type: datastore.Changed, Key: datastore.KeyOf(w), Object: w})
	}
	after()
	if n := len(s.f.commits) - commits; n != times {
		t.Errorf("%d labels are %d commits", times, n)
	}
	s.kill()
}

// What sorts, copies or collects a cluster needs memory for that.
func TestOneLabelAllocatesAsMuchInALargerCluster(t *testing.T) {
	bytes := func(endpoints int) float64 {
		const times = 100
		var before, after runtime.MemStats
		relabels(t, endpoints, times, func() { runtime.ReadMemStats(&before) }, func() { runtime.ReadMemStats(&after) })
		return float64(after.TotalAlloc-before.TotalAlloc) / times
	}
	small, large := bytes(flatSmall), bytes(flatLarge)
	t.Logf("one label allocates %.0f bytes among %d endpoints, %.0f among %d", small, flatSmall, large, flatLarge)
	if large > flatMost*small {
		t.Errorf("one label allocates %.0f bytes among %d endpoints, and %.0f among %d: want as many", small, flatSmall, large, flatLarge)
	}
}

// flatEnv has the numbers of endpoints and labels for who is counted.
const flatEnv = "MARGAY_FLAT"

// counted are the packages of which each statement is. The trie below package label is
// not: what an address costs there depends on its neighbours, up to some bound.
var counted = []string{
	"control/converge", "control/network", "control/guard", "control/hosts", "control/attach",
	"policy", "policy/index", "fastpath/label", "classifier",
}

// TestOneLabelIsAsMuchWorkInALargerCluster counts the statements that are executed for
// one label, in this test built anew such that it counts them.
func TestOneLabelIsAsMuchWorkInALargerCluster(t *testing.T) {
	if text := os.Getenv(flatEnv); text != "" {
		var endpoints, times int
		if _, err := fmt.Sscan(text, &endpoints, &times); err != nil {
			t.Fatal(err)
		}
		relabels(t, endpoints, times, func() {}, func() {})
		return
	}
	if testing.Short() {
		t.Skip("builds itself anew: not in a short run")
	}
	program := filepath.Join(t.TempDir(), "counting.test")
	packages := "margay.dev/margay/" + strings.Join(counted, ",margay.dev/margay/")
	build := exec.Command("go", "test", "-c", "-covermode=count", "-coverpkg="+packages, "-o", program, "margay.dev/margay/control/converge")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build what counts: %v\n%s", err, out)
	}
	small, large := statements(t, program, flatSmall), statements(t, program, flatLarge)
	total := func(m map[string]float64) (n float64) {
		for _, x := range m {
			n += x
		}
		return n
	}
	t.Logf("one label is %.0f statements among %d endpoints, %.0f among %d", total(small), flatSmall, total(large), flatLarge)
	if total(large) <= flatMost*total(small) {
		return
	}
	places := slices.SortedFunc(maps.Keys(large), func(a, b string) int { return int(large[b] - small[b] - large[a] + small[a]) })
	for _, place := range places[:5] {
		t.Logf("%s: %.1f, then %.1f", place, small[place], large[place])
	}
	t.Errorf("one label is %.0f statements among %d endpoints, and %.0f among %d: want as many", total(small), flatSmall, total(large), flatLarge)
}

// statements are those that one label executes, by their place: what many labels
// execute, less what fewer do.
func statements(t *testing.T, program string, endpoints int) map[string]float64 {
	t.Helper()
	const few, many = 50, 1050
	run := func(times int) map[string]float64 {
		profile := filepath.Join(t.TempDir(), "profile")
		c := exec.Command(program, "-test.run=^TestOneLabelIsAsMuchWorkInALargerCluster$", "-test.coverprofile="+profile)
		c.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", flatEnv, endpoints, times))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("count: %v\n%s", err, out)
		}
		f, err := os.Open(profile)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		found := map[string]float64{}
		lines := bufio.NewScanner(f)
		for lines.Scan() { // mode, and then PLACE STATEMENTS TIMES
			var place string
			var of, met float64
			if n, _ := fmt.Sscan(lines.Text(), &place, &of, &met); n == 3 {
				found[place] += of * met
			}
		}
		if err := lines.Err(); err != nil || len(found) == 0 {
			t.Fatalf("nothing was counted: %v", err)
		}
		return found
	}
	out := run(many)
	for place, n := range run(few) {
		out[place] = (out[place] - n) / (many - few)
	}
	return out
}
