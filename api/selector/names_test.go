package selector

import (
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	tests := map[string][]string{
		"":                   {},
		"all() || global()":  {},
		"a == 'x'":           {"a"},
		"b != 'x' && has(a)": {"a", "b"},
		"!(a in {'x'}) || !b contains 'y' || a == 'z'": {"a", "b"},
		"a in {} || has(b)":                            {"b"}, // nothing is in it, so nobody needs to know a
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			s, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Names(); !slices.Equal(got, want) {
				t.Errorf("asks about %q, want %q", got, want)
			}
		})
	}
}
