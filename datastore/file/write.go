package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Create is as Store says: it makes a new file.
func (s *Store) Create(ctx context.Context, o v3.Object) (v3.Object, error) {
	o, err := datastore.Admit(o)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	key := datastore.KeyOf(o)
	return s.change(ctx, "create", key, func() error {
		if _, ok := s.view.items[key]; ok {
			return datastore.ErrExists
		}
		if err := s.missing(key); !errors.Is(err, datastore.ErrNotFound) {
			return fmt.Errorf("%w, and cannot be used: replace or delete it: %w", datastore.ErrExists, err)
		}
		datastore.Begun(o, time.Now())
		if err := s.dropStatus(key); err != nil { // of one that was deleted by hand
			return err
		}
		return s.add(o)
	})
}

// Update is as Store says: it writes the object's file anew, and everything else
// that is in it as it was.
func (s *Store) Update(ctx context.Context, o v3.Object) (v3.Object, error) {
	o, err := datastore.Admit(o)
	if err != nil {
		return nil, fmt.Errorf("replace: %w", err)
	}
	key := datastore.KeyOf(o)
	return s.change(ctx, "replace", key, func() error {
		before, refused := s.view.items[key], s.refusal(key)
		if before.object == nil && refused == "" {
			return datastore.ErrNotFound
		}
		if before.object == nil {
			wants := datastore.Precondition{UID: string(o.GetUID()), ResourceVersion: o.GetResourceVersion()}
			if err := wants.Permits(unusable(key)); err != nil {
				return err
			}
			datastore.Begun(o, time.Now())
			return s.rewrite(key, o)
		}
		if err := datastore.Replaced(o, before.object); err != nil {
			return err
		}
		if refused == "" && equal(o, before.object) {
			return nil // no change is no write
		}
		return s.rewrite(key, o)
	})
}

// UpdateStatus is as Store says: the manifest stays as it is.
func (s *Store) UpdateStatus(ctx context.Context, o v3.Object) (v3.Object, error) {
	key := datastore.KeyOf(o)
	return s.change(ctx, "write status of", key, func() error {
		before, ok := s.view.items[key]
		if !ok {
			return s.missing(key)
		}
		after, err := datastore.Judged(o, before.object)
		if err != nil || equal(after, before.object) {
			return err
		}
		if _, err := datastore.Text(after); err != nil {
			return err
		}
		return s.writeStatus(after)
	})
}

// Delete is as Store says: it takes the object out of every file. It fails with
// ErrUnavailable where one of them cannot be read as a whole: what is not there any
// more might then be there still, to whoever read the file before.
func (s *Store) Delete(ctx context.Context, key datastore.Key, only datastore.Precondition) error {
	_, err := s.change(ctx, "delete", key, func() error {
		before, ok := s.view.items[key]
		if !ok && s.refusal(key) == "" {
			return s.missing(key)
		}
		if !ok {
			before.object = unusable(key)
		}
		if err := only.Permits(before.object); err != nil {
			return err
		}
		for _, path := range s.holding(key) {
			if s.files[path].blind {
				return fmt.Errorf("%w: something in %s cannot be read: mend that first", datastore.ErrUnavailable, path)
			}
		}
		return errors.Join(s.rewrite(key, nil), s.dropStatus(key))
	})
	return err
}

// unusable is an object of which nothing is known but its key.
func unusable(key datastore.Key) v3.Object {
	o := v3.New(key.Kind)
	o.SetNamespace(key.Namespace)
	o.SetName(key.Name)
	return o
}

// refusal is a place where there is something with a key that cannot be used; ""
// if there is none.
func (s *Store) refusal(key datastore.Key) string {
	i := slices.IndexFunc(s.view.refused, func(r datastore.Refusal) bool { return r.Key == key })
	if i < 0 {
		return ""
	}
	return s.view.refused[i].Where
}

// change does something to the folder, alone among stores, knowing what is in it,
// and gives what is at the key then.
func (s *Store) change(ctx context.Context, op string, key datastore.Key, do func() error) (o v3.Object, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s %v: %w", op, key, err)
		}
	}()
	if err := key.Check(); err != nil {
		return nil, err
	}
	if _, err := identity(s.dir); err != nil { // which is not made here
		return nil, fail(err)
	}
	unlock, err := s.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.scan(ctx); err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	err = s.scan(ctx)
	clear(s.whole)
	if err != nil {
		return nil, err
	}
	if it, ok := s.view.items[key]; ok {
		return it.object.DeepCopyObject().(v3.Object), nil
	}
	return nil, nil
}

