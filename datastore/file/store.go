// Package file keeps objects in a folder of manifests, YAML or JSON, which people
// and their tools write too: for single hosts, and for folders that come out of a
// repository.
//
//	DIR/**/*.yaml, .yml, .json    objects, any number to a file
//	DIR/.margay/status/           what became of objects, a file each; made when somebody tells
//	DIR/.margay/lock              held while we write
//
// Names that begin with a dot are nobody's. A file is read when nothing has been
// written to it for a moment. One that cannot be read, or not whole, takes nothing
// away: what it held before, and might hold still, stays until it can be read again.
// Of objects with the same name the first counts, by path, then by place in the file.
//
// A resource version is a digest of the object: who writes the same again has
// changed nothing. What is written by hand has a uid that follows from its name, and
// its generation counts the changes that came by way of a Store alone.
package file

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Config says which folder, and how it is looked at.
type Config struct {
	// Dir is the folder; it must be there.
	Dir string `json:"dir"`
	// Settle is for how long nothing must have been written to a file before it is
	// read; 50 ms where none is given.
	Settle metav1.Duration `json:"settle,omitzero"`
	// Rescan is how often everything is looked at whether or not the kernel has told
	// of a change, as it does not for folders of other machines; 10 s where none is
	// given.
	Rescan metav1.Duration `json:"rescan,omitzero"`
}

// Validate reports every fault, also of a folder that is not there.
func (c Config) Validate() error {
	var faults []error
	if st, err := os.Stat(c.Dir); c.Dir == "" || err != nil || !st.IsDir() {
		faults = append(faults, fmt.Errorf("dir is %q, want a folder that is there", c.Dir))
	}
	if c.Settle.Duration < 0 || c.Rescan.Duration < 0 {
		faults = append(faults, fmt.Errorf("settle is %v and rescan %v, want more than 0", c.Settle.Duration, c.Rescan.Duration))
	}
	return errors.Join(faults...)
}

// Store keeps objects in a folder.
type Store struct {
	dir            string
	settle, rescan time.Duration

	mu      sync.Mutex
	closed  bool
	files   map[string]*manifest // by path
	status  map[string]*record   // by path
	whole   map[string]bool      // paths that we have written a moment ago
	view    view
	store   string        // which folder it is
	life    string        // changes when what happened before cannot be told any more
	at      uint64        // counts changes within a life
	past    []change      // the latest of them, oldest first
	told    int           // events in past
	changed chan struct{} // closed at the next change, and by Close
}

// change is what happened at once.
type change struct {
	at     uint64
	events []datastore.Event
}

// maxPast bounds the events that a store remembers for watches.
const maxPast = 1 << 15

// Open makes a Store of a folder. It fails for a configuration that Validate has
// something against.
func Open(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	s := &Store{dir: dir, settle: cfg.Settle.Duration, rescan: cfg.Rescan.Duration, whole: make(map[string]bool), changed: make(chan struct{}), life: rand.Text()}
	if s.settle == 0 {
		s.settle = 50 * time.Millisecond
	}
	if s.rescan == 0 {
		s.rescan = 10 * time.Second
	}
	return s, nil
}

// Close ends watches.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.changed)
	}
	return nil
}

// Get is as Store says.
func (s *Store) Get(ctx context.Context, key datastore.Key) (v3.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.scan(ctx); err != nil {
		return nil, fmt.Errorf("get %v: %w", key, err)
	}
	if it, ok := s.view.items[key]; ok {
		return it.object.DeepCopyObject().(v3.Object), nil
	}
	return nil, fmt.Errorf("get %v: %w", key, s.missing(key))
}

// missing is why there is no object with a key.
func (s *Store) missing(key datastore.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	for _, r := range s.view.refused {
		if r.Key == key {
			return fmt.Errorf("%s: %w", r.Where, r.Err)
		}
	}
	return datastore.ErrNotFound
}

// List is as Store says.
func (s *Store) List(ctx context.Context, scope datastore.Scope) (*datastore.Listing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.scan(ctx); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	l := &datastore.Listing{Revision: s.revision(s.at), Store: s.store}
	for key, it := range s.view.items {
		if scope.Holds(key) {
			l.Objects = append(l.Objects, it.object.DeepCopyObject().(v3.Object))
		}
	}
	slices.SortFunc(l.Objects, func(a, b v3.Object) int { return datastore.KeyOf(a).Compare(datastore.KeyOf(b)) })
	for _, r := range s.view.refused {
		if told(scope, r.Key) {
			l.Refused = append(l.Refused, r)
		}
	}
	return l, nil
}

// told reports whether what concerns a key is told to who asks for a scope; what is
// nobody's is told to all.
func told(scope datastore.Scope, key datastore.Key) bool {
	return key == datastore.Key{} || scope.Holds(key)
}

// revision is a count of this life in a store's words.
func (s *Store) revision(at uint64) datastore.Revision {
	return datastore.Revision(strconv.FormatUint(at, 10) + "/" + s.life)
}

// since gives what happened after a revision, and a channel that is closed when
// more does.
func (s *Store) since(from datastore.Revision) (news []change, more <-chan struct{}, err error) {
	number, life, _ := strings.Cut(string(from), "/")
	at, err := strconv.ParseUint(number, 10, 64)
	if err != nil || life != s.life || at > s.at || len(s.past) > 0 && at+1 < s.past[0].at || len(s.past) == 0 && at != s.at {
		return nil, nil, datastore.ErrCompacted
	}
	i, _ := slices.BinarySearchFunc(s.past, at+1, func(c change, at uint64) int { return int(c.at) - int(at) })
	return s.past[i:len(s.past):len(s.past)], s.changed, nil
}

// publish puts a view in force and remembers what it changed.
func (s *Store) publish(next view) {
	events := s.view.to(next)
	s.view = next
	if len(events) == 0 {
		return
	}
	s.at++
	for i := range events {
		events[i].Revision = s.revision(s.at)
	}
	s.past = append(s.past, change{s.at, events})
	s.told += len(events)
	for s.told > maxPast {
		s.told -= len(s.past[0].events)
		s.past = slices.Delete(s.past, 0, 1)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// begin forgets what happened: the folder is another one.
func (s *Store) begin(store string) {
	s.store, s.life, s.at, s.past, s.told = store, rand.Text(), 0, nil, 0
	s.files, s.status, s.view = nil, nil, view{}
	close(s.changed)
	s.changed = make(chan struct{})
}

// fail says in the words of a store what a folder or a file has refused.
func fail(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", datastore.ErrDenied, err)
	}
	return fmt.Errorf("%w: %w", datastore.ErrUnavailable, err)
}
