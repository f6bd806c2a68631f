package domains

import (
	"maps"
	"net/netip"
	"slices"
)

// Known is the patterns whose names are learned, and the addresses that names have
// now, in order. What is left of a former life and nobody has asked for is not in it.
func (k *Keeper) Known() (patterns []string, names map[string][]netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	names = make(map[string][]netip.Addr)
	for text, p := range k.book.patterns {
		if !p.wanted {
			continue
		}
		patterns = append(patterns, text)
		for name, addresses := range p.names {
			names[name] = slices.AppendSeq(names[name], maps.Keys(addresses))
		}
	}
	slices.Sort(patterns)
	for name, addresses := range names { // one that several patterns match has its addresses from each
		slices.SortFunc(addresses, netip.Addr.Compare)
		names[name] = slices.Compact(addresses)
	}
	return patterns, names
}
