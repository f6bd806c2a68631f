package filter

import (
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"margay.dev/margay/internal/pkt"
)

// doors are the ports of these tests.
func doors(name string) (uint16, bool) {
	index, ok := map[string]uint16{"eth0": 0, "eth1": 1, "pod-1": 2, "pod-2": 3, "a b": 4}[name]
	return index, ok
}

func bind(tb testing.TB, f *Filter) *Bound {
	tb.Helper()
	b, err := f.Bind(doors)
	if err != nil {
		tb.Fatalf("%q: %v", f, err)
	}
	return b
}

// oracle is the language as docs/FILTERS.md tells it, over the tree.
func oracle(n *node, k *Key) bool {
	switch n.op {
	case opNot:
		return !oracle(n.kids[0], k)
	case opAnd:
		for _, kid := range n.kids {
			if !oracle(kid, k) {
				return false
			}
		}
		return true
	case opOr:
		for _, kid := range n.kids {
			if oracle(kid, k) {
				return true
			}
		}
		return false
	}
	return answer(n, strings.Fields(n.String()), k)
}

// answer is what a packet says to a term, by its words.
func answer(n *node, words []string, k *Key) bool {
	src, dst := words[0] != "dst", words[0] != "src"
	if !src || !dst {
		words = words[1:]
	}
	switch words[0] {
	case "host":
		words[1] += map[bool]string{true: "/128", false: "/32"}[strings.Contains(words[1], ":")]
		return src && inPrefix(words[1], k.Src) || dst && inPrefix(words[1], k.Dst)
	case "net":
		return src && inPrefix(words[1], k.Src) || dst && inPrefix(words[1], k.Dst)
	case "port":
		lo, hi, ranged := strings.Cut(words[1], "-")
		if !ranged {
			hi = lo
		}
		in := func(p uint16) bool { return int(p) >= number(lo) && int(p) <= number(hi) }
		return k.HasPorts && (src && in(k.SrcPort) || dst && in(k.DstPort))
	case "tcp":
		return k.Proto == 6
	case "udp":
		return k.Proto == 17
	case "icmp", "icmp6":
		proto := map[string]uint8{"icmp": 1, "icmp6": 58}[words[0]]
		if len(words) == 1 {
			return k.Proto == proto
		}
		return k.HasICMP && k.Proto == proto && int(k.ICMPType) == number(words[2]) &&
			(len(words) == 3 || int(k.ICMPCode) == number(words[4]))
	case "proto":
		return words[1] == "sctp" && k.Proto == 132 || words[1] != "sctp" && int(k.Proto) == number(words[1])
	case "ip", "ip6", "arp":
		return k.EtherType == map[string]uint16{"ip": 0x800, "ip6": 0x86dd, "arp": 0x806}[words[0]]
	case "vlan":
		return int(k.VLAN) == number(words[1])
	case "on", "to":
		index, ok := doors(n.name)
		return ok && index == map[string]uint16{"on": k.InPort, "to": k.OutPort}[words[0]]
	case "frag":
		return k.Fragment
	case "less":
		return int(k.Length) <= number(words[1])
	case "greater":
		return int(k.Length) >= number(words[1])
	}
	panic("the oracle does not know " + n.String())
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// inPrefix compares bit by bit.
func inPrefix(prefix string, a netip.Addr) bool {
	p := netip.MustParsePrefix(prefix)
	x, y := p.Addr().AsSlice(), a.AsSlice()
	if len(x) != len(y) {
		return false
	}
	for i := range p.Bits() {
		if (x[i/8]^y[i/8])>>(7-i%8)&1 != 0 {
			return false
		}
	}
	return true
}

// questions are terms of every kind, which the samples answer in both ways.
var questions = []string{
	"host 10.0.0.1", "src host 10.0.0.1", "dst host 10.0.0.1", "host 2001:db8::1", "src host 2001:db8::1", "dst host 2001:db8::1",
	"net 10.0.0.0/8", "src net 10.1.0.0/16", "dst net 192.0.2.8/31", "net 0.0.0.0/0", "net ::/0",
	"net 2001:db8::/33", "src net 2001:db8:1::/48", "dst net fd00::/8", "net 2001:db8::/127",
	"port 53", "src port 53", "dst port 53", "port 8000-8079", "src port 400-500", "dst port 0-65535",
	"tcp", "udp", "icmp", "icmp6", "proto sctp", "proto 47", "proto 50", "ip", "ip6", "arp",
	"icmp type 0", "icmp type 8", "icmp type 3 code 4", "icmp type 3 code 1", "icmp6 type 128", "icmp6 type 1 code 4", "icmp6 type 1 code 0",
	"vlan 10", "vlan 20", "on eth0", "on pod-1", "to eth1", `to "a b"`, "frag", "less 80", "greater 100",
}

// expression makes an expression of any input: each byte is a term, or joins what
// follows.
type expression struct{ spec []byte }

func (e *expression) take() int {
	if len(e.spec) == 0 {
		return 0
	}
	v := int(e.spec[0])
	e.spec = e.spec[1:]
	return v
}

func (e *expression) text(depth int) string {
	v := e.take()
	if depth == 0 || len(e.spec) == 0 {
		return questions[v%len(questions)]
	}
	switch v % 8 {
	case 0, 1:
		return "!" + e.text(depth-1)
	case 2, 3:
		return "(" + e.text(depth-1) + ") and " + e.text(depth-1)
	case 4, 5:
		return e.text(depth-1) + "||(" + e.text(depth-1) + ")"
	case 6:
		return "(" + e.text(depth-1) + " or " + e.text(depth-1) + ") && not (" + e.text(depth-1) + ")"
	}
	return questions[e.take()%len(questions)]
}

// FuzzMatch holds the program against the tree, for any filter and any packet.
func FuzzMatch(f *testing.F) {
	for i, s := range samples() {
		f.Add([]byte{byte(i), byte(2 * i), 7, byte(i), byte(3 * i), 7, byte(5 * i), byte(i)}, s.frame, true)
		f.Add([]byte{6, 7, byte(i), 3, byte(i + 1), byte(i + 9), 4, byte(2 * i)}, s.frame[pkt.EthernetSize:], false)
	}
	f.Fuzz(func(t *testing.T, spec, packet []byte, l2 bool) {
		e := expression{spec}
		k := Key{InPort: uint16(e.take() % 8), OutPort: uint16(e.take() % 8), Length: uint32(len(packet))}
		k.Read(packet, l2)
		filter := parse(t, e.text(6))
		if got, want := bind(t, filter).Match(&k), oracle(filter.root, &k); got != want {
			t.Errorf("%q of %+v: the program says %v, the tree %v", filter, k, got, want)
		}
	})
}

// TestEveryQuestionIsAnsweredBothWays also sees to it that the tables here are
// worth something: a term that all packets answer alike tells nothing.
func TestEveryQuestionIsAnsweredBothWays(t *testing.T) {
	for _, q := range questions {
		var yes, no int
		filter := parse(t, q)
		b, inverse := bind(t, filter), bind(t, parse(t, "not "+q))
		for i, s := range samples() {
			k := Key{InPort: uint16(i % 3), OutPort: uint16(i % 5), Length: uint32(len(s.frame))}
			k.Read(s.frame, true)
			got := b.Match(&k)
			if want := oracle(filter.root, &k); got != want || inverse.Match(&k) == want {
				t.Errorf("%q of %s: the program says %v, the tree %v", q, s.name, got, want)
			}
			if got {
				yes++
			} else {
				no++
			}
		}
		if yes == 0 || no == 0 {
			t.Errorf("%q is answered by %d yes and %d no", q, yes, no)
		}
	}
}

func TestTheEmptyFilterMatchesEveryPacket(t *testing.T) {
	for _, f := range []*Filter{{}, parse(t, "")} {
		if !bind(t, f).Match(&Key{}) {
			t.Error("the empty filter refuses a packet")
		}
	}
	if new(Bound).Match(&Key{}) {
		t.Error("a program that was never bound matches a packet")
	}
}

func TestBindNamesNearPorts(t *testing.T) {
	tests := map[string]string{
		"on eth2":              `no port is called "eth2"; near it is "eth0", "eth1"`,
		"on eth":               `near it is "eth0", "eth1"`,
		"to pdo-1":             `near it is "pod-1"`,
		"to pod--1":            `near it is "pod-1"`,
		"to Pod-2":             `near it is "pod-2"`,
		"on nowhere":           `no port is called "nowhere", nor nearly so`,
		"on eth9 or to pod-12": `"pod-1", "pod-2"`,
		`on "\x1b[2J"`:         `"\x1b[2J", nor nearly so`,
	}
	for expr, want := range tests {
		if b, err := parse(t, expr).Bind(doors); err == nil || b != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: bound to %v, error %v, want %s", expr, b, err, want)
		}
	}
	if _, err := parse(t, "on x and to y").Bind(doors); err == nil || strings.Count(err.Error(), "no port is called") != 2 {
		t.Errorf("of two unknown names the error is %v", err)
	}
}

