package file

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"margay.dev/margay/datastore"
)

// pollEvery is how often a folder is looked at of which the kernel does not tell
// what changes, as where it watches too many already.
const pollEvery = time.Second

// Watch is as Store says.
func (s *Store) Watch(ctx context.Context, scope datastore.Scope, from datastore.Revision, deliver func([]datastore.Event)) error {
	s.mu.Lock()
	err := s.scan(ctx)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	ctx, end := context.WithCancelCause(ctx)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		if err := s.lookOut(ctx); err != nil {
			end(err)
		}
	}()
	err = s.tell(ctx, scope, from, deliver)
	end(err)
	<-looked
	return fmt.Errorf("watch: %w", err)
}

// tell hands out what happened after a revision, until the context ends.
func (s *Store) tell(ctx context.Context, scope datastore.Scope, from datastore.Revision, deliver func([]datastore.Event)) error {
	at := from
	for first := true; ; first = false {
		s.mu.Lock()
		closed := s.closed
		news, more, err := s.since(at)
		s.mu.Unlock()
		switch {
		case closed:
			return fmt.Errorf("%w: the store was closed", datastore.ErrUnavailable)
		case err != nil:
			return err
		case first:
			deliver([]datastore.Event{{Type: datastore.Bookmark, Revision: from}})
		}
		for _, c := range news {
			at = c.events[0].Revision
			var events []datastore.Event
			for _, e := range c.events {
				if told(scope, e.Key) {
					events = append(events, e)
				}
			}
			if len(events) > 0 {
				deliver(events)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-more:
		}
	}
}

// lookOut scans whenever the folder may have changed, until the context ends, the
// store is closed, or the folder cannot be looked at.
func (s *Store) lookOut(ctx context.Context) error {
	every := s.rescan
	var events chan fsnotify.Event
	var errs chan error
	w, err := fsnotify.NewWatcher()
	if err == nil {
		defer w.Close()
		events, errs = w.Events, w.Errors
		err = s.attend(w)
	}
	if err != nil {
		every = min(every, pollEvery)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var soon <-chan time.Time // since a moment ago something happened: more may be coming
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			if soon == nil && s.concerns(e.Name) {
				soon = time.After(s.settle)
			}
			continue
		case <-errs: // too much happened at once, or a watch is lost
		case <-soon:
		case <-tick.C:
		}
		soon = nil
		if w != nil && s.attend(w) != nil {
			tick.Reset(min(every, pollEvery))
		}
		s.mu.Lock()
		err := s.scan(ctx)
		s.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// attend has the kernel tell what happens in each folder, that of statuses too, and
// to the folder itself.
func (s *Store) attend(w *fsnotify.Watcher) error {
	_ = w.Add(filepath.Dir(s.dir))                  // may be closed to us: then a folder that is exchanged is found by rescan
	_ = w.Add(filepath.Join(s.dir, ours, "status")) // before the first status it is not there
	return filepath.WalkDir(s.dir+"/", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir():
			return nil
		case path != s.dir+"/" && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		}
		return w.Add(filepath.Clean(path))
	})
}

// concerns reports whether what happens to a file may change what the store holds.
func (s *Store) concerns(path string) bool {
	if path == s.dir {
		return true
	}
	below, err := filepath.Rel(s.dir, path)
	if err != nil || strings.HasPrefix(below, "..") {
		return false // a neighbour of the folder
	}
	base := filepath.Base(path)
	return !strings.HasPrefix(base, ".") || base == ours || base == "..data"
}
