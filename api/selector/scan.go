package selector

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEnd    tokenKind = iota
	tokWord             // a label's name or a part of an operator
	tokQuoted           // a value, with its quotes
	tokSign
	tokOpen // a quote that none closes, and all behind it
	tokBad  // what stands for nothing
)

// token is the next thing that stands in the text.
type token struct {
	kind tokenKind
	at   int    // bytes before it
	text string // as written
}

func (t token) is(kind tokenKind, text string) bool { return t.kind == kind && t.text == text }

// found is the token in an error: quoted, and cut where it is long.
func (t token) found() string {
	if t.kind == tokEnd {
		return "the end"
	}
	return strconv.Quote(cut(t.text))
}

// cut is s, or its beginning where it would fill a line by itself.
func cut(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// signs are what a text may hold beside words and values, the longer first.
var signs = [...]string{"==", "!=", "&&", "||", "!", "(", ")", "{", "}", ","}

// scan reads the token that s begins with.
func scan(s string) token {
	if s == "" {
		return token{}
	}
	if s[0] == '"' || s[0] == '\'' {
		if end := strings.IndexByte(s[1:], s[0]); end >= 0 {
			return token{kind: tokQuoted, text: s[:end+2]}
		}
		return token{kind: tokOpen, text: s}
	}
	for _, sign := range signs {
		if strings.HasPrefix(s, sign) {
			return token{kind: tokSign, text: s[:len(sign)]}
		}
	}
	if n := wordSize(s); n > 0 {
		return token{kind: tokWord, text: s[:n]}
	}
	_, n := utf8.DecodeRuneInString(s)
	return token{kind: tokBad, text: s[:n]}
}

// wordSize is the bytes of the word that s begins with.
func wordSize(s string) int {
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '/' || c == '-') {
			return i
		}
	}
	return len(s)
}
