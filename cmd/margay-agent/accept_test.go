package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A store is accepted by a word, as long as it holds something, or that is not meant.
func TestAccept(t *testing.T) {
	dir := t.TempDir()
	objects, state, config := filepath.Join(dir, "objects"), filepath.Join(dir, "state"), filepath.Join(dir, "agent.yaml")
	if err := os.Mkdir(objects, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(config, "node: n0\nstore: {folder: {dir: "+objects+", settle: 1ms}}\nstateDir: "+filepath.Join(dir, "elsewhere")+"\n")
	accept := func(more ...string) (string, error) {
		c := command()
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&out)
		c.SetArgs(append([]string{"accept", "--config", config, "--state-dir", state}, more...))
		err := c.Execute()
		return out.String(), err
	}
	if _, err := accept(); err == nil || !strings.Contains(err.Error(), "--empty") {
		t.Errorf("an empty store is accepted, or refused without a way out: %v", err)
	}
	if out, err := accept("--empty"); err != nil || !strings.HasPrefix(out, "this node follows store ") {
		t.Errorf("an empty store that is meant: %q, %v", out, err)
	}
	write(filepath.Join(objects, "tier.yaml"), "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\n")
	out, err := accept()
	text, read := os.ReadFile(filepath.Join(state, "store.json"))
	if err != nil || !strings.Contains(out, "of cluster ") || !strings.Contains(out, "(folder "+objects+")") || read != nil || !strings.Contains(string(text), objects) {
		t.Errorf("accepted: %q, %v; noted: %s, %v", out, err, text, read)
	}
	if _, err := accept("--config", filepath.Join(dir, "none.yaml")); err == nil {
		t.Error("accepted without a configuration")
	}
}
