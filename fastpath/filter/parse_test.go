package filter

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// parse reads an expression that is right.
func parse(tb testing.TB, expr string) *Filter {
	tb.Helper()
	f, err := Parse(expr)
	if err != nil {
		tb.Fatalf("%q: %v", expr, err)
	}
	return f
}

func TestNormalForm(t *testing.T) {
	tests := map[string]string{
		"":                                   "",
		" \t\r\n":                            "",
		"host 10.0.0.1":                      "host 10.0.0.1",
		"src host 2001:DB8:0:0::1":           "src host 2001:db8::1",
		"net 10.0.0.1/32":                    "host 10.0.0.1",
		"dst net 2001:db8::/32":              "dst net 2001:db8::/32",
		"net ::ffff:10.0.0.0/104":            "net ::ffff:10.0.0.0/104",
		"net 0.0.0.0/0":                      "net 0.0.0.0/0",
		"port 053":                           "port 53",
		"src port 0-65535":                   "src port 0-65535",
		"dst port 80-80":                     "dst port 80",
		"proto tcp and proto 17":             "tcp and udp",
		"proto icmp or proto 58":             "icmp or icmp6",
		"proto sctp or proto 132":            "proto sctp or proto sctp",
		"proto 47":                           "proto 47",
		"proto icmp type 8":                  "icmp type 8",
		"icmp type 3 code 4":                 "icmp type 3 code 4",
		"icmp6 type 1 code 255":              "icmp6 type 1 code 255",
		"ip or ip6 or arp":                   "ip or ip6 or arp",
		"vlan 4094":                          "vlan 4094",
		"on eth0 and to pod-1":               "on eth0 and to pod-1",
		`on "eth0" or on "a b"`:              `on eth0 or on "a b"`,
		`on "and" and to "(\"\\"`:            `on "and" and to "(\"\\"`,
		"on tcp and tcp":                     "on tcp and tcp",
		"on äöü":                             "on äöü",
		"frag":                               "frag",
		"less 64 or greater 1500":            "less 64 or greater 1500",
		"tcp&&udp||!arp":                     "tcp and udp or not arp",
		"tcp or udp and arp":                 "tcp or udp and arp",
		"(tcp or udp) and arp":               "(tcp or udp) and arp",
		"not tcp and udp":                    "not tcp and udp",
		"not (tcp and udp)":                  "not (tcp and udp)",
		"!!tcp":                              "tcp",
		"not (not (not tcp))":                "not tcp",
		"((tcp) and (udp and (ip)))":         "tcp and udp and ip",
		"(tcp or (udp or ip)) or arp":        "tcp or udp or ip or arp",
		"(tcp and udp) or (ip and not frag)": "tcp and udp or ip and not frag",
	}
	for expr, want := range tests {
		f := parse(t, expr)
		if got := f.String(); got != want {
			t.Errorf("%q is %q in normal form, want %q", expr, got, want)
		}
		if again := parse(t, f.String()); !reflect.DeepEqual(f, again) {
			t.Errorf("%q is another filter when read from its normal form %q", expr, f)
		}
	}
}

