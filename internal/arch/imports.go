package arch

import (
	"fmt"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// edge is one import statement.
type edge struct {
	path string
	file *File
	pos  token.Pos
}

// Imports reports every import that a rule forbids.
func (t *Tree) Imports(rules []Rule) []Finding {
	graph := t.imports()
	var found []Finding
	for _, p := range t.Packages {
		for _, r := range rules {
			if !r.governs(p.Rel) {
				continue
			}
			for _, e := range graph[p.Path] {
				if chain := t.forbidden(graph, r, e.path); chain != nil {
					found = append(found, Finding{e.file.Rel, t.line(e.pos), fmt.Sprintf(
						"imports %s, but %s: %s", strings.Join(chain, ", which imports "), r.Name, r.Why)})
				}
			}
		}
	}
	return sorted(found)
}

// imports lists what each package of the module imports, on any platform. A file
// of another package in the same folder (a generator, not built) is left out.
func (t *Tree) imports() map[string][]edge {
	graph := make(map[string][]edge)
	for _, p := range t.Packages {
		for _, f := range p.Files {
			if f.Test || f.Syntax.Name.Name != p.Name {
				continue
			}
			for _, spec := range f.Syntax.Imports {
				to, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					continue // the parser has refused it already
				}
				graph[p.Path] = append(graph[p.Path], edge{to, f, spec.Pos()})
			}
		}
	}
	return graph
}

// governs reports whether the rule speaks of the package in folder rel.
func (r Rule) governs(rel string) bool {
	in := func(dir string) bool { return below(rel, dir) }
	return (len(r.In) == 0 || slices.ContainsFunc(r.In, in)) && !slices.ContainsFunc(r.Except, in)
}

// forbids reports whether the rule's Forbid names the import path to.
func (r Rule) forbids(module, to string) bool {
	return slices.ContainsFunc(r.Forbid, func(f string) bool {
		if dir, ours := strings.CutPrefix(f, "./"); ours {
			f = module + "/" + dir
		}
		return below(to, f)
	})
}

// forbidden gives the shortest chain of imports from the path to, itself
// included, to something that the rule forbids; nil when there is none.
func (t *Tree) forbidden(graph map[string][]edge, r Rule, to string) []string {
	seen := map[string]bool{to: true}
	for queue := [][]string{{to}}; len(queue) > 0; queue = queue[1:] {
		chain := queue[0]
		last := chain[len(chain)-1]
		if r.forbids(t.Module, last) {
			return chain
		}
		if !r.Reach {
			return nil
		}
		for _, e := range graph[last] {
			if !seen[e.path] {
				seen[e.path] = true
				queue = append(queue, append(slices.Clone(chain), e.path))
			}
		}
	}
	return nil
}

// Unsafe reports files that import unsafe outside the given homes.
func (t *Tree) Unsafe(homes []string) []Finding {
	var found []Finding
	t.each(func(_ *Package, f *File) {
		if f.Test || slices.ContainsFunc(homes, func(h string) bool { return at(f.Rel, h) }) {
			return
		}
		for _, spec := range f.Syntax.Imports {
			if spec.Path.Value == `"unsafe"` {
				found = append(found, Finding{f.Rel, t.line(spec.Pos()),
					"imports unsafe; only " + strings.Join(homes, ", ") + " may"})
			}
		}
	})
	return sorted(found)
}

// at reports whether a file lies in a home: a folder, or a pattern of files.
func at(file, home string) bool {
	if strings.HasSuffix(home, ".go") {
		ok, err := path.Match(home, file)
		return ok && err == nil
	}
	return below(file, home)
}
