package classifier

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"margay.dev/margay/classifier/cut"
)

// others are the walkers but the portable one, which is what they are held against.
func others(t testing.TB) (out []Walker) {
	t.Helper()
	for _, w := range MissingWalkers() {
		t.Logf("not tried: %v, this CPU has no %s", w, w.Needs())
	}
	for _, w := range Walkers() {
		if w != Portable {
			out = append(out, w)
		}
	}
	return out
}

// fenced returns n values that end where a page ends that nobody may touch: a
// read past the end is a fault.
func fenced[T any](t testing.TB, n int) []T {
	t.Helper()
	page, size := os.Getpagesize(), n*int(unsafe.Sizeof(*new(T)))
	room := (size + page - 1) / page * page
	b, err := syscall.Mmap(-1, 0, room+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(b) })
	if err := syscall.Mprotect(b[room:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[room-size])), n)
}

// someProgram makes a program that no compiler would: any window of the key, any
// leaf, as many levels as a walk may have. Load would take it. Boxes are in the
// order of their ranks, and the fallback of a leaf is not before its boxes, as
// docs/CLASSIFIER.md has it.
func someProgram(t testing.TB, rng *rand.Rand) *Program {
	p := &Program{verdicts: make([]Verdict, 1+rng.IntN(1<<rng.IntN(20)))}
	none := uint32(len(p.verdicts) - 1)
	boxes := rng.IntN(1 << rng.IntN(7))
	if rng.IntN(16) == 0 {
		boxes += 4096 // so many that they are fetched ahead
	}
	p.boxes = fenced[box](t, boxes+padBoxes)
	for i := range p.boxes {
		p.boxes[i] = never(none)
		if i < boxes {
			p.boxes[i] = someBox(rng, none)
		}
	}
	slices.SortFunc(p.boxes[:boxes], func(a, b box) int { return int(a.rank()) - int(b.rank()) })
	var cells []uint64
	leaf := func() uint64 {
		first := rng.IntN(boxes + 1)
		if first == boxes {
			return leafCell(uint32(first), 0, rng.Uint32N(none+1))
		}
		more := rng.IntN(min(boxes-first, 1<<rng.IntN(7)))
		lowest := p.boxes[first+more].rank()
		return leafCell(uint32(first), uint32(more), lowest+rng.Uint32N(none+1-lowest))
	}
	cell := func(below int) uint64 {
		if below == 0 || rng.IntN(3) == 0 {
			return leaf()
		}
		mask := uint32(1)<<rng.IntN(4) - 1
		if int(mask) >= below {
			mask = 0
		}
		return tableCell(rng.Uint32N(uint32(below)-mask), rng.UintN(2), rng.UintN(64), mask)
	}
	for range rng.IntN(maxLevels + 1) {
		below := len(cells)
		for range 1 + rng.IntN(20) {
			cells = append(cells, cell(below))
		}
	}
	p.cells = fenced[uint64](t, len(cells))
	copy(p.cells, cells)
	for range rng.IntN(maxTrees + 1) {
		p.trees = append(p.trees, tree{cell(len(cells)), rng.Uint32N(none + 1)})
	}
	return p
}

// someBox makes a box in a universe so small that keys are inside now and then.
func someBox(rng *rand.Rand, none uint32) box {
	it := cut.Item{Rank: rng.Uint32N(none + 1)}
	for f := range it.Lo {
		most := uint32(uint64(1)<<cut.FieldOf(f).Bits - 1)
		switch it.Hi[f] = most; rng.IntN(16) {
		case 0, 1, 2: // a few values around 0, in their order or not
			it.Lo[f], it.Hi[f] = (rng.Uint32N(6)-3)&most, (rng.Uint32N(6)-3)&most
		case 3:
			it.Lo[f] = (rng.Uint32N(6) - 3) & most
		}
	}
	return boxOf(&it)
}

