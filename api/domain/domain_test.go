package domain_test

import (
	"strings"
	"testing"

	"margay.dev/margay/api/domain"
)

func TestPattern(t *testing.T) {
	tests := map[string]struct {
		pattern      string
		canonical    string
		match, other []string
	}{
		"a name":            {"Update.Example.COM.", "update.example.com", []string{"update.example.com"}, []string{"example.com", "a.update.example.com", ""}},
		"an asterisk first": {"*.Example.com", "*.example.com", []string{"a.example.com", "a.b.example.com"}, []string{"example.com", ".example.com", "aexample.com", "a.example.com.evil.org"}},
		"an asterisk within": {"update.*.example.com", "update.*.example.com",
			[]string{"update.a.example.com", "update.a.b.example.com"}, []string{"update.example.com", "update..example.com", "a.update.b.example.com", "xupdate.a.example.com"}},
		"another script":          {"*.bücher.example", "*.xn--bcher-kva.example", []string{"www.xn--bcher-kva.example"}, []string{"www.bücher.example"}},
		"a name in capitals":      {"BÜCHER.example", "xn--bcher-kva.example", []string{"xn--bcher-kva.example"}, nil},
		"of one label":            {"localhost", "localhost", []string{"localhost"}, []string{"a.localhost"}},
		"an underscore":           {"_sip._tcp.example.com", "_sip._tcp.example.com", []string{"_sip._tcp.example.com"}, nil},
		"everything below a root": {"*.com", "*.com", []string{"example.com"}, []string{"com"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := domain.Parse(tt.pattern)
			if err != nil {
				t.Fatal(err)
			}
			if p.String() != tt.canonical {
				t.Errorf("canonical form is %q, want %q", p, tt.canonical)
			}
			for _, n := range tt.match {
				if !p.Match(n) {
					t.Errorf("%q does not match", n)
				}
			}
			for _, n := range tt.other {
				if p.Match(n) {
					t.Errorf("%q matches", n)
				}
			}
			if _, exact := p.Exact(); exact == strings.Contains(tt.canonical, "*") {
				t.Errorf("Exact says %v", exact)
			}
		})
	}
	if (domain.Pattern{}).Match("") {
		t.Error("the zero Pattern matches the name of the root")
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":               "",
		"the root":              ".",
		"everything":            "*",
		"two asterisks":         "*.*.example.com",
		"a part of a label":     "www.g*.com",
		"the last label":        "www.google.*",
		"an empty label":        "a..example.com",
		"a dot first":           ".example.com",
		"a blank":               "a b.example.com",
		"an address":            "2001:db8::1",
		"a long label":          strings.Repeat("a", 64) + ".example.com",
		"a long name":           strings.Repeat("a.", 127) + "example.com",
		"a long pattern":        "*." + strings.Repeat("a.", 123) + "exampl.com",
		"a huge one":            strings.Repeat("a", 1<<20),
		"no letters of a name":  "\u202e.example.com",
		"an asterisk, and more": "*.exa mple.com",
	} {
		t.Run(name, func(t *testing.T) {
			p, err := domain.Parse(text)
			if err == nil {
				t.Fatalf("read as %q", p)
			}
			if len(err.Error()) > 3000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// matches is what a pattern means, label by label.
func matches(pattern, name string) bool {
	p, n := strings.Split(pattern, "."), strings.Split(name, ".")
	for i, label := range p {
		if label != "*" {
			continue
		}
		for len(p) < len(n) {
			p = append(p[:i+1:i+1], p[i:]...)
		}
		break
	}
	if len(p) != len(n) {
		return false
	}
	for i := range p {
		if p[i] != "*" && p[i] != n[i] {
			return false
		}
	}
	return true
}

func FuzzMatch(f *testing.F) {
	f.Add("*.example.com", "a.example.com")
	f.Add("a.*.example.com", "A.example.com.")
	f.Add("xn--a.b", "bücher.example")
	f.Add("a.*.a.b", "a.a.b")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := domain.Parse(pattern)
		if err != nil {
			return
		}
		again, err := domain.Parse(p.String())
		if err != nil || again != p {
			t.Fatalf("%q reads as %q, which reads as %q (%v)", pattern, p, again, err)
		}
		if len(p.String()) > domain.MaxName {
			t.Errorf("%q has %d bytes", p, len(p.String()))
		}
		n, ok := domain.FromDNS(name)
		if !ok {
			return
		}
		if c, err := domain.Canonical(n); err != nil || c != n {
			t.Errorf("%q is canonical, and reads as %q (%v)", n, c, err)
		}
		if got, want := p.Match(n), matches(p.String(), n); got != want {
			t.Errorf("%q matches %q: %v, label by label it is %v", p, n, got, want)
		}
		if got := p.Match(n); got && p.Suffix() != "" && !strings.HasSuffix(n, "."+p.Suffix()) {
			t.Errorf("%q matches %q, which does not end in %q", p, n, p.Suffix())
		}
	})
}
