package arch

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
)

// Limits are how long things may grow, in lines.
type Limits struct {
	Package  int // files that people wrote, without tests
	File     int
	Function int // in tests the rows of tables do not count: they are data
}

// House is what STYLE's section on words and limits allows.
func House() Limits { return Limits{Package: 3000, File: 500, Function: 60} }

// Sizes reports packages, files and functions over their limits.
func (t *Tree) Sizes(limit Limits) []Finding {
	var found []Finding
	total := make(map[*Package]int)
	t.each(func(p *Package, f *File) {
		if !f.Test {
			total[p] += f.Lines
		}
		if f.Lines > limit.File {
			found = append(found, Finding{f.Rel, limit.File + 1,
				fmt.Sprintf("the file has %d lines, at most %d: split it by what its parts are about", f.Lines, limit.File)})
		}
		for _, d := range f.Syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				found = append(found, t.length(f, fn, limit.Function)...)
			}
		}
	})
	for p, n := range total {
		if n > limit.Package {
			found = append(found, Finding{p.Files[0].Rel, 1,
				fmt.Sprintf("package %s has %d lines, at most %d: grow a leaf beside it", p.Path, n, limit.Package)})
		}
	}
	return sorted(found)
}

// length reports a function over the limit that gives no reason for it.
func (t *Tree) length(f *File, fn *ast.FuncDecl, limit int) []Finding {
	n := t.line(fn.End()) - t.line(fn.Pos()) + 1
	if f.Test {
		n -= t.rows(fn)
	}
	if n <= limit || waived("long", fn.Doc) {
		return nil
	}
	return []Finding{{f.Rel, t.line(fn.Pos()), fmt.Sprintf(
		"function %s has %d lines, at most %d: split it, or say why not by arch:long REASON in its comment", fn.Name.Name, n, limit)}}
}

// rows counts the lines of a function that lie inside its composite literals.
func (t *Tree) rows(fn *ast.FuncDecl) int {
	n := 0
	ast.Inspect(fn, func(node ast.Node) bool {
		lit, ok := node.(*ast.CompositeLit)
		if ok {
			n += t.line(lit.End()) - t.line(lit.Pos())
		}
		return !ok // an outer literal has counted the inner ones
	})
	return n
}

// vague are names that say nothing of what a package is about.
var vague = []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "shared", "lib"}

// Names reports packages whose name or folder says nothing.
func (t *Tree) Names() []Finding {
	var found []Finding
	for _, p := range t.Packages {
		for _, name := range []string{p.Name, path.Base(p.Rel)} {
			if slices.Contains(vague, name) && len(p.Files) > 0 {
				found = append(found, Finding{p.Files[0].Rel, 1,
					fmt.Sprintf("package %q says nothing of what it holds: name it by its subject", name)})
			}
		}
	}
	return sorted(found)
}
