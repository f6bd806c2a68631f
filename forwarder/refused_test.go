package forwarder_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"margay.dev/margay/fastpath/graph/graphtest"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// liar sends a packet by eth0 with an offload header that nobody can follow, the
// checksum lying at an odd byte: PACKET ETHERTYPE CHECKSUM-START.
const liar = `
import socket, struct, sys
packet, kind, start = bytes.fromhex(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.setsockopt(263, 15, 1) # SOL_PACKET, PACKET_VNET_HDR
s.bind(("eth0", kind))
for _ in range(3):
    s.send(struct.pack("=BBHHHH", 1, 0, 0, 0, start, 15) + packet)
`

// What a pod's TUN refuses at reception is in a capture as it came, with the
// reason, and a trace tells of it.
func TestPacketsRefusedAtReceptionAreSeen(t *testing.T) {
	l := raised(t)
	for name, tt := range map[string]struct{ from, to, kind, start string }{
		"IPv4": {"10.1.0.2", "10.1.0.4", "2048", "20"},
		"IPv6": {"fd00::2", "fd00::4", "34525", "40"},
	} {
		t.Run(name, func(t *testing.T) {
			packet := graphtest.UDP(netip.MustParseAddr(tt.from), netip.MustParseAddr(tt.to), 300)
			lie := func() {
				Run(t, l.pods["a"], "/usr/bin/python3", "-c", liar, hex.EncodeToString(packet), tt.kind, tt.start)
			}
			for _, more := range []string{"--snap=0", "--segments"} {
				file := filepath.Join(t.TempDir(), "c.pcapng")
				if _, errOut, err := l.during(lie, "capture", "-f", "udp and on a and dst host "+tt.to, "--stage", "drop", "-n", "3", "-w", file, more); err != nil {
					t.Fatalf("%v\n%s", err, errOut)
				}
				kept, err := os.ReadFile(file)
				if n := bytes.Count(kept, []byte("stage=drop port=a reason=rx-offload ethernet=none")); err != nil || n != 3 {
					t.Errorf("%s: %d of 3 packets are said to have been refused, %v", more, n, err)
				}
				for _, f := range frames(t, file) {
					if !bytes.Equal(f[14:], packet) {
						t.Errorf("%s: kept is %x, sent was %x", more, f, packet)
					}
				}
				if out := Run(t, l.node, "tcpdump", "-nr", file); strings.Count(out, tt.to+".2222: UDP, length 300") != 3 {
					t.Errorf("%s: tcpdump reads\n%s", more, out)
				}
			}
			story, errOut, err := l.during(lie, "trace", "-f", "udp and dst host "+tt.to)
			if err != nil || !strings.Contains(story, "dropped (rx-offload) after") || !strings.Contains(story, "received by a") || strings.Contains(story, "ip-input") {
				t.Errorf("the story is, %v:\n%s%s", err, story, errOut)
			}
			t.Log("\n" + story)
		})
	}
	l.balanced()
}
