package node_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"go.uber.org/goleak"

	gt "margay.dev/margay/fastpath/graph/graphtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// older is what a router makes of an IP packet: one hop less to live, and for
// IPv4 the checksum as gopacket computes it from scratch (where there are
// options, which gopacket lays out anew, as RFC 1071 has it).
func older(t testing.TB, ip []byte) []byte {
	t.Helper()
	ip = bytes.Clone(ip)
	if ip[0]>>4 == 6 {
		ip[7]--
		return ip
	}
	if ip[0] != 0x45 {
		ip[8]--
		return append(sumHeader(ip), ip[int(ip[0]&15)*4:]...)
	}
	var h layers.IPv4
	if err := h.DecodeFromBytes(ip, gopacket.NilDecodeFeedback); err != nil {
		t.Fatal(err)
	}
	h.TTL--
	buf := gopacket.NewSerializeBuffer()
	if err := h.SerializeTo(buf, gopacket.SerializeOptions{ComputeChecksums: true}); err != nil {
		t.Fatal(err)
	}
	return append(buf.Bytes(), ip[20:]...)
}

// ends are where a packet comes from and goes to.
type ends struct{ src, dst netip.Addr }

// toPod is the way from the station on Up to a pod.
func toPod(ipv6 bool) ends {
	return ends{gt.Addr(ipv6, gt.NetUp, gt.Station), gt.Addr(ipv6, gt.NetPods, gt.PodHost)}
}

// fromPod is the way from the pod behind Pod to a remote host.
func fromPod(ipv6 bool) ends {
	return ends{gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, gt.NetRemote, 9)}
}

// wantOne fails t unless exactly one packet left, by port, and returns it.
func wantOne(t *testing.T, l *gt.Lab, port uint16) gt.Packet {
	t.Helper()
	all := l.CollectAll()
	if len(all) != 1 || len(all[port]) != 1 {
		c := l.Engine.Total()
		t.Fatalf("left by ports: %v, want one packet by port %d\ndrops: %v", counts(all), port, dropNames(&c))
	}
	return all[port][0]
}

// wantNone fails t if anything left.
func wantNone(t *testing.T, l *gt.Lab) {
	t.Helper()
	if all := l.CollectAll(); len(all) != 0 {
		t.Errorf("left by ports: %v, want nothing", counts(all))
	}
}

func counts(all map[uint16][]gt.Packet) map[uint16]int {
	n := map[uint16]int{}
	for port, ps := range all {
		n[port] = len(ps)
	}
	return n
}

func wantBytes(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("packet is\n%x, want\n%x", got, want)
	}
}

func payload(b []byte) gopacket.Payload { return gopacket.Payload(b) }
