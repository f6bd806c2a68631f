package nft

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"margay.dev/margay/classifier"
)

func kindProtocols() kind {
	return kind{name: "protocols", datatype: nftables.TypeInetProto, interval: true}
}

func kindPorts() kind {
	return kind{name: "ports", datatype: nftables.TypeInetService, interval: true}
}

func kindAddresses(family int) kind {
	if family == 4 {
		return kind{name: "nets4", datatype: nftables.TypeIPAddr, interval: true}
	}
	return kind{name: "nets6", datatype: nftables.TypeIP6Addr, interval: true}
}

func kindInterfaces() kind {
	return kind{name: "interfaces", datatype: nftables.TypeIFName, verdicts: true, native: true}
}

// name is what a literal is called: equal ones are called alike.
func (l *literal) name() string {
	h := sha256.New()
	for _, e := range l.elements {
		var mark [5]byte
		if e.end {
			mark[0] = 1
		}
		h.Write(mark[:1])
		h.Write(e.key)
		if v := e.verdict; v != nil {
			binary.BigEndian.PutUint32(mark[1:], uint32(v.code))
			h.Write(mark[1:])
			h.Write([]byte(v.chain + "\x00"))
		}
	}
	return l.kind.name + "." + hex.EncodeToString(h.Sum(nil)[:12])
}

// joined is the numbers of all ranges, sorted, with a gap between each two.
func joined(ranges []classifier.Range) []classifier.Range {
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

// common is the numbers that both have; each is joined.
func common(a, b []classifier.Range) []classifier.Range {
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

// spread is the elements of joined ranges of numbers of so many bytes.
func spread(ranges []classifier.Range, width int) []element {
	out := make([]element, 0, 2*len(ranges))
	for _, r := range ranges {
		out = append(out, element{key: bigEndian(r.First, width)})
		if int(r.Last) < 1<<(8*width)-1 {
			out = append(out, element{key: bigEndian(r.Last+1, width), end: true})
		}
	}
	return out
}

func bigEndian(n uint16, width int) []byte {
	return binary.BigEndian.AppendUint16(nil, n)[2-width:]
}

// interval is the elements of one prefix: its first address, and the first one
// behind it, if there is any.
func interval(p netip.Prefix) []element {
	first := p.Masked().Addr()
	out := []element{{key: first.AsSlice()}}
	behind := first.AsSlice()
	for bit := p.Bits() - 1; bit >= 0; bit-- { // add one to the prefix
		behind[bit/8] ^= 0x80 >> (bit % 8)
		if behind[bit/8]&(0x80>>(bit%8)) != 0 {
			return append(out, element{key: behind, end: true})
		}
	}
	return out
}

func intervals(nets []netip.Prefix) []element {
	out := make([]element, 0, 2*len(nets))
	for _, n := range nets {
		out = append(out, interval(n)...)
	}
	return out
}

// native is a number as the kernel has its own numbers.
func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// singles are numbers as ranges.
func singles(numbers []uint16) []classifier.Range {
	var out []classifier.Range
	for _, n := range numbers {
		out = append(out, classifier.Range{First: n, Last: n})
	}
	return joined(out)
}

// ofFamily are the addresses of one family, as prefixes.
func ofFamily(addresses []netip.Addr, family int) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addresses {
		if a.Is4() == (family == 4) {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}
