package node_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/judge"
)

// FuzzPolicedGraph puts whole frames through the graph while the pod may be sent
// UDP to port 2222 and nothing else, and may send nothing but answers. Whatever
// comes, nothing else passes, and every packet is told of.
func FuzzPolicedGraph(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	l := gt.StandardConfig(f, gt.Config{Frames: 2048})
	tb := &testing.T{}
	l.Police(gt.Pod, &judge.Endpoint{Ingress: only(tb, allow(1, udp, 2222))})
	f.Fuzz(func(t *testing.T, in []byte) {
		forget(l)
		for n := 0; len(in) >= recordSize && n < 16; n++ {
			var p gt.Packet
			var port uint16
			port, p, in = readRecord(in)
			if len(p.Bytes) > 60_000 || len(p.Pieces) > 30 {
				continue
			}
			l.InjectPackets(port, p)
			l.Run()
			checkPolicy(t, port, l.CollectAll())
			l.Even(t)
		}
		l.Account(t)
		events(l)
	})
}

// forget ends all flows, so that an input meets what it meets when it is alone.
func forget(l *gt.Lab) {
	flows := l.Tables.Court.Flows
	for f := range flows.All(0) {
		flows.Retire(f)
	}
	for flows.Advance(0, 1<<16) {
	}
	flows.Quiesced(flows.Generation())
}

// checkPolicy fails t for a packet that policy does not let through. What we made
// ourselves is ICMP, and what the node sends its pods is not judged.
func checkPolicy(t *testing.T, in uint16, all map[uint16][]gt.Packet) {
	t.Helper()
	for out, packets := range all {
		for _, o := range packets {
			ip, _ := unlink(t, out, o)
			proto, l4 := bareTransport(ip)
			if l4 == nil || in == gt.Host || in != gt.Pod && out != gt.Pod {
				continue
			}
			port := 2 // of the destination
			if in == gt.Pod && out != gt.Pod {
				port = 0
			}
			if proto != udp || binary.BigEndian.Uint16(l4[port:]) != 2222 {
				t.Errorf("from port %d to %d passed, against policy,\n%x", in, out, ip)
			}
		}
	}
}

// bareTransport is the transport header of a packet without options, extensions
// and fragments; nil of any other, and of ICMP.
func bareTransport(ip []byte) (proto byte, l4 []byte) {
	switch {
	case len(ip) >= 24 && ip[0] == 0x45 && binary.BigEndian.Uint16(ip[6:])&0x3fff == 0:
		proto, l4 = ip[9], ip[20:]
	case len(ip) >= 44 && ip[0]>>4 == 6:
		proto, l4 = ip[6], ip[40:]
	}
	if proto != tcp && proto != udp {
		return proto, nil
	}
	return proto, l4
}

// What the fuzz target holds must be able to fail, and to pass.
func TestPolicedGraphLetsTheOnePortThrough(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		l := gt.Standard(t, 1)
		l.Police(gt.Pod, &judge.Endpoint{Ingress: only(t, allow(1, udp, 2222))})
		far, pod := gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetPods, gt.PodHost)
		for _, port := range []uint16{2222, 2223} {
			ip := gt.UDPPorts(far, pod, 10, 9, port)
			l.SendIP(gt.Up, ip)
			if n := left(l, gt.Pod); (n == 1) != (port == 2222) {
				t.Errorf("%d packets to port %d passed", n, port)
			}
			if proto, l4 := bareTransport(ip); proto != udp || !bytes.Equal(l4, ip[len(ip)-18:]) {
				t.Errorf("transport is %d, %x", proto, l4)
			}
		}
	})
}
