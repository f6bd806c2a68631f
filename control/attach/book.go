package attach

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// ErrTaken says that another attachment has a port or device.
var ErrTaken = errors.New("is another workload's")

// ErrFull says that a node has as many attachments as it may.
var ErrFull = errors.New("the node has as many workloads as its forwarder has ports for")

// maxAttachments leaves some of a forwarder's 4,000 ports to uplinks.
const maxAttachments = 3900

// Status is how an attachment stands.
type Status struct {
	InForce   bool
	Reason    string   // why not, for people
	Addresses []string // prefixes that lead to the workload
}

// Book is the attachments of a node, each in a file of its own. It may be used by
// many goroutines.
type Book struct {
	dir string

	mu      sync.Mutex
	entries map[Key]Attachment
	version uint64 // of entries
	told    uint64 // the version that Tell spoke of last
	status  map[Key]Status
	news    chan struct{} // closed, and replaced, when those who wait shall look again
	changed chan struct{} // holds one
}

// suffixes of files: of an attachment, and of one that is being written.
const (
	fileSuffix = ".json"
	newSuffix  = ".new"
)

// Open reads the book in a folder, which is made where there is none. A file that
// cannot be read is an error, since to go on without it would disconnect a workload.
func Open(dir string) (*Book, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open attachments: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open attachments: %w", err)
	}
	b := &Book{dir: dir, entries: map[Key]Attachment{}, version: 1, status: map[Key]Status{}, news: make(chan struct{}), changed: make(chan struct{}, 1)}
	var faults []error
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		switch {
		case strings.HasSuffix(f.Name(), newSuffix): // of an agent that was killed while it wrote: nobody was told of it
			faults = append(faults, os.Remove(path))
		case strings.HasSuffix(f.Name(), fileSuffix):
			if err := b.read(path); err != nil {
				faults = append(faults, fmt.Errorf("read attachment %s: %w: mend it, or remove it, which disconnects its workload", path, err))
			}
		}
	}
	return b, errors.Join(faults...)
}

// read reads one file.
func (b *Book) read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var a Attachment
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return err
	}
	if err := a.Validate(); err != nil {
		return err
	}
	if path != b.path(a.Key) {
		return fmt.Errorf("it is of workload %v, whose file is %s", a.Key, b.path(a.Key))
	}
	if err := b.free(a); err != nil {
		return err
	}
	b.entries[a.Key] = a
	return nil
}

func (b *Book) path(k Key) string {
	sum := sha256.Sum256([]byte(k.String())) // names may be longer than those of files
	return filepath.Join(b.dir, hex.EncodeToString(sum[:16])+fileSuffix)
}

// free reports whether no other attachment has the port or the place of a.
func (b *Book) free(a Attachment) error {
	for k, o := range b.entries {
		switch {
		case k == a.Key:
		case o.Port == a.Port:
			return fmt.Errorf("port %q %w, %v: choose another", a.Port, ErrTaken, k)
		case o.place() == a.place():
			return fmt.Errorf("device %q %w, %v: detach that first", a.Device, ErrTaken, k)
		}
	}
	return nil
}

// Put adds an attachment, or replaces the one of its workload, on disk first. It
// returns the version to wait for, or fails with ErrTaken or ErrFull.
func (b *Book) Put(a Attachment) (version uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, had := b.entries[a.Key]
	switch {
	case had && reflect.DeepEqual(old, a):
		return b.version, nil
	case !had && len(b.entries) >= maxAttachments:
		return 0, fmt.Errorf("attach %v: %w: %d", a.Key, ErrFull, maxAttachments)
	}
	if err := b.free(a); err != nil {
		return 0, err
	}
	if err := b.write(a); err != nil {
		return 0, fmt.Errorf("write attachment of %v: %w", a.Key, err)
	}
	b.entries[a.Key] = a
	return b.next(a.Key), nil
}

// Remove takes away the attachment of a workload, which may have none. It returns
// the version to wait for.
func (b *Book) Remove(k Key) (version uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, had := b.entries[k]; !had {
		return b.version, nil
	}
	if err := os.Remove(b.path(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("remove attachment of %v: %w", k, err)
	}
	if err := b.sync(); err != nil {
		return 0, fmt.Errorf("remove attachment of %v: %w", k, err)
	}
	delete(b.entries, k)
	return b.next(k), nil
}

// next counts a change of an entry. b.mu is held.
func (b *Book) next(k Key) uint64 {
	b.version++
	delete(b.status, k)
	b.wake()
	select {
	case b.changed <- struct{}{}:
	default:
	}
	return b.version
}

// write writes an attachment whole or not at all.
func (b *Book) write(a Attachment) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	aside := b.path(a.Key) + newSuffix
	f, err := os.OpenFile(aside, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(aside))
	}
	if err := os.Rename(aside, b.path(a.Key)); err != nil {
		return err
	}
	return b.sync()
}

// sync makes names of files outlive the machine.
func (b *Book) sync() error {
	d, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Changed holds one where there may be something new in All.
func (b *Book) Changed() <-chan struct{} { return b.changed }

// All is every attachment, and the version that says so.
func (b *Book) All() (map[Key]Attachment, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.entries), b.version
}

// Tell says how attachments stand that were in All with a version, or an earlier
// one; what is not told of is as it was.
func (b *Book) Tell(version uint64, stand map[Key]Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = max(b.told, version)
	for k, s := range stand {
		if _, there := b.entries[k]; there {
			b.status[k] = s
		} else {
			delete(b.status, k)
		}
	}
	b.wake()
}

// wake has those who wait look again. b.mu is held.
func (b *Book) wake() {
	close(b.news)
	b.news = make(chan struct{})
}

// Await waits until Tell says that an attachment is in force, which has been so
// since a version. If ctx ends before, the error says what was missing. One that is
// taken away meanwhile is an error at once.
func (b *Book) Await(ctx context.Context, k Key, version uint64) (st Status, err error) {
	err = b.wait(ctx, func() (bool, error) {
		if _, there := b.entries[k]; !there {
			return false, fmt.Errorf("wait for %v to be in force: it was detached meanwhile", k)
		}
		st = b.status[k]
		return b.told >= version && st.InForce, nil
	})
	if reason := st.Reason; err != nil && ctx.Err() != nil {
		if reason == "" {
			reason = "the forwarder has not acknowledged it"
		}
		err = fmt.Errorf("wait for %v to be in force: %s: %w", k, reason, err)
	}
	return st, err
}

// Gone waits until Tell has spoken of a version, from which on a workload has no
// attachment, or another one.
func (b *Book) Gone(ctx context.Context, k Key, version uint64) error {
	err := b.wait(ctx, func() (bool, error) { return b.told >= version, nil })
	if err != nil {
		return fmt.Errorf("wait until nothing of %v is in force: the forwarder has not acknowledged it: %w", k, err)
	}
	return nil
}

// wait waits until done, which is asked with b.mu held.
func (b *Book) wait(ctx context.Context, done func() (bool, error)) error {
	for {
		b.mu.Lock()
		ok, err := done()
		news := b.news
		b.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// List is every attachment and how it stands, by key.
func (b *Book) List() (all []Attachment, stand []Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range slices.SortedFunc(maps.Keys(b.entries), Key.Compare) {
		all, stand = append(all, b.entries[k]), append(stand, b.status[k])
	}
	return all, stand
}
