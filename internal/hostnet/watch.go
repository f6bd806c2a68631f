//go:build linux

package hostnet

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// EventKind says what an Event tells.
type EventKind uint8

// The kinds. "Set" is there, new or changed; "Gone" is there no longer.
const (
	ResyncBegin EventKind = iota + 1 // everything there is follows: mark what you have
	ResyncEnd                        // that was all: sweep what was not told again
	LinkSet
	LinkGone
	AddressSet
	AddressGone
	RouteSet
	RouteGone
	NeighbourSet // but for entries of state NoARP, which the kernel makes and drops in silence
	NeighbourGone
)

// String is the constant's name.
func (k EventKind) String() string {
	names := [...]string{"", "ResyncBegin", "ResyncEnd", "LinkSet", "LinkGone", "AddressSet", "AddressGone",
		"RouteSet", "RouteGone", "NeighbourSet", "NeighbourGone"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// An Event is one change of the namespace's network. The field that Kind names is filled.
type Event struct {
	Kind      EventKind
	Lost      bool // on ResyncBegin: not the first, since events were lost to a receiver slower than the kernel
	Link      Link
	Address   Address
	Route     Route
	Neighbour Neighbour
}

// Topics is a set of what to hear of.
type Topics uint8

// The topics. The zero value stands for all of them.
const (
	TopicLinks Topics = 1 << iota
	TopicAddresses
	TopicRoutes
	TopicNeighbours
	topicAll = TopicLinks | TopicAddresses | TopicRoutes | TopicNeighbours
)

const (
	watchBuffer = 4 << 20 // octets; a burst of some 10,000 changes fits
	resyncPause = 20 * time.Millisecond
)

// A Subscription says what to hear of, and how far the kernel may run ahead.
type Subscription struct {
	Topics Topics
	Buffer int // octets the kernel queues for us; 0 is 4 MiB
}

// Subscribe calls each for everything there is, between ResyncBegin and
// ResyncEnd, and then for every change, until ctx ends (which returns its
// cause) or the socket breaks. The caller runs it on a goroutine of its own;
// each may take its time: when the kernel outruns it, events are lost, and
// everything there is is told again between two markers. Events right after a
// resync may tell of states before it, but the last one told is the truth.
func (h *Host) Subscribe(ctx context.Context, s Subscription, each func(Event)) error {
	if s.Topics == 0 {
		s.Topics = topicAll
	}
	for lost := false; ; lost = true {
		err := h.subscribeOnce(ctx, s, lost, each)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, nl.ErrDumpInterrupted):
			return fmt.Errorf("watch namespace %s: %w", h.ns, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(resyncPause):
		}
	}
}

// subscribeOnce lasts until something is lost: what the socket still holds
// then is older than what was lost, so that the socket must go with it.
func (h *Host) subscribeOnce(ctx context.Context, s Subscription, lost bool, each func(Event)) error {
	sock, err := h.join(s)
	if err != nil {
		return err
	}
	defer sock.Close()
	defer context.AfterFunc(ctx, sock.Close)() // wakes Receive
	w := watcher{host: h, sock: sock, topics: s.Topics, each: each}
	each(Event{Kind: ResyncBegin, Lost: lost})
	if err := w.dump(); err != nil {
		return err
	}
	each(Event{Kind: ResyncEnd})
	return w.follow()
}

// join opens a socket of the subscription's groups, before anything is dumped:
// what changes meanwhile waits in it.
func (h *Host) join(s Subscription) (sock *nl.NetlinkSocket, err error) {
	groups := map[Topics][]uint{
		TopicLinks:      {unix.RTNLGRP_LINK},
		TopicAddresses:  {unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR},
		TopicRoutes:     {unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE},
		TopicNeighbours: {unix.RTNLGRP_NEIGH},
	}
	var join []uint
	for topic, g := range groups {
		if s.Topics&topic != 0 {
			join = append(join, g...)
		}
	}
	err = h.ns.Do(func() (err error) {
		sock, err = nl.Subscribe(unix.NETLINK_ROUTE, join...)
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.Buffer == 0 {
		s.Buffer = watchBuffer
	}
	if err := setReceiveBuffer(sock, s.Buffer); err != nil {
		sock.Close()
		return nil, err
	}
	return sock, nil
}

type watcher struct {
	host   *Host
	sock   *nl.NetlinkSocket
	topics Topics
	each   func(Event)
}

// follow passes events on until the socket fails.
func (w *watcher) follow() error {
	for {
		msgs, from, err := w.sock.Receive()
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case from.Pid == nl.PidKernel: // any process may send to our socket: only the kernel is believed
			for _, m := range msgs {
				w.tell(m)
			}
		}
	}
}

// dump tells links first and neighbours last, so that each finds its link known.
func (w *watcher) dump() error {
	if w.topics&TopicLinks != 0 {
		links, err := w.host.Links()
		if err != nil {
			return err
		}
		for _, l := range links {
			w.each(Event{Kind: LinkSet, Link: l})
		}
	}
	if w.topics&TopicAddresses != 0 {
		addresses, err := w.host.Addresses("")
		if err != nil {
			return err
		}
		for _, a := range addresses {
			w.each(Event{Kind: AddressSet, Address: a})
		}
	}
	if w.topics&TopicRoutes != 0 {
		routes, err := w.host.Routes(RouteFilter{})
		if err != nil {
			return err
		}
		for _, r := range routes {
			w.each(Event{Kind: RouteSet, Route: r})
		}
	}
	if w.topics&TopicNeighbours == 0 {
		return nil
	}
	neighbours, err := w.host.Neighbours()
	for _, n := range neighbours {
		w.each(Event{Kind: NeighbourSet, Neighbour: n})
	}
	return err
}

// tell passes on one message of the kernel's.
func (w *watcher) tell(m syscall.NetlinkMessage) {
	var e Event
	ok := false
	switch m.Header.Type {
	case unix.RTM_NEWLINK:
		e.Kind = LinkSet
		e.Link, ok = parseLink(m.Data)
		e.Link = w.host.withDriver(e.Link)
	case unix.RTM_DELLINK:
		e.Kind = LinkGone
		e.Link, ok = parseLink(m.Data)
	case unix.RTM_NEWADDR:
		e.Kind = AddressSet
		e.Address, ok = parseAddress(m.Data)
	case unix.RTM_DELADDR:
		e.Kind = AddressGone
		e.Address, ok = parseAddress(m.Data)
	case unix.RTM_NEWROUTE:
		e.Kind = RouteSet
		e.Route, ok = parseRoute(m.Data)
	case unix.RTM_DELROUTE:
		e.Kind = RouteGone
		e.Route, ok = parseRoute(m.Data)
	case unix.RTM_NEWNEIGH:
		e.Kind = NeighbourSet
		e.Neighbour, ok = parseNeighbour(m.Data)
	case unix.RTM_DELNEIGH:
		e.Kind = NeighbourGone
		e.Neighbour, ok = parseNeighbour(m.Data)
	}
	if ok {
		w.each(e)
	}
}
