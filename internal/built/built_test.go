package built

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A program is there, is the same for who asks again, and runs; one that there is not
// is an error that names it.
func TestProgramIsLinkedOnce(t *testing.T) {
	path, err := Program("margayctl")
	if err != nil {
		t.Fatal(err)
	}
	was, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Program("margayctl"); err != nil || again != path {
		t.Fatalf("asked again it is %s, %v", again, err)
	}
	if is, err := os.Stat(path); err != nil || !os.SameFile(was, is) { // its time is touched in any case
		t.Errorf("it was linked anew, though nothing has changed: %v", err)
	}
	if out, err := exec.Command(path, "--help").CombinedOutput(); err != nil || !strings.Contains(string(out), "margayctl") {
		t.Errorf("it says %.100s, %v", out, err)
	}
	if _, err := Program("margay-nothing"); err == nil || !strings.Contains(err.Error(), "margay-nothing") {
		t.Errorf("a program that is not there: %v", err)
	}
}
