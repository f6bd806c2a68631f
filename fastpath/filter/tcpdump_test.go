package filter

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"margay.dev/margay/internal/pkt"
)

// chains are the ways in which samples have extension headers before the
// transport header: how pcap's language tells each, where in the IPv6 packet the
// last header names the protocol, and where the transport header begins.
var chains = []struct {
	is        string
	names, at int
}{
	{"ip6[6] = 44 and ip6[42:2] & 0xfff8 = 0", 40, 48},
	{"ip6[6] = 0 and ip6[40] != 60 and ip6[40] != 44", 40, 48},
	{"ip6[6] = 0 and ip6[40] = 60", 48, 56},
	{"ip6[6] = 43", 40, 48},
	{"ip6[6] = 51", 40, 56},
	{"ip6[6] = 0 and ip6[40] = 44 and ip6[50:2] & 0xfff8 = 0", 48, 56},
	{"ip6[6] = 60", 96, 104},
}

// behind is what pcap's own port and icmp6[] do not do: to look behind extension
// headers. In test PROTO is the protocol, SRC and DST are the ports, TYPE and CODE
// are ICMP's.
func behind(test string) string {
	var each []string
	for _, c := range chains {
		field := func(at int, size string) string { return "ip6[" + strconv.Itoa(at) + size + "]" }
		each = append(each, "("+c.is+" and "+strings.NewReplacer(
			"PROTO", field(c.names, ""), "SRC", field(c.at, ":2"), "DST", field(c.at+2, ":2"),
			"TYPE", field(c.at, ""), "CODE", field(c.at+1, ""),
		).Replace(test)+")")
	}
	return " or (" + strings.Join(each, " or ") + ")"
}

// portsBehind is behind for what has ports.
func portsBehind(test string) string {
	return behind("(PROTO = 6 or PROTO = 17 or PROTO = 132) and (" + test + ")")
}

const (
	anyPart  = "(ip[6:2] & 0x3fff != 0 or (ip6[6] = 44 and ip6[42:2] & 0xfff9 != 0) or (ip6[6] = 0 and ip6[40] = 44 and ip6[50:2] & 0xfff9 != 0))"
	untagged = "ether[12:2] != 0x8100 and ether[12:2] != 0x88a8"
)

// peerRow is an expression of ours and of pcap's for the same packets.
type peerRow struct {
	ours, pcap string
	bare       bool   // pcap's is asked as it is; else of untagged frames, and behind a tag
	chain      string // what pcap's can ask of untagged packets alone, since it cannot walk headers behind a tag
}

