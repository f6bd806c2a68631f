package policy

import (
	"cmp"
	"slices"

	"margay.dev/margay/classifier"
)

// span is numbers from first to last, both included; spans are several, sorted,
// with a gap between each two. Unlike the classifier's lists of ranges, no spans
// are no numbers: "any" is said in full.
type span = classifier.Range

type spans []span

var (
	anyPort     = spans{{First: 0, Last: 65535}}
	anyProtocol = spans{{First: 0, Last: 255}}
)

func one(n uint16) spans { return spans{{First: n, Last: n}} }

// join is the numbers of all ranges, in any order.
func join(ranges ...span) spans {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b span) int { return cmp.Compare(a.First, b.First) })
	var out spans
	for _, r := range sorted {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// and is the numbers that both have.
func (s spans) and(t spans) spans {
	var out spans
	for len(s) > 0 && len(t) > 0 {
		low, high := max(s[0].First, t[0].First), min(s[0].Last, t[0].Last)
		if low <= high {
			out = append(out, span{First: low, Last: high})
		}
		if s[0].Last < t[0].Last {
			s = s[1:]
		} else {
			t = t[1:]
		}
	}
	return out
}

// without is the numbers of s that t does not have.
func (s spans) without(t spans) spans {
	var gaps spans
	low := 0
	for _, r := range t {
		if int(r.First) > low {
			gaps = append(gaps, span{First: uint16(low), Last: r.First - 1})
		}
		low = int(r.Last) + 1
	}
	if low <= 65535 {
		gaps = append(gaps, span{First: uint16(low), Last: 65535})
	}
	return s.and(gaps)
}

func (s spans) has(n uint16) bool { return len(s.and(one(n))) > 0 }

// ranges is s as a rule says it, where all is nothing.
func (s spans) ranges(all spans) []classifier.Range {
	if slices.Equal(s, all) {
		return nil
	}
	return s
}
