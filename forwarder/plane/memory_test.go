package plane

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Packet memory without huge pages is told at the start, and to whoever asks.
func TestSmallPagesAreTold(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	}()
	var log bytes.Buffer
	p, err := New(Config{Workers: 1, Frames: 4096, Log: slog.New(slog.NewTextHandler(&log, nil)), Opener: &memoryOpener{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	told := p.Fallbacks()
	if len(told) != 1 {
		t.Fatalf("fallbacks are %q, want one", told)
	}
	if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, told[0]) {
		t.Errorf("the log says:\n%s", got)
	}
}
