package version

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestLineNamesEveryPart(t *testing.T) {
	got := Line("margay-forwarder")
	want := regexp.MustCompile(`^margay-forwarder v\d+\.\d+\.\d+\S* \(commit \S+, contract 1, ` +
		regexp.QuoteMeta(runtime.Version()) + `\)$`)
	if !want.MatchString(got) {
		t.Errorf("%q does not match %s", got, want)
	}
}

func TestRecordedCommit(t *testing.T) {
	const rev = "1f2e3d4c5b6a79880123456789abcdef01234567"
	tests := map[string]struct {
		settings []debug.BuildSetting
		want     string
	}{
		"nothing recorded":    {nil, "unknown"},
		"clean tree":          {[]debug.BuildSetting{{Key: "vcs.revision", Value: rev}, {Key: "vcs.modified", Value: "false"}}, rev[:12]},
		"changed tree":        {[]debug.BuildSetting{{Key: "vcs.revision", Value: rev}, {Key: "vcs.modified", Value: "true"}}, rev[:12] + "-dirty"},
		"a short revision":    {[]debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}}, "abc"},
		"other settings only": {[]debug.BuildSetting{{Key: "GOARCH", Value: "arm64"}}, "unknown"},
		"an empty revision":   {[]debug.BuildSetting{{Key: "vcs.revision"}}, "unknown"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := recorded(tt.settings); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The linker's flags are the one way in for the real values: build a program
// with them, as the Makefile does, and ask it.
func TestLinkerWritesVersionAndCommit(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "show")
	const ld = "-X margay.dev/margay/internal/version.version=v9.8.7 -X margay.dev/margay/internal/version.commit=feedc0de"
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "-ldflags", ld, "./testdata/show")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "show v9.8.7 (commit feedc0de, contract 1, "; !strings.HasPrefix(string(out), want) {
		t.Errorf("printed %q, want it to begin %q", out, want)
	}
}
