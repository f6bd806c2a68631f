package selector

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func TestEvaluate(t *testing.T) {
	x, none, empty := Map{"a": "x"}, Map{}, Map{"a": ""}
	tests := map[string]struct{ picks, leaves []Map }{
		"":                              {[]Map{none, x, nil}, nil},
		"global()":                      {[]Map{none, x}, nil},
		"!all()":                        {nil, []Map{none, x}},
		"has(a)":                        {[]Map{x, empty}, []Map{none, {"b": "a"}, {"A": "x"}}},
		"!has(a)":                       {[]Map{none, {"b": "x"}}, []Map{x, empty}},
		"a == 'x'":                      {[]Map{x, {"a": "x", "b": "y"}}, []Map{none, empty, {"a": "X"}, {"b": "x"}}},
		"a == ''":                       {[]Map{empty}, []Map{none, x}},
		"a != 'x'":                      {[]Map{none, empty, {"a": "y"}}, []Map{x}},
		"!a == 'x'":                     {[]Map{none, empty}, []Map{x}},
		"!a != 'x'":                     {[]Map{x}, []Map{none, empty}},
		"a in {'x', 'y'}":               {[]Map{x, {"a": "y"}}, []Map{none, empty, {"a": "z"}}},
		"a in {}":                       {nil, []Map{none, empty, x}},
		"a not in {'x', 'y'}":           {[]Map{none, empty, {"a": "z"}}, []Map{x, {"a": "y"}}},
		"a not in {}":                   {[]Map{none, empty, x}, nil},
		"a contains 'b'":                {[]Map{{"a": "b"}, {"a": "abc"}}, []Map{none, empty, x, {"b": "b"}}},
		"a contains ''":                 {[]Map{x, empty}, []Map{none}},
		"a starts with 'b'":             {[]Map{{"a": "b"}, {"a": "bc"}}, []Map{none, empty, {"a": "ab"}}},
		"a ends with 'b'":               {[]Map{{"a": "b"}, {"a": "ab"}}, []Map{none, empty, {"a": "bc"}}},
		"!a contains 'b'":               {[]Map{none, empty, x}, []Map{{"a": "b"}}},
		"a == 'x' && b == 'y'":          {[]Map{{"a": "x", "b": "y"}}, []Map{none, x, {"b": "y"}}},
		"a == 'x' || b == 'y'":          {[]Map{x, {"b": "y"}}, []Map{none, empty}},
		"a == 'x' || has(b) && has(c)":  {[]Map{x, {"b": "", "c": ""}}, []Map{none, {"b": ""}}},
		"(a == 'x'||has(b)) && has(c)":  {[]Map{{"a": "x", "c": ""}, {"b": "", "c": ""}}, []Map{x, {"b": ""}}},
		"!(!has(a) || has(b))":          {[]Map{x}, []Map{none, {"a": "x", "b": "y"}}},
		"ip == '10.0.0.1'":              {[]Map{{"ip": "10.0.0.1"}}, []Map{{"ip": "2001:db8::1"}}},
		"ip starts with '2001:db8:'":    {[]Map{{"ip": "2001:db8::1"}}, []Map{{"ip": "10.0.0.1"}}},
		"k8s-app/a.b_c == 'kube-dns'":   {[]Map{{"k8s-app/a.b_c": "kube-dns"}}, []Map{none}},
		"a in {\"'\", '\"'} && all()":   {[]Map{{"a": "'"}, {"a": `"`}}, []Map{none, empty, x}},
		"!(a in {'x'} && a != 'x')":     {[]Map{none, empty, x}, nil},
		"has(a) && !has(a) || a == 'x'": {[]Map{x}, []Map{none, empty}},
	}
	for text, tt := range tests {
		s := parse(t, text)
		for _, m := range tt.picks {
			if !s.Evaluate(m) {
				t.Errorf("%q leaves %v", text, m)
			}
		}
		for _, m := range tt.leaves {
			if s.Evaluate(m) {
				t.Errorf("%q picks %v", text, m)
			}
		}
	}
	if !new(Selector).Evaluate(x) {
		t.Error("the zero selector leaves something")
	}
}

// Trees of any shape, spelt in any way, are read as they were meant; Evaluate
// says of every thing what the oracle says; and Restrictions never leave out
// what is picked.
func TestAgainstOracle(t *testing.T) {
	things := universe()
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		root := grow(r, r.IntN(5))
		text := spell(r, root)
		s := parse(t, text)
		if !reflect.DeepEqual(s.tree(), root) {
			t.Fatalf("%q is read as %q, want %q", text, s, root.print(nil))
		}
		if again := parse(t, s.String()); !reflect.DeepEqual(again, s) {
			t.Fatalf("%q is read as %q from its own canonical form", s, again)
		}
		rs, possible := s.Restrictions()
		for _, m := range things {
			got, want := s.Evaluate(m), oracle(root, m)
			if got != want {
				t.Fatalf("%q of %v is %v, want %v", s, m, got, want)
			}
			if want && !(possible && fulfils(rs, m)) {
				t.Fatalf("%q picks %v, but its restrictions %v (possible: %v) leave it out", s, m, rs, possible)
			}
		}
	}
}

