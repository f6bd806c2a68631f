package arch

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/planted.golden anew")

// plantedRules stand in for the house's table: the planted module builds from
// the standard library alone.
func plantedRules() []Rule {
	return []Rule{
		{Name: "fast does not log", In: []string{"fast"}, Forbid: []string{"log"}, Reach: true, Why: "it is fast"},
		{Name: "fast knows no control", In: []string{"fast"}, Forbid: []string{"./control"}, Why: "it is below"},
		{Name: "xml lives in home", Except: []string{"home"}, Forbid: []string{"encoding/xml"}, Why: "it is large"},
	}
}

// TestPlantedFaultsAreFound runs every check over testdata/planted, whose faults
// are known, and compares all that is said with testdata/planted.golden: no
// fault may be missed, nothing innocent blamed.
func TestPlantedFaultsAreFound(t *testing.T) {
	tree, err := Load("testdata/planted")
	if err != nil {
		t.Fatal(err)
	}
	escapes, err := tree.Escapes()
	if err != nil {
		t.Fatal(err)
	}
	sizes := slices.DeleteFunc(tree.Sizes(Limits{Package: 38, File: 32, Function: 5}), func(f Finding) bool {
		return !below(f.File, "size") // the other folders were not made for such limits
	})
	var got strings.Builder
	for _, check := range []struct {
		name  string
		found []Finding
	}{
		{"imports", tree.Imports(plantedRules())},
		{"unsafe", tree.Unsafe([]string{"mem", "port/tun*.go"})},
		{"sizes", sizes},
		{"names", tree.Names()},
		{"docs", tree.Docs()},
		{"variables", tree.Vars()},
		{"inits", tree.Inits()},
		{"markers", tree.Markers()},
		{"hot", tree.Hot()},
		{"escapes", escapes},
	} {
		if len(check.found) == 0 {
			t.Errorf("check %s found nothing, though its faults are planted", check.name)
		}
		fmt.Fprintf(&got, "# %s\n", check.name)
		for _, f := range check.found {
			fmt.Fprintln(&got, f)
		}
	}
	compare(t, "testdata/planted.golden", got.String())
}

// compare holds got against a golden file, line by line.
func compare(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	has, wants := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for _, line := range wants {
		if !slices.Contains(has, line) {
			t.Errorf("not found: %s", line)
		}
	}
	for _, line := range has {
		if !slices.Contains(wants, line) {
			t.Errorf("not planted: %s", line)
		}
	}
}

// A module that does not build is an error, never an empty list of findings.
func TestLoadRefusesABrokenModule(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":    "module example.test/broken\n\ngo 1.26\n",
		"broken.go": "// Package broken does not type.\npackage broken\n\nvar _ int = \"a string\"\n",
	} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if tree, err := Load(dir); err == nil {
		t.Errorf("loaded %d packages without an error", len(tree.Packages))
	} else if !strings.Contains(err.Error(), "broken") {
		t.Errorf("error names no package: %v", err)
	}
}
