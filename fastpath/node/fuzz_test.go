package node_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

// A fuzzed input is a row of packets, each as
//
//	port[1] how[1] facts[6] length[2] bytes...
//
// so that every input is some packets, and most changes of an input change one.
const recordSize = 10

// How a packet of an input comes.
const (
	howMend    = 1 << iota // mend MAC, EtherType and the IPv4 checksum: look behind them
	howPartial             // with a partial checksum, where the port has them
	howGSO                 // as a superpacket, where the port has them
	howPieces              // in several buffers
	howPad                 // with padding behind it
)

var fuzzPorts = []uint16{gt.Up, gt.Pod, gt.Veth, gt.Host, gt.Side, gt.Small, gt.Mute}

// record writes one packet of an input.
func record(port uint16, how byte, facts [6]byte, frame []byte) []byte {
	b := append([]byte{byte(slices.Index(fuzzPorts, port)), how}, facts[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(frame)))
	return append(b, frame...)
}

// readRecord takes the next packet off an input.
func readRecord(b []byte) (port uint16, p gt.Packet, rest []byte) {
	port, how, facts := fuzzPorts[int(b[0])%len(fuzzPorts)], b[1], b[2:8]
	n := min(int(binary.BigEndian.Uint16(b[8:])), len(b)-recordSize)
	p.Bytes = bytes.Clone(b[recordSize : recordSize+n])
	rest = b[recordSize+n:]
	if how&howMend != 0 {
		mend(port, p.Bytes)
	}
	if how&howPad != 0 {
		p.Bytes = append(p.Bytes, make([]byte, int(facts[5])+1)...)
	}
	l3 := port == gt.Pod || port == gt.Host
	if how&howPartial != 0 && l3 && len(p.Bytes) > 24 {
		// A port sees to it that the checksum lies within the packet.
		start := 20 + int(facts[0])%(len(p.Bytes)-22)
		p.Meta.CsumStart, p.Meta.CsumOffset = uint16(start), uint16(min(int(facts[1])&^1, len(p.Bytes)-2-start)&^1)
		p.Meta.Flags = graph.Partial
	}
	if how&howGSO != 0 && l3 {
		p.Meta.GSO = graph.GSOKind(1 + facts[2]%3)
		p.Meta.GSOSize = binary.BigEndian.Uint16(facts[3:])
		p.Meta.Segments = uint16(facts[5])
	}
	if first := 60 + int(facts[2]); how&howPieces != 0 && p.Meta.Flags == 0 && p.Meta.GSO == 0 && first < len(p.Bytes) {
		p.Pieces = cutAt([]int{first}, len(p.Bytes))
	} else if port != gt.Pod && port != gt.Host && len(p.Bytes) > 3800 {
		p.Pieces = cutAt(nil, len(p.Bytes))
	}
	return port, p, rest
}

// mend makes the parts of a frame right that random changes rarely get right.
func mend(port uint16, f []byte) {
	if port != gt.Pod && port != gt.Host && port != gt.Mute {
		if len(f) < 14 {
			return
		}
		if f[0]&1 == 0 {
			mac := gt.MAC(port)
			copy(f, mac[:])
		}
		if port == gt.Veth {
			copy(f[6:], gt.VethMAC[:])
		}
		kind := binary.BigEndian.Uint16(f[12:])
		f = f[14:]
		if kind == 0x8100 && len(f) > 4 {
			f = f[4:]
		}
	}
	if len(f) >= 20 && f[0]>>4 == 4 && f[0]&15 >= 5 && int(f[0]&15)*4 <= len(f) {
		copy(f, sumHeader(f))
	}
}

