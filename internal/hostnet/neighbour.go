//go:build linux

package hostnet

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// NeighbourState is one of the kernel's NUD_* states (RFC 4861 section 7.3.2
// names them; the kernel uses the same for ARP).
type NeighbourState uint16

// The states.
const (
	Incomplete NeighbourState = unix.NUD_INCOMPLETE
	Reachable  NeighbourState = unix.NUD_REACHABLE
	Stale      NeighbourState = unix.NUD_STALE
	Delay      NeighbourState = unix.NUD_DELAY
	Probe      NeighbourState = unix.NUD_PROBE
	Failed     NeighbourState = unix.NUD_FAILED
	NoARP      NeighbourState = unix.NUD_NOARP // the link needs no resolution
	Permanent  NeighbourState = unix.NUD_PERMANENT
)

// Usable tells whether frames may be sent to the neighbour's MAC (the kernel's NUD_VALID).
func (s NeighbourState) Usable() bool {
	return s&(Permanent|NoARP|Reachable|Probe|Stale|Delay) != 0
}

// String is the word ip-neighbour(8) uses.
func (s NeighbourState) String() string {
	switch s {
	case 0:
		return "none"
	case Incomplete:
		return "incomplete"
	case Reachable:
		return "reachable"
	case Stale:
		return "stale"
	case Delay:
		return "delay"
	case Probe:
		return "probe"
	case Failed:
		return "failed"
	case NoARP:
		return "noarp"
	case Permanent:
		return "permanent"
	}
	return fmt.Sprintf("state 0x%x", uint16(s))
}

// A Neighbour is one entry of the kernel's ARP or ND table.
type Neighbour struct {
	Link   int // index
	Addr   netip.Addr
	MAC    MAC // zero until resolved
	State  NeighbourState
	Router bool // it said so in its advertisement (IPv6)
}

const neighbourHead = 12 // octets of struct ndmsg

// Neighbours reads the ARP and ND tables of all links.
func (h *Host) Neighbours() ([]Neighbour, error) {
	msgs, err := h.conn.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, raw(make([]byte, neighbourHead)))
	if err != nil {
		return nil, fmt.Errorf("read neighbours: %w", err)
	}
	var out []Neighbour
	for _, m := range msgs {
		if n, ok := parseNeighbour(m); ok {
			out = append(out, n)
		}
	}
	return out, nil
}

// SetNeighbour writes a permanent entry, which the kernel neither asks after nor forgets.
func (h *Host) SetNeighbour(link string, addr netip.Addr, mac MAC) error {
	err := h.changeNeighbour(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, link, addr, Permanent, 0, mac)
	if err != nil {
		return fmt.Errorf("set neighbour %v on %s: %w", addr, link, err)
	}
	return nil
}

// DeleteNeighbour removes an entry. One that is not there, or a link that is
// not, is no error.
func (h *Host) DeleteNeighbour(link string, addr netip.Addr) error {
	err := h.changeNeighbour(unix.RTM_DELNEIGH, 0, link, addr, 0, 0, MAC{})
	if err != nil && !Missing(err) {
		return fmt.Errorf("delete neighbour %v on %s: %w", addr, link, err)
	}
	return nil
}

// ResolveNeighbour has the kernel do what it does when it has a packet for
// addr: an unknown or failed neighbour is asked for by ARP or ND at once, a
// stale one is confirmed after the kernel's delay (5 s), a fresh one is left
// alone. The answer comes as an event. A next hop that only our own frames use
// looks idle to the kernel: call this again every few seconds while it is used.
func (h *Host) ResolveNeighbour(link string, addr netip.Addr) error {
	err := h.changeNeighbour(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE, link, addr, 0, unix.NTF_USE, MAC{})
	if err != nil {
		return fmt.Errorf("resolve neighbour %v on %s: %w", addr, link, err)
	}
	return nil
}

func (h *Host) changeNeighbour(msg uint16, how int, link string, addr netip.Addr, state NeighbourState, flags byte, mac MAC) error {
	if !addr.IsValid() || addr.Is4In6() {
		return fmt.Errorf("%v is no neighbour's address", addr)
	}
	l, err := h.Link(link)
	if err != nil {
		return err
	}
	head := raw{family(addr), 0, 0, 0}
	head = native.AppendUint32(head, uint32(l.Index))
	head = native.AppendUint16(head, uint16(state))
	head = append(head, flags, 0)
	parts := append(message(head), attr(unix.NDA_DST, addr.AsSlice()))
	if !mac.IsZero() {
		parts = append(parts, attr(unix.NDA_LLADDR, mac[:]))
	}
	return h.conn.change(msg, how, parts...)
}

// parseNeighbour reads RTM_NEWNEIGH and RTM_DELNEIGH of IPv4 and IPv6; the
// forwarding entries of bridges come in the same messages and are not ours to tell.
func parseNeighbour(m []byte) (n Neighbour, ok bool) {
	if len(m) < neighbourHead || m[0] != unix.AF_INET && m[0] != unix.AF_INET6 {
		return Neighbour{}, false
	}
	n.Link = int(int32(native.Uint32(m[4:])))
	n.State = NeighbourState(native.Uint16(m[8:]))
	n.Router = m[10]&unix.NTF_ROUTER != 0
	walk(m[neighbourHead:], func(kind int, v []byte) {
		switch kind {
		case unix.NDA_DST:
			n.Addr, _ = netip.AddrFromSlice(v)
		case unix.NDA_LLADDR:
			if len(v) == 6 {
				n.MAC = MAC(v)
			}
		}
	})
	return n, n.Addr.IsValid()
}