func peerRows() []peerRow {
	rows := []peerRow{
		{ours: "port 53", pcap: "port 53", chain: portsBehind("SRC = 53 or DST = 53")},
		{ours: "src port 4000", pcap: "src port 4000", chain: portsBehind("SRC = 4000")},
		{ours: "dst port 443", pcap: "dst port 443", chain: portsBehind("DST = 443")},
		{ours: "port 8000-8079", pcap: "portrange 8000-8079", chain: portsBehind("SRC >= 8000 and SRC <= 8079 or DST >= 8000 and DST <= 8079")},
		{ours: "src port 400-500", pcap: "src portrange 400-500", chain: portsBehind("SRC >= 400 and SRC <= 500")},
		{ours: "dst port 0-79", pcap: "dst portrange 0-79", chain: portsBehind("DST <= 79")},
		{ours: "tcp", pcap: "tcp", chain: " or ip6 protochain 6"},
		{ours: "udp", pcap: "udp", chain: " or ip6 protochain 17"},
		{ours: "proto sctp", pcap: "sctp", chain: " or ip6 protochain 132"},
		{ours: "icmp", pcap: "icmp"},
		{ours: "icmp6", pcap: "icmp6", chain: " or ip6 protochain 58"},
		{ours: "proto 47", pcap: "proto 47"},
		{ours: "proto 50", pcap: "proto 50"},
		{ours: "icmp type 0", pcap: "icmp[0] = 0"},
		{ours: "icmp type 8", pcap: "icmp[0] = 8"},
		{ours: "icmp type 3", pcap: "icmp[0] = 3"},
		{ours: "icmp type 3 code 4", pcap: "icmp[0:2] = 0x0304"},
		{ours: "icmp6 type 128", pcap: "icmp6[0] = 128", chain: behind("PROTO = 58 and TYPE = 128")},
		{ours: "icmp6 type 143", pcap: "icmp6[0] = 143", chain: behind("PROTO = 58 and TYPE = 143")},
		{ours: "icmp6 type 1 code 4", pcap: "icmp6[0:2] = 0x0104", chain: behind("PROTO = 58 and TYPE = 1 and CODE = 4")},
		{ours: "frag", pcap: anyPart},
		{ours: "vlan 10", pcap: "vlan 10", bare: true},
		{ours: "vlan 20", pcap: "vlan 20", bare: true},
		{ours: "not vlan 10", pcap: "not vlan 10", bare: true},
		{ours: "vlan 10 and host 10.0.0.1", pcap: "vlan 10 and host 10.0.0.1", bare: true},
		{ours: "vlan 10 and not frag and (udp or icmp6)", pcap: "vlan 10 and not " + anyPart + " and (udp or icmp6)", bare: true},
		{ours: "less 90", pcap: "less 90", bare: true},
		{ours: "greater 100", pcap: "greater 100", bare: true},
		{ours: "not ip", pcap: "not ip"},
		{ours: "not (host 10.0.0.1 or host 2001:db8::1)", pcap: "not (host 10.0.0.1 or host 2001:db8::1)"},
		{ours: "arp and not src host 10.0.0.1", pcap: "arp and not src host 10.0.0.1"},
		{ours: "proto 47 or ip and not net 192.0.2.0/24", pcap: "proto 47 or (ip and not net 192.0.2.0/24)"},
		{ours: "frag and (ip or dst net 2001:db8::/32) or icmp", pcap: "(" + anyPart + " and (ip or dst net 2001:db8::/32)) or icmp"},
		{ours: "not port 53", pcap: "not (port 53" + portsBehind("SRC = 53 or DST = 53") + ")"},
		{ours: "host 10.0.0.1 && !(port 53 || port 443)", pcap: "host 10.0.0.1 and not (port 53 or port 443)"},
	}
	for _, both := range []string{
		"", "ip", "ip6", "arp", "host 10.0.0.1", "src host 10.0.0.1", "dst host 10.0.0.1", "host 2001:db8::1",
		"src host 2001:db8::1", "dst host 2001:db8:1::2", "net 10.0.0.0/8", "src net 10.1.0.0/16", "dst net 192.0.2.8/31",
		"net 2001:db8::/33", "src net fd00::/8", "dst net 2001:db8::/127", "net 0.0.0.0/0",
	} {
		rows = append(rows, peerRow{ours: both, pcap: both})
	}
	return rows
}

// frames is pcap's expression for frames with and without a tag.
func (r peerRow) frames() string {
	switch {
	case r.bare:
		return r.pcap
	case r.pcap == "":
		return ""
	}
	return "(" + untagged + " and (" + r.pcap + r.chain + ")) or (vlan and (" + r.pcap + "))"
}

// capture is packets as they come from one link.
type capture struct {
	link    layers.LinkType
	samples []sample
	lengths []int // on the wire, where a sample was cut
}

// file is the capture as pcapgo writes it, with a packet's index for its time.
func (c capture) file(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := pcapgo.NewWriter(&out)
	if err := w.WriteFileHeader(65535, c.link); err != nil {
		t.Fatal(err)
	}
	for i, s := range c.samples {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(s.frame), Length: c.length(i)}
		if err := w.WritePacket(info, s.frame); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func (c capture) length(i int) int {
	if c.lengths != nil {
		return c.lengths[i]
	}
	return len(c.samples[i].frame)
}

// tcpdump is the names of the packets that tcpdump picks from a capture file.
func (c capture) tcpdump(t *testing.T, file []byte, expr string) []string {
	t.Helper()
	cmd := exec.Command("tcpdump", "-n", "-r", "-", "-w", "-", expr)
	var diagnosis bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(file), &diagnosis
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tcpdump %q: %v\n%s", expr, err, &diagnosis)
	}
	r, err := pcapgo.NewReader(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	var picked []string
	for {
		_, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return picked
		}
		if err != nil {
			t.Fatal(err)
		}
		picked = append(picked, c.samples[info.Timestamp.Unix()].name)
	}
}

