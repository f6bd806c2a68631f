//go:build linux

// Package journal changes settings of the host and puts them back: on exit,
// and at the next start after a crash.
//
// What is about to be changed, and what it was before, is on disk before it is
// changed, so that a kill at any moment leaves nothing that cannot be undone:
//
//	read what is in force ─► record, fsync ─► change ─► (next start) Restore
//
// Restore puts a value back only where the one in force is still ours: what
// somebody else changed after us stays, and is told.
package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"margay.dev/margay/internal/hostnet"
)

const bootIDFile = "/proc/sys/kernel/random/boot_id"

// A Class says when a journalled setting is put back.
type Class uint8

const (
	// UntilExit settings are put back by Restore: on exit, and at the next
	// start after a crash.
	UntilExit Class = iota
	// UntilUninstall settings outlive us on purpose, as the host port and the
	// blackhole routes do; only RestoreAll puts them back.
	UntilUninstall
)

// A Kind says what an Entry is about.
type Kind string

// The kinds, and what Entry.Name and the values mean for each.
const (
	KindSysctl      Kind = "sysctl"      // path below /proc/sys; its text
	KindOffload     Kind = "offload"     // a feature of the link; "on" or "off"
	KindPromiscuous Kind = "promiscuous" // no name; "on" or "off"
	KindSysfs       Kind = "sysfs"       // attribute of the link; its text
	KindRoute       Kind = "route"       // destination, metric and table; the route as JSON, or empty for none
	KindAddress     Kind = "address"     // prefix on the link; "present", or empty
	KindLink        Kind = "link"        // kind of the link; its index, or empty; "made" until the index is known
)

// A Place is a namespace as the journal remembers it.
type Place struct {
	Path string `json:"path,omitempty"` // as it was opened; empty for the process's own
	Boot string `json:"boot"`           // boot id of the kernel: settings do not outlive it
	hostnet.Identity
}

// An Entry is one setting that we changed.
type Entry struct {
	ID        uint64   `json:"id"` // grows with each change: the newest is put back first
	Kind      Kind     `json:"kind"`
	Class     Class    `json:"class,omitempty"`
	Place     Place    `json:"place"`
	Link      string   `json:"link,omitempty"` // name it had
	LinkIndex int      `json:"index,omitempty"`
	Name      string   `json:"name,omitempty"`
	Before    string   `json:"before"` // value to put back
	Set       []string `json:"set"`    // values of ours that may be in force, the newest last
}

// String tells the setting and its values in one line.
func (e Entry) String() string {
	what := strings.TrimSpace(strings.Join([]string{string(e.Kind), e.Link, e.Name}, " "))
	return fmt.Sprintf("%s: was %q, set to %q", what, e.Before, e.Set)
}

// key tells whether two entries are about the same thing.
type key struct {
	kind  Kind
	boot  string
	id    hostnet.Identity
	link  string
	index int
	name  string
}

func (e Entry) key() key {
	k := key{e.Kind, e.Place.Boot, e.Place.Identity, e.Link, e.LinkIndex, e.Name}
	if e.LinkIndex != 0 {
		k.link = "" // the index says which, whatever its name
	}
	return k
}

// A Journal changes settings of the host and remembers on disk what they were.
// What it is about to do is on disk before it does it, so that a kill at any
// moment leaves nothing changed that cannot be put back.
type Journal struct {
	boot string
	path string

	mu      sync.Mutex
	file    *journalFile
	missed  bool // Regain found it in the hands of whom it was lent to
	entries map[key]Entry
	next    uint64
}

// Open opens the journal at path, making it (0600) and its folder
// (0700) where there is none. A record torn off by a crash is dropped; damaged
// ones are skipped and told by Damage. Call Restore next: what stands in the
// journal was left by a run that could not tidy up. One process may have a
// journal open at a time.
func Open(path string) (*Journal, error) {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return nil, fmt.Errorf("open journal: read boot id: %w", err)
	}
	j := &Journal{boot: strings.TrimSpace(string(boot)), path: path}
	if err := j.open(); err != nil {
		return nil, err
	}
	return j, nil
}

func (j *Journal) open() error {
	file, entries, err := openJournalFile(j.path)
	if err != nil {
		return fmt.Errorf("open journal %s: %w", j.path, err)
	}
	j.file, j.entries, j.next = file, map[key]Entry{}, 1
	for _, e := range entries {
		j.entries[e.key()] = e
		j.next = max(j.next, e.ID+1)
	}
	return nil
}

// Lend closes the file so that another process can open it; until Regain no
// setting can be changed. The settings and the entries stay.
func (j *Journal) Lend() error { return j.Close() }

// Regain opens the file again after Lend, with what the other process wrote. If
// that one still has it open, which is an error, each change tries it again, and
// Restore waits for it.
func (j *Journal) Regain() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.missed = true
	return j.back()
}

