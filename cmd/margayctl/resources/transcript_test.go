package resources

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"margay.dev/margay/datastore/embedded"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// try runs a command line as margayctl does, and gives what it printed; what went
// to standard error follows behind, each line after a "!".
func try(t *testing.T, env map[string]string, in, line string) (string, error) {
	t.Helper()
	var out, errOut bytes.Buffer
	tool := &Tool{
		In: strings.NewReader(in), Out: &out, Err: &errOut, Env: func(name string) string { return env[name] },
		Now: func() time.Time { return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) },
	}
	root := &cobra.Command{Use: "margayctl", SilenceErrors: true, SilenceUsage: true}
	root.PersistentFlags().StringP("output", "o", "table", "")
	root.PersistentFlags().Duration("timeout", time.Second, "")
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return errors.New("the parent's flags were read") }
	root.AddCommand(tool.Commands()...)
	root.SetArgs(words(line))
	root.SetOut(&errOut)
	root.SetErr(&errOut)
	err := root.ExecuteContext(context.Background())
	if err != nil && !errors.Is(err, ErrTold) {
		fmt.Fprintf(&errOut, "error: %v\n", err)
	}
	text := out.String()
	for l := range strings.Lines(errOut.String()) {
		text += "! " + strings.TrimRight(l, "\n") + "\n"
	}
	return text, err
}

// words are those of a line; quotes hold some together.
func words(line string) (all []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

// passing is what differs from run to run.
var passing = regexp.MustCompile(`(uid|resourceVersion|creationTimestamp)("?: )"?[^",\n]*"?`)

// A transcript is an empty store, and commands with what they print: lines that
// begin with $ run one, what stands behind << goes to its standard input. It is the
// same in a folder and in an etcd.
func TestTranscripts(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	endpoint := serve(t)
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			got := replay(t, string(text), map[string]string{folderVariable: t.TempDir()})
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s is now\n%s\nSee whether it is right, and run go test ./cmd/margayctl/resources -update", name, got)
			}
			if endpoint == "" {
				return
			}
			file := filepath.Join(t.TempDir(), "margayctl.yaml")
			config := fmt.Sprintf("etcd: {endpoints: [%q], prefix: %q}", endpoint, "/"+filepath.Base(name))
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			if other := replay(t, string(text), map[string]string{configVariable: file}); other != got {
				t.Errorf("against an etcd, %s is\n%s\nand in a folder\n%s", name, other, got)
			}
		})
	}
}

// What is exported of one store, and imported into another, is exported of that as
// it was.
func TestMigration(t *testing.T) {
	stores := map[string]string{"folder": "--folder " + t.TempDir(), "another folder": "--folder " + t.TempDir()}
	if endpoint := serve(t); endpoint != "" {
		stores["etcd"] = "--etcd-endpoints " + endpoint
	}
	run := func(in, line string) string {
		t.Helper()
		out, err := try(t, nil, in, line)
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return out
	}
	run("", "apply -R -f testdata/calico "+stores["folder"])
	run("", "datastore migrate lock "+stores["folder"])
	want := run("", "datastore migrate export "+stores["folder"])
	for name, store := range stores {
		if name == "folder" {
			continue
		}
		run(want, "datastore migrate import -f - "+store)
		if got := run("", "datastore migrate export "+store); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", name, got, want)
		}
	}
	broken := strings.TrimPrefix(stores["another folder"], "--folder ")
	if err := os.WriteFile(filepath.Join(broken, "x.yaml"), []byte("{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: x}, spec: {ordr: 1}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := try(t, nil, "", "datastore migrate export --folder "+broken); !errors.Is(err, ErrTold) || !strings.Contains(out, "mend or delete it") || strings.Contains(out, "kind:") {
		t.Errorf("with an object that cannot be used it is %v\n%s", err, out)
	}
}

// serve starts an etcd, and gives where it is; nowhere in short tests.
func serve(t *testing.T) (endpoint string) {
	t.Helper()
	if testing.Short() {
		return ""
	}
	dir := t.TempDir()
	cfg := embedded.Default()
	cfg.Dir, cfg.Listen, cfg.NoSync = filepath.Join(dir, "data"), []string{"unix://" + filepath.Join(dir, "s")}, true
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return cfg.Listen[0]
}

// replay runs the commands of a transcript, and gives it as it would be now.
func replay(t *testing.T, text string, env map[string]string) (now string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			now += line
			continue
		}
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		command, in, _ := strings.Cut(command, "<<")
		out, err := try(t, env, in, command)
		out = passing.ReplaceAllString(out, "$1$2...")
		now += line + out
		if err != nil && !strings.Contains(out, "! ") {
			t.Errorf("%s failed with no word of it: %v", command, err)
		}
	}
	return now
}
