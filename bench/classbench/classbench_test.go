package classbench

import (
	"bytes"
	"compress/gzip"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/oracle"
)

// ClassBench knows IPv4 alone: an IPv6 rule is one of those that are refused.
func TestRules(t *testing.T) {
	net := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	ports := func(a, b uint16) []classifier.Range { return []classifier.Range{{First: a, Last: b}} }
	long := "@1.2.3.4/32 5.6.7.8/32 0 : 65535 0 : 65535 0x06/0xFF " + strings.Repeat("0", maxLine)
	tests := map[string]struct {
		text string
		want classifier.Rule
		err  string
	}{
		"exact":                      {"@1.2.3.4/32\t5.6.7.8/32\t0 : 65535\t80 : 81\t0x06/0xFF\t0x0000/0x0200\t", classifier.Rule{Action: classifier.Allow, Source: classifier.Side{Nets: net("1.2.3.4/32")}, Destination: classifier.Side{Nets: net("5.6.7.8/32"), Ports: ports(80, 81)}, Protocols: ports(6, 6)}, ""},
		"host bits set, no flags":    {"@1.2.3.4/16 5.6.7.8/0 7 : 7 0 : 65535 0x00/0x00\r\n", classifier.Rule{Action: classifier.Allow, Source: classifier.Side{Nets: net("1.2.0.0/16"), Ports: ports(7, 7)}}, ""},
		"any with a value":           {"@0.0.0.0/0 0.0.0.0/0 0 : 65535 0 : 65535 0x11/0x00", classifier.Rule{Action: classifier.Allow}, ""},
		"nothing":                    {"", classifier.Rule{}, "no rule in it"},
		"an empty line":              {"\n", classifier.Rule{}, "line 1 is empty"},
		"no at sign":                 {"1.2.3.4/32 5.6.7.8/32 0 : 1 0 : 1 0x06/0xFF", classifier.Rule{}, "want @SOURCE/LEN"},
		"words missing":              {"@1.2.3.4/32 5.6.7.8/32 0 : 1 0 : 1", classifier.Rule{}, "want @SOURCE/LEN"},
		"words too many":             {"@1.2.3.4/32 5.6.7.8/32 0 : 1 0 : 1 0x06/0xFF 1 2", classifier.Rule{}, "want @SOURCE/LEN"},
		"no colon":                   {"@1.2.3.4/32 5.6.7.8/32 0 - 1 0 : 1 0x06/0xFF", classifier.Rule{}, "want @SOURCE/LEN"},
		"IPv6":                       {"@2001:db8::/32 2001:db8::/32 0 : 1 0 : 1 0x06/0xFF", classifier.Rule{}, `source: "2001:db8::/32", want an IPv4 prefix`},
		"a prefix too long":          {"@1.2.3.4/33 5.6.7.8/32 0 : 1 0 : 1 0x06/0xFF", classifier.Rule{}, "want an IPv4 prefix"},
		"an address too large":       {"@1.2.3.4/32 5.6.7.256/32 0 : 1 0 : 1 0x06/0xFF", classifier.Rule{}, "destination: "},
		"ports turned round":         {"@1.2.3.4/32 5.6.7.8/32 2 : 1 0 : 1 0x06/0xFF", classifier.Rule{}, "the lower one first"},
		"a port too large":           {"@1.2.3.4/32 5.6.7.8/32 0 : 65536 0 : 1 0x06/0xFF", classifier.Rule{}, "up to 65535"},
		"a negative port":            {"@1.2.3.4/32 5.6.7.8/32 -1 : 5 0 : 1 0x06/0xFF", classifier.Rule{}, "up to 65535"},
		"a protocol too large":       {"@1.2.3.4/32 5.6.7.8/32 0 : 1 0 : 1 0x100/0xFF", classifier.Rule{}, "protocol"},
		"a mask of a protocol":       {"@1.2.3.4/32 5.6.7.8/32 0 : 1 0 : 1 0x06/0x0F", classifier.Rule{}, "protocol"},
		"no mask":                    {"@1.2.3.4/32 5.6.7.8/32 0 : 1 0 : 1 0x06", classifier.Rule{}, "protocol"},
		"a line too long":            {long, classifier.Rule{}, "token too long"},
		"bytes that are not text":    {"\x00\xff\x80", classifier.Rule{}, "want @SOURCE/LEN"},
		"gzip with nothing after it": {"\x1f\x8b", classifier.Rule{}, "open gzip"},
		"gzip cut short":             {packed("@1.2.3.4/32")[:20], classifier.Rule{}, "line 1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ReadRules(strings.NewReader(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q in it", err, tt.err)
				}
				return
			}
			if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], tt.want) {
				t.Errorf("%+v, %v\nwant %+v", got, err, tt.want)
			}
			if again, err := ReadRules(strings.NewReader(packed(tt.text))); err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("as gzip: %+v, %v", again, err)
			}
		})
	}
}

func packed(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(text))
	z.Close()
	return b.String()
}

