package nft

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"

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
