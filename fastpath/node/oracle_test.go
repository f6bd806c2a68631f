package node_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

// judgement is what a slow and plain reader of the RFCs makes of a frame that
// comes in by a port of the Standard lab.
type judgement struct {
	bad     string // why it must be dropped, or ""
	arp, nd bool   // it is a message for us to take note of, good or not
	ip      []byte // the IP packet without padding
	v6      bool
	src     netip.Addr
	dst     netip.Addr
	ttl     uint8
	proto   uint8
	l4      int  // where the transport header begins, 0 without one
	part    bool // of a datagram
	first   bool
	df      bool
}

// foresee reads a frame.
func foresee(in uint16, frame []byte) (j judgement) {
	ip, kind, bad := unframe(in, frame)
	if bad != "" {
		j.bad = bad
		return j
	}
	if kind == 0x0806 {
		j.arp = true
		return j
	}
	if len(ip) < 20 {
		j.bad = "short"
		return j
	}
	j.v6 = ip[0]>>4 == 6
	switch {
	case j.v6 && kind != 0x0800:
		j.read6(ip)
	case ip[0]>>4 == 4 && kind != 0x86dd:
		j.read4(ip)
	default:
		j.bad = "version"
	}
	if j.bad == "" && !j.nd {
		j.admit(in)
	}
	return j
}

// unframe takes the link layer off. kind is the EtherType, 0 on L3 ports.
func unframe(in uint16, f []byte) (ip []byte, kind uint16, bad string) {
	if in == gt.Pod || in == gt.Host || in == gt.Mute {
		return f, 0, ""
	}
	if len(f) < 14 {
		return nil, 0, "runt"
	}
	dst, src := node.MAC(f[0:6]), node.MAC(f[6:12])
	kind, ip = binary.BigEndian.Uint16(f[12:]), f[14:]
	switch {
	case kind == 0x8100 && len(ip) < 4:
		return nil, 0, "short tag"
	case kind == 0x8100:
		id := binary.BigEndian.Uint16(ip) & 0xfff
		kind, ip = binary.BigEndian.Uint16(ip[2:]), ip[4:]
		if id != 0 && (id != 7 || in != gt.Up) {
			return nil, 0, "VLAN"
		}
	}
	switch {
	case kind != 0x0800 && kind != 0x86dd && kind != 0x0806:
		return nil, 0, "EtherType"
	case in == gt.Veth && src != gt.VethMAC:
		return nil, 0, "spoofed MAC"
	case dst != gt.MAC(in) && dst[0]&1 == 0:
		return nil, 0, "not for us"
	case dst != gt.MAC(in) && kind == 0x0800:
		return nil, 0, "group frame"
	case dst != gt.MAC(in) && kind == 0x86dd && !looksND(ip):
		return nil, 0, "group frame"
	}
	return ip, kind, ""
}

func looksND(ip []byte) bool {
	return len(ip) >= 48 && ip[0]>>4 == 6 && ip[6] == 58 && ip[40] >= 133 && ip[40] <= 137
}

func (j *judgement) read4(ip []byte) {
	size, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	switch {
	case size < 20 || size > len(ip):
		j.bad = "IHL"
	case total < size || total > len(ip):
		j.bad = "total length"
	case plainSum(ip[:size]) != 0xffff:
		j.bad = "checksum"
	case !optionsRight(ip[20:size]):
		j.bad = "options"
	}
	if j.bad != "" {
		return
	}
	j.ip = ip[:total]
	j.src, j.dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	j.ttl, j.proto, j.l4 = ip[8], ip[9], size
	word := binary.BigEndian.Uint16(ip[6:])
	j.df = word&0x4000 != 0
	j.fragment(int(word&0x1fff)*8, word&0x2000 != 0, total-size, 65515)
	j.transport()
}

// optionsRight refuses source routes and lists that lie.
func optionsRight(o []byte) bool {
	for i := 0; i < len(o) && o[i] != 0; {
		switch {
		case o[i] == 1:
			i++
			continue
		case o[i] == 131, o[i] == 137, i+1 >= len(o), o[i+1] < 2, i+int(o[i+1]) > len(o):
			return false
		}
		i += int(o[i+1])
	}
	return true
}

func (j *judgement) read6(ip []byte) {
	if len(ip) < 40 || 40+int(binary.BigEndian.Uint16(ip[4:])) > len(ip) {
		j.bad = "payload length"
		return
	}
	j.ip = ip[:40+int(binary.BigEndian.Uint16(ip[4:]))]
	j.src, j.dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	j.ttl, j.proto, j.l4, j.df = ip[7], ip[6], 40, true
	j.nd = j.proto == 58 && len(j.ip) >= 48 && ip[40] >= 133 && ip[40] <= 137
	for n := 0; j.bad == "" && !(j.part && !j.first) && slices.Contains([]byte{0, 43, 44, 51, 60}, j.proto); n++ {
		j.extension(n)
	}
	if j.proto == 59 {
		j.l4 = 0
	}
	j.transport()
	if n := len(j.ip); !j.nd && j.bad == "" && j.proto == 58 && j.l4 > 0 && n > j.l4 && j.ip[j.l4] >= 133 && j.ip[j.l4] <= 137 {
		j.bad = "discovery behind extension headers"
	}
}

