// Package classbench reads rule sets and header traces in the formats of
// ClassBench, plain or as gzip, and makes a trace for a set that has none. The
// true answer of a header is found by asking one rule after the other.
//
//	rule    @SOURCE/LEN DESTINATION/LEN LOW : HIGH LOW : HIGH PROTOCOL/MASK [FLAGS/MASK]
//	header  SOURCE DESTINATION SPORT DPORT PROTOCOL [INDEX]
package classbench

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"margay.dev/margay/classifier"
)

// maxLine is the longest line of a file, in bytes: five times what a rule needs.
const maxLine = 512

// ReadRules reads a rule set, IPv4, first match wins. The ID of a rule is the
// number of its line, from 0; all of them allow. Flags are not looked at.
// It reports a line that is no rule, a set without rules, and one of more than
// classifier.MaxRules.
func ReadRules(r io.Reader) ([]classifier.Rule, error) { return readRules(r, classifier.MaxRules) }

func readRules(r io.Reader, most int) ([]classifier.Rule, error) {
	var list []classifier.Rule
	err := eachLine(r, func(words []string) error {
		if len(list) == most {
			return fmt.Errorf("more than %d rules", most)
		}
		rule, err := parseRule(words)
		if err != nil {
			return err
		}
		rule.ID = uint32(len(list))
		list = append(list, rule)
		return nil
	})
	if err == nil && len(list) == 0 {
		err = errors.New("no rule in it")
	}
	if err != nil {
		return nil, fmt.Errorf("read rule set: %w", err)
	}
	return list, nil
}

// eachLine splits every line into words. A line without words is refused, so
// that what is read grows with what is kept.
func eachLine(r io.Reader, do func(words []string) error) error {
	b := bufio.NewReader(r)
	if head, _ := b.Peek(2); string(head) == "\x1f\x8b" { // a file too short for it is plain
		z, err := gzip.NewReader(b)
		if err != nil {
			return fmt.Errorf("open gzip: %w", err)
		}
		defer z.Close()
		r = z
	} else {
		r = b
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			return fmt.Errorf("line %d is empty", n)
		}
		if err := do(words); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

func parseRule(w []string) (rule classifier.Rule, err error) {
	if (len(w) != 9 && len(w) != 10) || !strings.HasPrefix(w[0], "@") || w[3] != ":" || w[6] != ":" {
		return rule, fmt.Errorf("%q, want @SOURCE/LEN DESTINATION/LEN LOW : HIGH LOW : HIGH PROTOCOL/MASK [FLAGS/MASK]", strings.Join(w, " "))
	}
	rule.Action = classifier.Allow
	if rule.Source, err = parseSide(w[0][1:], w[2], w[4]); err != nil {
		return rule, fmt.Errorf("source: %w", err)
	}
	if rule.Destination, err = parseSide(w[1], w[5], w[7]); err != nil {
		return rule, fmt.Errorf("destination: %w", err)
	}
	rule.Protocols, err = parseProtocol(w[8])
	return rule, err
}

// parseSide reads a prefix, whose host bits may be set, and a range of ports.
func parseSide(net, low, high string) (s classifier.Side, err error) {
	p, err := netip.ParsePrefix(net)
	if err != nil || !p.Addr().Is4() {
		return s, fmt.Errorf("%q, want an IPv4 prefix", net)
	}
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || first > last {
		return s, fmt.Errorf("ports %q to %q, want numbers up to 65535, the lower one first", low, high)
	}
	if p.Bits() > 0 {
		s.Nets = []netip.Prefix{p.Masked()}
	}
	if first > 0 || last < 65535 {
		s.Ports = []classifier.Range{{First: uint16(first), Last: uint16(last)}}
	}
	return s, nil
}

// parseProtocol reads a value and a mask that takes all of it, or nothing.
func parseProtocol(word string) ([]classifier.Range, error) {
	value, mask, _ := strings.Cut(word, "/")
	v, err1 := strconv.ParseUint(value, 0, 8)
	m, err2 := strconv.ParseUint(mask, 0, 8)
	switch {
	case err1 != nil || err2 != nil || m != 0 && m != 255:
		return nil, fmt.Errorf("protocol %q, want a number up to 0xFF with the mask 0xFF, or any with the mask 0x00", word)
	case m == 0:
		return nil, nil
	}
	return []classifier.Range{{First: uint16(v), Last: uint16(v)}}, nil
}
