package desired

import (
	"net/netip"
	"slices"
	"strings"
)

// Owner is the endpoint that has an address, by the longest of its prefixes; nil
// where none has it.
func (s *State) Owner(a netip.Addr) *Endpoint {
	for n := a.BitLen(); n >= 0; n-- {
		if s.lengths[family(a)][n] == 0 {
			continue
		}
		if p, err := a.Prefix(n); err == nil {
			if id, ok := s.owners[p]; ok {
				return s.Endpoints[id]
			}
		}
	}
	return nil
}

// family is 0 for IPv4, 1 for IPv6.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// own notes that an endpoint has a prefix, disown that it has it no longer.
func (s *State) own(p netip.Prefix, id string) {
	s.owners[p] = id
	s.lengths[family(p.Addr())][p.Bits()]++
}

func (s *State) disown(p netip.Prefix) {
	if _, had := s.owners[p]; had {
		delete(s.owners, p)
		s.lengths[family(p.Addr())][p.Bits()]--
	}
}

// Find is the endpoints that a person means by a name: the one of that id, or else
// those whose id ends in a slash and the name, whose pod it is, or whose port, by id.
func (s *State) Find(name string) []*Endpoint {
	if e := s.Endpoints[name]; e != nil {
		return []*Endpoint{e}
	}
	var found []*Endpoint
	for id, e := range s.Endpoints {
		if last := id[strings.LastIndexByte(id, '/')+1:]; strings.HasSuffix(id, "/"+name) || e.Port == name || name != "" && podOf(last) == name {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return found
}

// podOf is the pod of a workload endpoint of Calico's with a name,
// NODE-ORCHESTRATOR-POD-INTERFACE, where "--" stands for each "-" of a part; empty
// for other names.
func podOf(name string) string {
	const dash = "\x00"
	parts := strings.Split(strings.ReplaceAll(name, "--", dash), "-")
	if len(parts) != 4 {
		return ""
	}
	return strings.ReplaceAll(parts[2], dash, "-")
}
