package explain

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/internal/pkt"
)

// clientPort stands for the port that a client's kernel would choose.
const clientPort = 40000

// maxName is how long the name of an end may be, in bytes.
const maxName = 1024

// end is one end of a question in one family.
type end struct {
	addr     netip.Addr
	endpoint *desired.Endpoint // that was named, or has the address; nil for none
}

// tuple is a question in one family.
type tuple struct {
	source, destination         end
	proto8                      uint8
	sourcePort, destinationPort uint16
	echo                        bool
}

// read makes the tuples of a question, one for each family that both ends have.
func read(s *desired.State, in *pb.ExplainRequest) (out []tuple, err error) {
	if err := check(in); err != nil {
		return nil, err
	}
	from, err := ends(s, "source", in.GetSource())
	if err != nil {
		return nil, err
	}
	to, err := ends(s, "destination", in.GetDestination())
	if err != nil {
		return nil, err
	}
	for family := range from {
		if !from[family].addr.IsValid() || !to[family].addr.IsValid() {
			continue
		}
		t := tuple{source: from[family], destination: to[family], proto8: uint8(in.GetProtocol()),
			sourcePort: uint16(in.GetSourcePort()), destinationPort: uint16(in.GetDestinationPort()), echo: in.GetEcho()}
		if hasPorts(t.proto8) && t.sourcePort == 0 {
			t.sourcePort = clientPort
		}
		if t.echo {
			t.proto8, t.destinationPort = echoOf(family == 1)
		}
		out = append(out, t)
	}
	if out == nil {
		return nil, fault{ErrQuestion, fmt.Sprintf("%.64q has %s and %.64q has %s: ask about two addresses of one family",
			in.GetSource(), families(from), in.GetDestination(), families(to))}
	}
	return out, nil
}

// check refuses what no packet can be.
func check(in *pb.ExplainRequest) error {
	refuse := func(format string, args ...any) error { return fault{ErrQuestion, fmt.Sprintf(format, args...)} }
	proto, ports := in.GetProtocol(), in.GetSourcePort()|in.GetDestinationPort()
	switch {
	case in.GetSourcePort() > 65535 || in.GetDestinationPort() > 65535:
		return refuse("ports are %d and %d, want at most 65535", in.GetSourcePort(), in.GetDestinationPort())
	case in.GetEcho() && (proto != 0 || ports != 0):
		return refuse("an echo request is asked about with protocol %d and ports %d and %d, want none: the family says which protocol", proto, in.GetSourcePort(), in.GetDestinationPort())
	case in.GetEcho():
		return nil
	case proto == 0 || proto > 255:
		return refuse("protocol is %d, want 1 to 255", proto)
	case proto == pkt.ProtoICMP || proto == pkt.ProtoICMPv6:
		return refuse("protocol is %d: of ICMP ask about an echo request", proto)
	case !hasPorts(uint8(proto)) && ports != 0:
		return refuse("protocol %d has no ports, want TCP, UDP or SCTP", proto)
	case hasPorts(uint8(proto)) && in.GetDestinationPort() == 0:
		return refuse("destination port is 0, want 1 to 65535")
	}
	return nil
}

func hasPorts(proto uint8) bool {
	return proto == pkt.ProtoTCP || proto == pkt.ProtoUDP || proto == pkt.ProtoSCTP
}

// echoOf is the protocol of an echo request, and the destination port that rules
// see: type and code.
func echoOf(ipv6 bool) (proto uint8, port uint16) {
	if ipv6 {
		return pkt.ProtoICMPv6, uint16(pkt.ICMP6Echo) << 8
	}
	return pkt.ProtoICMP, uint16(pkt.ICMPEcho) << 8
}

// ends finds who is meant by a text, by family: IPv4, IPv6.
func ends(s *desired.State, which, text string) (out [2]end, err error) {
	if text == "" || len(text) > maxName {
		return out, fault{ErrQuestion, fmt.Sprintf("%s has %d bytes, want an address or an endpoint's name", which, len(text))}
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr = addr.Unmap(); addr.Zone() != "" {
			return out, fault{ErrQuestion, fmt.Sprintf("%s is %.64q, want an address without a zone", which, text)}
		}
		out[family(addr)] = end{addr, owner(s, addr)}
		return out, nil
	}
	e, err := named(s, which, text)
	if err != nil {
		return out, err
	}
	for _, p := range e.Addresses {
		if at := &out[family(p.Addr())]; at.endpoint == nil {
			*at = end{p.Addr(), e}
		}
	}
	return out, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func families(of [2]end) string {
	switch {
	case of[0].addr.IsValid():
		return "an IPv4 address"
	case of[1].addr.IsValid():
		return "an IPv6 address"
	}
	return "no address"
}

// owner is the endpoint that has an address, the one with the longest prefix.
func owner(s *desired.State, addr netip.Addr) (out *desired.Endpoint) {
	best := -1
	for _, id := range slices.Sorted(maps.Keys(s.Endpoints)) {
		for _, p := range s.Endpoints[id].Addresses {
			if p.Bits() > best && p.Contains(addr) {
				best, out = p.Bits(), s.Endpoints[id]
			}
		}
	}
	return out
}

// named finds the endpoint that a person means.
func named(s *desired.State, which, name string) (*desired.Endpoint, error) {
	switch found := s.Find(name); len(found) {
	case 0:
		return nil, fault{ErrUnknown, fmt.Sprintf("%s is %.64q, which is neither an address nor an endpoint of this node (%s): give its address, or ask the forwarder of its own node",
			which, name, some(slices.Sorted(maps.Keys(s.Endpoints))))}
	case 1:
		return found[0], nil
	default:
		var ids []string
		for _, e := range found {
			ids = append(ids, e.ID)
		}
		return nil, fault{ErrQuestion, fmt.Sprintf("%s is %.64q, which may be %s: give the whole id", which, name, some(ids))}
	}
}

// some names the first of a list.
func some(names []string) string {
	const most = 8
	switch {
	case len(names) == 0:
		return "it has none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
