package stage

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab"
)

// A run that was killed leaves its lab; the next one takes it down, and leaves
// alone the lab of one that still runs.
func TestLabsOfKilledRunsAreTakenDown(t *testing.T) {
	hostnettest.NeedRoot(t)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dead, alive := "t-"+strconv.FormatInt(int64(gone.Process.Pid), 36), "t-"+strconv.FormatInt(int64(os.Getpid()), 36)
	for _, name := range []string{dead, alive} {
		leave(t, name)
	}
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	names, err := lab.Names(dir)
	if err != nil {
		t.Fatal(err)
	}
	spaces, err := hostnet.NamedNamespaces()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(names, dead) || slices.Contains(spaces, "mlab-"+dead+"-near") {
		t.Errorf("the lab of a dead process is still there: %v, %v", names, spaces)
	}
	if !slices.Contains(names, alive) || !slices.Contains(spaces, "mlab-"+alive+"-near") {
		t.Errorf("the lab of a live process is gone: %v", names)
	}
}

// leave makes a lab half up, as a crash between namespaces and links leaves it.
func leave(t *testing.T, name string) {
	t.Helper()
	t.Cleanup(func() {
		if err := lab.Down(dir, name); err != nil && !errors.Is(err, lab.ErrNotUp) {
			t.Error(err)
		}
	})
	space := "mlab-" + name + "-near"
	if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	state := `{"version": 1, "topology": {"name": "` + name + `"}, "namespaces": ["` + space + `"]}`
	if err := os.WriteFile(filepath.Join(dir, name, "state.json"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	ns, err := hostnet.CreateNamespace(space)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
}
