//go:build linux

package hostnet

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNoPeer says that the other end of a veth pair is in none of the
// namespaces that were searched, or that the link is no veth.
var ErrNoPeer = errors.New("no other end found")

const sameNamespace = -1 // the kernel's word for a peer that is not elsewhere

// Peer finds the other end of a veth pair: in this namespace, or else among
// elsewhere. The index says where in that list, -1 for this namespace.
func (h *Host) Peer(link string, elsewhere []*Namespace) (l Link, index int, err error) {
	here, err := h.Link(link)
	if err != nil {
		return Link{}, 0, err
	}
	if here.Kind != "veth" || here.Peer == 0 {
		return Link{}, 0, fmt.Errorf("find other end of %s: %w: it is no veth", link, ErrNoPeer)
	}
	id, err := h.peerNamespace(here.Index)
	if err != nil {
		return Link{}, 0, fmt.Errorf("find other end of %s: %w", link, err)
	}
	if id == sameNamespace {
		l, err := h.LinkByIndex(here.Peer)
		return l, -1, err
	}
	for i, ns := range elsewhere {
		if got, err := h.namespaceID(ns); err == nil && got == id {
			l, err := linkIn(ns, here.Peer)
			return l, i, err
		}
	}
	return Link{}, 0, fmt.Errorf("find other end of %s: %w: it is in a namespace that has no name and no process of ours to see", link, ErrNoPeer)
}

func linkIn(ns *Namespace, index int) (Link, error) {
	there, err := NewHost(ns)
	if err != nil {
		return Link{}, err
	}
	defer there.Close()
	return there.LinkByIndex(index)
}

// peerNamespace is the kernel's id, as this namespace knows it, of the one
// where the other end of a link is.
func (h *Host) peerNamespace(index int) (int, error) {
	msgs, err := h.conn.request(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, unix.RTM_NEWLINK, message(linkHead(index, 0, 0)))
	if err != nil {
		return 0, err
	}
	id := sameNamespace
	for _, m := range msgs {
		walk(m[min(unix.SizeofIfInfomsg, len(m)):], func(kind int, v []byte) {
			if kind == unix.IFLA_LINK_NETNSID {
				id = int(int32(number(v)))
			}
		})
	}
	return id, nil
}

// namespaceID is the id by which this namespace knows another; negative if it
// has none.
func (h *Host) namespaceID(ns *Namespace) (int, error) {
	head := raw{unix.AF_UNSPEC, 0, 0, 0} // struct rtgenmsg, padded
	msgs, err := h.conn.request(unix.NETLINK_ROUTE, unix.RTM_GETNSID, 0, unix.RTM_NEWNSID,
		append(message(head), attr(unix.NETNSA_FD, u32(uint32(ns.FD())))))
	if err != nil {
		return 0, err
	}
	id := unix.NETNSA_NSID_NOT_ASSIGNED
	for _, m := range msgs {
		walk(m[min(len(head), len(m)):], func(kind int, v []byte) {
			if kind == unix.NETNSA_NSID {
				id = int(int32(number(v)))
			}
		})
	}
	return id, nil
}
