//go:build linux

package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestReadSeesWhatAnotherHoldsOpen(t *testing.T) {
	ns := hostnettest.Namespace(t)
	path := filepath.Join(t.TempDir(), "state", "journal")
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.SetSysctl(ns, "net.ipv4.ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Kind != KindSysctl {
		t.Errorf("read %v, want the one sysctl", entries)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Errorf("the file changed under reading")
	}
}

func TestReadOfNoJournal(t *testing.T) {
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that there is no file", err)
	}
}
