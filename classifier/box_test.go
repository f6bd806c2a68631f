package classifier

import (
	"math/rand/v2"
	"testing"

	"margay.dev/margay/classifier/cut"
)

// edge is a value at the ends of what a field can hold, of a box, or anywhere.
func edge(rng *rand.Rand, it *cut.Item, f int) uint32 {
	most := uint32(uint64(1)<<cut.FieldOf(f).Bits - 1)
	at := [...]uint32{0, most, rng.Uint32(), it.Lo[f], it.Hi[f], it.Lo[f] - 1, it.Hi[f] + 1}
	return at[rng.IntN(len(at))] & most
}

// A box is compared word by word, an item field by field.
func TestBoxesHoldWhatTheirItemsDo(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	held := 0
	for range 3000 {
		var it cut.Item
		for f := range it.Lo {
			if it.Lo[f], it.Hi[f] = edge(rng, &it, f), edge(rng, &it, f); it.Lo[f] > it.Hi[f] && rng.IntN(4) > 0 {
				it.Lo[f], it.Hi[f] = it.Hi[f], it.Lo[f]
			}
		}
		it.Rank = rng.Uint32N(1 << 20)
		b := boxOf(&it)
		if low, high := b.ends(); low != it.Lo || high != it.Hi || b.rank() != it.Rank {
			t.Fatalf("%v: made a box of %v to %v with rank %d", it, low, high, b.rank())
		}
		var bytes [boxSize]byte
		if b.write(bytes[:]); readBox(bytes[:]) != b {
			t.Fatalf("%v: wrote and read %x", it, bytes)
		}
		for range 30 {
			var v [cut.NumFields]uint32
			want := true
			for f := range v {
				v[f] = edge(rng, &it, f)
				want = want && it.Lo[f] <= v[f] && v[f] <= it.Hi[f]
			}
			k := NewKey(v[cut.Source], v[cut.Destination], uint8(v[cut.Protocol]), uint16(v[cut.SourcePort]), uint16(v[cut.DestinationPort]))
			if b.holds(&k) != want {
				t.Fatalf("%v holds %v: %v", it, v, !want)
			}
			if none := never(it.Rank); none.holds(&k) || none.rank() != it.Rank {
				t.Fatalf("a box that holds nothing holds %v, or has rank %d for %d", v, none.rank(), it.Rank)
			}
			if got := [...]uint32{k.Source(), k.Destination(), uint32(k.SourcePort()), uint32(k.DestinationPort()), uint32(k.Protocol())}; got != v {
				t.Fatalf("a key of %v says %v", v, got)
			}
			if want {
				held++
			}
		}
	}
	if held < 1000 {
		t.Errorf("only %d keys were inside", held)
	}
}
