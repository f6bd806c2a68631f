package selector

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// parse reads a selector that is right.
func parse(tb testing.TB, text string) *Selector {
	tb.Helper()
	s, err := Parse(text)
	if err != nil {
		tb.Fatalf("%q: %v", text, err)
	}
	return s
}

func TestCanonicalForm(t *testing.T) {
	tests := map[string]string{
		"":                                   `all()`,
		" \t":                                `all()`,
		" all( ) ":                           `all()`,
		" (all() )":                          `all()`,
		"global()":                           `global()`,
		"has(\ta )":                          `has(a)`,
		"a=='b'":                             `a == "b"`,
		`a!="b"`:                             `a != "b"`,
		`a == "'"`:                           `a == "'"`,
		`a == '"'`:                           `a == '"'`,
		`a == ''`:                            `a == ""`,
		"a == 'ä\n\x00'":                     "a == \"ä\n\x00\"",
		"a contains'b'":                      `a contains "b"`,
		"a startswith 'b'":                   `a starts with "b"`,
		"a starts \t with 'b'":               `a starts with "b"`,
		"a endswith 'b'":                     `a ends with "b"`,
		"a ends with 'b'":                    `a ends with "b"`,
		`a in{'z',"x",'y','x',}`:             `a in {"x", "y", "z"}`,
		"a in {}":                            `a in {}`,
		"a notin {'b'}":                      `a not in {"b"}`,
		"a not  in { }":                      `a not in {}`,
		"!a == 'b'":                          `!a == "b"`,
		"!(a == 'b')":                        `!a == "b"`,
		"!!has(a)":                           `has(a)`,
		"! !! has(a)":                        `!has(a)`,
		"!(!(!(has(a))))":                    `!has(a)`,
		"has(a)&&has(b)||has(c)":             `((has(a) && has(b)) || has(c))`,
		"has(a)&&(has(b)||has(c))":           `(has(a) && (has(b) || has(c)))`,
		"(has(a) && has(b)) && has(c)":       `((has(a) && has(b)) && has(c))`,
		"((has(a))) && has(b) && has(c)":     `(has(a) && has(b) && has(c))`,
		"! (has( b)||! has(a ))":             `!(has(b) || !has(a))`,
		"has == 'a' && all in {'b'}":         `(has == "a" && all in {"b"})`,
		"in in {'in'} || not not in {'not'}": `(in in {"in"} || not not in {"not"})`,
		"contains contains 'contains'":       `contains contains "contains"`,
		"starts starts with 'with'":          `starts starts with "with"`,
		"a.b/C-d_1 == 'x'":                   `a.b/C-d_1 == "x"`,
		"-/. == '10.0.0.0/8, 2001:db8::/32'": `-/. == "10.0.0.0/8, 2001:db8::/32"`,
	}
	for text, want := range tests {
		s := parse(t, text)
		if got := s.String(); got != want {
			t.Errorf("%q is %q in canonical form, want %q", text, got, want)
		}
		if again := parse(t, s.String()); !reflect.DeepEqual(s, again) {
			t.Errorf("%q is another selector when read from its canonical form %q", text, s)
		}
	}
}

// The names are those that Calico publishes in its own tests.
func TestID(t *testing.T) {
	tests := map[string]string{
		"":                                "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug",
		" (all() )":                       "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug",
		"! (has( b)||! has(a ))":          "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q",
		`! (a == "b"&&! c != "d")`:        "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w",
		`!(c == 'x') || d in {"y", 'y',}`: parse(t, `!c=="x"||d in {'y'}`).ID(),
	}
	for text, want := range tests {
		if got := parse(t, text).ID(); got != want || len(got) != 40 {
			t.Errorf("%q is named %q, want %q", text, got, want)
		}
	}
	if got := new(Selector).ID(); got != parse(t, "").ID() {
		t.Errorf("the zero selector is named %q, want the name of all()", got)
	}
}

