package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// marker is the comment that puts a function on the packet path.
const marker = "//fastpath:hot"

// hotFunc is one marked function.
type hotFunc struct {
	pkg         *Package
	file        *File
	decl        *ast.FuncDecl
	first, last int // its lines
}

// hot lists the marked functions that this platform builds.
func (t *Tree) hot() []hotFunc {
	var marked []hotFunc
	t.each(func(p *Package, f *File) {
		for _, d := range f.Syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.Built && isMarked(fn.Doc) {
				marked = append(marked, hotFunc{p, f, fn, t.line(fn.Pos()), t.line(fn.End())})
			}
		}
	})
	return marked
}

// isMarked reports whether a comment group holds the marker.
func isMarked(g *ast.CommentGroup) bool {
	return g != nil && slices.ContainsFunc(g.List, func(c *ast.Comment) bool { return c.Text == marker })
}

// Markers reports markers that mark nothing, as one above a type or with a blank
// line below does.
func (t *Tree) Markers() []Finding {
	var found []Finding
	t.each(func(_ *Package, f *File) {
		onFunc := make(map[*ast.CommentGroup]bool)
		for _, d := range f.Syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				onFunc[fn.Doc] = true
			}
		}
		for _, g := range f.Syntax.Comments {
			if isMarked(g) && !onFunc[g] {
				found = append(found, Finding{f.Rel, t.line(g.Pos()), marker + " marks no function: put it on the line before func"})
			}
		}
	})
	return sorted(found)
}

// Hot reports what a marked function must not do whatever the compiler makes of
// it: locks, channels, goroutines, clocks, logs, map iteration.
func (t *Tree) Hot() []Finding {
	var found []Finding
	for _, h := range t.hot() {
		ast.Inspect(h.decl.Body, func(n ast.Node) bool {
			if what := slow(h.pkg.Info, n); what != "" {
				found = append(found, Finding{h.file.Rel, t.line(n.Pos()), fmt.Sprintf(
					"%s is marked %s, yet %s: do it once per vector, outside, or not at all", h.decl.Name.Name, marker, what)})
			}
			return true
		})
	}
	return sorted(found)
}

// slow says what a node does that the packet path does not, or "".
func slow(info *types.Info, n ast.Node) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "starts a goroutine"
	case *ast.SendStmt:
		return "sends on a channel"
	case *ast.SelectStmt:
		return "selects on channels"
	case *ast.UnaryExpr:
		if n.Op == token.ARROW {
			return "receives from a channel"
		}
	case *ast.RangeStmt:
		switch info.TypeOf(n.X).Underlying().(type) {
		case *types.Map:
			return "ranges over a map"
		case *types.Chan:
			return "receives from a channel"
		}
	case *ast.CallExpr:
		return slowCall(info, n)
	}
	return ""
}

// slowCall says which call of the standard library the packet path does not make.
func slowCall(info *types.Info, call *ast.CallExpr) string {
	var name *ast.Ident
	switch fun := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		name = fun
	case *ast.SelectorExpr:
		name = fun.Sel
	}
	fn, ok := info.Uses[name].(*types.Func)
	if name == nil || !ok || fn.Pkg() == nil {
		return ""
	}
	switch path := fn.Pkg().Path(); path {
	case "fmt", "log", "log/slog", "sync":
		return "calls " + fn.FullName()
	case "time":
		if slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "Tick", "NewTicker"}, fn.Name()) {
			return "calls " + fn.FullName()
		}
	}
	return ""
}

// escape is how the compiler says that something goes to the heap.
var escape = regexp.MustCompile(`(?m)^(.+\.go):(\d+):\d+: (moved to heap: .*|.* escapes to heap.*)$`)

// Escapes reports everything that the compiler puts on the heap in a marked
// function, by the line it happens at. Inlined callees count at the line of the
// call. It builds the packages anew with -gcflags=-m once, from cache after that.
func (t *Tree) Escapes() ([]Finding, error) {
	marked := t.hot()
	if len(marked) == 0 {
		return nil, nil
	}
	args := append([]string{"build", "-buildvcs=false", "-o", "/dev/null", "-gcflags=-m=1"}, t.compiled(marked)...)
	cmd := exec.Command("go", args...)
	cmd.Dir = t.Root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("build packages of marked functions: %w\n%s", err, out)
	}
	var found []Finding
	for _, m := range escape.FindAllStringSubmatch(string(out), -1) {
		file := filepath.ToSlash(filepath.Clean(m[1]))
		line, err := strconv.Atoi(m[2])
		if err != nil || isConstant(m[3]) {
			continue
		}
		i := slices.IndexFunc(marked, func(h hotFunc) bool {
			return h.file.Rel == file && h.first <= line && line <= h.last
		})
		if i >= 0 && !(strings.HasPrefix(m[3], "append ") && t.reserved(marked[i].file, line)) {
			found = append(found, Finding{file, line, fmt.Sprintf("%s, in %s, which is marked %s",
				m[3], marked[i].decl.Name.Name, marker)})
		}
	}
	return sorted(found), nil
}

// reserved reports whether a comment on the line of an append, or on the line
// above it, says why the slice cannot grow there. The compiler does not know.
func (t *Tree) reserved(f *File, line int) bool {
	return slices.ContainsFunc(f.Syntax.Comments, func(g *ast.CommentGroup) bool {
		last := t.line(g.End())
		return (last == line || last == line-1) && waived("cap", g)
	})
}

// isConstant reports whether what "escapes" is a string constant, such as the
// operand of a panic: the linker lays it out, nothing is allocated.
func isConstant(message string) bool {
	return strings.HasPrefix(message, `"`) || strings.HasPrefix(message, "`")
}

// compiled lists the packages to compile: those of the marked functions, and,
// since a generic function is compiled where it is used, those that use one.
func (t *Tree) compiled(marked []hotFunc) []string {
	var paths, generic []string
	for _, h := range marked {
		paths = append(paths, h.pkg.Path)
		obj, ok := h.pkg.Info.Defs[h.decl.Name].(*types.Func)
		if ok && (obj.Signature().TypeParams().Len() > 0 || obj.Signature().RecvTypeParams().Len() > 0) {
			generic = append(generic, h.pkg.Path)
		}
	}
	for from, edges := range t.imports() {
		if slices.ContainsFunc(edges, func(e edge) bool { return slices.Contains(generic, e.path) }) {
			paths = append(paths, from)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
