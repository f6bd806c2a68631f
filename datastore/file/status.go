package file

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// ours is the folder within the folder that is not for people.
const ours = ".margay"

// record is what became of an object, beside its manifest: that is for people, and
// may be under version control.
type record struct {
	UID    types.UID       `json:"uid"`
	Status json.RawMessage `json:"status"`

	stamp stamp
}

// put gives an object its status, if it is of that object; none otherwise.
func (r *record) put(o v3.Object) {
	status := reflect.ValueOf(o).Elem().FieldByName("Status")
	if !status.IsValid() {
		return
	}
	status.SetZero()
	if r == nil || r.UID != o.GetUID() {
		return
	}
	if err := json.Unmarshal(r.Status, status.Addr().Interface()); err != nil {
		status.SetZero() // of another version: whoever wrote it writes it again
	}
}

// statusName is the file of an object's status.
func statusName(key datastore.Key) string { return fileName(key) + ".json" }

// longestName leaves room in a file's name of 255 bytes for what stands around.
const longestName = 200

// fileName is a file's name for an object; a long one is cut, with a digest for the
// rest.
func fileName(key datastore.Key) string {
	parts := []string{strings.ToLower(key.Kind)}
	if key.Namespace != "" {
		parts = append(parts, key.Namespace)
	}
	name := strings.Join(append(parts, key.Name), ".")
	if len(name) > longestName {
		sum := sha256.Sum256([]byte(name))
		name = fmt.Sprintf("%s-%x", name[:longestName-20], sum[:8])
	}
	return name
}

// scanStatus reads every status that is new, and says whether all are the same as
// before. One that cannot be read is none.
func (s *Store) scanStatus() (status map[string]*record, same bool, err error) {
	dir := filepath.Join(s.dir, ours, "status")
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return nil, false, fail(err)
	}
	status, same = make(map[string]*record, len(list)), true
	for _, d := range list {
		st, err := d.Info()
		if err != nil || !st.Mode().IsRegular() || strings.HasPrefix(d.Name(), ".") || len(status) == maxFiles {
			continue
		}
		r := s.status[d.Name()]
		if now := stampOf(st); r == nil || r.stamp != now {
			text, err := contents(filepath.Join(dir, d.Name()))
			next := &record{stamp: now}
			if err == nil && json.Unmarshal(text, next) != nil {
				*next = record{stamp: now}
			}
			r, same = next, false
		}
		status[d.Name()] = r
	}
	return status, same && len(status) == len(s.status), nil
}

// writeStatus keeps the status of an object.
func (s *Store) writeStatus(o v3.Object) error {
	status, err := json.Marshal(reflect.ValueOf(o).Elem().FieldByName("Status").Interface())
	if err != nil {
		return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
	}
	text, err := json.Marshal(record{UID: o.GetUID(), Status: status})
	if err != nil {
		return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
	}
	dir := filepath.Join(s.dir, ours, "status")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail(err)
	}
	return replace(filepath.Join(dir, statusName(datastore.KeyOf(o))), text)
}

// dropStatus forgets the status of an object.
func (s *Store) dropStatus(key datastore.Key) error {
	err := os.Remove(filepath.Join(s.dir, ours, "status", statusName(key)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	return nil
}
