package dataplanev1

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLine is the most bytes of what a message says for people in one line: the
// name of a set, the text of a rule.
const MaxLine = 1024

// Line makes of any text one that may stand in such a place: what no letter can
// be shown for is a blank, or a question mark where it is no text at all, and
// what is too long ends in "...".
func Line(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, text)
	if len(text) <= MaxLine {
		return text
	}
	const more = "..."
	end := MaxLine - len(more)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}