func someKey(rng *rand.Rand) Key {
	small := func() uint32 { return rng.Uint32N(6) - 3 }
	if rng.IntN(4) == 0 {
		small = rng.Uint32
	}
	return NewKey(small(), small(), uint8(small()), uint16(small()), uint16(small()))
}

// agreeOn compares every walker with the portable one, on so many keys at once.
func agreeOn(t testing.TB, rng *rand.Rand, p *Program, n int) (decided int) {
	keys, want := fenced[Key](t, n), make([]Verdict, n)
	for i := range keys {
		keys[i] = someKey(rng)
	}
	for from := 0; from < n; from += Burst {
		to := min(from+Burst, n)
		p.burst(keys[from:to], want[from:to])
	}
	for _, v := range want {
		if int(v) != len(p.verdicts)-1 {
			decided++
		}
	}
	for _, w := range append(others(t), Portable) {
		q, got := p.By(w), fenced[Verdict](t, n)
		for from := 0; from < n; from += Burst {
			to := min(from+Burst, n)
			q.walk(keys[from:to:to], got[from:to:to])
		}
		for i := range want {
			if one := q.walkOne(&keys[i]); got[i] != want[i] || one != uint32(want[i]) {
				t.Fatalf("%v, key %d of %d, %x: rank %d in a burst and %d alone, want %d", w, i, n, keys[i], got[i], one, want[i])
			}
		}
	}
	return decided
}

func TestWalkersAgree(t *testing.T) {
	decided, asked := 0, 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for range 5 {
			p, n := someProgram(t, rng), 1+rng.IntN(100)
			decided += agreeOn(t, rng, p, n)
			asked += n
		}
	}
	if decided < asked/4 || decided > asked*9/10 {
		t.Errorf("%d of %d keys met a rule: they show little", decided, asked)
	}
}

func TestWalkersAgreeOnBurstsOfAnyLength(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	p := someProgram(t, rng)
	for len(p.trees) < 2 || len(p.cells) < 50 {
		p = someProgram(t, rng)
	}
	for n := range 258 {
		agreeOn(t, rng, p, n)
	}
}

// What is behind a burst stays as it is.
func TestWalkersWriteNoMoreThanTheBurst(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	p := someProgram(t, rng)
	for len(p.trees) == 0 {
		p = someProgram(t, rng)
	}
	keys := make([]Key, Burst)
	for _, w := range Walkers() {
		for n := range Burst {
			out := make([]Verdict, Burst)
			for i := range out {
				out[i] = ^Verdict(0)
			}
			p.By(w).walk(keys[:n], out[:n])
			for i, v := range out {
				if (v == ^Verdict(0)) != (i >= n) {
					t.Fatalf("%v, a burst of %d: out[%d] is %#x", w, n, i, uint32(v))
				}
			}
		}
	}
}

func TestWalkerIsChosen(t *testing.T) {
	p := &Program{verdicts: make([]Verdict, 1)}
	for _, w := range Walkers() {
		if q := p.By(w); q.walker != w {
			t.Errorf("asked for %v, got %v", w, q.walker)
		}
	}
	for _, w := range MissingWalkers() {
		if q := p.By(w); q.walker != Portable {
			t.Errorf("%v, which this CPU cannot run, gave %v", w, q.walker)
		}
	}
	if q := p.By(77); q.walker != Portable || fmt.Sprint(Walker(77)) != "walker 77" {
		t.Errorf("no walker at all gave %v", q.walker)
	}
	loaded, err := Load(imageOf(t))
	if err != nil || loaded.walker != Walkers()[0] {
		t.Errorf("loaded with %v, %v; want the fastest", loaded.walker, err)
	}
}

func FuzzWalkers(f *testing.F) {
	f.Add(uint64(1), uint8(32))
	f.Add(uint64(2), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		rng := rand.New(rand.NewPCG(seed, 4))
		agreeOn(t, rng, someProgram(t, rng), int(n))
	})
}