// seeds are inputs of one packet for each family and port, good and bad.
func seeds() (all [][]byte) {
	add := func(port uint16, how byte, facts [6]byte, frames ...[]byte) {
		for _, f := range frames {
			all = append(all, record(port, how, facts, f))
		}
	}
	for _, ipv6 := range []bool{false, true} {
		for name := range ways {
			w := ways[name]
			src, dst := gt.Addr(ipv6, w.srcNet, w.srcTo), gt.Addr(ipv6, w.dstNet, w.dstTo)
			port := w.in
			if port == gt.Tag {
				port = gt.Up
			}
			for _, ip := range [][]byte{gt.UDP(src, dst, 40), gt.TCP(src, dst, 40), gt.Echo(src, dst, 40), gt.UDP(src, dst, 1600),
				gt.UDPTTL(src, dst, 3, 1)} {
				add(port, 0, [6]byte{}, gt.Framed(w.in, ip))
				add(port, howMend|howPad, [6]byte{5: 30}, gt.Framed(w.in, ip))
				add(port, howPieces, [6]byte{}, gt.Framed(w.in, ip))
			}
		}
		for _, f := range truncated(ipv6) {
			add(gt.Up, howMend, [6]byte{}, f)
		}
		for _, udp := range []bool{false, true} {
			p := superpacket(ipv6, udp, 3000, 1000)
			l4 := byte(p.Meta.CsumStart)
			add(gt.Pod, howPartial|howGSO, [6]byte{l4 - 20, byte(p.Meta.CsumOffset), byte(p.Meta.GSO) - 1, 3, 0xe8, 3}, p.Bytes)
			add(gt.Pod, howPartial|howMend, [6]byte{l4 - 20, byte(p.Meta.CsumOffset)}, p.Bytes)
		}
		w := ends{gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetPods, gt.VethHost)}
		for at := 0; at < 3000; at += 800 {
			add(gt.Up, howMend, [6]byte{}, gt.Framed(gt.Up, part(ipv6, w, at, at < 2400, gt.Payload(800))))
		}
		for _, n := range []int{gt.NetUp, gt.NetAsk, gt.NetAskSide, gt.NetProhibited, gt.NetBlackhole, gt.NetPunt, gt.NetNowhere, gt.NetSpread} {
			add(gt.Pod, howMend, [6]byte{}, gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, n, 55), 10))
		}
	}
	w4 := ends{gt.Addr(false, gt.NetUp, gt.Station), gt.Addr(false, gt.NetPods, gt.VethHost)}
	for _, size := range []int{1600, 4000, 8000} {
		add(gt.Up, howMend, [6]byte{}, gt.Framed(gt.Up, mayFragment(gt.UDP(w4.src, w4.dst, size))))
		add(gt.Pod, howMend|howPartial, [6]byte{0, 6}, mayFragment(gt.UDP(gt.Addr(false, gt.NetPods, gt.PodHost), w4.dst, size)))
	}
	return all
}

// FuzzGraph puts whole frames through the whole graph and asks a plain reader
// of the RFCs about each that leaves, and each that does not.
func FuzzGraph(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	l := gt.StandardConfig(f, gt.Config{Frames: 2048})
	f.Fuzz(func(t *testing.T, in []byte) {
		var sent []judgement
		for n := 0; len(in) >= recordSize && n < 16; n++ {
			var p gt.Packet
			var port uint16
			port, p, in = readRecord(in)
			if len(p.Bytes) > 60_000 || len(p.Pieces) > 30 {
				continue
			}
			before := bytes.Clone(p.Bytes)
			l.InjectPackets(port, p)
			l.Run()
			sent = append(sent, foresee(port, before))
			checkOutput(t, port, gt.Packet{Bytes: before, Meta: p.Meta, Pieces: p.Pieces}, l.CollectAll())
			l.Even(t)
		}
		l.Account(t)
		checkLate(t, sent, l.CollectAll())
		events(l)
	})
}

