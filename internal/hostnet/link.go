//go:build linux

package hostnet

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// XDPMode tells how a program is attached to a link.
type XDPMode uint8

// The modes, by the kernel's numbers (XDP_ATTACHED_*).
const (
	XDPNone    XDPMode = iota // no program
	XDPNative                 // in the driver
	XDPGeneric                // in the stack, after a copy
	XDPOffload                // in the hardware
	XDPMulti                  // several of them at once
)

// String is the word ip-link(8) uses, near enough.
func (m XDPMode) String() string {
	names := [...]string{"none", "native", "generic", "offload", "multi"}
	if int(m) < len(names) {
		return names[m]
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// XDP is the program attached to a link; the zero value is none.
type XDP struct {
	Mode    XDPMode
	Program uint32 // program id, as bpftool prog shows it
}

// A Link is one network device, as it was when read.
type Link struct {
	Name        string
	Index       int
	MAC         MAC
	MTU         int    // octets of network layer packet
	Up          bool   // administratively
	Carrier     bool   // up, and the other side is there
	Promiscuous bool   // asked for by an operator or by us, not by a bridge or a capture
	RxQueues    int    // as allocated; Channels tells how many are in use
	TxQueues    int    // as allocated
	Kind        string // "veth", "tun", "bridge" ...; empty for hardware and loopback
	Driver      string // as ethtool -i; empty for links without one
	Master      int    // index of the bridge or bond above, 0 for none
	Peer        int    // index of the link below or at the other end, perhaps in another namespace; 0 for none
	XDP         XDP
}

// Link reads the link called name; ErrNoLink if there is none.
func (h *Host) Link(name string) (Link, error) {
	if err := checkLinkName(name); err != nil {
		return Link{}, err
	}
	return h.oneLink(name, linkHead(0, 0, 0), attr(unix.IFLA_IFNAME, text(name)))
}

// LinkByIndex reads the link with this index; ErrNoLink if there is none.
func (h *Host) LinkByIndex(index int) (Link, error) {
	return h.oneLink(fmt.Sprintf("with index %d", index), linkHead(index, 0, 0))
}

func (h *Host) oneLink(what string, head raw, attrs ...nl.NetlinkRequestData) (Link, error) {
	parts := append(message(head), attrs...)
	msgs, err := h.conn.request(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, unix.RTM_NEWLINK, parts)
	if err != nil {
		if Missing(err) {
			return Link{}, fmt.Errorf("read link %s in namespace %s: %w", what, h.ns, ErrNoLink)
		}
		return Link{}, fmt.Errorf("read link %s: %w", what, err)
	}
	for _, m := range msgs {
		if l, ok := parseLink(m); ok {
			return h.withDriver(l), nil
		}
	}
	return Link{}, fmt.Errorf("read link %s: kernel sent no link", what)
}

// Links reads every link of the namespace, loopback included, by index.
func (h *Host) Links() ([]Link, error) {
	msgs, err := h.conn.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, linkHead(0, 0, 0))
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	links := make([]Link, 0, len(msgs))
	for _, m := range msgs {
		if l, ok := parseLink(m); ok {
			links = append(links, h.withDriver(l))
		}
	}
	return links, nil
}

// withDriver adds what only the ethtool ioctl tells.
func (h *Host) withDriver(l Link) Link {
	info, err := unix.IoctlGetEthtoolDrvinfo(h.control, l.Name)
	if err == nil {
		l.Driver = unix.ByteSliceToString(info.Driver[:])
	}
	return l
}

// linkHead is a struct ifinfomsg of rtnetlink(7).
func linkHead(index int, flags, mask uint32) raw {
	b := []byte{unix.AF_UNSPEC, 0, 0, 0}
	b = native.AppendUint32(b, uint32(index))
	b = native.AppendUint32(b, flags)
	return native.AppendUint32(b, mask)
}

// parseLink reads RTM_NEWLINK and RTM_DELLINK. Messages of other families
// (a bridge speaking about its port) are about something else.
func parseLink(m []byte) (l Link, ok bool) {
	if len(m) < unix.SizeofIfInfomsg || m[0] != unix.AF_UNSPEC {
		return Link{}, false
	}
	flags := native.Uint32(m[8:])
	l.Index = int(int32(native.Uint32(m[4:])))
	l.Up = flags&unix.IFF_UP != 0
	l.Carrier = flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0
	l.Promiscuous = flags&unix.IFF_PROMISC != 0
	walk(m[unix.SizeofIfInfomsg:], func(kind int, v []byte) { l.set(kind, v) })
	return l, true
}

func (l *Link) set(kind int, v []byte) {
	switch kind {
	case unix.IFLA_IFNAME:
		l.Name = unix.ByteSliceToString(v)
	case unix.IFLA_ADDRESS:
		if len(v) == 6 {
			l.MAC = MAC(v)
		}
	case unix.IFLA_MTU:
		l.MTU = int(number(v))
	case unix.IFLA_NUM_RX_QUEUES:
		l.RxQueues = int(number(v))
	case unix.IFLA_NUM_TX_QUEUES:
		l.TxQueues = int(number(v))
	case unix.IFLA_MASTER:
		l.Master = int(number(v))
	case unix.IFLA_LINK:
		l.Peer = int(number(v))
	case unix.IFLA_LINKINFO:
		walk(v, func(kind int, v []byte) {
			if kind == unix.IFLA_INFO_KIND {
				l.Kind = unix.ByteSliceToString(v)
			}
		})
	case unix.IFLA_XDP:
		walk(v, func(kind int, v []byte) {
			switch kind {
			case unix.IFLA_XDP_ATTACHED:
				l.XDP.Mode = XDPMode(number(v))
			case unix.IFLA_XDP_PROG_ID:
				l.XDP.Program = number(v)
			}
		})
	}
}

// checkLinkName holds a name against what the kernel takes, so that it cannot
// walk out of a path of /proc or /sys either.
func checkLinkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/: \t\n\x00") {
		return fmt.Errorf("%q is no link name, want 1 to 15 octets without slash, colon or space", name)
	}
	return nil
}
