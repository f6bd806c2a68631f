package nodes

import (
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"margay.dev/margay/internal/hostnet"
)

// Watch calls each with the interfaces of a namespace, by their index, and again
// whenever they have changed, until ctx ends or the kernel tells no more.
func Watch(ctx context.Context, h *hostnet.Host, each func([]Interface)) error {
	w := watch{links: map[int]hostnet.Link{}, addresses: map[int][]netip.Prefix{}}
	return h.Subscribe(ctx, hostnet.Subscription{Topics: hostnet.TopicLinks | hostnet.TopicAddresses}, func(e hostnet.Event) {
		if !w.event(e) {
			return
		}
		if now := w.interfaces(); w.told == nil || !reflect.DeepEqual(now, w.told) {
			w.told = now
			each(slices.Clone(now))
		}
	})
}

// watch is what the kernel has told.
type watch struct {
	links     map[int]hostnet.Link
	addresses map[int][]netip.Prefix // in the kernel's order: the one that it sends from first
	within    bool                   // of a resync
	told      []Interface
}

// event takes an event, and reports whether what is there now is known whole.
func (w *watch) event(e hostnet.Event) bool {
	switch e.Kind {
	case hostnet.ResyncBegin:
		clear(w.links)
		clear(w.addresses)
		w.within = true
	case hostnet.ResyncEnd:
		w.within = false
	case hostnet.LinkSet:
		w.links[e.Link.Index] = e.Link
	case hostnet.LinkGone:
		delete(w.links, e.Link.Index)
		delete(w.addresses, e.Link.Index)
	case hostnet.AddressSet, hostnet.AddressGone:
		w.address(e.Address, e.Kind == hostnet.AddressSet)
	}
	return !w.within
}

// address notes that a link has an address, or has it no longer. One that others
// may have, too, is none yet (RFC 4862).
func (w *watch) address(a hostnet.Address, there bool) {
	list := w.addresses[a.Link]
	i := slices.Index(list, a.Prefix)
	switch there = there && a.Flags&hostnet.AddressTentative == 0; {
	case there && i < 0:
		w.addresses[a.Link] = append(list, a.Prefix)
	case !there && i >= 0:
		w.addresses[a.Link] = slices.Delete(slices.Clone(list), i, i+1)
	}
}

func (w *watch) interfaces() []Interface {
	out := []Interface{}
	for _, index := range slices.Sorted(maps.Keys(w.links)) {
		l := w.links[index]
		out = append(out, Interface{Name: l.Name, Up: l.Up, Addresses: slices.Clone(w.addresses[index])})
	}
	return out
}
