// Package domain reads names of hosts, as DNS has them, and patterns of such
// names, as network sets have them.
//
//	update.example.com     that name
//	*.example.com          a.example.com and a.b.example.com, not example.com
//	update.*.example.com   update.a.example.com and update.a.b.example.com
//
// Names are compared in their canonical form: lower case, without the dot at the
// end, other scripts than ASCII as A-labels (RFC 5890).
package domain

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// What names may be at most (RFC 1035 section 2.3.4): bytes of the text, without
// the dot at the end, and of a label.
const (
	MaxName  = 253
	MaxLabel = 63
)

// star is the label of a pattern that stands for one label or several.
const star = "*"

// Pattern is a name, or many that differ in the place of one asterisk. The zero
// Pattern matches nothing.
type Pattern struct {
	text          string
	before, after string // of one with an asterisk: what stands before and behind it, dots included
}

// Parse reads a pattern. It refuses what Calico's documentation does: more than one
// asterisk, one that is not a whole label, and one in the last place.
func Parse(text string) (Pattern, error) {
	if len(text) > 4*MaxName { // or a hostile one would be repeated in the error
		return Pattern{}, fmt.Errorf("a pattern of %d bytes is no name: want at most %d", len(text), MaxName)
	}
	labels := strings.Split(strings.TrimSuffix(text, "."), ".")
	at := -1
	for i, label := range labels {
		switch {
		case label != star && strings.Contains(label, star):
			return Pattern{}, fmt.Errorf("%q has an asterisk that is not a whole label: want one as *.example.com", text)
		case label == star && at >= 0:
			return Pattern{}, fmt.Errorf("%q has two asterisks: want one at most", text)
		case label == star:
			at = i
		}
	}
	if at == len(labels)-1 {
		return Pattern{}, fmt.Errorf("%q has its asterisk in the last place: want one as *.example.com", text)
	}
	if at < 0 {
		name, err := Canonical(text)
		return Pattern{text: name}, err
	}
	after, err := Canonical(strings.Join(labels[at+1:], "."))
	if err != nil {
		return Pattern{}, fmt.Errorf("%q: %w", text, err)
	}
	p := Pattern{after: "." + after}
	if at > 0 {
		before, err := Canonical(strings.Join(labels[:at], "."))
		if err != nil {
			return Pattern{}, fmt.Errorf("%q: %w", text, err)
		}
		p.before = before + "."
	}
	if p.text = p.before + star + p.after; len(p.text) > MaxName {
		return Pattern{}, fmt.Errorf("%q has %d bytes: want at most %d", text, len(p.text), MaxName)
	}
	return p, nil
}

// String is the pattern in canonical form: equal ones match the same names.
func (p Pattern) String() string { return p.text }

// Exact is the one name that the pattern matches; false where it has an asterisk.
func (p Pattern) Exact() (string, bool) { return p.text, p.after == "" && p.text != "" }

// Suffix is what every name ends with that a pattern with an asterisk matches,
// without the dot before it.
func (p Pattern) Suffix() string { return strings.TrimPrefix(p.after, ".") }

// Match reports whether a canonical name is one of the pattern's.
func (p Pattern) Match(name string) bool {
	if p.after == "" {
		return name == p.text && name != ""
	}
	return len(name) > len(p.before)+len(p.after) && strings.HasPrefix(name, p.before) && strings.HasSuffix(name, p.after)
}

// Canonical reads a name that people write. It fails for what is no name of a host.
func Canonical(name string) (string, error) {
	if len(name) > 4*MaxName {
		return "", fmt.Errorf("a name of %d bytes is too long: want at most %d", len(name), MaxName)
	}
	out := strings.TrimSuffix(name, ".")
	if !ascii(out) {
		var err error
		if out, err = idna.Lookup.ToASCII(out); err != nil {
			return "", fmt.Errorf("%q cannot be written in ASCII (%v): want one as www.example.com", name, err)
		}
	}
	out, err := lower(out)
	if err != nil {
		return "", fmt.Errorf("%q is no name: %w", name, err)
	}
	return out, nil
}

// FromDNS is the canonical form of a name as a DNS message has it, in the text form
// of RFC 1035 section 5.1. It is false for what no host is called, such as names with
// dots or blanks within a label.
func FromDNS(name string) (string, bool) {
	out, err := lower(strings.TrimSuffix(name, "."))
	return out, err == nil
}

func ascii(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// lower is an ASCII name in lower case, if it is one.
func lower(name string) (string, error) {
	if name == "" || len(name) > MaxName {
		return "", fmt.Errorf("it has %d bytes, want 1 to %d", len(name), MaxName)
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.' && label == 0:
			return "", errors.New("a label is empty: want letters, digits, - and _ between dots")
		case c == '.':
			label = 0
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			if label++; label > MaxLabel {
				return "", fmt.Errorf("a label has more than %d bytes", MaxLabel)
			}
		default:
			return "", errors.New("want letters, digits, - and _ between dots")
		}
	}
	if label == 0 {
		return "", errors.New("a label is empty: want letters, digits, - and _ between dots")
	}
	return strings.ToLower(name), nil
}