// checkOutput fails t unless each packet that left may have left because of p.
func checkOutput(t *testing.T, in uint16, p gt.Packet, all map[uint16][]gt.Packet) {
	j := foresee(in, p.Bytes)
	plain := p.Meta.Flags == 0 && p.Meta.GSO == graph.GSONone && len(p.Pieces) == 0
	forwarded := 0
	var parts [][]byte
	for port, out := range all {
		for _, o := range out {
			ip, arp := unlink(t, port, o)
			switch {
			case arp || ip == nil:
			case isPart(&j, ip):
				parts = append(parts, ip)
			case checkForward(t, &j, in, port, ip, p, o):
				forwarded++
			case !checkMade(t, &j, port, ip):
				t.Errorf("by port %d left\n%x, which is none of ours\nfrom port %d came %s\n%x", port, ip, in, &j, j.ip)
			}
		}
	}
	if len(parts) > 0 {
		checkParts(t, &j, p, parts)
	}
	if forwarded > 1 {
		t.Errorf("left %d times: %s", forwarded, &j)
	}
	if plain && forwarded == 0 && mustForward(&j, in) {
		t.Errorf("from port %d came %s, and did not go on\n%x", in, &j, j.ip)
	}
}

// checkLate fails t unless what left in the end are questions, and errors about
// packets whose neighbours were asked for in vain, one for each at most.
func checkLate(t *testing.T, sent []judgement, all map[uint16][]gt.Packet) {
	waited := slices.DeleteFunc(sent, func(j judgement) bool { return !j.mayWait() })
	told := 0
	for port, out := range all {
		for _, o := range out {
			ip, arp := unlink(t, port, o)
			if arp || ip == nil || ip[0]>>4 == 6 && ip[7] == 255 && ip[40] == 135 {
				continue // a question
			}
			r := readReport(t, ip)
			if !slices.ContainsFunc(waited, func(j judgement) bool { return j.unreached(r) }) {
				t.Errorf("in the end left by port %d\n%x, which is none of ours", port, ip)
			}
			told++
		}
	}
	if told > len(waited) {
		t.Errorf("%d errors tell of %d packets that may have waited", told, len(waited))
	}
}

// unlink takes the link layer off what left; ip is nil for ARP, which it checks.
func unlink(t *testing.T, port uint16, o gt.Packet) (ip []byte, arp bool) {
	b := o.Bytes
	if port == gt.Pod || port == gt.Host || port == gt.Mute {
		return b, false
	}
	if port == gt.Astray {
		t.Errorf("went astray: %x", b)
		return nil, false
	}
	if node.MAC(b[6:12]) != gt.MAC(port) {
		t.Errorf("left by port %d with another MAC: %x", port, b)
	}
	kind, at := binary.BigEndian.Uint16(b[12:]), 14
	if kind == 0x8100 {
		kind, at = binary.BigEndian.Uint16(b[16:]), 18
	}
	if kind == 0x0806 {
		if op := b[at+7]; op != 1 && op != 2 || len(b) < at+28 || node.MAC(b[at+8:]) != gt.MAC(port) {
			t.Errorf("ARP message is %x", b)
		}
		return nil, true
	}
	return b[at:], false
}

// isPart says whether ip is a part of j's packet that it was not before.
func isPart(j *judgement, ip []byte) bool {
	if j.ip == nil || j.v6 || j.df || ip[0]>>4 != 4 || !bytes.Equal(ip[12:20], j.ip[12:20]) || !bytes.Equal(ip[4:6], j.ip[4:6]) {
		return false
	}
	return ip[9] == j.proto && len(ip) < len(j.ip) && binary.BigEndian.Uint16(ip[6:])&0x3fff != 0
}

// checkForward says whether ip is j's packet, and then checks that it may go on
// and that nothing changed but what must.
func checkForward(t *testing.T, j *judgement, in, port uint16, ip []byte, was, is gt.Packet) bool {
	if j.ip == nil || len(ip) != len(j.ip) {
		return false
	}
	end, ports := wayOf(j.dst)
	if port == gt.Host && bytes.Equal(ip, j.ip) {
		if j.bad != "" || end != endLocal && end != endPunt || in == gt.Host {
			t.Errorf("punted, but: %s", j)
		}
		return true
	}
	if j.ttl == 0 || !bytes.Equal(ip, older(t, j.ip)) {
		return false
	}
	if j.bad != "" || j.nd || j.ttl < 2 || end != endPort || !slices.ContainsFunc(ports, func(p uint16) bool { return mainOf(p) == port }) {
		t.Errorf("left by port %d, but: %s", port, j)
	}
	m, k := is.Meta, was.Meta
	if m.GSO != k.GSO || m.GSOSize > k.GSOSize || m.Flags&graph.Partial != k.Flags&graph.Partial ||
		m.Flags&graph.Partial != 0 && (m.CsumStart != k.CsumStart+m.L3 || m.CsumOffset != k.CsumOffset) {
		t.Errorf("left as %+v, came as %+v", m, k)
	}
	if m.GSO == graph.GSONone && len(ip) > mtuOf(ports[0]) {
		t.Errorf("%d bytes left by port %d", len(ip), port)
	}
	return true
}

