//go:build linux

package hostnet

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const vethInfoPeer = 1 // VETH_INFO_PEER

// VethConfig says how to make a pair of veth links.
type VethConfig struct {
	Name   string     // of the end in the Host's namespace
	Peer   string     // of the other end
	PeerNS *Namespace // where the other end goes; nil is the Host's own

	RxQueues, TxQueues         int // of the first end; 0 is 1
	PeerRxQueues, PeerTxQueues int // of the other end; 0 is 1

	MTU          int // of both ends, octets; 0 is the kernel's 1500
	MAC, PeerMAC MAC // zero lets the kernel choose
}

// AddVeth makes a pair of veth links, both down. It is an error if either name is taken.
func (h *Host) AddVeth(c VethConfig) error {
	if err := errors.Join(checkLinkName(c.Name), checkLinkName(c.Peer)); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	peer := nl.NewRtAttr(vethInfoPeer|unix.NLA_F_NESTED, nil)
	peer.AddChild(linkHead(0, 0, 0))
	for _, a := range endAttrs(c.Peer, c.MTU, c.PeerMAC, c.PeerRxQueues, c.PeerTxQueues) {
		peer.AddChild(a)
	}
	if c.PeerNS != nil {
		peer.AddChild(attr(unix.IFLA_NET_NS_FD, u32(uint32(c.PeerNS.FD()))))
	}
	data := nl.NewRtAttr(unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, nil)
	data.AddChild(peer)
	parts := message(linkHead(0, 0, 0))
	for _, a := range endAttrs(c.Name, c.MTU, c.MAC, c.RxQueues, c.TxQueues) {
		parts = append(parts, a)
	}
	parts = append(parts, nest(unix.IFLA_LINKINFO, attr(unix.IFLA_INFO_KIND, []byte("veth")), data))
	err := h.conn.change(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...)
	if err != nil {
		return fmt.Errorf("add veth %s to %s: %w", c.Name, c.Peer, err)
	}
	return nil
}

// endAttrs are the attributes that both ends of a veth have.
func endAttrs(name string, mtu int, mac MAC, rx, tx int) []*nl.RtAttr {
	attrs := []*nl.RtAttr{
		attr(unix.IFLA_IFNAME, text(name)),
		attr(unix.IFLA_NUM_RX_QUEUES, u32(uint32(max(rx, 1)))),
		attr(unix.IFLA_NUM_TX_QUEUES, u32(uint32(max(tx, 1)))),
	}
	if mtu != 0 {
		attrs = append(attrs, attr(unix.IFLA_MTU, u32(uint32(mtu))))
	}
	if !mac.IsZero() {
		attrs = append(attrs, attr(unix.IFLA_ADDRESS, mac[:]))
	}
	return attrs
}

// DeleteLink removes the link called name (and the other end of a veth). A
// link that is not there is no error.
func (h *Host) DeleteLink(name string) error {
	l, err := h.Link(name)
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err == nil {
		err = h.conn.change(unix.RTM_DELLINK, 0, linkHead(l.Index, 0, 0))
	}
	if err != nil && !Missing(err) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// SetUp brings the link up.
func (h *Host) SetUp(name string) error {
	return h.setLink("bring up", name, unix.IFF_UP, unix.IFF_UP)
}

// SetDown takes the link down, and its routes with it.
func (h *Host) SetDown(name string) error { return h.setLink("take down", name, 0, unix.IFF_UP) }

// SetPromiscuous makes the link take frames for any address, or not. Nothing
// puts it back: see journal.Journal.
func (h *Host) SetPromiscuous(name string, on bool) error {
	var flags uint32
	if on {
		flags = unix.IFF_PROMISC
	}
	return h.setLink("set promiscuous", name, flags, unix.IFF_PROMISC)
}

// SetMTU sets the link's MTU in octets.
func (h *Host) SetMTU(name string, mtu int) error {
	if mtu < 0 || int64(mtu) > int64(^uint32(0)) {
		return fmt.Errorf("set MTU of %s: %d is out of range", name, mtu)
	}
	return h.setLink("set MTU", name, 0, 0, attr(unix.IFLA_MTU, u32(uint32(mtu))))
}

// SetMAC sets the link's Ethernet address. Some drivers take it only while down.
func (h *Host) SetMAC(name string, mac MAC) error {
	return h.setLink("set MAC", name, 0, 0, attr(unix.IFLA_ADDRESS, mac[:]))
}

// MoveLink moves the link to another namespace; it comes there down and without addresses.
func (h *Host) MoveLink(name string, to *Namespace) error {
	return h.setLink("move to namespace "+to.String(), name, 0, 0, attr(unix.IFLA_NET_NS_FD, u32(uint32(to.FD()))))
}

// RenameLink gives the link another name; older kernels want it down for that.
func (h *Host) RenameLink(name, to string) error {
	if err := checkLinkName(to); err != nil {
		return fmt.Errorf("rename link %s: %w", name, err)
	}
	return h.setLink("rename to "+to, name, 0, 0, attr(unix.IFLA_IFNAME, text(to)))
}

// DetachXDP takes the link's XDP program off, as ip link set dev NAME xdp off does;
// it is no error if there is none. One that is held by a bpf_link stays, which is
// an error: only its holder can take it off.
func (h *Host) DetachXDP(name string) error {
	const none = ^uint32(0) // file descriptor -1
	return h.setLink("detach XDP program", name, 0, 0, nest(unix.IFLA_XDP, attr(unix.IFLA_XDP_FD, u32(none))))
}

// setLink changes flags under mask and attributes of the link called name.
func (h *Host) setLink(what, name string, flags, mask uint32, attrs ...*nl.RtAttr) error {
	l, err := h.Link(name)
	if err == nil {
		parts := message(linkHead(l.Index, flags, mask))
		for _, a := range attrs {
			parts = append(parts, a)
		}
		err = h.conn.change(unix.RTM_NEWLINK, 0, parts...)
	}
	if err != nil {
		return fmt.Errorf("%s: link %s: %w", what, name, err)
	}
	return nil
}

// message begins a message with its head.
func message(head raw) []nl.NetlinkRequestData { return []nl.NetlinkRequestData{head} }