// TestMatchIsBounded: no step leads back, and there are no more steps than terms.
func TestMatchIsBounded(t *testing.T) {
	var expr strings.Builder
	for i := range MaxTerms - 1 {
		fmt.Fprintf(&expr, "%s ", []string{"ip or", "ip6 and", "ip and !", "arp or"}[i%4])
	}
	b := bind(t, parse(t, expr.String()+"udp"))
	if n := len(b.prog) - firstStep; n != MaxTerms {
		t.Errorf("%d steps for %d terms", n, MaxTerms)
	}
	for i, s := range b.prog[firstStep:] {
		if at := uint16(i + firstStep); s.yes >= at || s.no >= at {
			t.Fatalf("step %d leads to %d and %d", at, s.yes, s.no)
		}
	}
}

func TestReadAndMatchAllocateNothing(t *testing.T) {
	var all []*Bound
	for _, q := range questions {
		all = append(all, bind(t, parse(t, q)))
	}
	var k Key
	for _, s := range samples() {
		if n := testing.AllocsPerRun(10, func() {
			k.Read(s.frame, true)
			for _, b := range all {
				b.Match(&k)
			}
		}); n != 0 {
			t.Errorf("%v allocations for %s", n, s.name)
		}
	}
}

// A term is asked for each packet, so that it stays within a cache line.
func TestAStepIsACacheLine(t *testing.T) {
	if n := reflect.TypeFor[instr]().Size(); n > 64 {
		t.Errorf("a step is %d bytes", n)
	}
}

func BenchmarkReadAndMatch(b *testing.B) {
	for _, expr := range []string{"", "udp", "src net 10.0.0.0/8 and (tcp or udp) and not port 53"} {
		for _, s := range []sample{
			{"v4", frame(ip(near4, far4, pkt.ProtoUDP, ported(4000, 443)))},
			{"v6", frame(ip(near6, far6, pkt.ProtoUDP, ported(4000, 443)))},
		} {
			b.Run(fmt.Sprintf("%q/%s", expr, s.name), func(b *testing.B) {
				bound := bind(b, parse(b, expr))
				k := Key{Length: uint32(len(s.frame))}
				b.ReportAllocs()
				for b.Loop() {
					k.Read(s.frame, true)
					bound.Match(&k)
				}
			})
		}
	}
}
