package domains

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// saved is a Book in a file, so that names keep their addresses while an agent is
// away: nobody asks again for what he has been told.
type saved struct {
	Version int          `json:"version"`
	Entries []savedEntry `json:"entries"`
}

// savedVersion is of the form of the file.
const savedVersion = 1

// maxSaved is how long a file may be in bytes.
const maxSaved = 64 << 20

type savedEntry struct {
	Pattern   string                   `json:"pattern"`
	Name      string                   `json:"name"`
	Addresses map[netip.Addr]time.Time `json:"addresses"` // until when
}

// Save writes what is known, for Load.
func (k *Keeper) Save(w io.Writer) error {
	k.mu.Lock()
	s := saved{Version: savedVersion}
	for _, text := range slices.Sorted(maps.Keys(k.book.patterns)) {
		p := k.book.patterns[text]
		for _, name := range slices.Sorted(maps.Keys(p.names)) {
			e := savedEntry{text, name, map[netip.Addr]time.Time{}}
			for a, one := range p.names[name] {
				e.Addresses[a] = one.until.Round(0) // the clock of the wall: the other belongs to this process
			}
			s.Entries = append(s.Entries, e)
		}
	}
	k.mu.Unlock()
	if err := json.NewEncoder(w).Encode(s); err != nil {
		return fmt.Errorf("save addresses of names: %w", err)
	}
	return nil
}

// Load adds what Save has written: to a keeper that has heard nothing yet. It is
// told when its patterns are wanted, and forgotten in its time otherwise. Where it
// fails nothing is added: the file is damaged, and names have no addresses until
// endpoints ask for them again.
func (k *Keeper) Load(r io.Reader) error {
	var s saved
	if err := json.NewDecoder(io.LimitReader(r, maxSaved)).Decode(&s); err != nil {
		return fmt.Errorf("load addresses of names: %w: remove the file, they are learned anew", err)
	}
	if s.Version != savedVersion {
		return fmt.Errorf("load addresses of names: the file has version %d, want %d: remove it, they are learned anew", s.Version, savedVersion)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range s.Entries {
		if _, err := parsePattern(e.Pattern); err != nil {
			return fmt.Errorf("load addresses of names: %w: remove the file, they are learned anew", err)
		}
	}
	now := k.now()
	latest := now.Add(maxTTL + k.book.limits.Grace) // a clock that was wrong may have written a later time
	for _, e := range s.Entries {
		p, err := k.book.pattern(e.Pattern)
		if err != nil {
			return err // it was read before
		}
		if !p.Match(e.Name) {
			continue
		}
		for _, a := range slices.SortedFunc(maps.Keys(e.Addresses), netip.Addr.Compare) {
			if !a.IsValid() {
				continue
			}
			if until := e.Addresses[a]; until.Before(latest) {
				k.book.put(p, e.Name, a, now, until)
			} else {
				k.book.put(p, e.Name, a, now, latest)
			}
		}
	}
	return nil
}
