//go:build linux

// Package hostnet is Margay's hand on the host's network: namespaces, links,
// addresses, routes, rules, neighbours, sysctls, sysfs attributes, offloads
// and events of them. Package journal below it puts settings back on exit and
// after a crash.
//
// It is the only importer of netlink. It logs nothing: what happened is
// returned, as values, errors or events.
//
//	OpenNamespace ─► Namespace ─► NewHost ─► Host   reads and changes, nothing remembered
//	                     │                    └──► Subscribe   events, resynchronised after loss
//	                     └──────► journal.Journal   changes that are put back: written down first
//
// A Namespace and a Host may be used by many goroutines at once.
package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

var (
	// ErrNoLink says that no link of the name or index asked for exists in the namespace.
	ErrNoLink = errors.New("no such link")
	// ErrNotSupported says that the driver or kernel lacks the setting asked for.
	ErrNotSupported = errors.New("not supported by this driver or kernel")
)

// A MAC is an Ethernet address; it is zero for links that have none (TUN, loopback).
type MAC [6]byte

// ParseMAC reads six octets in any notation net.ParseMAC takes.
func ParseMAC(s string) (MAC, error) {
	a, err := net.ParseMAC(s)
	if err != nil || len(a) != 6 {
		return MAC{}, fmt.Errorf("parse %q: want six octets as in 02:00:00:00:00:01", s)
	}
	return MAC(a), nil
}

// String is the colon notation.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero tells whether there is no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// A Host reads and changes the network of one namespace. It holds netlink
// sockets in it, which keep a deleted namespace alive until Close.
type Host struct {
	ns      *Namespace
	conn    *conn
	control int // datagram socket for the ethtool ioctl

	once   sync.Once
	family uint16 // generic netlink number of ethtool, read once
	famErr error
}

// NewHost opens a Host in ns, which must stay open for as long as the Host is used.
func NewHost(ns *Namespace) (*Host, error) {
	h := &Host{ns: ns, control: -1}
	err := ns.Do(func() (err error) {
		if h.conn, err = openConn(); err != nil {
			return err
		}
		h.control, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open netlink in namespace %s: %w", ns, err)
	}
	return h, nil
}

// Close gives the sockets back. The Namespace stays open.
func (h *Host) Close() {
	if h.conn != nil {
		h.conn.close()
	}
	if h.control >= 0 {
		unix.Close(h.control)
		h.control = -1
	}
}

// Namespace is the one this Host works in.
func (h *Host) Namespace() *Namespace { return h.ns }

// Missing tells whether err means that what a call was about is not there: the
// link, address, route, neighbour, sysctl or attribute.
func Missing(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) ||
		errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, ErrNoLink) || errors.Is(err, fs.ErrNotExist)
}

// exists tells whether err means that the object is there already.
func exists(err error) bool { return errors.Is(err, unix.EEXIST) }

// isUnsupported tells whether err means that driver or kernel has no such thing.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// raw is the fixed head of a netlink message, already encoded.
type raw []byte

func (r raw) Len() int          { return len(r) }
func (r raw) Serialize() []byte { return r }

var native = binary.NativeEndian

// attr encodes one attribute of a netlink message.
func attr(kind int, value []byte) *nl.RtAttr { return nl.NewRtAttr(kind, value) }

// nest encodes an attribute that holds others.
func nest(kind int, inner ...*nl.RtAttr) *nl.RtAttr {
	a := nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil)
	for _, i := range inner {
		a.AddChild(i)
	}
	return a
}

func u32(v uint32) []byte { return native.AppendUint32(nil, v) }

func text(s string) []byte { return append([]byte(s), 0) }

// walk calls each for every attribute in b. Attributes whose length lies end the walk.
func walk(b []byte, each func(kind int, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(native.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		kind := int(native.Uint16(b[2:])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		each(kind, b[unix.SizeofRtAttr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}

// number reads an attribute of up to four octets; a short one is 0.
func number(v []byte) uint32 {
	switch {
	case len(v) >= 4:
		return native.Uint32(v)
	case len(v) >= 2:
		return uint32(native.Uint16(v))
	case len(v) == 1:
		return uint32(v[0])
	}
	return 0
}
