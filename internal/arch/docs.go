package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// wellKnown are methods whose meaning the standard library has fixed.
var wellKnown = []string{
	"Error", "Unwrap", "Is", "As", "String", "GoString", "Format", "Len", "Less", "Swap", "Push", "Pop",
	"Read", "Write", "Close", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "LogValue",
}

// Docs reports packages without a doc comment and exported names without a
// sentence. A program exports nothing; tests explain themselves.
func (t *Tree) Docs() []Finding {
	var found []Finding
	for _, p := range t.Packages {
		found = append(found, t.packageDoc(p)...)
	}
	t.each(func(p *Package, f *File) {
		if f.Test || p.Name == "main" || f.Syntax.Name.Name != p.Name {
			return
		}
		for _, d := range f.Syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if owesDoc(d) {
					found = append(found, t.sentence(f, d.Name, d.Doc)...)
				}
			case *ast.GenDecl:
				found = append(found, t.declDocs(f, d)...)
			}
		}
	})
	return sorted(found)
}

// packageDoc asks for a doc comment in one of the package's files.
func (t *Tree) packageDoc(p *Package) []Finding {
	var first *File
	for _, f := range p.Files {
		if f.Test || f.Syntax.Name.Name != p.Name {
			continue
		}
		if f.Syntax.Doc.Text() != "" && !f.Generated {
			return nil
		}
		if first == nil || first.Generated {
			first = f
		}
	}
	if first == nil {
		return nil // nothing but tests
	}
	return []Finding{{first.Rel, t.line(first.Syntax.Package),
		fmt.Sprintf("package %s has no doc comment: say in a sentence or two what it is for", p.Name)}}
}

// owesDoc reports whether readers of the package's documentation see fn.
func owesDoc(fn *ast.FuncDecl) bool {
	if !fn.Name.IsExported() {
		return false
	}
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return true
	}
	return receiver(fn.Recv.List[0].Type).IsExported() && !slices.Contains(wellKnown, fn.Name.Name)
}

// receiver is the name of a method's type.
func receiver(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x
		default:
			return ast.NewIdent("_")
		}
	}
}

// declDocs looks at constants, variables and types. A comment on a group, on the
// first of lines that stand together, or behind a name, is as good as one above it.
func (t *Tree) declDocs(f *File, d *ast.GenDecl) []Finding {
	var found []Finding
	spoken := 0 // the last line that the latest comment above a name speaks for
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() {
				found = append(found, t.sentence(f, s.Name, s.Doc, s.Comment, d.Doc)...)
			}
		case *ast.ValueSpec:
			if said(s.Doc) || t.line(s.Pos()) == spoken+1 {
				spoken = t.line(s.End())
			}
			covered := spoken == t.line(s.End()) || said(s.Comment) || d.Lparen != token.NoPos && said(d.Doc)
			if i := slices.IndexFunc(s.Names, (*ast.Ident).IsExported); i >= 0 && !covered {
				found = append(found, t.sentence(f, s.Names[i], d.Doc)...)
			}
		}
	}
	return found
}

// said reports whether a comment has any words.
func said(g *ast.CommentGroup) bool { return strings.TrimSpace(g.Text()) != "" }

// ended finds the end of a sentence, which may lead to a list or a drawing.
var ended = regexp.MustCompile(`[.:?!][")]*(\s|$)`)

// sentence asks for a comment on name whose first paragraph holds a sentence.
func (t *Tree) sentence(f *File, name *ast.Ident, groups ...*ast.CommentGroup) []Finding {
	i := slices.IndexFunc(groups, said)
	if i < 0 {
		return []Finding{{f.Rel, t.line(name.Pos()), name.Name + " is exported and has no comment: give it a sentence"}}
	}
	first, _, _ := strings.Cut(strings.TrimSpace(groups[i].Text()), "\n\n")
	trailing := groups[i].Pos() > name.Pos() // a remark behind a name needs no full stop
	if !trailing && !ended.MatchString(first) {
		return []Finding{{f.Rel, t.line(name.Pos()), "the comment on " + name.Name + " is no sentence"}}
	}
	return nil
}