// extension steps over the n-th extension header.
func (j *judgement) extension(n int) {
	h := j.ip[j.l4:]
	if len(h) < 8 || n == 8 {
		j.bad = "chain"
		return
	}
	size := 8 + int(h[1])*8
	switch j.proto {
	case 51:
		size = 8 + int(h[1])*4
	case 44:
		size = 8
	}
	switch {
	case size > len(h):
		j.bad = "extension header too long"
	case j.proto == 0 && n > 0:
		j.bad = "hop by hop is not the first"
	case j.proto == 43 && h[2] == 0:
		j.bad = "routing type 0"
	case j.proto == 44 && j.part:
		j.bad = "a part of a part"
	case j.proto == 44:
		word := int(binary.BigEndian.Uint16(h[2:]))
		next := h[0]
		j.proto = next
		j.fragment(word&^7, word&1 != 0, len(h)-8, 65535)
		if j.l4 != 0 {
			j.l4 += 8
		}
		return
	}
	j.proto = h[0]
	j.l4 += size
}

// least is the smallest transport header of a protocol.
func least(proto uint8) int { return map[uint8]int{1: 8, 6: 20, 17: 8, 58: 8, 132: 12}[proto] }

// fragment judges a part of n bytes at byte at.
func (j *judgement) fragment(at int, more bool, n, most int) {
	if at == 0 && !more {
		return
	}
	j.part, j.first = true, at == 0
	switch {
	case n == 0, more && n%8 != 0, at+n > most, !j.first && at < least(j.proto):
		j.bad = "fragment"
	case !j.first:
		j.l4 = 0
	}
}

// transport judges what must be seen of the transport header.
func (j *judgement) transport() {
	if j.bad != "" || j.l4 == 0 {
		return
	}
	t := j.ip[j.l4:]
	if len(t) < least(j.proto) {
		j.bad = "transport header cut"
		return
	}
	switch j.proto {
	case 6:
		if size := int(t[12]>>4) * 4; size < 20 || size > len(t) {
			j.bad = "TCP offset"
		}
	case 17:
		if n := int(binary.BigEndian.Uint16(t[4:])); n < 8 || n > len(t) && !j.part {
			j.bad = "UDP length"
		}
	}
}

// admit judges the addresses, and whether who sent it may.
func (j *judgement) admit(in uint16) {
	for _, a := range []netip.Addr{j.src, j.dst} {
		b := a.As16()
		switch {
		case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Is4In6(), a.Is6() && a.IsLinkLocalUnicast(),
			a.Is4() && (b[12] == 0 || b[12] >= 240):
			j.bad = "martian " + a.String()
			return
		}
	}
	pods := map[uint16]int{gt.Pod: gt.PodHost, gt.Veth: gt.VethHost}
	if host, ok := pods[in]; ok && j.src != gt.Addr(j.v6, gt.NetPods, host) {
		j.bad = "spoofed source"
	}
	if in == gt.Mute {
		j.bad = "no policy"
	}
}

// The ends of a way, as the Standard lab has them.
const (
	endNone = iota // dropped, perhaps with an error
	endLocal
	endPunt
	endAsk
	endPort
)

// wayOf is where the Standard lab sends packets for dst: one of the ends, and
// for endPort the ports by which they may leave.
func wayOf(dst netip.Addr) (end int, ports []uint16) {
	v6 := dst.Is6()
	is := func(n, h int) bool { return dst == gt.Addr(v6, n, h) }
	in := func(n int) bool { return gt.Net(v6, n).Contains(dst) }
	for n, port := range map[int]uint16{gt.NetUp: gt.Up, gt.NetSide: gt.Side, gt.NetSmall: gt.Small, gt.NetTag: gt.Tag} {
		switch {
		case is(n, gt.Ours):
			return endLocal, nil
		case is(n, gt.Station), is(n, gt.Gateway):
			return endPort, []uint16{port}
		case in(n):
			return endAsk, nil
		}
	}
	switch {
	case is(gt.NetPods, gt.PodHost):
		return endPort, []uint16{gt.Pod}
	case is(gt.NetPods, gt.VethHost):
		return endPort, []uint16{gt.Veth}
	case in(gt.NetRemote):
		return endPort, []uint16{gt.Up}
	case in(gt.NetSpread):
		return endPort, []uint16{gt.Up, gt.Side}
	case in(gt.NetAsk), in(gt.NetAskSide):
		return endAsk, nil
	case in(gt.NetPunt):
		return endPunt, nil
	}
	return endNone, nil
}

// mayWait says whether a neighbour may be asked for on behalf of the packet.
func (j *judgement) mayWait() bool {
	end, _ := wayOf(j.dst)
	return j.bad == "" && !j.nd && !j.arp && j.ip != nil && j.ttl > 1 && end == endAsk
}

// unreached says whether r tells that the packet's neighbour did not answer.
func (j *judgement) unreached(r report) bool {
	kind, code := uint8(3), uint8(1)
	if j.v6 {
		kind, code = 1, 3
	}
	return r.kind == kind && r.code == code && r.dst == j.src && bytes.HasPrefix(j.ip, r.quoted) && (!j.part || j.first)
}

// mtuOf is the MTU of a port of the Standard lab.
func mtuOf(port uint16) int {
	switch port {
	case gt.Pod, gt.Host:
		return 9000
	case gt.Small:
		return 1280
	}
	return 1500
}

func (j *judgement) String() string {
	return fmt.Sprintf("bad %q arp %v nd %v, %s to %s, ttl %d, proto %d at %d, part %v first %v", j.bad, j.arp, j.nd, j.src, j.dst,
		j.ttl, j.proto, j.l4, j.part, j.first)
}
