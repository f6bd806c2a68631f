package main

import (
	"os"
	"strings"
	"testing"
)

// The unit starts the command, and has another take over, as it can be started.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("../../deploy/systemd/margay-forwarder.service")
	if err != nil {
		t.Fatal(err)
	}
	for key, flag := range map[string]string{"ExecStart": "", "ExecReload": "--take-over"} {
		_, line, found := strings.Cut(string(text), "\n"+key+"=/usr/bin/margay-forwarder")
		line, _, _ = strings.Cut(line, "\n")
		c := command()
		c.SetArgs(append([]string{"--check"}, strings.Fields(line)...))
		if err := c.Execute(); err != nil || !found || strings.TrimSpace(line) != flag {
			t.Errorf("%s: %q: %v", key, line, err)
		}
	}
}