func TestRefused(t *testing.T) {
	tests := map[string]struct {
		pos  int
		want string // part of the error
	}{
		"prot tcp":                      {0, `found "prot", want host, net, port`},
		"tcp and":                       {7, "found the end, want host"},
		"tcp port 80":                   {4, `found "port", want and, or, or the end, as in "tcp and port 80"`},
		"(tcp":                          {4, "want and, or, or )"},
		"tcp)":                          {3, `found ")"`},
		"()":                            {1, `found ")"`},
		"tcp & udp":                     {4, `found "&"`},
		"not":                           {3, "found the end"},
		"src 10.0.0.1":                  {4, "want host, net or port"},
		"src":                           {3, "want host, net or port"},
		"host 10.0.0.0/8":               {5, "or net 10.0.0.0/8"},
		"host fe80::1%eth0":             {5, "want an IPv4 or IPv6 address"},
		"host 10.0.0.256":               {5, "want an IPv4 or IPv6 address"},
		`host "10.0.0.1"`:               {5, "want an IPv4 or IPv6 address"},
		"host (":                        {5, "want an IPv4 or IPv6 address"},
		"net 10.0.0.1":                  {4, "want an IPv4 or IPv6 prefix"},
		"net 10.1.2.3/8":                {4, `as in "net 10.0.0.0/8"`},
		"net 2001:db8::1/64":            {4, `as in "net 2001:db8::/64"`},
		"net 10.0.0.0/33":               {4, "want an IPv4 or IPv6 prefix"},
		"port 65536":                    {5, "want a port of 0 to 65535"},
		"port http":                     {5, "want a port"},
		"port 80-79":                    {5, "the lower port first"},
		"port -80":                      {5, "want a port"},
		"port 80-":                      {5, "want a port"},
		"port 1-2-3":                    {5, "want a port"},
		"port +80":                      {5, "want a port"},
		"proto 0":                       {6, "want tcp, udp"},
		"proto 256":                     {6, "want tcp, udp"},
		"proto":                         {5, "want tcp, udp"},
		"icmp type 256":                 {10, "want an ICMP type of 0 to 255"},
		"icmp type":                     {9, "want an ICMP type of 0 to 255"},
		"icmp6 type 1 code":             {17, "want an ICMP code of 0 to 255"},
		"icmp code 4":                   {5, `found "code"`},
		"vlan 0":                        {5, "want a VLAN id of 1 to 4094"},
		"vlan 4095":                     {5, "want a VLAN id of 1 to 4094"},
		"vlan 4294967297":               {5, "want a VLAN id of 1 to 4094"},
		"on":                            {2, "want a port's name"},
		"on and":                        {3, "want a port's name"},
		`on ""`:                         {3, "want a port's name"},
		`on "eth0`:                      {3, "want a port's name"},
		"to " + strings.Repeat("x", 33): {3, "of 1 to 32 bytes"},
		"greater 0":                     {8, "at least 1"},
		"less -1":                       {5, "want a length in bytes"},
		"tcp\x00":                       {0, `found "tcp\x00"`},
		"\x1b[31mred":                   {0, `found "\x1b[31mred"`},
		strings.Repeat("x", 1000):       {0, `xx"..., want`},
		strings.Repeat("(", 65) + "tcp" + strings.Repeat(")", 65): {64, "more than 64 parentheses and nots open"},
		strings.Repeat("not ", 65) + "tcp":                        {256, "more than 64 parentheses and nots open"},
		"ip" + strings.Repeat("||ip", 512):                        {2048, "more than 512 terms"},
		strings.Repeat(" ", 4097):                                 {4096, "found 4097 bytes, want at most 4096"},
		"!ip" + strings.Repeat("&&!ip", 511):                      {2558, "bytes in normal form, want at most 4096"},
	}
	for expr, tt := range tests {
		_, err := Parse(expr)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.60q: the error is %v, want an *Error", expr, err)
			continue
		}
		if e.Pos != tt.pos || !strings.Contains(e.Error(), tt.want) {
			t.Errorf("%.60q: at %d: %v, want at %d: %s", expr, e.Pos, e, tt.pos, tt.want)
		}
		if _, err := Parse(e.Example); err != nil {
			t.Errorf("%.60q: the example is wrong itself: %v", expr, err)
		}
	}
}

func TestWhatIsJustAllowed(t *testing.T) {
	for _, expr := range []string{
		strings.Repeat("(", 64) + "tcp" + strings.Repeat(")", 64),
		strings.Repeat("!(", 32) + "tcp" + strings.Repeat(")", 32),
		"ip" + strings.Repeat("||ip", 511),
		"on " + strings.Repeat("x", 32),
		strings.Repeat(" ", 4093) + "tcp",
	} {
		parse(t, expr)
	}
}

func TestPorts(t *testing.T) {
	got := parse(t, "on b and (to a or not on b) or host ::1 or to \"c d\"").Ports()
	if want := []string{"a", "b", "c d"}; !slices.Equal(got, want) {
		t.Errorf("ports are %q, want %q", got, want)
	}
	if got := parse(t, "").Ports(); len(got) > 0 {
		t.Errorf("ports of the empty expression are %q", got)
	}
}

// FuzzParse: whatever is written is refused by an error that stands on its own,
// or comes back from its normal form as it was.
func FuzzParse(f *testing.F) {
	for _, expr := range []string{
		"", "src net 10.0.0.0/8 and (tcp or udp) and not port 53", "host ::1||!icmp type 3 code 4",
		`on "a b" to`, "((((not !ip6", "vlan 10 and dst port 1-2 or less 64", "net ::ffff:1.2.3.4/127", "arp&&frag",
	} {
		f.Add(expr)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		got, err := Parse(expr)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Pos < 0 || e.Pos > len(expr) {
				t.Fatalf("%q: %v", expr, err)
			}
			if _, err := Parse(e.Example); err != nil {
				t.Errorf("%q: the example is wrong itself: %v", expr, err)
			}
			return
		}
		again, err := Parse(got.String())
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Errorf("%q is another filter when read from its normal form %q: %v", expr, got, err)
		}
	})
}
