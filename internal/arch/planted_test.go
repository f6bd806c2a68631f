package arch

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
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

// A package that does not build is told, and does not hide what is wrong with
// the others.
func TestLoadNamesWhatDoesNotBuild(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":             "module example.test/broken\n\ngo 1.26\n",
		"broken/broken.go":   "// Package broken does not type.\npackage broken\n\nvar _ int = \"a string\"\n",
		"uses/uses.go":       "// Package uses it.\npackage uses\n\nimport _ \"example.test/broken/broken\"\n",
		"whole/util/util.go": "// Package util builds.\npackage util\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := Load(dir)
	for _, name := range []string{"broken/broken", "broken/uses"} {
		if err == nil || !strings.Contains(err.Error(), "load example.test/"+name) {
			t.Errorf("error does not name %s: %v", name, err)
		}
	}
	if found := tree.Names(); len(found) != 1 {
		t.Errorf("of the package that builds, %v is told, want its name", found)
	}
}
