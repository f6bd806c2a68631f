package selector

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// fulfils reports whether a thing fulfils all restrictions.
func fulfils(rs []Restriction, m Map) bool {
	for _, r := range rs {
		v, ok := m[r.Label]
		if ok == (r.Need == Absent) || r.Need == OneOf && !slices.Contains(r.Values, v) {
			return false
		}
	}
	return true
}

// describe writes restrictions as the table below does.
func describe(rs []Restriction, possible bool) string {
	if !possible {
		return "never"
	}
	parts := make([]string, len(rs))
	for i, r := range rs {
		switch r.Need {
		case Present:
			parts[i] = r.Label
		case Absent:
			parts[i] = "!" + r.Label
		case OneOf:
			parts[i] = fmt.Sprintf("%s=%s", r.Label, strings.Join(r.Values, "|"))
		}
	}
	return strings.Join(parts, " ")
}

func TestRestrictions(t *testing.T) {
	tests := map[string]string{
		"":                              "",
		"global()":                      "",
		"!all()":                        "never",
		"has(a)":                        "a",
		"!has(a)":                       "!a",
		"!!has(a)":                      "a",
		"a == 'x'":                      "a=x",
		"a == ''":                       "a=",
		"a != 'x'":                      "",
		"!a == 'x'":                     "",
		"!a != 'x'":                     "a=x",
		"a in {'y', 'x'}":               "a=x|y",
		"a in {}":                       "never",
		"!a in {}":                      "",
		"a not in {'x'}":                "",
		"!a not in {'x', 'y'}":          "a=x|y",
		"a contains 'x'":                "a",
		"!a contains 'x'":               "",
		"a starts with 'x'":             "a",
		"a ends with 'x'":               "a",
		"a == 'x' && a == 'x'":          "a=x",
		"a == 'x' && a == 'y'":          "never",
		"a == 'x' && has(a)":            "a=x",
		"a starts with 'x' && a == 'x'": "a=x",
		"a in {'x','y','z'} && a in {'z','w','y'}":        "a=y|z",
		"has(a) && !has(a)":                               "never",
		"a == 'x' && !has(a)":                             "never",
		"!has(a) && a != 'x'":                             "!a",
		"b == 'y' && a == 'x' && all()":                   "a=x b=y",
		"a == 'x' || a == 'y'":                            "a=x|y",
		"a == 'x' || has(a)":                              "a",
		"a == 'x' || has(b)":                              "",
		"a == 'x' || has(b) && a in {'y'}":                "a=x|y",
		"a == 'x' || all()":                               "",
		"a == 'x' || a in {}":                             "a=x",
		"a in {} || !all()":                               "never",
		"!has(a) || a == 'x'":                             "",
		"(!has(a) || a == 'x') && has(a)":                 "a=x",
		"(!has(a) || a == 'x') && a in {'y'}":             "never",
		"(!has(a) || a == 'x') && a not in {'x'}":         "", // only "absent" is possible, which is not seen
		"!(a != 'x' || !has(b))":                          "a=x b",
		"!(has(a) && a == 'x')":                           "",
		"!(has(a) || has(b))":                             "!a !b",
		"(a == 'x' && b == 'y') || (a == 'z' && !has(b))": "a=x|z",
		"(has(a) && has(b)) || (has(b) && has(c))":        "b",
		"ip in {'10.0.0.1', '2001:db8::1'} && has(ip)":    "ip=10.0.0.1|2001:db8::1",
	}
	for text, want := range tests {
		for _, same := range []string{text, "all() && (" + text + ")", "!!(" + text + ") || !all()"} {
			if text == "" {
				same = ""
			}
			if got := describe(parse(t, same).Restrictions()); got != want {
				t.Errorf("%q is restricted to %q, want %q", same, got, want)
			}
		}
	}
}

// What a caller does to the values is nothing to the selector.
func TestRestrictionsAreTheCallers(t *testing.T) {
	s := parse(t, "a in {'x', 'y'}")
	rs, _ := s.Restrictions()
	rs[0].Values[0] = "z"
	if got := describe(s.Restrictions()); got != "a=x|y" || !s.Evaluate(Map{"a": "x"}) {
		t.Errorf("restricted to %q afterwards", got)
	}
}

// || brings so many values together and no more; a set has as many as it likes.
func TestRestrictionsOfManyValues(t *testing.T) {
	text, set := "a == '0'", "'0'"
	for i := 1; i < maxUnited; i++ {
		text += fmt.Sprintf(" || a == '%d'", i)
		set += fmt.Sprintf(",'%d'", i)
	}
	set += ",'x'"
	for text, want := range map[string]int{
		text: maxUnited, text + " || a == '0'": maxUnited, text + " || a == 'x'": 0,
		"a in {" + set + "}": maxUnited + 1, "a in {" + set + "} || has(b) && !all()": maxUnited + 1,
	} {
		rs, possible := parse(t, text).Restrictions()
		if !possible || len(rs) != 1 || len(rs[0].Values) != want || (rs[0].Need == OneOf) != (want > 0) {
			t.Errorf("%.40q...: %d restrictions, %.200v, want one of %d values", text, len(rs), rs, want)
		}
	}
}

// The worst that fits: a thousand levels, each beside a long row or large sets.
func BenchmarkRestrictionsDeep(b *testing.B) {
	const deep = 1000
	list := func(format string, n int) string {
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, format, i)
		}
		return s.String()
	}
	nest := func(before, inner string) string {
		return strings.Repeat(before, deep) + inner + strings.Repeat(")", deep)
	}
	for name, text := range map[string]string{
		"set":    nest("a=='y'||(", "a in {"+list("'%d',", 5000)+"}"),
		"united": nest("a=='y'||(", "a in {"+list("'%d',", maxUnited-1)+"}"),
		"row":    nest("has(x)&&(", list("has(%04x)&&", 4500)+"all()"),
	} {
		s := parse(b, text)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Restrictions()
			}
		})
	}
}
