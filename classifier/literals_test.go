package classifier_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
)

func TestLiterals(t *testing.T) {
	nets := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	l := classifier.NewLiterals()
	a := l.ID(nets("10.0.0.0/8", "192.168.1.0/24"))
	for name, tt := range map[string]struct {
		nets []netip.Prefix
		same bool
	}{
		"another order": {nets("192.168.1.0/24", "10.0.0.0/8"), true},
		"host bits set": {nets("10.1.2.3/8", "192.168.1.9/24"), true},
		"one twice":     {nets("10.0.0.0/8", "10.0.0.0/8", "192.168.1.0/24"), true},
		"one less":      {nets("10.0.0.0/8"), false},
		"shorter":       {nets("10.0.0.0/7", "192.168.1.0/24"), false},
		"all of IPv4":   {nets("0.0.0.0/0"), false},
		"all of IPv6":   {nets("::/0"), false},
		"IPv6":          {nets("2001:db8::/32", "2001:db8:1::/48"), false},
	} {
		if id := l.ID(tt.nets); (id == a) != tt.same || id&classifier.AnonymousSet == 0 {
			t.Errorf("%s: set %#x, the first is %#x", name, id, a)
		}
	}
	if l.ID(nets("0.0.0.0/0")) == l.ID(nets("::/0")) {
		t.Error("all of IPv4 is all of IPv6")
	}
	if got := l.Prefixes(a); !slices.Equal(got, nets("10.0.0.0/8", "192.168.1.0/24")) {
		t.Errorf("it has %v", got)
	}
	v6 := l.ID(nets("2001:db8::/32", "2001:db8:1::/48"))
	l.Retain(map[classifier.SetID]bool{a: true})
	if l.Prefixes(v6) != nil || l.Prefixes(a) == nil || l.ID(nets("2001:db8::/32", "2001:db8:1::/48")) == v6 {
		t.Error("a set in use was forgotten, or one that is not was kept, or its id was given again")
	}
}

// Equal lists are equal images, though their shapes are built side by side.
func TestCompilesAreRepeatable(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 8))
	w := classifiertest.NewWorld(rng, true)
	for _, list := range [][]classifier.Rule{classifiertest.Rules(rng, 300), w.Rules(rng, 150)} {
		var first []byte
		for range 4 {
			c, err := classifier.Compile(list, classifier.Options{Literals: w.Literals, Editable: true})
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = c.Image
			}
			if !bytes.Equal(first, c.Image) {
				t.Fatalf("images of %d and %d bytes differ", len(first), len(c.Image))
			}
		}
	}
}
