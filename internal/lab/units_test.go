package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// asUnit is a program that starts another with the capabilities that its systemd unit
// leaves it, so that a lab shows that they are enough.
func asUnit(t *testing.T, program string) string {
	t.Helper()
	unit := filepath.Join("..", "..", "deploy", "systemd", filepath.Base(program)+".service")
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	_, line, found := strings.Cut(string(text), "\nCapabilityBoundingSet=")
	line, _, _ = strings.Cut(line, "\n")
	if !found || !strings.Contains(string(text), "\nAmbientCapabilities="+line+"\n") {
		t.Fatalf("%s does not say which capabilities it leaves, or gives others", unit)
	}
	set := "-all"
	for _, name := range strings.Fields(line) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	path := filepath.Join(t.TempDir(), filepath.Base(program))
	script := fmt.Sprintf("#!/bin/sh\nexec setpriv --no-new-privs --bounding-set=%[1]s --inh-caps=%[1]s --ambient-caps=%[1]s %[2]s \"$@\"\n", set, program)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
