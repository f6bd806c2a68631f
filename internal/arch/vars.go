package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
)

// fixedPointers are pointer types of the standard library that nobody can change
// through their methods, or that nobody does.
var fixedPointers = []string{
	"*regexp.Regexp", "*strings.Replacer", "*text/template.Template", "*math/big.Int", "*time.Location", "*net.IPNet",
}

// stateful are packages whose types exist to change.
var stateful = []string{
	"sync", "sync/atomic", "log/slog", "math/rand", "github.com/prometheus/client_golang", "github.com/spf13/cobra",
}

// Vars reports package variables that can or do change after their declaration.
// Sentinel errors, tables that are only read, embedded files and assertions on
// "_" pass; so does a variable whose comment says arch:var REASON.
func (t *Tree) Vars() []Finding {
	watched := make(map[string]bool)
	var found []Finding
	t.each(func(p *Package, f *File) {
		if !f.Built {
			return
		}
		t.packageVars(p, f, func(name *ast.Ident, obj types.Object) {
			watched[global(obj)] = true
			if why := changeable(obj.Type()); why != "" {
				found = append(found, Finding{f.Rel, t.line(name.Pos()),
					fmt.Sprintf("package variable %s is %s: make it a field of who uses it", name.Name, why)})
			}
		})
	})
	t.each(func(p *Package, f *File) {
		if f.Built {
			found = append(found, t.writes(p, f, watched)...)
		}
	})
	return sorted(found)
}

// Inits reports init functions: what they do happens to every importer, in an
// order that nobody reads.
func (t *Tree) Inits() []Finding {
	var found []Finding
	t.each(func(_ *Package, f *File) {
		for _, d := range f.Syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, Finding{f.Rel, t.line(fn.Pos()), "func init does work on import: let a constructor do it"})
			}
		}
	})
	return sorted(found)
}

// packageVars visits the variables that f declares outside functions and for
// which no waiver is given.
func (t *Tree) packageVars(p *Package, f *File, visit func(*ast.Ident, types.Object)) {
	for _, d := range f.Syntax.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if waived("var", g.Doc, v.Doc, v.Comment) {
				continue
			}
			for _, name := range v.Names {
				if obj := p.Info.Defs[name]; obj != nil && name.Name != "_" {
					visit(name, obj)
				}
			}
		}
	}
}

// changeable says why a variable of this type is there to change, or "".
func changeable(typ types.Type) string {
	if slices.Contains(fixedPointers, types.TypeString(typ, nil)) {
		return ""
	}
	switch u := types.Unalias(typ).(type) {
	case *types.Chan:
		return "a channel"
	case *types.Pointer:
		if _, basic := u.Elem().Underlying().(*types.Basic); basic {
			return "a pointer to a plain value"
		}
		return changeable(u.Elem())
	case *types.Named:
		if pkg := u.Obj().Pkg(); pkg != nil && slices.ContainsFunc(stateful, func(s string) bool { return below(pkg.Path(), s) }) {
			return "a " + types.TypeString(u, nil)
		}
		if s, ok := u.Underlying().(*types.Struct); ok {
			return changeable(s)
		}
	case *types.Struct:
		for f := range u.Fields() {
			if _, pointer := f.Type().Underlying().(*types.Pointer); !pointer && changeable(f.Type()) != "" {
				return changeable(f.Type())
			}
		}
	}
	return ""
}

// global names a package variable across packages, since each importer has an
// object of its own for it; it is "" for anything else.
func global(obj types.Object) string {
	v, ok := obj.(*types.Var)
	if !ok || v.Pkg() == nil || v.Parent() != v.Pkg().Scope() {
		return ""
	}
	return v.Pkg().Path() + "." + v.Name()
}

// writes reports statements of f that change a watched variable, or hand out
// its address.
func (t *Tree) writes(p *Package, f *File, watched map[string]bool) []Finding {
	var found []Finding
	report := func(e ast.Expr, how string) {
		if obj := rootVar(p.Info, e); watched[global(obj)] {
			found = append(found, Finding{f.Rel, t.line(e.Pos()), fmt.Sprintf(
				"%s package variable %s: make it a field, or say why not by arch:var REASON where it is declared", how, obj.Name())})
		}
	}
	ast.Inspect(f.Syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				report(e, "assigns to")
			}
		case *ast.IncDecStmt:
			report(n.X, "counts in")
		case *ast.RangeStmt:
			report(n.Key, "assigns to")
			report(n.Value, "assigns to")
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				report(n.X, "takes the address of")
			}
		case *ast.CallExpr:
			reportCall(p.Info, n, report)
		}
		return true
	})
	return found
}

// reportCall looks for calls that change their operand: delete, clear and copy,
// and methods that take the variable's address without saying so.
func reportCall(info *types.Info, call *ast.CallExpr, report func(ast.Expr, string)) {
	switch fun := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		if how := map[string]string{"delete": "deletes from", "clear": "clears", "copy": "copies into"}[fun.Name]; how != "" {
			if _, builtin := info.Uses[fun].(*types.Builtin); builtin {
				report(call.Args[0], how)
			}
		}
	case *ast.SelectorExpr:
		sel := info.Selections[fun]
		if sel == nil || sel.Kind() != types.MethodVal {
			return
		}
		recv := sel.Obj().(*types.Func).Signature().Recv().Type()
		_, byPointer := recv.Underlying().(*types.Pointer)
		if _, has := sel.Recv().Underlying().(*types.Pointer); byPointer && !has {
			report(fun.X, "calls "+fun.Sel.Name+" on")
		}
	}
}

// rootVar is the package variable that an expression such as v, v.f, v[i].f, *v
// or pkg.v starts from; nil when it starts from anything else.
func rootVar(info *types.Info, e ast.Expr) types.Object {
	for {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.SelectorExpr:
			if info.Selections[x] == nil { // a name of another package
				return info.Uses[x.Sel]
			}
			e = x.X
		case *ast.Ident:
			return info.Uses[x]
		default:
			return nil
		}
	}
}