func TestAndNot(t *testing.T) {
	things := universe()
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		a, b := wrap(grow(r, 2)), wrap(grow(r, 2))
		and, neither := And(a, b), And(Not(a), Not(b))
		for _, s := range []*Selector{and, neither, Not(Not(a))} {
			if again := parse(t, s.String()); !reflect.DeepEqual(again, s) {
				t.Fatalf("%q is read as %q from its own canonical form", s, again)
			}
		}
		if Not(Not(a)).String() != a.String() {
			t.Fatalf("%q negated twice is %q", a, Not(Not(a)))
		}
		for _, m := range things {
			inA, inB := a.Evaluate(m), b.Evaluate(m)
			if and.Evaluate(m) != (inA && inB) || neither.Evaluate(m) != (!inA && !inB) {
				t.Fatalf("of %v, %q is %v and %q is %v, but both %v and neither %v", m, a, inA, b, inB, and.Evaluate(m), neither.Evaluate(m))
			}
		}
	}
	if And().String() != "all()" || And(new(Selector), Not(new(Selector))).String() != "(all() && !all())" {
		t.Error("of nothing, or of zero selectors, And and Not make something else")
	}
}

// Two names of one thing: what policies are kept by.
func TestConstructors(t *testing.T) {
	must := func(s *Selector, err error) string {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		return s.String()
	}
	values := []string{"y", "x", "y"}
	tests := map[string]string{
		must(All(), nil):            "",
		must(Has("a/b")):            "has(a/b)",
		must(Equal("a", `"`)):       `a == '"'`,
		must(In("a", values...)):    "a in {'x', 'y'}",
		must(In("a")):               "a in {}",
		must(NotIn("a", values...)): "a not in {'x', 'y'}",
	}
	for got, text := range tests {
		if want := parse(t, text).String(); got != want {
			t.Errorf("made %q, want %q", got, want)
		}
	}
	if values[0] != "y" {
		t.Error("In sorted its caller's values")
	}
	for _, label := range []string{"", "a b", "ä", "a'", strings.Repeat("x", MaxLabel+1)} {
		if s, err := Has(label); err == nil || !strings.Contains(err.Error(), "is no label: want 1 to 512") {
			t.Errorf("label %.20q: %v, %v", label, s, err)
		}
	}
	if s, err := In("a", "x", `'"`); err == nil || !strings.Contains(err.Error(), "quotes of both kinds") {
		t.Errorf("a value that no selector can hold: %v, %v", s, err)
	}
}

func TestEvaluateAllocatesNothing(t *testing.T) {
	s := parse(t, "a in {'x', 'y'} && b starts with 'c' && !has(d) || e contains 'f' && g not in {'h'}")
	m := Map{"a": "y", "b": "cd", "d": "", "e": "ef"}
	var picked bool
	if n := testing.AllocsPerRun(100, func() { picked = s.Evaluate(m) }); n != 0 || !picked {
		t.Errorf("%v allocations, picked: %v", n, picked)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "all()", "! (has( b)||! has(a ))", "a in {'x', \"y\",} && b not in {}", "a startswith 'x' || a ends with '10.0.0.1'",
		"pcns.kubernetes.io/metadata.name == 'x'", "a contains '2001:db8::1' && !(global() || b != \"'\")", "a not 'x'", "has (a)", "\"FOO'",
	} {
		f.Add(text, "a=x,b=,c=2001:db8::1")
	}
	f.Fuzz(func(t *testing.T, text, things string) {
		s, err := Parse(text)
		if err != nil {
			var e *Error
			if e, _ = err.(*Error); e == nil || e.Pos < 0 || e.Pos > len(text) || e.Want == "" || len(err.Error()) > 700 {
				t.Fatalf("refused by %#v", err)
			}
			return
		}
		if len(s.String()) <= MaxBytes {
			again, err := Parse(s.String())
			if err != nil || !reflect.DeepEqual(again, s) || again.ID() != s.ID() {
				t.Fatalf("%q is read as %q from its own canonical form, err %v", s, again, err)
			}
		}
		m := Map{}
		for thing := range strings.SplitSeq(things, ",") {
			k, v, _ := strings.Cut(thing, "=")
			m[k] = v
		}
		got, want := s.Evaluate(m), oracle(s.tree(), m)
		rs, possible := s.Restrictions()
		if got != want || want && !(possible && fulfils(rs, m)) {
			t.Fatalf("%q of %v is %v, want %v; restrictions %v, possible %v", s, m, got, want, rs, possible)
		}
		for _, inner := range []*Selector{s.ForNamespaces(), s.ForServiceAccounts(), And(s, Not(s))} {
			if inner.Evaluate(m) != oracle(inner.tree(), m) {
				t.Fatalf("%q of %v is %v", inner, m, inner.Evaluate(m))
			}
		}
	})
}

// FuzzTree makes trees, which random text hardly ever is.
func FuzzTree(f *testing.F) {
	things := universe()
	f.Add(uint64(1), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, depth uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		root := grow(r, int(depth%6))
		s := parse(t, spell(r, root))
		if !reflect.DeepEqual(s.tree(), root) {
			t.Fatalf("read as %q, want %q", s, root.print(nil))
		}
		rs, possible := s.Restrictions()
		for _, m := range things {
			got, want := s.Evaluate(m), oracle(root, m)
			if got != want || want && !(possible && fulfils(rs, m)) {
				t.Fatalf("%q of %v is %v, want %v; restrictions %v, possible %v", s, m, got, want, rs, possible)
			}
		}
	})
}

const typical = "projectcalico.org/namespace == 'prod' && (app in {'web', 'api', 'db'} || role starts with 'front') && !has(quarantine)"

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		parse(b, typical)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	s := parse(b, typical)
	m := Map{"projectcalico.org/namespace": "prod", "app": "cache", "role": "frontend", "version": "7", "projectcalico.org/orchestrator": "k8s"}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Evaluate(m) {
			b.Fatal("not picked")
		}
	}
}