func TestRefused(t *testing.T) {
	label := strings.Repeat("x", MaxLabel+1)
	tests := map[string]struct {
		pos  int
		want string // part of the error
	}{
		"b == b":                          {5, `found "b", want a value in quotes, as in "a == 'x'"`},
		"b contains b":                    {11, "want a value in quotes"},
		"b starts with b":                 {14, "want a value in quotes"},
		"b ends with {'b'}":               {12, `found "{", want a value in quotes`},
		"a == 10.0.0.1":                   {5, `found "10.0.0.1", want a value in quotes`},
		"a == 2001:db8::1":                {5, `found "2001", want a value in quotes`},
		"'b' == b":                        {0, `found "'b'", want a label's name`},
		"b":                               {1, "found the end, want ==, !=, in"},
		"a b":                             {2, `found "b", want ==, !=, in`},
		"a = 'b'":                         {2, `found "=", want ==, !=, in`},
		"a is 'b'":                        {2, `found "is", want ==, !=, in`},
		"a inside {'b'}":                  {2, `found "inside", want ==, !=, in`},
		"a CONTAINS 'b'":                  {2, `found "CONTAINS"`},
		"a not 'b'":                       {6, `found "'b'", want in, as in`},
		"a starts 'b'":                    {9, `want with, as in`},
		"a ends without 'b'":              {7, `found "without", want with`},
		"!":                               {1, "found the end, want a label's name"},
		"a == 'b' &":                      {9, `found "&", want &&, || or the end`},
		"a == 'b' | b == 'c'":             {9, `found "|", want &&, || or the end`},
		"a == 'b' c == 'd'":               {9, `found "c", want &&, || or the end`},
		"a == 'b' and has(c)":             {9, `found "and", want &&, || or the end`},
		"a == 'b'\n":                      {8, `found "\n", want &&, || or the end`},
		"a != ||":                         {5, "want a value in quotes"},
		"has(a) &&":                       {9, "found the end"},
		"&& has(a)":                       {0, `found "&&"`},
		"a in {'', ||":                    {10, "want a value in quotes or }"},
		"a in {,}":                        {6, `found ","`},
		"a in {'x',,}":                    {10, `found ","`},
		"a in {'x' 'y'}":                  {10, "want a comma or }"},
		"a in {'x'":                       {9, "found the end, want a comma or }"},
		"a in {":                          {6, "want a value in quotes or }"},
		"a in ''":                         {5, "want {"},
		"a in {b}":                        {6, "want a value in quotes or }"},
		`"FOO'`:                           {0, "want a quote that closes the value"},
		"a == 'FOO":                       {5, `found "'FOO", want a quote that closes`},
		"a in {'x', 'y}":                  {11, "want a quote that closes"},
		`a == "x\"y"`:                     {9, `found "y", want &&`},
		"(":                               {1, "found the end, want a label's name"},
		"(a == 'b'":                       {9, "found the end, want &&, || or )"},
		")":                               {0, `found ")"`},
		"()":                              {1, `found ")"`},
		"has(a))":                         {6, `found ")", want &&, || or the end`},
		"has()":                           {4, "want a label's name of 1 to 512 bytes"},
		"has('a')":                        {4, "without quotes"},
		"has(a, b)":                       {5, `found ",", want )`},
		"has(a":                           {5, "found the end, want )"},
		"has (a)":                         {4, "want no blank before ("},
		"all ()":                          {4, "want no blank before ("},
		"all(a)":                          {4, "want )"},
		"every()":                         {5, `found "("`},
		"%":                               {0, `found "%"`},
		"a == 'b' && \xff":                {12, `found "\xff"`},
		"ä == 'b'":                        {0, `found "ä"`},
		label + " == 'x'":                 {0, `x...", want a label of at most 512 bytes`},
		"has(" + label + ")":              {4, "want a label's name of 1 to 512 bytes"},
		strings.Repeat("(", MaxNesting+1): {MaxNesting, "more than 1024 parentheses open, want fewer"},
		strings.Repeat(" ", MaxBytes+1):   {MaxBytes, "65537 bytes in all, want at most 65536"},
	}
	for text, tt := range tests {
		s, err := Parse(text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.40q is taken as %v, err %v", text, s, err)
			continue
		}
		if e.Pos != tt.pos || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q is refused at %d, want %d and %q in:\n%v", text, e.Pos, tt.pos, tt.want, err)
		}
		if _, err := Parse(e.Example); err != nil {
			t.Errorf("%.40q: the example does not help: %v", text, err)
		}
		if len(err.Error()) > 300 {
			t.Errorf("%.40q is refused at length: %v", text, err)
		}
	}
}

func TestField(t *testing.T) {
	long := "a == '" + strings.Repeat("ä", MaxChars-7) + "'"
	if _, err := ParseField(long); err != nil {
		t.Errorf("%d characters, %d bytes: %v", MaxChars, len(long), err)
	}
	_, err := ParseField(long + " ")
	if want := "found 1025 characters in all, want at most 1024"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("one character more: %v, want %q", err, want)
	}
	if _, err := Parse(long + " "); err != nil {
		t.Errorf("Parse knows no limit of characters, but: %v", err)
	}
}

// Each is nested a thousand deep or as long as can be, and read, printed, asked
// and analysed like any other.
func TestDeep(t *testing.T) {
	const deep = 1000
	wide := func(part, sep string, room int) string {
		return strings.TrimSuffix(strings.Repeat(part+sep, room/len(part+sep)), sep)
	}
	tests := map[string]struct {
		text, canonical string // canonical where it is short
		picks           bool   // a thing with label a of value x
	}{
		"parentheses":       {strings.Repeat("(", deep) + "has(a)" + strings.Repeat(")", deep), "has(a)", true},
		"negations":         {strings.Repeat("!", deep+1) + "has(a)", "!has(a)", false},
		"negated groups":    {strings.Repeat("!(", deep+1) + "has(a)" + strings.Repeat(")", deep+1), "!has(a)", false},
		"conjunctions":      {strings.Repeat("has(a) && (", deep) + "has(a)" + strings.Repeat(")", deep), "", true},
		"negated in turn":   {strings.Repeat("has(a) && !(", deep) + "has(b)" + strings.Repeat(")", deep), "", false},
		"alternatives":      {strings.Repeat("a == 'y' || (", deep) + "a == 'x'" + strings.Repeat(")", deep), "", true},
		"wide":              {wide("has(a)", "&&", MaxBytes), "", true},
		"wide alternatives": {wide("a=='y'", "||", MaxBytes), "", false},
		"a large set":       {"a in {" + wide("'y'", ",", MaxBytes-20) + "}", `a in {"y"}`, false},
	}
	for name, tt := range tests {
		s := parse(t, tt.text)
		if tt.canonical != "" && s.String() != tt.canonical {
			t.Errorf("%s: %.80q, want %q", name, s, tt.canonical)
		}
		if got := s.Evaluate(Map{"a": "x"}); got != tt.picks {
			t.Errorf("%s: picked %v, want %v", name, got, tt.picks)
		}
		if _, possible := s.Restrictions(); !possible {
			t.Errorf("%s: is thought to pick nothing", name)
		}
		if n := len(s.String()); n <= MaxBytes && parse(t, s.String()).String() != s.String() {
			t.Errorf("%s: %d bytes in canonical form, which read otherwise", name, n)
		}
	}
}
