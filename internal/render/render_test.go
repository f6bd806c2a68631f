package render

import (
	"strings"
	"testing"
	"time"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
)

func TestCount(t *testing.T) {
	tests := map[string]struct {
		n    uint64
		want string
	}{
		"nothing":               {0, "0"},
		"below a thousand":      {999, "999"},
		"a thousand":            {1000, "1.0k"},
		"rounds":                {1_249, "1.2k"},
		"would round to 1000.0": {999_960, "1.0M"},
		"millions":              {1_234_567, "1.2M"},
		"the most there is":     {1<<64 - 1, "18.4E"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Count(tt.n); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 5 << 30: "5.0 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestNanoseconds(t *testing.T) {
	for ns, want := range map[float64]string{0: "", 14.26: "14.3 ns", 999.96: "1.0 µs", 1_200: "1.2 µs", 2.5e6: "2.5 ms"} {
		if got := Nanoseconds(ns); got != want {
			t.Errorf("%v: got %q, want %q", ns, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m 1s", 25 * time.Hour: "1d 1h", 3*time.Hour + 59*time.Minute + 59*time.Second: "3h 59m",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	table := NewTable("NAME", ">PACKETS", "NOTE")
	table.Row("a", "1.2M", "µ")
	table.Row("longer-name", "3")
	table.Continue("", "", "second line")
	table.Row("x", "1", "2", "one too many")
	var b strings.Builder
	if err := table.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `
NAME         PACKETS  NOTE
a               1.2M  µ
longer-name        3  -
                      second line
x                  1  2
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
}

func TestDocumentIsTheSameEachTime(t *testing.T) {
	m := &dataplanev1.DropList{Drops: []*dataplanev1.DropList_Drop{{Reason: "no-route", Packets: 1 << 60}}}
	want := map[Format]string{
		JSON: `{
  "drops": [
    {
      "reason": "no-route",
      "packets": "1152921504606846976"
    }
  ]
}
`,
		YAML: `drops:
- packets: "1152921504606846976"
  reason: no-route
`,
	}
	for f, want := range want {
		for range 20 {
			var b strings.Builder
			if err := Document(&b, f, m); err != nil {
				t.Fatal(err)
			}
			if b.String() != want {
				t.Fatalf("%s: got\n%swant\n%s", f, b.String(), want)
			}
		}
	}
}

func TestParseFormat(t *testing.T) {
	for _, s := range []string{"table", "json", "yaml"} {
		if f, err := ParseFormat(s); err != nil || string(f) != s {
			t.Errorf("%s: got %v, %v", s, f, err)
		}
	}
	if _, err := ParseFormat("xml"); err == nil || !strings.Contains(err.Error(), "table, json or yaml") {
		t.Errorf("xml: got %v, want to be told what there is", err)
	}
}