func TestTraces(t *testing.T) {
	h := Header{Key: classifier.NewKey(1, 2, 6, 3, 4), Answer: 9}
	unknown := h
	unknown.Answer = None
	tests := map[string]struct {
		text string
		want []Header
		told bool
		err  string
	}{
		"with answers":            {"1\t2\t3\t4\t6\t9\n1 2 3 4 6 -1", []Header{h, unknown}, true, ""},
		"without":                 {"1 2 3 4 6", []Header{unknown}, false, ""},
		"some without":            {"1 2 3 4 6 9\n1 2 3 4 6", []Header{h, unknown}, false, ""},
		"nothing":                 {"", nil, false, "no header in it"},
		"too few columns":         {"1 2 3 4", nil, false, "4 columns"},
		"too many columns":        {"1 2 3 4 5 6 7", nil, false, "7 columns"},
		"a port too large":        {"1 2 65536 4 6", nil, false, `column 3 is "65536"`},
		"an address too large":    {"4294967296 2 3 4 6", nil, false, "column 1"},
		"a protocol too large":    {"1 2 3 4 256", nil, false, "column 5"},
		"an answer past the set":  {"1 2 3 4 6 10", nil, false, "one of 10 rules"},
		"an answer far off":       {"1 2 3 4 6 99999999999", nil, false, "one of 10 rules"},
		"words":                   {"a b c d e f", nil, false, "column 1"},
		"the second line is what": {"1 2 3 4 6\n1 2 3 4 x", nil, false, "line 2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, told, err := ReadTrace(strings.NewReader(tt.text), 10)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q in it", err, tt.err)
				}
				return
			}
			if err != nil || told != tt.told || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v, told %v, %v; want %v, %v", got, told, err, tt.want, tt.told)
			}
		})
	}
}

// What is shipped has true answers, by the scan and by the classifier's oracle.
func TestShippedTracesTellTheTruth(t *testing.T) {
	for _, name := range []string{"acl1_1k", "fw1_1k", "ipc1_1k", "acl1_10k", "fw1_10k", "ipc1_10k"} {
		t.Run(name, func(t *testing.T) {
			list, err := ReadRules(open(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := classifier.Validate(list); err != nil {
				t.Fatal(err)
			}
			trace, told, err := ReadTrace(open(t, name+"_trace"), len(list))
			if err != nil || !told {
				t.Fatal(told, err)
			}
			asked := 1000
			if testing.Short() {
				asked = 50
			}
			if wrong := NewScan(list).Check(trace, asked); wrong != 0 {
				t.Errorf("%d of %d answers are not true", wrong, asked)
			}
			for _, h := range append(trace[:20:20], MakeTrace(list, 20, 1)...) {
				if want, _ := oracle.Match(list, nil, packet(h.Key)); int32(want) != h.Answer {
					t.Errorf("%x: %d, the oracle says %d", h.Key, h.Answer, want)
				}
			}
		})
	}
}

func open(t *testing.T, name string) *os.File {
	f, err := os.Open("../testdata/" + name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func packet(k classifier.Key) oracle.Packet {
	address := func(v uint32) netip.Addr {
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	}
	return oracle.Packet{Source: address(k.Source()), Destination: address(k.Destination()), Protocol: k.Protocol(),
		SourcePort: k.SourcePort(), DestinationPort: k.DestinationPort()}
}

func TestMadeTracesAreSeeded(t *testing.T) {
	list, err := ReadRules(open(t, "ipc1_1k"))
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := MakeTrace(list, 500, 1), MakeTrace(list, 500, 1), MakeTrace(list, 500, 2)
	if !reflect.DeepEqual(a, b) || reflect.DeepEqual(a, c) {
		t.Error("want one trace of one seed, another of another")
	}
	a[7].Answer++
	if wrong := NewScan(list).Check(a, len(a)); wrong != 1 {
		t.Errorf("%d answers found wrong, want the one", wrong)
	}
	hit := map[int32]bool{}
	for _, h := range b {
		if h.Answer == None {
			t.Fatal("a header that was made from a rule matches none")
		}
		hit[h.Answer] = true
	}
	if len(hit) < 200 {
		t.Errorf("only %d rules of %d are hit", len(hit), len(list))
	}
}

func TestTooMuchIsRefused(t *testing.T) {
	rules := strings.Repeat("@1.2.3.4/32 5.6.7.8/32 0 : 1 0 : 1 0x06/0xFF\n", 4)
	headers := strings.Repeat("1 2 3 4 5\n", 4)
	for most, refused := range map[int]bool{3: true, 4: false} {
		if _, err := readRules(strings.NewReader(rules), most); (err != nil) != refused {
			t.Errorf("4 rules, at most %d: %v", most, err)
		}
		if _, _, err := readTrace(strings.NewReader(headers), 1, most); (err != nil) != refused {
			t.Errorf("4 headers, at most %d: %v", most, err)
		}
	}
}

func FuzzReadRules(f *testing.F) {
	f.Add([]byte("@1.2.3.4/16 5.6.7.8/0 7 : 7 0 : 65535 0x00/0x00\n"))
	f.Add([]byte(packed("@1.2.3.4/32 5.6.7.8/32 0 : 1 0 : 1 0x06/0xFF")))
	f.Add([]byte("1 2 3 4 6 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ReadRules(bytes.NewReader(b))
		if err == nil {
			if err := classifier.Validate(list); err != nil {
				t.Errorf("read, and not valid: %v", err)
			}
			NewScan(list).First(classifier.Key{})
		}
		ReadTrace(bytes.NewReader(b), 5)
	})
}
