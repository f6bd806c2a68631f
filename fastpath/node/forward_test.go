package node_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

func dropNames(c *graph.Counters) map[string]uint64 {
	names := map[string]uint64{}
	for r, n := range c.Drops {
		if n > 0 {
			names[graph.Reason(r).String()] = n
		}
	}
	return names
}

// A way through the graph, and the frame that the next hop must see.
type way struct {
	in, out        uint16
	srcNet, srcTo  int
	dstNet, dstTo  int
	dst, src       node.MAC
	vlan           uint16
	keepsTTL, punt bool
}

var ways = map[string]way{
	"from L3 to L2": {in: gt.Pod, out: gt.Up, srcNet: gt.NetPods, srcTo: gt.PodHost, dstNet: gt.NetRemote, dstTo: 9,
		dst: gt.StationMAC(gt.NetUp, gt.Gateway), src: gt.MAC(gt.Up)},
	"from L2 to L3": {in: gt.Up, out: gt.Pod, srcNet: gt.NetUp, srcTo: gt.Station, dstNet: gt.NetPods, dstTo: gt.PodHost},
	"from L2 to L2": {in: gt.Up, out: gt.Veth, srcNet: gt.NetUp, srcTo: gt.Station, dstNet: gt.NetPods, dstTo: gt.VethHost,
		dst: gt.VethMAC, src: gt.MAC(gt.Veth)},
	"from L3 to L3": {in: gt.Host, out: gt.Pod, srcNet: gt.NetUp, srcTo: gt.Ours, dstNet: gt.NetPods, dstTo: gt.PodHost},
	"from a pod by veth to a pod by TUN": {in: gt.Veth, out: gt.Pod, srcNet: gt.NetPods, srcTo: gt.VethHost,
		dstNet: gt.NetPods, dstTo: gt.PodHost},
	"from a pod by TUN to a pod by veth": {in: gt.Pod, out: gt.Veth, srcNet: gt.NetPods, srcTo: gt.PodHost,
		dstNet: gt.NetPods, dstTo: gt.VethHost, dst: gt.VethMAC, src: gt.MAC(gt.Veth)},
	"into a VLAN": {in: gt.Pod, out: gt.Up, srcNet: gt.NetPods, srcTo: gt.PodHost, dstNet: gt.NetTag, dstTo: gt.Station,
		dst: gt.StationMAC(gt.NetTag, gt.Station), src: gt.MAC(gt.Up), vlan: 7},
	"out of a VLAN": {in: gt.Tag, out: gt.Pod, srcNet: gt.NetTag, srcTo: gt.Station, dstNet: gt.NetPods, dstTo: gt.PodHost},
	"from a VLAN to its own main port": {in: gt.Tag, out: gt.Up, srcNet: gt.NetTag, srcTo: gt.Station, dstNet: gt.NetRemote,
		dstTo: 9, dst: gt.StationMAC(gt.NetUp, gt.Gateway), src: gt.MAC(gt.Up)},
	"back out of the port it came by, where that is no pod's": {in: gt.Up, out: gt.Up, srcNet: gt.NetUp, srcTo: gt.Station,
		dstNet: gt.NetRemote, dstTo: 9, dst: gt.StationMAC(gt.NetUp, gt.Gateway), src: gt.MAC(gt.Up)},
	"to the node, by the host port": {in: gt.Pod, out: gt.Host, srcNet: gt.NetPods, srcTo: gt.PodHost, dstNet: gt.NetUp,
		dstTo: gt.Ours, keepsTTL: true, punt: true},
	"from L2 to the node": {in: gt.Up, out: gt.Host, srcNet: gt.NetUp, srcTo: gt.Station, dstNet: gt.NetUp, dstTo: gt.Ours,
		keepsTTL: true, punt: true},
	"by a route that punts": {in: gt.Pod, out: gt.Host, srcNet: gt.NetPods, srcTo: gt.PodHost, dstNet: gt.NetPunt, dstTo: 5,
		keepsTTL: true, punt: true},
}

// leaving is the frame in which ip leaves by w.
func (w *way) leaving(ip []byte) []byte {
	switch {
	case w.out == gt.Pod || w.out == gt.Host:
		return ip
	case w.vlan != 0:
		return gt.Ether(w.dst, w.src, ip, w.vlan)
	}
	return gt.Ether(w.dst, w.src, ip)
}

