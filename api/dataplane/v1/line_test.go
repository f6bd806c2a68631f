package dataplanev1

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	tests := map[string]struct{ text, want string }{
		"nothing":             {"", ""},
		"plain":               {"role == 'client'", "role == 'client'"},
		"letters of a people": {"rôle == 'ü'", "rôle == 'ü'"},
		"two lines":           {"a\nb\r\tc", "a b  c"},
		"a terminal's orders": {"\x1b[2Ja\u009b1m", " [2Ja 1m"},
		"letters out of line": {"a\u202eb", "a b"},
		"no text":             {"a\xff\xfeb", "a??b"},
		"as long as may be":   {long, long},
		"too long":            {long + "y", long[:MaxLine-3] + "..."},
		"cut within a letter": {long[:MaxLine-4] + "üüüü", long[:MaxLine-4] + "..."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Line(tt.text); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Whatever comes in, what goes out is a line, and one that stays as it is.
func FuzzLine(f *testing.F) {
	f.Add("a\nb")
	f.Add("\xff" + strings.Repeat("ü", MaxLine))
	f.Fuzz(func(t *testing.T, text string) {
		got := Line(text)
		bad := func(r rune) bool { return !unicode.IsPrint(r) }
		if len(got) > MaxLine || !utf8.ValidString(got) || strings.ContainsFunc(got, bad) {
			t.Errorf("%q became %q of %d bytes", text, got, len(got))
		}
		if Line(got) != got {
			t.Errorf("%q is no line yet: %q", got, Line(got))
		}
	})
}
