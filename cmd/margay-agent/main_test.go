package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The unit starts the command as it can be started, and with the configuration of the
// documentation.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("../../deploy/systemd/margay-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	_, line, found := strings.Cut(string(text), "\nExecStart=/usr/bin/margay-agent run ")
	line, _, _ = strings.Cut(line, "\n")
	if !found {
		t.Fatal("the unit does not run the agent")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(file, []byte("node: n0\nstore: {folder: {dir: "+dir+"}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := command()
	c.SetArgs(append([]string{"run", "--check"}, strings.Fields(strings.Replace(line, "/etc/margay/agent.yaml", file, 1))...))
	if err := c.Execute(); err != nil || !strings.Contains(line, "/etc/margay/agent.yaml") {
		t.Errorf("%q: %v", line, err)
	}
}