func TestForwards(t *testing.T) {
	kinds := map[string]func(w *way, ipv6 bool) []byte{
		"UDP": func(w *way, ipv6 bool) []byte {
			return gt.UDP(gt.Addr(ipv6, w.srcNet, w.srcTo), gt.Addr(ipv6, w.dstNet, w.dstTo), 100)
		},
		"TCP": func(w *way, ipv6 bool) []byte {
			return gt.TCP(gt.Addr(ipv6, w.srcNet, w.srcTo), gt.Addr(ipv6, w.dstNet, w.dstTo), 1000)
		},
		"a protocol nobody knows": func(w *way, ipv6 bool) []byte {
			return gt.Frame(gt.IP(gt.Addr(ipv6, w.srcNet, w.srcTo), gt.Addr(ipv6, w.dstNet, w.dstTo), 253), gt.Payload(1))
		},
		"a header without payload": func(w *way, ipv6 bool) []byte {
			return gt.Frame(gt.IP(gt.Addr(ipv6, w.srcNet, w.srcTo), gt.Addr(ipv6, w.dstNet, w.dstTo), 59))
		},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, w := range ways {
			for kind, build := range kinds {
				t.Run(name+" "+kind, func(t *testing.T) {
					l := gt.Standard(t, 1)
					ip := build(&w, ipv6)
					l.SendIP(w.in, ip)
					got := wantOne(t, l, w.out)
					want := ip
					if !w.keepsTTL {
						want = older(t, ip)
					}
					wantBytes(t, got.Bytes, w.leaving(want))
					c := l.Change()
					if w.punt != (c.Punt == 1) || w.punt == (c.Tx == 1) {
						t.Errorf("punt %d, tx %d", c.Punt, c.Tx)
					}
				})
			}
		}
	})
}

// Every TTL and a header whose checksum is each of the corner cases of RFC 1624.
func TestMendsTheChecksumAsIfItWereComputedAnew(t *testing.T) {
	l := gt.Standard(t, 1)
	w := fromPod(false)
	for id := range 1 << 16 {
		ip := gt.UDPTTL(w.src, w.dst, 8, 64)
		binary.BigEndian.PutUint16(ip[4:], uint16(id))
		ip[10], ip[11] = 0, 0
		ip = append(sumHeader(ip), ip[20:]...)
		l.Inject(gt.Pod, ip)
		if id%512 != 511 {
			continue
		}
		l.Run()
		for i, p := range l.Collect(gt.Up) {
			id := id - 511 + i
			got := p.Bytes[14:]
			if want := older(t, restore(got)); binary.BigEndian.Uint16(got[4:]) != uint16(id) || !bytes.Equal(got, want) {
				t.Fatalf("id %d: header is\n%x, want\n%x", id, got[:20], want[:20])
			}
		}
	}
	if c := l.Change(); c.Tx != 1<<16 {
		t.Errorf("%d packets left, want %d", c.Tx, 1<<16)
	}
}

// restore makes a forwarded IPv4 header what it was one hop before.
func restore(ip []byte) []byte {
	ip = bytes.Clone(ip)
	ip[8]++
	return append(sumHeader(ip), ip[20:]...)
}

// sumHeader is the IPv4 header of ip with its checksum by RFC 1071, word by word.
func sumHeader(ip []byte) []byte {
	h := bytes.Clone(ip[:int(ip[0]&15)*4])
	h[10], h[11] = 0, 0
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	return h
}

func superpacket(ipv6 bool, udp bool, payload, size int) gt.Packet {
	w := ends{gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetRemote, 9)}
	l4 := 20
	if ipv6 {
		l4 = 40
	}
	m := graph.Meta{Flags: graph.Partial, GSOSize: uint16(size), Segments: uint16((payload + size - 1) / size), CsumStart: uint16(l4)}
	var ip []byte
	switch {
	case udp:
		m.GSO, m.CsumOffset = graph.GSOUDP, 6
		ip = gt.UDP(w.src, w.dst, payload)
	case ipv6:
		m.GSO, m.CsumOffset = graph.GSOTCP6, 16
		ip = gt.TCP(w.src, w.dst, payload)
	default:
		m.GSO, m.CsumOffset = graph.GSOTCP4, 16
		ip = gt.TCP(w.src, w.dst, payload)
	}
	return gt.Packet{Bytes: ip, Meta: m}
}

func TestSuperpacketsPassWhole(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for _, udp := range []bool{false, true} {
			for _, size := range []int{1, 500, 1400} {
				t.Run(fmt.Sprintf("UDP is %v, segments of %d bytes", udp, size), func(t *testing.T) {
					l := gt.Standard(t, 1)
					p := superpacket(ipv6, udp, 60_000, size)
					l.InjectPackets(gt.Pod, p)
					l.Run()
					got := wantOne(t, l, gt.Up)
					wantBytes(t, got.Bytes[14:], older(t, p.Bytes))
					m, was := got.Meta, p.Meta
					if m.GSO != was.GSO || m.GSOSize != was.GSOSize || m.Segments != was.Segments || m.CsumOffset != was.CsumOffset ||
						m.CsumStart != was.CsumStart+14 || m.Flags&graph.Partial == 0 {
						t.Errorf("left as %+v, came as %+v", m, was)
					}
					if c := l.Change(); c.Tx != uint64(was.Segments) || c.Rx != c.Tx {
						t.Errorf("rx %d, tx %d, want %d segments each", c.Rx, c.Tx, was.Segments)
					}
				})
			}
		}
	})
}

