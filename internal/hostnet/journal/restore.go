//go:build linux

package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"margay.dev/margay/internal/hostnet"
)

// A Report tells what became of the entries of a journal.
type Report struct {
	Restored  []Entry // put back
	Unchanged []Entry // as they were before us: a crash came first, or somebody put them back
	Kept      []Entry // changed by somebody else after us, and left so
	Vanished  []Entry // their link, namespace or boot is gone
}

// String counts.
func (r Report) String() string {
	return fmt.Sprintf("%d put back, %d unchanged, %d changed by others and kept, %d of things that are gone",
		len(r.Restored), len(r.Unchanged), len(r.Kept), len(r.Vanished))
}

type outcome uint8

const (
	restored outcome = iota
	unchanged
	kept
	vanished
)

func (r *Report) add(e Entry, o outcome) {
	list := [...]*[]Entry{restored: &r.Restored, unchanged: &r.Unchanged, kept: &r.Kept, vanished: &r.Vanished}[o]
	*list = append(*list, e)
}

// Restore puts back every setting of class UntilExit, the newest first, where
// the value in force is still ours. Entries that are dealt with leave the
// journal; those that an error kept from being put back stay for the next
// time. It may be called again at any moment, also after a crash in the middle.
func (j *Journal) Restore(ctx context.Context) (Report, error) {
	return j.restore(ctx, func(e Entry) bool { return e.Class == UntilExit })
}

// RestoreAll puts back every setting, also those that outlive us on purpose: for uninstalling.
func (j *Journal) RestoreAll(ctx context.Context) (Report, error) {
	return j.restore(ctx, func(Entry) bool { return true })
}

func (j *Journal) restore(ctx context.Context, these func(Entry) bool) (Report, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.await(ctx); err != nil {
		return Report{}, fmt.Errorf("restore settings: %w", err)
	}
	if j.file.file == nil {
		return Report{}, errors.New("restore settings: journal is closed")
	}
	sites := &sites{journal: j, open: map[hostnet.Identity]*site{}}
	defer sites.close()
	var report Report
	var errs []error
	for _, e := range slices.Backward(j.sorted()) {
		if !these(e) {
			continue
		}
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("restore settings: %w", context.Cause(ctx)))
			break
		}
		o, err := sites.putBack(e)
		if err != nil {
			errs = append(errs, fmt.Errorf("restore %v: %w", e, err))
			continue
		}
		report.add(e, o)
		delete(j.entries, e.key())
	}
	return report, errors.Join(append(errs, j.file.rewrite(j.sorted()))...)
}

// putBack deals with one entry whose namespace is open.
func (s *site) putBack(e Entry) (outcome, error) {
	now, err := s.read(e)
	switch {
	case hostnet.Missing(err):
		return vanished, nil
	case err != nil:
		return 0, err
	case now == e.Before:
		return unchanged, nil
	case !e.ours(now):
		return kept, nil
	}
	err = s.write(e, now, e.Before)
	if e.Kind == KindRoute {
		s.routes = nil
	}
	if hostnet.Missing(err) {
		return vanished, nil
	}
	return restored, err
}

// sites are the namespaces opened during one Restore, found by what the
// journal remembers of them; nil for those that are gone.
type sites struct {
	journal *Journal
	open    map[hostnet.Identity]*site
}

func (s *sites) close() {
	for _, at := range s.open {
		if at != nil {
			at.close()
			at.ns.Close()
		}
	}
}

func (s *sites) putBack(e Entry) (outcome, error) {
	if e.Place.Boot != s.journal.boot {
		return vanished, nil
	}
	at, known := s.open[e.Place.Identity]
	if !known {
		var err error
		if at, err = s.find(e.Place); err != nil {
			return 0, err
		}
		s.open[e.Place.Identity] = at
	}
	if at == nil {
		return vanished, nil
	}
	return at.putBack(e)
}

// find opens the namespace that p remembers: at its path, as our own, or under
// any name it has in /run/netns. nil says that it is at none of these.
func (s *sites) find(p Place) (*site, error) {
	paths := []string{p.Path, ""}
	names, err := hostnet.NamedNamespaces()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if path, err := hostnet.NamespacePath(n); err == nil {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		ns, err := hostnet.OpenNamespace(path)
		if err != nil {
			continue
		}
		if id, err := ns.Identity(); err == nil && id == p.Identity {
			at, err := s.journal.openSite(ns)
			if err != nil {
				ns.Close()
			}
			return at, err
		}
		ns.Close()
	}
	return nil, nil
}
