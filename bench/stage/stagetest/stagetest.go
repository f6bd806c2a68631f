// Package stagetest makes what tests of scenarios need on a stage.
package stagetest

import (
	"os/exec"
	"path/filepath"
	"testing"

	"margay.dev/margay/internal/hostnet/hostnettest"
)

// Forwarder builds the real forwarder, which goes with the test, and is the path of
// its program. It skips the test where nobody could start it, without root, and
// where one of needs says what else is missing.
func Forwarder(t testing.TB, needs ...func() error) string {
	t.Helper()
	hostnettest.NeedRoot(t)
	for _, missing := range needs {
		if err := missing(); err != nil {
			t.Skip(err)
		}
	}
	bin := filepath.Join(t.TempDir(), "margay-forwarder")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin, "margay.dev/margay/cmd/margay-forwarder").CombinedOutput()
	if err != nil {
		t.Fatalf("build the forwarder: %v\n%s", err, out)
	}
	return bin
}
