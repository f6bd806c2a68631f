package forwarder_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"margay.dev/margay/internal/hostnet"
	. "margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/pcapng"
)

// talker sends what a kernel makes superpackets of: KIND ADDRESS.
const talker = `
import os, socket, sys
kind, to = sys.argv[1:]
data = os.urandom(24000)
if kind == "tcp":
    s = socket.create_connection((to, 5301))
    for _ in range(4):
        s.sendall(data)
    s.close()
else:
    s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(17, 103, 1200) # UDP_SEGMENT
    for n in 24000, 601, 7777:
        s.sendto(data[:n], (to, 5302))
`

// listener takes what talker sends.
const listener = `
import socket
s = socket.create_server(("", 5301), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, _ = s.accept()
    while c.recv(1 << 16):
        pass
    c.close()
`

// judge makes all checksums of a file anew: it prints how many packets there are,
// and of how many one is not what it was.
const judge = `
import sys
from scapy.all import IP, IPv6, TCP, UDP, rdpcap
wrong = 0
packets = rdpcap(sys.argv[1])
for p in packets:
    one = p[IP] if IP in p else p[IPv6]
    again = one.copy()
    for layer in IP, TCP, UDP:
        if layer in again:
            del again[layer].chksum
    wrong += bytes(again) != bytes(one)
print(len(packets), wrong)
`

// beside starts a command in a namespace, to be killed at the end of the test.
func beside(t *testing.T, ns *hostnet.Namespace, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// frames are those of a capture file, which may still be written.
func frames(t *testing.T, file string) (all [][]byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	r, err := pcapng.NewReader(f)
	if err != nil {
		return nil
	}
	var rec pcapng.Record
	for r.Read(&rec) == nil {
		all = append(all, bytes.Clone(rec.Data))
	}
	return all
}

// Segments in a capture have checksums that are right, and are to the byte those
// that the far end of the wire sees.
func TestCapturedSegmentsAreThoseOnTheWire(t *testing.T) {
	l := raised(t)
	beside(t, l.pods["c"], "/usr/bin/python3", "-c", listener)
	Eventually(t, "pod c listens", func() bool { return Run(t, l.pods["c"], "ss", "-Hltn", "sport = :5301") != "" })
	for _, to := range []string{"10.1.0.4", "fd00::4"} {
		for _, kind := range []string{"tcp", "udp"} {
			t.Run(kind+" to "+to, func(t *testing.T) {
				ours, theirs := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
				beside(t, l.pods["c"], "tcpdump", "-i", "eth0", "-U", "--immediate-mode", "-B", "16384", "-Z", "root", "-w", theirs, "dst host "+to)
				Eventually(t, "tcpdump listens", func() bool { _, err := os.Stat(theirs); return err == nil })
				Run(t, l.pods["a"], "ping", "-c", "1", "-W", "2", to)
				Eventually(t, "tcpdump sees", func() bool { return len(frames(t, theirs)) > 0 })

				talk := func() { Run(t, l.pods["a"], "/usr/bin/python3", "-c", talker, kind, to) }
				_, errOut, err := l.during(talk, "capture", "--segments", "-f", kind+" and dst host "+to, "--stage", "rx,pre-tx", "-n", "200", "-w", ours)
				if err != nil || !strings.Contains(errOut, "200 packets") {
					t.Fatalf("%v\n%s", err, errOut)
				}
				kept, err := os.ReadFile(ours)
				if err != nil {
					t.Fatal(err)
				}
				cut := regexp.MustCompile(`stage=(rx port=a ethernet=none|pre-tx port=c) segment=\d+/\d+ of=\d+`).FindAll(kept, -1)
				if bytes.Contains(kept, []byte("segments=")) || len(cut) < 100 && (kind == "tcp" || len(l.port("a").Fallbacks) == 0) {
					t.Errorf("of 200 packets %d are said to be segments, and some are whole: %v", len(cut), bytes.Contains(kept, []byte("segments=")))
				}
				rightToAll(t, l.node, ours, 200)
				arrived(t, ours, theirs)
			})
		}
	}
	l.balanced()
}

// rightToAll wants tcpdump and scapy to find each checksum of n packets right.
func rightToAll(t *testing.T, ns *hostnet.Namespace, file string, n int) {
	t.Helper()
	out := Run(t, ns, "tcpdump", "-nvvr", file)
	right := len(regexp.MustCompile(`cksum 0x[0-9a-f]+ \(correct\)|udp sum ok`).FindAllString(out, -1))
	if wrong := regexp.MustCompile(`incorrect|bad (udp )?cksum`).FindString(out); right != n || wrong != "" {
		t.Errorf("tcpdump finds %d of %d checksums right, and says %q:\n%.2000s", right, n, wrong, out)
	}
	if out, want := Run(t, ns, "/usr/bin/python3", "-c", judge, file), fmt.Sprintf("%d 0\n", n); out != want {
		t.Errorf("scapy finds %q packets and wrong ones, want %q", out, want)
	}
}

// arrived wants every Ethernet frame of one capture in the other.
func arrived(t *testing.T, ours, theirs string) {
	t.Helper()
	var sent [][]byte
	for _, f := range frames(t, ours) {
		if !bytes.HasPrefix(f, make([]byte, 12)) {
			sent = append(sent, f)
		}
	}
	if len(sent) < 40 {
		t.Errorf("only %d frames were captured before they were sent", len(sent))
	}
	var missing []byte
	defer func() {
		if missing != nil {
			t.Logf("never seen:\n%x", missing)
		}
	}()
	Eventually(t, "every captured frame has arrived as it was captured", func() bool {
		there := map[string]bool{}
		for _, f := range frames(t, theirs) {
			there[string(f)] = true
		}
		for _, f := range sent {
			if !there[string(f)] {
				missing = f
				return false
			}
		}
		missing = nil
		return true
	})
}
