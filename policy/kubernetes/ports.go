package kubernetes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "margay.dev/margay/api/v3"
)

// portMatch is what the rules made of one are to say of protocol and destination
// port.
type portMatch struct {
	protocol *v3.Protocol // nil: any
	ports    []v3.Port    // none: any
}

// portLists collects the entries of a list of ports: for each protocol, by name,
// the ports, none of them where all are meant. Protocol "" is any.
type portLists map[string][]v3.Port

// add takes up ports of a protocol; none are all, whatever else is said.
func (l portLists) add(protocol string, ports ...v3.Port) {
	if known, ok := l[protocol]; ok && len(known) == 0 || len(ports) == 0 {
		l[protocol] = nil
		return
	}
	l[protocol] = append(l[protocol], ports...)
}

// matches are the lists by protocol's name, in minimal form; without any, one
// match of everything.
func (l portLists) matches() []portMatch {
	if len(l) == 0 {
		return []portMatch{{}}
	}
	var out []portMatch
	for _, name := range slices.Sorted(maps.Keys(l)) {
		m := portMatch{ports: mergePorts(l[name])}
		if name != "" {
			p := v3.ProtocolNamed(name)
			m.protocol = &p
		}
		out = append(out, m)
	}
	return out
}

// mergePorts is the same ports in the fewest ranges, ascending, and then the names,
// each once. It sorts what it is given.
func mergePorts(ports []v3.Port) []v3.Port {
	slices.SortFunc(ports, func(a, b v3.Port) int {
		return cmp.Or(strings.Compare(a.PortName, b.PortName), cmp.Compare(a.MinPort, b.MinPort))
	})
	var ranges, names []v3.Port
	for _, p := range ports {
		switch {
		case p.PortName != "":
			names = append(names, v3.NamedPort(p.PortName))
		case len(ranges) > 0 && int(p.MinPort) <= int(ranges[len(ranges)-1].MaxPort)+1:
			last := &ranges[len(ranges)-1]
			last.MaxPort = max(last.MaxPort, p.MaxPort)
		default:
			ranges = append(ranges, p)
		}
	}
	return append(ranges, slices.Compact(names)...)
}

// numberedPorts are the ports from first to last, both included.
func numberedPorts(first, last int32) (v3.Port, error) {
	const most = 1<<16 - 1
	switch {
	case first < 1 || first > most:
		return v3.Port{}, fmt.Errorf("port is %d, want 1 to %d", first, most)
	case last > most:
		return v3.Port{}, fmt.Errorf("last port is %d, want at most %d", last, most)
	case last < first:
		return v3.Port{}, fmt.Errorf("last port is %d, want at least the first, %d", last, first)
	}
	return v3.PortRange(uint16(first), uint16(last)), nil
}

// namedPort is a port by the name that containers give it. A name has a letter, so
// that no number in quotes is taken for one.
func namedPort(name string) (v3.Port, error) {
	const letters, others = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789_.-"
	if len(name) > 128 || strings.Trim(name, letters+others) != "" || !strings.ContainsAny(name, letters) {
		return v3.Port{}, fmt.Errorf("port is %.140q, want a number without quotes, or a name of at most 128 of A-Z, a-z, 0-9, _ . - with a letter in it", name)
	}
	return v3.NamedPort(name), nil
}
