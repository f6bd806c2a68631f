package label

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"margay.dev/margay/classifier"
)

// drawn is one random call: some changes at once, or a whole set.
func drawn(t testing.TB, tb *Table, r *roll, o oracle, rnd *rand.Rand) []netip.Prefix {
	t.Helper()
	set := classifier.SetID(rnd.IntN(6) + 1)
	var touched []netip.Prefix
	known := o.prefixes()
	pick := func() netip.Prefix {
		p := crowded(rnd)
		if len(known) > 0 && rnd.IntN(2) == 0 {
			p = known[rnd.IntN(len(known))]
		}
		touched = append(touched, p)
		return p
	}
	if rnd.IntN(10) == 0 {
		var ps []netip.Prefix
		for range rnd.IntN(6) {
			ps = append(ps, pick())
		}
		if err := tb.Replace(set, ps); err != nil {
			t.Fatal(err)
		}
		o.replace(set, ps)
		return touched
	}
	var changes []Change
	for range 1 + rnd.IntN(8)*rnd.IntN(2) {
		changes = append(changes, Change{Set: classifier.SetID(rnd.IntN(6) + 1), Prefix: pick(), Leave: rnd.IntN(2) == 0})
	}
	err, ok := tb.Apply(changes), o.apply(changes)
	if ok != (err == nil) {
		t.Fatalf("apply %v: %v, the oracle says %v", changes, err, ok)
	}
	return touched
}

// TestRandomChanges goes through random sequences beside the oracle: after each
// call it asks around what the call named, now and then around all there is.
func TestRandomChanges(t *testing.T) {
	for seed := range uint64(10 * *deep) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		tb, r := watched(t)
		o := oracle{}
		for i := range 150 {
			for _, p := range drawn(t, tb, r, o, rnd) {
				agree(t, tb, r, o, edges(p))
			}
			if i%30 == 29 {
				for _, p := range o.prefixes() {
					agree(t, tb, r, o, edges(p))
				}
				sound(t, tb, r, o)
			}
			if rnd.IntN(4) == 0 {
				r.quiesced(tb.Generation() - uint64(rnd.IntN(3)))
			}
		}
	}
}

// script turns fuzz bytes into changes: every input is some script.
type script struct{ data []byte }

func (s *script) next() byte {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return b
}

// prefix reads a prefix of either family, most octets from a short repertoire.
func (s *script) prefix() netip.Prefix {
	n := 16
	if s.next()&1 == 0 {
		n = 4
	}
	b := make([]byte, n)
	fill, own := s.next(), s.next()
	for i := range b {
		if b[i] = fill & 0x2f; (i+int(own))%5 == 0 {
			b[i] = s.next()
		}
	}
	a, _ := netip.AddrFromSlice(b)
	p := netip.PrefixFrom(a, int(s.next())%(8*n+1)).Masked()
	if p.Addr().Is4In6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), p.Bits())
	}
	return p
}

// FuzzTable runs any sequence of calls over both families against the oracle.
func FuzzTable(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01\x01\x20\x00\x01\x02\x03\x80\x22\x01\x20\x00\x01\x02\x04\x7f\x40\x01\x20\x00\x01\x02\x03\x80"))
	f.Add([]byte("\x00\x00\x0a\x00\x01\x00\x08\x00\x0a\x00\x01\x18\x40\x00\x0a\x00\x01\x08"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tb, r := watched(t)
		o := oracle{}
		var batch []Change
		for s := (script{data}); len(s.data) > 0; {
			op := s.next()
			c := Change{classifier.SetID(op&7 + 1), s.prefix(), op&0x40 != 0}
			if batch = append(batch, c); op&0x20 != 0 && len(batch) < 8 {
				continue
			}
			if err, ok := tb.Apply(batch), o.apply(batch); ok != (err == nil) {
				t.Fatalf("apply %v: %v, the oracle says %v", batch, err, ok)
			}
			for _, c := range batch {
				agree(t, tb, r, o, edges(c.Prefix))
			}
			if batch = batch[:0]; op&0x80 != 0 {
				r.quiesced(tb.Generation())
			}
		}
		for _, p := range o.prefixes() {
			agree(t, tb, r, o, edges(p))
		}
		sound(t, tb, r, o)
	})
}
