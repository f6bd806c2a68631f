package hosts

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/dataplane/nft"
)

// place says whose each interface is.
func (h *Hosts) place() map[string]string {
	out := map[string]string{}
	names := slices.Sorted(maps.Keys(h.specs))
	for _, name := range names {
		if link := h.specs[name].InterfaceName; link == nft.AllInterfaces {
			claim(out, link, name)
		}
	}
	for _, link := range h.links {
		for _, name := range names {
			if spec := h.specs[name]; spec.InterfaceName == link.Name || spec.InterfaceName == "" && expects(spec, link.Addresses) {
				claim(out, link.Name, name)
			}
		}
	}
	// An interface that is not there yet is judged from its first packet on.
	for _, name := range names {
		if link := h.specs[name].InterfaceName; link != "" && !slices.ContainsFunc(h.links, func(l Interface) bool { return l.Name == link }) {
			claim(out, link, name)
		}
	}
	return out
}

// claim gives an interface to who comes first.
func claim(places map[string]string, link, name string) {
	if _, ok := places[link]; !ok {
		places[link] = name
	}
}

// expects reports whether an endpoint expects one of the addresses.
func expects(spec *v3.HostEndpointSpec, addresses []netip.Addr) bool {
	plain := func(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
	return slices.ContainsFunc(spec.ExpectedIPs, func(text string) bool {
		want, err := netip.ParseAddr(text)
		return err == nil && slices.ContainsFunc(addresses, func(a netip.Addr) bool { return plain(a) == plain(want) })
	})
}

// same reports whether the kernel would be told nothing new. Judgements that are
// the same memory are the same.
func same(a, b *nft.Desired) bool {
	return reflect.DeepEqual(a.Settings, b.Settings) && slices.EqualFunc(a.Endpoints, b.Endpoints, func(a, b nft.Endpoint) bool { return a == b })
}

// DefaultSettings are Calico's: failsafe ports that let in and out what a node and
// its stores need, and nothing else.
func DefaultSettings() nft.Settings {
	tcp := func(ports ...uint16) (out []nft.Failsafe) {
		for _, p := range ports {
			out = append(out, nft.Failsafe{Protocol: 6, Port: p})
		}
		return out
	}
	udp := func(port uint16) nft.Failsafe { return nft.Failsafe{Protocol: 17, Port: port} }
	return nft.Settings{Failsafe: [2][]nft.Failsafe{
		nft.Ingress: append(tcp(22, 179, 2379, 2380, 5473, 6443, 6666, 6667), udp(68)),
		nft.Egress:  append(tcp(179, 2379, 2380, 5473, 6443, 6666, 6667), udp(53), udp(67)),
	}}
}