// alone waits until no other store writes.
func (s *Store) alone(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(s.dir, ours), 0o755); err != nil {
		return nil, fail(err)
	}
	f, err := os.OpenFile(filepath.Join(s.dir, ours, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fail(err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil // which unlocks it
		case !errors.Is(err, unix.EWOULDBLOCK):
			_ = f.Close()
			return nil, fail(fmt.Errorf("lock the folder: %w", err))
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("%w: somebody else writes: %w", datastore.ErrUnavailable, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// maxNamesakes bounds the search for a name of a file.
const maxNamesakes = 1000

// add writes an object to a file of its own.
func (s *Store) add(o v3.Object) error {
	text, err := yaml.Marshal(bare(o))
	if err != nil {
		return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
	}
	if _, err := datastore.Text(o); err != nil {
		return err
	}
	name := filepath.Join(s.dir, fileName(datastore.KeyOf(o)))
	path := name + ".yaml"
	for i := 2; i < maxNamesakes; i++ {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return s.write(path, text)
		}
		path = fmt.Sprintf("%s.%d.yaml", name, i)
	}
	return fmt.Errorf("%w: there are %d files named as %s.yaml: clear them away", datastore.ErrUnavailable, maxNamesakes, name)
}

// rewrite puts an object in the place of what has its key, in the file that counts,
// and takes it out of all others; nil takes it out of that one too. What was kept
// of a file that cannot be read now has no place, and goes into a file of its own.
func (s *Store) rewrite(key datastore.Key, o v3.Object) error {
	if o != nil {
		if _, err := datastore.Text(o); err != nil {
			return err
		}
	}
	for _, path := range s.holding(key) {
		text, err := contents(path)
		if err != nil {
			return fail(err)
		}
		next, placed, err := edit(path, text, key, o)
		if err != nil {
			return err
		}
		if bytes.Equal(next, text) {
			continue
		}
		if placed {
			o = nil
		}
		if err := s.put(path, next); err != nil {
			return err
		}
	}
	if o != nil {
		return s.add(o)
	}
	return nil
}

// holding are the files that have something with a key, or may have, by path.
func (s *Store) holding(key datastore.Key) []string {
	var paths []string
	has := func(it item) bool { return it.key == key }
	for path, m := range s.files {
		if slices.ContainsFunc(m.items, has) || slices.ContainsFunc(m.kept, has) ||
			slices.ContainsFunc(m.refused, func(r datastore.Refusal) bool { return r.Key == key }) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// edit gives a manifest in which o is in the place of the first that has its key,
// and of others nothing; placed says whether there was one. Documents that have
// nothing of it stay byte for byte.
func edit(path string, text []byte, key datastore.Key, o v3.Object) (next []byte, placed bool, err error) {
	var documents [][]byte
	for i, document := range v3.Documents(text) {
		parts, err := v3.Split(document)
		has := func(part []byte) bool { k, _ := keyIn(part); return k == key }
		if err != nil || !slices.ContainsFunc(parts, has) {
			documents = append(documents, document)
			continue
		}
		var objects [][]byte
		for _, part := range parts {
			if has(part) && (placed || o == nil) {
				continue
			}
			if has(part) {
				if part, err = datastore.Text(bare(o)); err != nil {
					return nil, false, err
				}
				placed = true
			}
			objects = append(objects, part)
		}
		written, err := render(path, objects, i > 0)
		if err != nil {
			return nil, false, err
		}
		documents = append(documents, written...)
	}
	return bytes.Join(documents, []byte("---")), placed, nil
}

// render gives documents with objects; behind says that others come before them.
func render(path string, objects [][]byte, behind bool) (documents [][]byte, err error) {
	if filepath.Ext(path) == ".json" && len(objects) > 1 {
		objects = [][]byte{slices.Concat([]byte(`{"apiVersion":"v1","kind":"List","items":[`), bytes.Join(objects, []byte(",")), []byte("]}"))}
	}
	for i, text := range objects {
		if filepath.Ext(path) != ".json" {
			if text, err = yaml.JSONToYAML(text); err != nil {
				return nil, fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
			}
		}
		if behind || i > 0 {
			text = append([]byte("\n"), text...)
		}
		documents = append(documents, append(bytes.TrimRight(text, "\n"), '\n')) // dashes begin a line
	}
	return documents, nil
}

// bare is an object without what is not in manifests.
func bare(o v3.Object) v3.Object {
	o = o.DeepCopyObject().(v3.Object)
	(&record{}).put(o)
	o.SetResourceVersion("")
	return o
}

// equal reports whether a store would keep the same of two objects.
func equal(a, b v3.Object) bool {
	x, err := datastore.Text(a)
	y, err2 := datastore.Text(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// put puts text in the place of a manifest, or removes one in which nothing is
// left. A link stays one: what it leads to is changed, if that is in the folder.
func (s *Store) put(path string, text []byte) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fail(err)
	}
	root, err := filepath.EvalSymlinks(s.dir)
	if err != nil {
		return fail(err)
	}
	if !strings.HasPrefix(real, root+string(filepath.Separator)) {
		return fmt.Errorf("%w: %s is a link to a file outside of the folder: change it there", datastore.ErrDenied, path)
	}
	if len(bytes.TrimSpace(text)) > 0 {
		return s.write(real, text)
	}
	if err := os.Remove(path); err != nil {
		return fail(err)
	}
	return nil
}

// write writes a manifest, which is whole then.
func (s *Store) write(path string, text []byte) error {
	s.whole[path] = true
	return replace(path, text)
}

// replace writes a file, whole or not at all, also should the machine lose its
// power.
func replace(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".margay-*")
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fail(err)
		}
	}()
	mode := fs.FileMode(0o644)
	if st, err := os.Stat(path); err == nil {
		mode = st.Mode().Perm()
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