func TestRefusesOffloadsThatContradictThePacket(t *testing.T) {
	tests := map[string]func(p *gt.Packet){
		"the checksum begins elsewhere":            func(p *gt.Packet) { p.Meta.CsumStart += 2 },
		"the checksum lies elsewhere":              func(p *gt.Packet) { p.Meta.CsumOffset -= 2 },
		"a superpacket without segment size":       func(p *gt.Packet) { p.Meta.GSOSize = 0 },
		"another number of segments":               func(p *gt.Packet) { p.Meta.Segments++ },
		"a superpacket whose checksum is complete": func(p *gt.Packet) { p.Meta.Flags = 0 },
		"a superpacket of another kind":            func(p *gt.Packet) { p.Meta.GSO = graph.GSOUDP },
		"a checksum in a protocol without one": func(p *gt.Packet) {
			setProto(p.Bytes, 253)
			p.Meta.GSO, p.Meta.Segments = graph.GSONone, 1
		},
		"a superpacket with nothing to cut": func(p *gt.Packet) {
			p.Bytes = p.Bytes[:int(p.Meta.CsumStart)+20]
			setLength(p.Bytes)
		},
		"a packet shorter than its superpacket": func(p *gt.Packet) {
			short := bytes.Clone(p.Bytes[:2000])
			setLength(short)
			copy(p.Bytes, short)
		},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, spoil := range tests {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				p := superpacket(ipv6, false, 5000, 1000)
				spoil(&p)
				l.InjectPackets(gt.Pod, p)
				l.Run()
				wantNone(t, l)
				l.WantDrops(t, map[graph.Reason]uint64{graph.RxOffload: uint64(p.Meta.Segments)})
			})
		}
	})
}

// The length in a UDP superpacket's header is of the whole, not of more.
func TestRefusesUDPSuperpacketsThatClaimToBeLonger(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for by, want := range map[uint16]graph.Reason{0: graph.NoReason, 1: graph.L4Length} {
			l := gt.Standard(t, 1)
			p := superpacket(ipv6, true, 5000, 1000)
			binary.BigEndian.PutUint16(p.Bytes[p.Meta.CsumStart+4:], 5008+by)
			l.InjectPackets(gt.Pod, p)
			l.Run()
			l.WantDrops(t, map[graph.Reason]uint64{want: 5 * uint64(by)})
		}
	})
}

// setLength makes the IP header say how long ip is, and mends its checksum.
func setLength(ip []byte) {
	if ip[0]>>4 == 6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
		return
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip, sumHeader(ip))
}

func setProto(ip []byte, proto byte) {
	if ip[0]>>4 == 6 {
		ip[6] = proto
		return
	}
	ip[9] = proto
	copy(ip, sumHeader(ip))
}

// A TCP superpacket whose segments are too big for its way out, and that may be
// fragmented, is cut to smaller segments; the account stays even.
func TestSuperpacketIsCutSmallerWhereItMayBeFragmented(t *testing.T) {
	l := gt.Standard(t, 1)
	p := superpacket(false, false, 40_000, 8000)
	p.Bytes[6] &^= 0x40
	copy(p.Bytes, sumHeader(p.Bytes))
	l.InjectPackets(gt.Pod, p)
	l.Run()
	if got := wantOne(t, l, gt.Up); got.Meta.GSOSize != 1460 {
		t.Errorf("segments carry %d bytes, want 1460", got.Meta.GSOSize)
	}
}

// Packets that fill several frames, as jumbo frames do, pass whole, and what
// the link padded is taken off wherever it begins.
func TestJumboFramesPassWhole(t *testing.T) {
	pieces := map[string][]int{
		"two buffers":             {3000},
		"three buffers":           {3000, 3000},
		"one byte in the last":    {3500, 2999 + 14},
		"a first of headers only": {14 + 40 + 20},
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, at := range pieces {
			for _, padding := range []int{0, 1, 600, 3600} {
				t.Run(fmt.Sprintf("%s, %d bytes of padding", name, padding), func(t *testing.T) {
					l := gt.Standard(t, 1)
					w := toPod(ipv6)
					ip := gt.TCP(w.src, w.dst, 6500-len(gt.TCP(w.src, w.dst, 0)))
					frame := append(gt.Framed(gt.Up, ip), make([]byte, padding)...)
					l.InjectPackets(gt.Up, gt.Packet{Bytes: frame, Pieces: cutAt(at, len(frame))})
					l.Run()
					wantBytes(t, wantOne(t, l, gt.Pod).Bytes, older(t, ip))
				})
			}
		}
	})
}

