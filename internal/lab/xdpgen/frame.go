package xdpgen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/pkt"
)

const (
	// MinSize and MaxSize are the least and the greatest frame, without the
	// check sequence that no veth carries: the longest headers with the
	// word that follows them, and what is left of a page.
	MinSize = 64
	MaxSize = 1514

	// Hops is the time to live, or hop limit, that frames set out with.
	Hops = 64

	firstPort = 1024
	// discard is the destination port of every frame (RFC 863).
	discard = 9
)

// Stream is what all frames of a Source have in common. They are UDP datagrams
// with true checksums; their source ports are Ports in turn.
type Stream struct {
	SrcMAC, DstMAC hostnet.MAC
	Src, Dst       netip.Addr // of one family
	Size           int        // of the frame in bytes, MinSize to MaxSize
	Ports          int        // 1 to 32768, so many conversations
}

// Validate reports every fault.
func (s Stream) Validate() error {
	var errs []error
	if !s.Src.IsValid() || !s.Dst.IsValid() || s.Src.Is4() != s.Dst.Is4() || s.Src.Is4In6() || s.Dst.Is4In6() {
		errs = append(errs, fmt.Errorf("addresses are %v and %v, want two of one family", s.Src, s.Dst))
	}
	if s.Size < MinSize || s.Size > MaxSize {
		errs = append(errs, fmt.Errorf("size is %d, want %d to %d", s.Size, MinSize, MaxSize))
	}
	if s.Ports < 1 || s.Ports > 1<<15 {
		errs = append(errs, fmt.Errorf("ports are %d, want 1 to %d", s.Ports, 1<<15))
	}
	return errors.Join(errs...)
}

// transport is where the UDP header is.
func (s Stream) transport() int {
	if s.Src.Is4() {
		return pkt.EthernetSize + pkt.IPv4Size
	}
	return pkt.EthernetSize + pkt.IPv6Size
}

// Frame is the first frame of the stream, which must be valid. The word behind
// the UDP header is the complement of the source port, so that one checksum is
// true whatever the port is.
func (s Stream) Frame() []byte {
	f := make([]byte, s.Size)
	copy(f, s.DstMAC[:])
	copy(f[6:], s.SrcMAC[:])
	put := binary.BigEndian.PutUint16
	ip, udp := f[pkt.EthernetSize:], f[s.transport():]
	if s.Src.Is4() {
		put(f[12:], pkt.EtherIPv4)
		ip[0], ip[8], ip[9] = 0x45, Hops, pkt.ProtoUDP
		put(ip[2:], uint16(len(ip)))
		copy(ip[12:], s.Src.AsSlice())
		copy(ip[16:], s.Dst.AsSlice())
		put(ip[10:], ^pkt.Fold(pkt.Sum(ip[:pkt.IPv4Size])))
	} else {
		put(f[12:], pkt.EtherIPv6)
		ip[0], ip[6], ip[7] = 0x60, pkt.ProtoUDP, Hops
		put(ip[4:], uint16(len(udp)))
		copy(ip[8:], s.Src.AsSlice())
		copy(ip[24:], s.Dst.AsSlice())
	}
	put(udp, firstPort)
	put(udp[2:], discard)
	put(udp[4:], uint16(len(udp)))
	put(udp[8:], ^uint16(firstPort))
	addrs := append(s.Src.AsSlice(), s.Dst.AsSlice()...)
	put(udp[6:], ^pkt.Fold(pkt.PseudoSum(addrs, pkt.ProtoUDP, len(udp))+pkt.Sum(udp)))
	return f
}
