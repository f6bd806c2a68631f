package cover

import (
	"cmp"
	"net/netip"
	"slices"

	"margay.dev/margay/classifier"
)

// Joined is the numbers of all ranges, sorted, with a gap between each two.
func Joined(ranges []classifier.Range) []classifier.Range {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b classifier.Range) int { return cmp.Compare(a.First, b.First) })
	var out []classifier.Range
	for _, r := range sorted {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// Common is the numbers that both have; each is joined.
func Common(a, b []classifier.Range) []classifier.Range {
	var out []classifier.Range
	for len(a) > 0 && len(b) > 0 {
		if low, high := max(a[0].First, b[0].First), min(a[0].Last, b[0].Last); low <= high {
			out = append(out, classifier.Range{First: low, Last: high})
		}
		if a[0].Last < b[0].Last {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}

// Singles are numbers as ranges.
func Singles(numbers []uint16) []classifier.Range {
	var out []classifier.Range
	for _, n := range numbers {
		out = append(out, classifier.Range{First: n, Last: n})
	}
	return Joined(out)
}

// OfFamily are the addresses of one family, as prefixes.
func OfFamily(addresses []netip.Addr, family int) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addresses {
		if a.Is4() == (family == 4) {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

// Everything reports whether joined ranges have all numbers from 0 to last.
func Everything(ranges []classifier.Range, last uint16) bool {
	return len(ranges) == 1 && ranges[0] == classifier.Range{First: 0, Last: last}
}