// back opens a file that could not be regained before.
func (j *Journal) back() error {
	if !j.missed {
		return nil
	}
	err := j.open()
	j.missed = err != nil
	return err
}

// await waits until back finds that nobody else has the file open.
func (j *Journal) await(ctx context.Context) error {
	for {
		err := j.back()
		if !errors.Is(err, errInUse) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close lets go of the file. The settings stay as they are, and so do the entries.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.missed = false
	return j.file.close()
}

// Damage tells which records of the file could not be read when it was opened;
// what they were about is not put back.
func (j *Journal) Damage() error { return j.file.damage }

// Entries lists what stands in the journal, oldest first.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sorted()
}

func (j *Journal) sorted() []Entry {
	return slices.SortedFunc(maps.Values(j.entries), func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
}

// Forget drops the entries that gone chooses, without touching what they are
// about: for settings of a link or namespace that was removed on purpose.
func (j *Journal) Forget(gone func(Entry) bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.back(); err != nil {
		return err
	}
	var done []record
	for _, e := range j.sorted() {
		if gone(e) {
			done = append(done, record{Op: opDone, Entry: &e})
		}
	}
	return j.commit(done)
}

// commit writes records to disk and, when they are there, takes them up.
func (j *Journal) commit(records []record) error {
	if len(records) == 0 {
		return nil
	}
	if err := j.file.append(records); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	for _, r := range records {
		replay(j.entries, r)
	}
	if j.file.wasteful(len(j.entries)) {
		return j.file.rewrite(j.sorted())
	}
	return nil
}

// A change is one setting and the value it shall have.
type change struct {
	Entry
	want string
}

// step is a change that is on disk and not made yet.
type step struct {
	entry Entry
	prior *Entry // what stood in the journal before
	want  string
	now   string // value in force
}

// apply makes the changes, after each is on disk.
func (j *Journal) apply(ns *hostnet.Namespace, what changes) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.back(); err != nil {
		return err
	}
	s, err := j.openSite(ns)
	if err != nil {
		return err
	}
	defer s.close()
	list, err := what(s)
	if err != nil {
		return err
	}
	steps, err := j.prepare(s, list)
	if err != nil {
		return err
	}
	return j.carryOut(s, steps)
}

// prepare writes down what the changes will do. What is as wanted already
// needs no step.
func (j *Journal) prepare(s *site, list []change) ([]step, error) {
	var steps []step
	var records []record
	for _, c := range list {
		c.Place = s.place
		now, err := s.read(c.Entry)
		if err != nil {
			return nil, err
		}
		st, r := j.plan(c, now)
		if r != nil {
			records = append(records, *r)
		}
		if now != c.want {
			steps = append(steps, st)
		}
	}
	return steps, j.commit(records)
}

// plan decides what is to be remembered about one change, given the value in force.
func (j *Journal) plan(c change, now string) (step, *record) {
	e := c.Entry
	st := step{want: c.want, now: now}
	prior, known := j.entries[e.key()]
	if known {
		st.prior = &prior
	}
	ours := known && prior.ours(now)
	switch {
	case now == c.want && !known:
		return st, nil // it is so without us
	case now == c.want && !ours:
		return st, &record{Op: opDone, Entry: &prior} // somebody else made it so
	case now == c.want && prior.Class == e.Class:
		return st, nil
	case ours: // a second change of ours: what was before the first is put back
		e.Before, e.Set = prior.Before, []string{now, c.want}
	default:
		e.Before, e.Set = now, []string{c.want}
	}
	e.ID = j.next
	j.next++
	st.entry = e
	return st, &record{Op: opSet, Entry: &e}
}

// carryOut makes the changes that prepare wrote down, and adds what the kernel
// made of the values, where it put them into other words.
func (j *Journal) carryOut(s *site, steps []step) error {
	var errs []error
	var records []record
	for _, st := range steps {
		if err := s.write(st.entry, st.now, st.want); err != nil {
			errs = append(errs, err)
		}
	}
	s.routes = nil
	for _, st := range steps {
		if r := s.settle(st); r != nil {
			records = append(records, *r)
		}
	}
	return errors.Join(append(errs, j.commit(records))...)
}

// settle compares what is in force with what was written down. A change that
// was not made is taken back from the journal; a value in other words is added.
func (s *site) settle(st step) *record {
	now, err := s.read(st.entry)
	e := st.entry
	switch {
	case err != nil || e.ours(now) && now != st.now:
		return nil
	case now == st.now && st.prior != nil:
		return &record{Op: opSet, Entry: st.prior}
	case now == st.now:
		return &record{Op: opDone, Entry: &e}
	}
	e.Set = append(slices.Clone(e.Set), now)
	return &record{Op: opSet, Entry: &e}
}

// ours tells whether a value in force is one that we set.
func (e Entry) ours(now string) bool {
	if e.Kind == KindLink && slices.Equal(e.Set, []string{linkMade}) {
		return now != "" // killed before its index was written down
	}
	return slices.Contains(e.Set, now)
}
