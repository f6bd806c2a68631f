package agent

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestErrorsOfTheLogAreCounted(t *testing.T) {
	var b bytes.Buffer
	log, lines := counted(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelError + 1})))
	log.Error("not written")
	log.With("a", 1).WithGroup("g").Error("neither")
	log.Log(t.Context(), slog.LevelError+1, "written", "b", 2)
	log.Warn("no error")
	if n := lines.Load(); n != 3 || strings.Count(b.String(), "\n") != 1 || !strings.Contains(b.String(), "b=2") {
		t.Errorf("%d are counted, written is\n%s", n, b.String())
	}
}
