package domains

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// reply builds an answer about a name: records in the text form of zones.
func reply(t testing.TB, id uint16, question string, qtype uint16, records ...string) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(question), qtype)
	m.Id, m.Response, m.Compress = id, true, true
	for _, text := range records {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, r)
	}
	return pack(t, m)
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func query(t testing.TB, id uint16, question string, qtype uint16) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(question), qtype)
	m.Id = id
	return pack(t, m)
}

func TestRead(t *testing.T) {
	tests := map[string]struct {
		question string
		records  []string
		want     string // name address seconds, in order
	}{
		"addresses of both families": {"a.example", []string{"a.example. 60 A 192.0.2.1", "a.example. 70 AAAA 2001:db8::1"}, "a.example 192.0.2.1 60; a.example 2001:db8::1 70"},
		"case and the dot":           {"A.eXample.", []string{"a.EXAMPLE. 60 A 192.0.2.1"}, "a.example 192.0.2.1 60"},
		"aliases": {"a.example", []string{"a.example. 30 CNAME b.example.net.", "b.example.net. 300 CNAME c.example.org.", "c.example.org. 60 A 192.0.2.1"},
			"a.example 192.0.2.1 30; b.example.net 192.0.2.1 60; c.example.org 192.0.2.1 60"},
		"aliases in another order":  {"a.example", []string{"c.example. 60 AAAA 2001:db8::1", "b.example. 20 CNAME c.example.", "a.example. 30 CNAME b.example."}, "a.example 2001:db8::1 20; b.example 2001:db8::1 20; c.example 2001:db8::1 60"},
		"names that nobody asked":   {"a.example", []string{"a.example. 60 A 192.0.2.1", "bank.example. 60 A 192.0.2.66"}, "a.example 192.0.2.1 60"},
		"an alias in a circle":      {"a.example", []string{"a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example.", "a.example. 60 A 192.0.2.1"}, "a.example 192.0.2.1 60"},
		"an alias of itself":        {"a.example", []string{"a.example. 60 CNAME a.example.", "a.example. 60 A 192.0.2.1"}, "a.example 192.0.2.1 60"},
		"no address":                {"a.example", []string{"a.example. 60 TXT \"192.0.2.1\"", "a.example. 60 MX 1 b.example.", "b.example. 60 A 192.0.2.1"}, ""},
		"addresses of no host":      {"a.example", []string{"a.example. 60 A 127.0.0.1", "a.example. 60 A 0.0.0.0", "a.example. 60 A 224.0.0.1", "a.example. 60 AAAA ::1", "a.example. 60 AAAA ff02::1", "a.example. 60 AAAA ::", "a.example. 60 A 169.254.169.254"}, ""},
		"IPv4 in the clothes of v6": {"a.example", []string{"a.example. 60 AAAA ::ffff:192.0.2.1"}, "a.example 192.0.2.1 60"},
		"one address twice":         {"a.example", []string{"a.example. 60 A 192.0.2.1", "a.example. 60 A 192.0.2.1"}, "a.example 192.0.2.1 60"},
		"a TTL beyond reason":       {"a.example", []string{"a.example. 2147483647 A 192.0.2.1", "a.example. 4294967295 A 192.0.2.2"}, "a.example 192.0.2.1 86400; a.example 192.0.2.2 0"},
		"no name of a host":         {`a\.b.example`, []string{`a\.b.example. 60 A 192.0.2.1`}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			answers, a, err := Read(reply(t, 7, tt.question, dns.TypeA, tt.records...))
			if err != nil || !answers || a.ID != 7 {
				t.Fatalf("answers %v, %+v, %v", answers, a, err)
			}
			var got []string
			for _, f := range a.Found {
				got = append(got, fmt.Sprint(f.Name, " ", f.Address, " ", f.TTL.Seconds()))
			}
			if text := strings.Join(got, "; "); text != tt.want {
				t.Errorf("found %q, want %q", text, tt.want)
			}
		})
	}
}

