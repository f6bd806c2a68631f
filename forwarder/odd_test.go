package forwarder_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"margay.dev/margay/fastpath/graph/graphtest"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// told is what trace -o json says of a packet.
type told struct {
	End   string
	Steps []struct {
		Kind, Stop, Edge, OutPort, Reason string
		Length, Segments, GsoSize         int
		Facts                             []string
	}
}

// way is a packet's stops, its outcome.
func (p *told) way() string {
	var stops []string
	for _, s := range p.Steps {
		if s.Kind == "KIND_VISITED" {
			stops = append(stops, s.Stop)
		}
	}
	last := p.Steps[len(p.Steps)-1]
	return strings.Join(stops, " ") + " " + strings.TrimPrefix(p.End, "END_") + " " + last.OutPort + last.Reason
}

// traced are n packets that the filter picks, and the story of one more.
func (l *lab) traced(traffic func(), filter string, n int) (all []told, story string) {
	l.t.Helper()
	out, errOut, err := l.during(traffic, "trace", "-f", filter, "-n", fmt.Sprint(n), "-o", "json")
	var got struct{ Packets []told }
	if err == nil {
		err = json.Unmarshal([]byte(out), &got)
	}
	if err != nil || len(got.Packets) != n {
		l.t.Fatalf("%q: %d packets are told of, want %d: %v\n%s%s", filter, len(got.Packets), n, err, out, errOut)
	}
	if story, _, err = l.during(traffic, "trace", "-f", filter); err != nil {
		l.t.Fatalf("%q: the story ends with %v", filter, err)
	}
	return got.Packets, story
}

// Parts of datagrams are followed each by itself, the first and those that have no
// transport header.
func TestTraceOfFragments(t *testing.T) {
	l := raised(t)
	for _, to := range []string{"10.1.0.4", "fd00::4"} {
		parts := func() { Run(t, l.pods["a"], "ping", "-q", "-c", "1", "-s", "4000", "-W", "2", to) }
		all, story := l.traced(parts, "frag and dst host "+to, 3)
		first := 0
		for _, p := range all {
			facts := p.Steps[1].Facts // after ip-input
			if p.way() != "ip-input route rewrite SENT c" || !slices.Contains(facts, "fragment") {
				t.Errorf("a part of a ping to %s went %s and is %v", to, p.way(), facts)
			}
			if slices.Contains(facts, "first-fragment") {
				first++
			}
		}
		if first != 1 {
			t.Errorf("%d of three parts are told to be the first", first)
		}
		if !strings.Contains(story, "fragment, ") || !strings.Contains(story, "sent by c") {
			t.Errorf("the story is\n%s", story)
		}
	}
	l.balanced()
}

// A superpacket is one packet on its way, to a port that takes it whole and to one
// that cuts it.
func TestTraceOfSuperpackets(t *testing.T) {
	l := raised(t)
	for from, to := range map[string][]string{"b": {"10.1.0.3", "fd00::3"}, "c": {"10.1.0.4", "fd00::4"}} {
		beside(t, l.pods[from], "/usr/bin/python3", "-c", listener)
		Eventually(t, "a pod listens", func() bool { return Run(t, l.pods[from], "ss", "-Hltn", "sport = :5301") != "" })
		for _, to := range to {
			talk := func() { Run(t, l.pods["a"], "/usr/bin/python3", "-c", talker, "tcp", to) }
			all, story := l.traced(talk, "tcp and greater 4000 and dst host "+to, 2)
			for _, p := range all {
				for _, s := range p.Steps {
					if s.Segments < 3 || s.GsoSize < 1000 || s.Length < 4000 || !slices.Contains(s.Facts, "partial-checksum") {
						t.Errorf("a superpacket to %s is %+v at %s", to, s, s.Stop)
					}
				}
				if p.way() != "ip-input route rewrite SENT "+from {
					t.Errorf("a superpacket to %s went %s", to, p.way())
				}
			}
			if !strings.Contains(story, " bytes for ") || !strings.Contains(story, "sent by "+from) {
				t.Errorf("the story is\n%s", story)
			}
		}
	}
	l.balanced()
}

// raw sends a frame as it is: FRAME.
const raw = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
s.send(bytes.fromhex(sys.argv[1]))
`

// Frames that are malformed are followed to where they are dropped, and captured
// there as they came.
func TestTraceOfMalformedFrames(t *testing.T) {
	l := raised(t)
	mac := l.port("c").Mac
	header := func(kind string) string { return strings.ReplaceAll(mac, ":", "") + "020000000001" + kind }
	bent := func(ipv6 bool, at int, to ...byte) string {
		src, dst, kind := "10.1.0.4", "10.1.0.2", "0800"
		if ipv6 {
			src, dst, kind = "fd00::4", "fd00::2", "86dd"
		}
		p := graphtest.UDP(netip.MustParseAddr(src), netip.MustParseAddr(dst), 100)
		copy(p[at:], to)
		return header(kind) + hex.EncodeToString(p)
	}
	cut := func(frame string, bytes int) string { return frame[:len(frame)-2*bytes] }
	for name, tt := range map[string]struct{ frame, filter, way string }{
		"nothing behind the header":  {header("0800"), "ip and less 14", "eth-input ip-input DROPPED ip-truncated"},
		"nothing behind it, IPv6":    {header("86dd"), "ip6 and less 14", "eth-input ip-input DROPPED ip-truncated"},
		"an EtherType of nobody":     {header("88b5") + strings.Repeat("00", 50), "on c and not (ip or ip6 or arp)", "eth-input DROPPED ethertype"},
		"IPv4 that says too much":    {cut(bent(false, 0), 20), "udp and on c", "eth-input ip-input DROPPED ip-truncated"},
		"IPv6 that says too much":    {bent(true, 4, 0xff, 0xff), "udp and on c", "eth-input ip-input DROPPED ip-truncated"},
		"IPv4 of another version":    {bent(false, 0, 0x65), "on c and ip", "eth-input ip-input DROPPED ip-version"},
		"IPv6 of another version":    {bent(true, 0, 0x95), "on c and ip6 and greater 100", "eth-input ip-input DROPPED ip-version"},
		"IPv4 with a wrong checksum": {bent(false, 10, 0, 1), "udp and on c", "eth-input ip-input DROPPED ip-checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			send := func() { Run(t, l.pods["c"], "/usr/bin/python3", "-c", raw, tt.frame) }
			all, story := l.traced(send, tt.filter, 1)
			if all[0].way() != tt.way {
				t.Errorf("it went %s, want %s", all[0].way(), tt.way)
			}
			if !strings.Contains(story, "dropped ("+tt.way[strings.LastIndex(tt.way, " ")+1:]+")") {
				t.Errorf("the story is\n%s", story)
			}
		})
	}
	l.balanced()
}
