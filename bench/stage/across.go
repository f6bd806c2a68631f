package stage

import (
	"errors"

	"margay.dev/margay/internal/hostnet"
)

// KernelPairs is a namespace that routes between pairs of others, at the ends of
// veth pairs. Closing one path closes all.
func KernelPairs(pairs int) (all []*Path, err error) {
	r, err := Route(2 * pairs)
	if err != nil {
		return nil, err
	}
	for i := range pairs {
		client, server := 2*i, 2*i+1
		all = append(all, &Path{
			Client: r.Ends[client], Server: r.Ends[server], V4: r.Addr(server, false), V6: r.Addr(server, true), Close: r.Close,
		})
	}
	return all, nil
}

const (
	clientPair   = 0
	serverPair   = 1
	uplinkPair   = 100
	uplinkDevice = "uplink" // at both ends
)

// KernelAcross is two namespaces that route, an uplink of a veth pair between
// them, and a pod behind each. With frames the uplink carries what a wire does:
// frames of at most its MTU with whole checksums, made by the sender and put
// together by the receiver (GRO). Without, superpackets cross it whole, as veths
// let them.
func KernelAcross(frames bool) (*Path, error) {
	var s Spaces
	err := s.Make(4)
	if err == nil {
		err = routeAcross(s[0], s[1], s[2], s[3], frames)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	at := routedAddrs(serverPair, 2)
	return &Path{Client: s[0], Server: s[3], V4: at[0].Addr(), V6: at[1].Addr(), Close: s.Close}, nil
}

func routeAcross(client, near, far, server *hostnet.Namespace, frames bool) error {
	a, err := hostnet.NewHost(near)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := hostnet.NewHost(far)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := errors.Join(forward(near), forward(far), attach(a, clientPair, client), attach(b, serverPair, server)); err != nil {
		return err
	}
	if err := a.AddVeth(hostnet.VethConfig{Name: uplinkDevice, Peer: uplinkDevice, PeerNS: far}); err != nil {
		return err
	}
	for _, h := range []*hostnet.Host{a, b} {
		if err := errors.Join(h.SetOffload(uplinkDevice, "tx", !frames), h.SetOffload(uplinkDevice, "gro", frames)); err != nil {
			return err
		}
	}
	return errors.Join(
		Settle(near, uplinkDevice, routedAddrs(uplinkPair, 1)), Settle(far, uplinkDevice, routedAddrs(uplinkPair, 2)),
		lead(a, serverPair, 2), lead(b, clientPair, 1))
}

// lead sends what is for a pod to one side of the uplink.
func lead(h *hostnet.Host, pod, side int) error {
	var errs []error
	for i, gateway := range routedAddrs(uplinkPair, side) {
		errs = append(errs, h.ReplaceRoute(hostnet.Route{Dst: routedAddrs(pod, 0)[i].Masked(), Gateway: gateway.Addr()}))
	}
	return errors.Join(errs...)
}
