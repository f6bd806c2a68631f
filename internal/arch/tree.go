package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Tree is a module as the checks see it: every package, parsed and typed.
type Tree struct {
	Root     string // the folder that holds go.mod
	Module   string // the module's path
	Packages []*Package
	Fset     *token.FileSet
}

// Package is one package of the module.
type Package struct {
	Path  string // import path
	Rel   string // folder below the module's root, "." for the root itself
	Name  string
	Files []*File
	Info  *types.Info // of the files that this platform builds, without tests
}

// File is one Go file, for this platform or another.
type File struct {
	Rel       string // path below the module's root
	Syntax    *ast.File
	Lines     int
	Test      bool // a _test.go file
	Generated bool // carries the standard "Code generated" line
	Built     bool // part of the package on this platform
}

// listed is what we read of go list's answer.
type listed struct {
	ImportPath, Dir, Name, Export string
	DepOnly                       bool
	GoFiles, CgoFiles             []string
	IgnoredGoFiles                []string
	TestGoFiles, XTestGoFiles     []string
	Module                        *struct{ Path string }
	Error                         *struct{ Err string }
}

// Load reads the whole module that dir lies in. It builds the module on the way,
// since types are taken from the compiler's own export data. When packages do not
// build it returns the rest beside the error that names them.
func Load(dir string) (*Tree, error) {
	root, err := moduleRoot(dir)
	if err != nil {
		return nil, err
	}
	pkgs, err := goList(root)
	if err != nil {
		return nil, err
	}
	t := &Tree{Root: root, Fset: token.NewFileSet()}
	exports := make(map[string]string)
	imports := importer.ForCompiler(t.Fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, errors.New("it does not build")
		}
		return os.Open(exports[path])
	})
	var broken []error
	for _, p := range pkgs { // dependencies come before who imports them
		exports[p.ImportPath] = p.Export
		if p.DepOnly {
			continue
		}
		if p.Error != nil {
			broken = append(broken, fmt.Errorf("load %s: %s", p.ImportPath, p.Error.Err))
		} else if err := t.add(p, imports); err != nil {
			broken = append(broken, fmt.Errorf("load %s: %w", p.ImportPath, err))
		}
	}
	return t, errors.Join(broken...)
}

// moduleRoot is the folder of the go.mod that governs dir.
func moduleRoot(dir string) (string, error) {
	cmd := exec.Command("go", "env", "GOMOD")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the module of %s: %w", dir, err)
	}
	gomod := strings.TrimSpace(string(out))
	if filepath.Base(gomod) != "go.mod" {
		return "", fmt.Errorf("find the module of %s: no go.mod there or above", dir)
	}
	return filepath.Dir(gomod), nil
}

// goList asks the Go tool for the module's packages and all they depend on.
func goList(dir string) ([]*listed, error) {
	const fields = "ImportPath,Dir,Name,Export,DepOnly,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles,Module,Error"
	cmd := exec.Command("go", "list", "-e", "-buildvcs=false", "-deps", "-export", "-json="+fields, "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages of %s: %w\n%s", dir, err, stderr.Bytes())
	}
	var pkgs []*listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(listed)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("read go list's answer: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// add parses and types one package.
func (t *Tree) add(l *listed, imports types.Importer) error {
	rel, err := filepath.Rel(t.Root, l.Dir)
	if err != nil {
		return err
	}
	t.Module = l.Module.Path
	p := &Package{Path: l.ImportPath, Rel: filepath.ToSlash(rel), Name: l.Name}
	var built []*ast.File
	for _, set := range []struct {
		names []string
		built bool
	}{{l.GoFiles, true}, {l.CgoFiles, true}, {l.IgnoredGoFiles, false}, {l.TestGoFiles, false}, {l.XTestGoFiles, false}} {
		for _, name := range set.names {
			f, err := t.parse(p, l.Dir, name, set.built)
			if err != nil {
				return err
			}
			if set.built {
				built = append(built, f.Syntax)
			}
		}
	}
	p.Info = &types.Info{
		Defs:       make(map[*ast.Ident]types.Object),
		Uses:       make(map[*ast.Ident]types.Object),
		Selections: make(map[*ast.SelectorExpr]*types.Selection),
		Types:      make(map[ast.Expr]types.TypeAndValue),
	}
	conf := types.Config{Importer: imports, FakeImportC: true}
	if _, err := conf.Check(p.Path, t.Fset, built, p.Info); err != nil {
		return err
	}
	t.Packages = append(t.Packages, p)
	return nil
}

// parse reads one file into p.
func (t *Tree) parse(p *Package, dir, name string, built bool) (*File, error) {
	path := filepath.Join(dir, name)
	syntax, err := parser.ParseFile(t.Fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	rel := name
	if p.Rel != "." {
		rel = p.Rel + "/" + name
	}
	f := &File{
		Rel:       rel,
		Syntax:    syntax,
		Lines:     t.Fset.File(syntax.FileStart).LineCount(),
		Test:      strings.HasSuffix(name, "_test.go"),
		Generated: ast.IsGenerated(syntax),
		Built:     built,
	}
	p.Files = append(p.Files, f)
	return f, nil
}

// line is the line number of a place in the source.
func (t *Tree) line(pos token.Pos) int { return t.Fset.Position(pos).Line }

// each calls visit for every file that people wrote.
func (t *Tree) each(visit func(p *Package, f *File)) {
	for _, p := range t.Packages {
		for _, f := range p.Files {
			if !f.Generated {
				visit(p, f)
			}
		}
	}
}