// cutAt lets no piece be larger than a frame has room.
func cutAt(pieces []int, n int) (all []int) {
	for _, p := range pieces {
		all, n = append(all, p), n-p
	}
	for ; n > 3800; n -= 3800 {
		all = append(all, 3800)
	}
	return all
}

// A short packet in a long chain: all buffers but those it needs are freed.
func TestPaddingOfWholeBuffersIsFreed(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		w := toPod(ipv6)
		ip := gt.UDP(w.src, w.dst, 10)
		frame := append(gt.Framed(gt.Up, ip), make([]byte, 5000)...)
		l.InjectPackets(gt.Up, gt.Packet{Bytes: frame, Pieces: []int{1000, 1000, 1000}})
		l.Run()
		got := wantOne(t, l, gt.Pod)
		wantBytes(t, got.Bytes, older(t, ip))
		if got.Meta.Bufs != 1 {
			t.Errorf("left in %d buffers, want 1", got.Meta.Bufs)
		}
	})
}

func TestSpreadsFlowsOverTheWaysAndKeepsEachOnItsOwn(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		src := gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		flows := map[string]func(i int) []byte{
			"by source port": func(i int) []byte {
				return gt.UDPPorts(src, gt.Addr(ipv6, gt.NetSpread, 1), 10, uint16(20000+i), 80)
			},
			"by destination port": func(i int) []byte {
				return gt.UDPPorts(src, gt.Addr(ipv6, gt.NetSpread, 1), 10, 80, uint16(20000+i))
			},
			"by destination": func(i int) []byte { return gt.UDP(src, gt.Addr(ipv6, gt.NetSpread, i&255), 10) },
		}
		for name, build := range flows {
			t.Run(name, func(t *testing.T) {
				const n = 200
				first := map[int]uint16{}
				up := 0
				for round := range 3 {
					for i := range n {
						l.SendIP(gt.Pod, build(i))
						port := soleport(t, l)
						if round == 0 {
							first[i] = port
							if port == gt.Up {
								up++
							}
						} else if first[i] != port {
							t.Fatalf("flow %d moved from port %d to %d", i, first[i], port)
						}
					}
				}
				if up < n/4 || up > 3*n/4 {
					t.Errorf("%d of %d flows go by one of two ways", up, n)
				}
			})
		}
	})
}

func soleport(t *testing.T, l *gt.Lab) uint16 {
	t.Helper()
	all := l.CollectAll()
	for port, ps := range all {
		if len(all) == 1 && len(ps) == 1 {
			return port
		}
	}
	t.Fatalf("left by ports %v, want one packet", counts(all))
	return 0
}

// The parts of a datagram all go the same way, whichever ports it has.
func TestFragmentsOfADatagramGoOneWay(t *testing.T) {
	l := gt.Standard(t, 1)
	src, dst := gt.Addr(false, gt.NetPods, gt.PodHost), gt.Addr(false, gt.NetSpread, 3)
	for port := range 64 {
		ip := gt.UDPPorts(src, dst, 1000, uint16(port), 7)
		first := gt.Frame(&layers.IPv4{Version: 4, TTL: 9, Protocol: 17, Flags: layers.IPv4MoreFragments,
			SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}, payload(ip[20:20+512]))
		rest := gt.Frame(&layers.IPv4{Version: 4, TTL: 9, Protocol: 17, FragOffset: 64,
			SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}, payload(ip[20+512:]))
		l.SendIP(gt.Pod, first, rest)
		if all := l.CollectAll(); len(all) != 1 {
			t.Fatalf("source port %d: parts left by %v", port, counts(all))
		}
	}
}

// An adjacency that outlived its port leads nowhere, least of all to port 0.
func TestStaleAdjacencyLeadsToNoPort(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		for name, port := range map[string]uint16{"its entry is empty": gt.Small, "its index was never used": gt.Ports + 5} {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				l.Route(gt.Net(ipv6, gt.NetNowhere), l.Adjacency(fib.Adjacency{Kind: fib.Rewrite, Port: port, MTU: 1500}))
				l.Publish(func(s *node.State) { s.Ports[gt.Small] = node.Port{} })
				l.SendIP(gt.Pod, gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetNowhere, 1), 10))
				wantNone(t, l)
				l.WantDrops(t, map[graph.Reason]uint64{graph.TxNoPort: 1})
			})
		}
	})
}
