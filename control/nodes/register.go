package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/api/v3/fabric"
	"margay.dev/margay/datastore"
)

// Self is what the node says of itself in the store.
type Self struct {
	Name string
	// IPv4 and IPv6 are Autodetect, None, Keep or an address, with the length of its
	// network's prefix or without.
	IPv4, IPv6             string
	IPv4Method, IPv6Method Method
	ASNumber               *fabric.ASNumber
	Own                    []netip.Addr // further ones by which the node can be reached

	// Route is the function of that name, but in tests.
	Route func(host string, six bool) (netip.Addr, error)
}

// ErrTwice says that two nodes have an address.
var ErrTwice = errors.New("another node has the address")

// Register makes the node's own Node in the store what the node is: created where
// there is none; what Self does not speak of stays. Writers who come between are
// heeded. It fails with ErrTwice where another node says that it has the address, and
// then writes none.
func (s Self) Register(ctx context.Context, store datastore.Store, all []Interface) error {
	key := datastore.Key{Kind: v3.KindNode, Name: s.Name}
	for {
		o, err := store.Get(ctx, key)
		node, found := o.(*v3.Node)
		switch {
		case errors.Is(err, datastore.ErrNotFound):
			node = &v3.Node{}
			node.Name = s.Name
		case err != nil:
			return fmt.Errorf("register the node: %w", err)
		}
		before := node.DeepCopy()
		if err := s.describe(&node.Spec, all); err != nil {
			return fmt.Errorf("register the node: %w", err)
		}
		if err := s.alone(ctx, store, node.Spec.BGP); err != nil {
			return fmt.Errorf("register the node: %w", err)
		}
		switch {
		case !found:
			_, err = store.Create(ctx, node)
		case equality.Semantic.DeepEqual(before.Spec, node.Spec):
			return nil
		default:
			_, err = store.Update(ctx, node)
		}
		if errors.Is(err, datastore.ErrConflict) || errors.Is(err, datastore.ErrExists) || errors.Is(err, datastore.ErrNotFound) {
			continue // somebody came between
		}
		if err != nil {
			return fmt.Errorf("register the node: %w", err)
		}
		return nil
	}
}

// describe says of a node what Self says.
func (s Self) describe(n *fabric.NodeSpec, all []Interface) error {
	if n.BGP == nil {
		n.BGP = &fabric.NodeBGPSpec{}
	}
	var internal []netip.Addr
	for _, a := range n.Addresses {
		if p, err := netip.ParseAddr(a.Address); err == nil && a.Type == fabric.InternalIP {
			internal = append(internal, p)
		}
	}
	var errs []error
	for _, f := range []struct {
		six    bool
		said   string
		method Method
		at     *string
	}{{false, s.IPv4, s.IPv4Method, &n.BGP.IPv4Address}, {true, s.IPv6, s.IPv6Method, &n.BGP.IPv6Address}} {
		err := s.address(f.said, f.method, f.six, all, internal, f.at)
		errs = append(errs, err)
	}
	if s.ASNumber != nil {
		n.BGP.ASNumber = s.ASNumber
	}
	s.list(n)
	return errors.Join(errs...)
}

// address puts the node's address of a family in its place.
func (s Self) address(said string, m Method, six bool, all []Interface, internal []netip.Addr, at *string) error {
	switch said {
	case Keep:
		return nil
	case None:
		*at = ""
		return nil
	case Autodetect:
		p, err := m.Detect(six, all, internal, s.Route)
		if err == nil {
			*at = p.String()
		}
		return err
	}
	if p, err := netip.ParsePrefix(said); err == nil {
		*at = p.String()
		return nil
	}
	a, err := netip.ParseAddr(said)
	if err == nil {
		*at = Learn(a, all).String()
	}
	return err
}

// list says by which addresses the node can be reached. What others have written
// down for the outside stays, and what the method kubernetes-internal-ip goes by.
func (s Self) list(n *fabric.NodeSpec) {
	var out []fabric.NodeAddress
	for _, text := range []string{n.BGP.IPv4Address, n.BGP.IPv6Address} {
		if text != "" {
			out = append(out, fabric.NodeAddress{Address: text, Type: fabric.CalicoNodeIP})
		}
	}
	for _, a := range s.Own {
		out = append(out, fabric.NodeAddress{Address: a.String(), Type: fabric.InternalIP})
	}
	given := s.IPv4Method.name == internalIP || s.IPv6Method.name == internalIP
	for _, a := range n.Addresses {
		theirs := a.Type == fabric.ExternalIP || a.Type == fabric.InternalIP && given
		if theirs && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	n.Addresses = out
}

// alone reports whether no other node has the addresses.
func (s Self) alone(ctx context.Context, store datastore.Store, own *fabric.NodeBGPSpec) error {
	l, err := store.List(ctx, datastore.Scope{Kind: v3.KindNode})
	if err != nil {
		return err
	}
	for _, o := range l.Objects {
		other := o.(*v3.Node)
		if other.Name == s.Name || other.Spec.BGP == nil {
			continue
		}
		for _, pair := range [][2]string{{own.IPv4Address, other.Spec.BGP.IPv4Address}, {own.IPv6Address, other.Spec.BGP.IPv6Address}} {
			if a := host(pair[0]); a.IsValid() && a == host(pair[1]) {
				return fmt.Errorf("%w: %v is that of node %s: choose another method, or delete that Node if it is gone", ErrTwice, a, other.Name)
			}
		}
	}
	return nil
}

// host is the address of a text that may have a prefix's length.
func host(text string) netip.Addr {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr()
	}
	a, _ := netip.ParseAddr(text)
	return a
}
