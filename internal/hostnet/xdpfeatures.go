//go:build linux

package hostnet

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// XDPFeatures are what a driver can do with XDP, by the kernel's bits
// (NETDEV_XDP_ACT_*). Zero means generic XDP only.
type XDPFeatures uint64

// The features, each one bit.
const (
	XDPBasic         XDPFeatures = 1 << iota // drop, pass, transmit back and abort, in the driver
	XDPRedirect                              // redirect to another device, CPU or AF_XDP socket
	XDPTransmit                              // take frames that others redirect to it
	XDPZeroCopy                              // AF_XDP without a copy
	XDPHardware                              // programs in the device itself
	XDPMultiRx                               // receive packets of several buffers
	XDPMultiTransmit                         // take redirected packets of several buffers
)

// Has tells whether all of want are there.
func (f XDPFeatures) Has(want XDPFeatures) bool { return f&want == want }

// String names the features as the kernel's netdev family does, "none" for none.
func (f XDPFeatures) String() string {
	names := [...]string{"basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg"}
	var have []string
	for i, name := range names {
		if f&(1<<i) != 0 {
			have = append(have, name)
		}
	}
	if rest := f >> len(names); rest != 0 {
		have = append(have, fmt.Sprintf("%#x", uint64(rest)<<len(names)))
	}
	if len(have) == 0 {
		return "none"
	}
	return strings.Join(have, " ")
}

// An XDPCapability is the answer of a driver to what it can do with XDP.
type XDPCapability struct {
	Features    XDPFeatures
	MaxSegments int // buffers of one packet in zero-copy mode; 0 without zero-copy
}

// The kernel's netdev family (linux/netdev.h), of which x/sys has no names.
const (
	netdevFamily          = "netdev"
	netdevVersion         = 1
	netdevDevGet          = 1
	netdevAttrIndex       = 1
	netdevAttrXDPFeatures = 3
	netdevAttrZeroCopyMax = 4
)

// XDPCapability asks the driver of a link what it can do with XDP, without
// attaching anything. ErrNotSupported on kernels before 6.3, which do not tell.
func (h *Host) XDPCapability(link string) (XDPCapability, error) {
	c, err := h.xdpCapability(link)
	if err != nil {
		return XDPCapability{}, fmt.Errorf("read XDP features of %s: %w", link, err)
	}
	return c, nil
}

func (h *Host) xdpCapability(link string) (c XDPCapability, err error) {
	l, err := h.Link(link)
	if err != nil {
		return c, err
	}
	family, err := h.genericFamily(netdevFamily)
	if err != nil {
		return c, err
	}
	parts := append(message(raw{netdevDevGet, netdevVersion, 0, 0}), attr(netdevAttrIndex, u32(uint32(l.Index))))
	msgs, err := h.conn.request(unix.NETLINK_GENERIC, family, 0, family, parts)
	switch {
	case Missing(err):
		return c, ErrNoLink
	case err != nil:
		return c, err
	case len(msgs) == 0 || len(msgs[0]) < genlHead:
		return c, fmt.Errorf("the kernel sent no answer")
	}
	walk(msgs[0][genlHead:], func(kind int, v []byte) {
		switch {
		case kind == netdevAttrXDPFeatures && len(v) >= 8:
			c.Features = XDPFeatures(native.Uint64(v))
		case kind == netdevAttrZeroCopyMax:
			c.MaxSegments = int(number(v))
		}
	})
	return c, nil
}

// genericFamily asks for the number of a generic netlink family.
func (h *Host) genericFamily(name string) (family uint16, err error) {
	msgs, err := h.conn.request(unix.NETLINK_GENERIC, unix.GENL_ID_CTRL, 0, unix.GENL_ID_CTRL,
		append(message(raw{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}), attr(unix.CTRL_ATTR_FAMILY_NAME, text(name))))
	if Missing(err) {
		return 0, fmt.Errorf("this kernel has no netlink family %s: %w", name, ErrNotSupported)
	}
	if err != nil {
		return 0, fmt.Errorf("look up netlink family %s: %w", name, err)
	}
	for _, m := range msgs {
		walk(m[min(genlHead, len(m)):], func(kind int, v []byte) {
			if kind == unix.CTRL_ATTR_FAMILY_ID {
				family = uint16(number(v))
			}
		})
	}
	return family, nil
}