// filter is the names of the packets that a filter of ours picks.
func (c capture) filter(t *testing.T, expr string) []string {
	t.Helper()
	b := bind(t, parse(t, expr))
	var picked []string
	for i, s := range c.samples {
		k := Key{Length: uint32(c.length(i))}
		k.Read(s.frame, c.link == layers.LinkTypeEthernet)
		if b.Match(&k) {
			picked = append(picked, s.name)
		}
	}
	return picked
}

// agree compares what we and tcpdump pick, and returns how many that is.
func (c capture) agree(t *testing.T, file []byte, ours, pcap string) int {
	t.Helper()
	got, want := c.filter(t, ours), c.tcpdump(t, file, pcap)
	for _, s := range c.samples {
		if we, they := slices.Contains(got, s.name), slices.Contains(want, s.name); we != they {
			t.Errorf("%q picks %s: we say %v, tcpdump %v", ours, s.name, we, they)
		}
	}
	return len(got)
}

func needTcpdump(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed; hack/deps.sh installs it")
	}
}

func TestFramesAsTcpdumpPicksThem(t *testing.T) {
	needTcpdump(t)
	c := capture{link: layers.LinkTypeEthernet, samples: samples()}
	file := c.file(t)
	for _, r := range peerRows() {
		n := c.agree(t, file, r.ours, r.frames())
		if n == 0 || r.ours != "" && n == len(c.samples) {
			t.Errorf("%q picks %d of %d packets: the row tells nothing", r.ours, n, len(c.samples))
		}
	}
}

// Packets of TUN ports begin with their IP header.
func TestPacketsWithoutEthernetAsTcpdumpPicksThem(t *testing.T) {
	needTcpdump(t)
	c := capture{link: layers.LinkTypeRaw}
	for _, s := range samples() {
		if isIP := versionType(s.frame[pkt.EthernetSize:]) != 0; isIP && !strings.Contains(s.name, "tag") {
			c.samples = append(c.samples, sample{s.name, s.frame[pkt.EthernetSize:]})
		}
	}
	file := c.file(t)
	for _, r := range peerRows() {
		if !strings.Contains(r.ours, "vlan") && !strings.Contains(r.ours, "arp") { // not on such a link
			c.agree(t, file, r.ours, r.pcap+r.chain)
		}
	}
}

// TestPacketsCutShortAsTcpdumpPicksThem cuts in and behind whole headers. Within
// one, pcap reads on as long as it needs no more, and we read nothing; and a filter
// of pcap's that reads past the end picks nothing whatever else it says. So only
// single terms compare, and net 0.0.0.0/0 does not, which pcap does not look up.
func TestPacketsCutShortAsTcpdumpPicksThem(t *testing.T) {
	needTcpdump(t)
	cuts := map[string][]int{"v4": {0, 6, 14, 34, 38, 42}, "v6": {0, 6, 14, 54, 70, 78}}
	c := capture{link: layers.LinkTypeEthernet}
	for _, s := range samples() {
		for _, cut := range cuts[s.name[:2]] {
			if strings.Contains(s.name, "tag") && cut >= pkt.EthernetSize {
				cut += pkt.VLANSize
			}
			c.samples = append(c.samples, sample{s.name + " cut to " + strconv.Itoa(cut), s.frame[:cut]})
			c.lengths = append(c.lengths, len(s.frame))
		}
	}
	file, picked := c.file(t), 0
	for _, r := range peerRows() {
		joined := strings.ContainsAny(r.ours, "(!&") || strings.Contains(r.ours, "not ") || strings.Contains(r.ours, " and ")
		if !joined && r.ours != "" && r.ours != "net 0.0.0.0/0" {
			picked += c.agree(t, file, r.ours, r.frames())
		}
	}
	if picked == 0 {
		t.Error("no term picks a packet")
	}
}
