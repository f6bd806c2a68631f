package pkt

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// plainSum is RFC 1071 word by word.
func plainSum(b []byte) (s uint32) {
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		s += w
		s = s>>16 + s&0xffff
	}
	return s
}

// equalSums compares in ones' complement, where 0 and 0xffff are one number.
func equalSums(a, b uint32) bool { return a%0xffff == b%0xffff }

func TestSumAgreesWithRFC1071AtEveryLength(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for n := range len(data) {
		b := data[n/3 : n/3+n/2]
		if got, want := Sum(b), plainSum(b); !equalSums(got, want) {
			t.Fatalf("sum of %d bytes is %#x, want %#x", len(b), got, want)
		}
	}
}

func TestSumKeepsEveryCarry(t *testing.T) {
	for _, n := range []int{1, 2, 7, 8, 9, 20, 40, 64, 65, 1448, 65535} {
		b := make([]byte, n)
		for i := range b {
			b[i] = 0xff
		}
		if got, want := Sum(b), plainSum(b); !equalSums(got, want) {
			t.Errorf("sum of %d bytes of 0xff is %#x, want %#x", n, got, want)
		}
	}
	if got := Sum(make([]byte, 100)); got != 0 {
		t.Errorf("sum of zeros is %#x, want 0", got)
	}
}

func TestSumOfKnownHeader(t *testing.T) {
	// The example header of RFC 1071's readers: checksum 0xb861.
	h := []byte{0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7}
	if got := ^Fold(Sum(h)); got != 0xb861 {
		t.Errorf("checksum is %#04x, want 0xb861", got)
	}
	binary.BigEndian.PutUint16(h[10:], 0xb861)
	if got := Fold(Sum(h)); got != 0xffff {
		t.Errorf("sum over a right checksum is %#04x, want 0xffff", got)
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint16(1))
	f.Add([]byte("a packet of some length, odd or even, cut anywhere"), uint16(7))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		want := plainSum(b)
		if got := Sum(b); !equalSums(got, want) {
			t.Errorf("sum is %#x, want %#x", got, want)
		}
		at := int(cut) % (len(b) + 1)
		if got := SumAt(b[:at], 0) + SumAt(b[at:], at); !equalSums(uint32(Fold(got)), want) {
			t.Errorf("sum in parts cut at %d is %#x, want %#x", at, got, want)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []struct {
		name string
		size int
	}{{"20B", 20}, {"1448B", 1448}, {"64KiB", 65536}} {
		data := make([]byte, n.size)
		b.Run(n.name, func(b *testing.B) {
			b.SetBytes(int64(n.size))
			var s uint32
			for b.Loop() {
				s += Sum(data)
			}
			_ = s
		})
	}
}