// header is the first 12 bytes of an answer with counts of its four parts.
func header(counts ...uint16) []byte {
	b := []byte{0, 7, 0x81, 0x80}
	for _, n := range counts {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return b
}

func TestReadRefuses(t *testing.T) {
	good := reply(t, 7, "a.example", dns.TypeA, "a.example. 60 A 192.0.2.1", "a.example. 60 AAAA 2001:db8::1")
	question := []byte{1, 'a', 0, 0, 1, 0, 1}
	update := new(dns.Msg).SetUpdate("example.")
	two := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	chaos := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	tests := map[string][]byte{
		"nothing":                      {},
		"text":                         []byte("GET / HTTP/1.1\r\n\r\n"),
		"more records than there are":  append(header(1, 65535, 65535, 65535), question...),
		"a name that points to itself": append(header(1, 0, 0, 0), 0xc0, 12, 0, 1, 0, 1),
		"names that point to each other": append(header(1, 1, 0, 0), append(slices.Clone(question),
			0xc0, 21, 0xc0, 19, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)...),
		"a name that points ahead":    append(header(1, 0, 0, 0), 0xc0, 200, 0, 1, 0, 1),
		"an address of three bytes":   append(header(1, 1, 0, 0), append(slices.Clone(question), 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 3, 192, 0, 2)...),
		"no question":                 header(0, 0, 0, 0),
		"two questions":               pack(t, two),
		"an update":                   pack(t, update),
		"of another class":            pack(t, chaos),
		"a label of a kind not known": append(header(1, 0, 0, 0), 0x80, 'a', 0, 0, 1, 0, 1),
	}
	for n := range good {
		tests[fmt.Sprintf("cut after %d bytes", n)] = good[:n]
	}
	for name, message := range tests {
		t.Run(name, func(t *testing.T) {
			if _, a, err := Read(message); err == nil {
				t.Errorf("read as %+v", a)
			}
		})
	}
}

func TestReadFindsNothing(t *testing.T) {
	denied := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	denied.Response, denied.Rcode = true, dns.RcodeNameError
	denied.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{192, 0, 2, 1}}}
	other := denied.Copy()
	other.Rcode, other.Answer[0].Header().Class = dns.RcodeSuccess, dns.ClassHESIOD
	for name, m := range map[string]*dns.Msg{"a name that is not there": denied, "an address of another class": other} {
		if answers, a, err := Read(pack(t, m)); err != nil || !answers || len(a.Found) > 0 {
			t.Errorf("%s: %v, %+v, %v", name, answers, a, err)
		}
	}
	if answers, a, err := Read(query(t, 7, "a.example", dns.TypeA)); err != nil || answers || a.Question.Name != "a.example" || a.ID != 7 {
		t.Errorf("a question: %v, %+v, %v", answers, a, err)
	}
}

// many is an answer with as many addresses as a message holds, behind aliases.
func many(t testing.TB, aliases, addresses int) []byte {
	m := new(dns.Msg).SetQuestion("n0.example.", dns.TypeA)
	m.Id, m.Response, m.Compress = 7, true, true
	for i := range aliases {
		m.Answer = append(m.Answer, &dns.CNAME{
			Hdr: dns.RR_Header{Name: fmt.Sprintf("n%d.example.", i), Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 60}, Target: fmt.Sprintf("n%d.example.", i+1),
		})
	}
	for i := range addresses {
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: fmt.Sprintf("n%d.example.", aliases), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
			A:   binary.BigEndian.AppendUint32(nil, 0x0a000000+uint32(i)),
		})
	}
	return pack(t, m)
}

func TestReadBoundsWhatItFinds(t *testing.T) {
	_, a, err := Read(many(t, maxAliases-1, 3000))
	if err != nil || len(a.Found) != maxFound {
		t.Errorf("%d addresses of names, %v; want %d", len(a.Found), err, maxFound)
	}
	if _, a, err = Read(many(t, maxAliases, 1)); err != nil || len(a.Found) > 0 {
		t.Errorf("%d aliases are followed: %v, %v", maxAliases, a.Found, err)
	}
}

// FuzzRead finds no message that cannot be taken, or says of names what it may not.
func FuzzRead(f *testing.F) {
	f.Add(reply(f, 7, "a.example", dns.TypeA, "a.example. 30 CNAME b.example.", "b.example. 60 A 192.0.2.1"))
	f.Add(many(f, 3, 20))
	f.Add(query(f, 7, "a.example", dns.TypeA))
	f.Fuzz(func(t *testing.T, message []byte) {
		_, a, err := Read(message)
		if err != nil && len(a.Found) > 0 {
			t.Errorf("found %v in what it refuses: %v", a.Found, err)
		}
		for _, found := range a.Found {
			if found.TTL < 0 || found.TTL > maxTTL || !found.Address.IsValid() || found.Address.Is4In6() || found.Address.Zone() != "" || found.Name == "" {
				t.Errorf("found %+v", found)
			}
		}
		if len(a.Found) > 0 && !slices.ContainsFunc(a.Found, func(f Found) bool { return f.Name == a.Question.Name }) {
			t.Errorf("found %v, and nothing of %q", a.Found, a.Question.Name)
		}
	})
}

func address(text string) netip.Addr { return netip.MustParseAddr(text) }

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
