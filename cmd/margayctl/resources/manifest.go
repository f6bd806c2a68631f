package resources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// maxManifest is the longest manifest that is read, in bytes.
const maxManifest = 64 << 20

// manifests is what -f names.
type manifests struct {
	files     []string
	recursive bool
	skipEmpty bool
}

func (m *manifests) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVarP(&m.files, "filename", "f", nil, "manifests: files, folders, or - for standard input")
	f.BoolVarP(&m.recursive, "recursive", "R", false, "folders with those below them")
	f.BoolVar(&m.skipEmpty, "skip-empty", false, "nothing to do is no error")
}

// document is one part of a manifest: an object, or why it is none.
type document struct {
	where  string // file, and its place in it
	text   []byte // as JSON
	object v3.Object
	err    error
}

// name is what it is called in messages.
func (d document) name() string {
	if d.object == nil {
		return d.where
	}
	return datastore.KeyOf(d.object).String()
}

// read gives all documents, those of a folder in order of their paths, each object
// in its namespace. What cannot be read as a manifest at all is an error.
func (t *Tool) read(m *manifests) (all []document, err error) {
	if len(m.files) == 0 {
		return nil, errors.New("name manifests with -f: files, folders, or - for standard input")
	}
	for _, name := range m.files {
		paths, err := m.paths(name)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			documents, err := t.parts(path)
			if err != nil {
				return nil, err
			}
			all = append(all, documents...)
		}
	}
	if len(all) == 0 && !m.skipEmpty {
		return nil, fmt.Errorf("there are no objects in %s: see whether it is the right one, or say --skip-empty", strings.Join(m.files, ", "))
	}
	return all, nil
}

// paths are the files that a name stands for.
func (m *manifests) paths(name string) (paths []string, err error) {
	if name == "-" {
		return []string{"-"}, nil
	}
	err = filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
		ext := filepath.Ext(path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != name && (!m.recursive || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir():
			return nil
		case path == name || slices.Contains([]string{".yaml", ".yml", ".json"}, ext):
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	return paths, nil
}

// parts are the documents of one file.
func (t *Tool) parts(path string) ([]document, error) {
	text, err := t.text(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	parts, err := v3.Split(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if path == "-" {
		path = "standard input"
	}
	all := make([]document, len(parts))
	for i, part := range parts {
		d := document{where: fmt.Sprintf("%s, object %d", path, i+1), text: part}
		if d.object, d.err = v3.DecodeJSON(part); d.err == nil {
			t.place(d.object)
		}
		all[i] = d
	}
	return all, nil
}

// text is what a file says, or standard input.
func (t *Tool) text(path string) ([]byte, error) {
	in := t.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	if len(text) > maxManifest {
		return nil, fmt.Errorf("%s is longer than %d MiB: split it", path, maxManifest>>20)
	}
	return text, err
}

// place puts an object that does not say its namespace into that of the flag.
func (t *Tool) place(o v3.Object) {
	if spaced, _ := datastore.Namespaced(datastore.KeyOf(o).Kind); spaced && o.GetNamespace() == "" {
		o.SetNamespace(t.namespace)
	}
}

// other are words that calicoctl has for kinds, beside those of the API.
var other = map[string][]string{
	v3.KindNetworkPolicy: {"policy", "policies", "pol"},
	v3.KindNode:          {"no"},
	v3.KindProfile:       {"pro"},
}

// kindNamed is the kind that a word stands for, in any case: its name, singular or
// plural, or what people type for short.
func kindNamed(word string) (v3.Kind, error) {
	for _, k := range v3.Kinds() {
		for _, w := range slices.Concat([]string{k.Name, k.Plural}, k.Short, other[k.Name]) {
			if strings.EqualFold(w, word) || strings.EqualFold(w+"s", word) {
				return k, nil
			}
		}
	}
	var names []string
	for _, k := range v3.Kinds() {
		names = append(names, k.Plural)
	}
	return v3.Kind{}, fmt.Errorf("there is no kind %q, want one of %s", word, strings.Join(names, ", "))
}

// target is the objects that a command line names: a kind, and names where there
// are any; kind/name is one of them.
func (t *Tool) target(args []string) (kind v3.Kind, keys []datastore.Key, err error) {
	word, name, slashed := strings.Cut(args[0], "/")
	names := args[1:]
	if slashed {
		names = append([]string{name}, names...)
	}
	if kind, err = kindNamed(word); err != nil {
		return kind, nil, err
	}
	for _, n := range names {
		key := datastore.Key{Kind: kind.Name, Name: n}
		if kind.Namespaced {
			key.Namespace = t.namespace
		}
		if err := key.Check(); err != nil {
			return kind, nil, err
		}
		keys = append(keys, key)
	}
	return kind, keys, nil
}

// completeWait is how long a shell waits for the names of a store.
const completeWait = 2 * time.Second

// complete offers kinds for the first word, and for so many behind it (-1: all) names
// of what is in the store: none where that does not tell.
func (t *Tool) complete(names int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) (words []string, _ cobra.ShellCompDirective) {
		offer := func(word string) {
			if strings.HasPrefix(word, begun) && !slices.Contains(args, word) {
				words = append(words, word)
			}
		}
		switch {
		case len(args) == 0:
			for _, k := range v3.Kinds() {
				offer(strings.ToLower(k.Name))
			}
		case names < 0 || len(args) <= names:
			kind, err := kindNamed(args[0])
			if err != nil {
				break
			}
			t.timeout = min(t.timeout, completeWait)
			_ = t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error { // nobody sees why there is none
				l, err := s.List(ctx, t.scope(kind))
				if err == nil {
					for _, o := range l.Objects {
						offer(o.GetName())
					}
				}
				return err
			})
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