func mainOf(port uint16) uint16 {
	if port == gt.Tag {
		return gt.Up
	}
	return port
}

// mustForward says whether j's packet has no reason not to go on whole.
func mustForward(j *judgement, in uint16) bool {
	if j.bad != "" || j.nd || j.arp || j.ip == nil {
		return false
	}
	end, ports := wayOf(j.dst)
	switch end {
	case endPort:
		same := slices.Contains(ports, in) && (in == gt.Pod || in == gt.Veth)
		return !same && j.ttl > 1 && len(j.ip) <= mtuOf(ports[0])
	case endPunt:
		return in != gt.Host
	case endLocal:
		echo := j.l4 > 0 && (j.proto == 1 && !j.v6 && j.ip[j.l4] == 8 || j.proto == 58 && j.v6 && j.ip[j.l4] == 128)
		return in != gt.Host && !echo
	}
	return false
}

// checkMade says whether ip is an error, a reply or a message of ours, and
// checks those.
func checkMade(t *testing.T, j *judgement, port uint16, ip []byte) bool {
	kind, l4 := uint8(0), int(ip[0]&15)*4
	if ip[0]>>4 == 6 {
		l4 = 40
	}
	if len(ip) < l4+8 {
		return false
	}
	kind = ip[l4]
	switch {
	case l4 == 40 && (kind == 135 || kind == 136) && ip[7] == 255 && ip[6] == 58:
		return icmpSumRight(ip)
	case l4 == 40 && ip[6] == 58 && kind >= 1 && kind <= 3, l4 == 20 && ip[9] == 1 && (kind == 3 || kind == 11):
		r := readReport(t, ip)
		end, _ := wayOf(j.dst)
		told := j.bad == "" && !j.nd && r.dst == j.src && bytes.HasPrefix(j.ip, r.quoted) && end != endLocal && (!j.part || j.first)
		if !told {
			t.Errorf("error %d to %s about\n%x\nof %s\n%x", r.kind, r.dst, r.quoted, j, j.ip)
		}
		return true
	case l4 == 40 && kind == 129 || l4 != 40 && kind == 0:
		end, _ := wayOf(j.dst)
		return j.bad == "" && end == endLocal && bytes.Equal(ip[l4+4:], j.ip[j.l4+4:])
	}
	return false
}

// checkParts fails t unless parts are j's packet, split because it had to be.
func checkParts(t *testing.T, j *judgement, p gt.Packet, parts [][]byte) {
	end, ports := wayOf(j.dst)
	if j.bad != "" || j.df || j.ttl < 2 || end != endPort || len(j.ip) <= mtuOf(ports[0]) {
		t.Errorf("%d parts left, but: %s", len(parts), j)
		return
	}
	if j.part {
		return // its parts do not make a whole
	}
	got, err := reassemble(parts, mtuOf(ports[0]))
	if err != nil {
		t.Errorf("%v\nof %s\n%x", err, j, j.ip)
		return
	}
	want := older(t, j.ip)
	want[6] &^= 0x80 // the reserved bit is not kept
	copy(want, sumHeader(want))
	if p.Meta.Flags&graph.Partial != 0 {
		at := int(p.Meta.CsumStart + p.Meta.CsumOffset)
		copy(want[at:at+2], got[at:])
	}
	if !bytes.Equal(got, want) {
		t.Errorf("parts make\n%x, want\n%x", got, want)
	}
}
