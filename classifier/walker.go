package classifier

import "fmt"

// Walker is a way to walk a program's tables. All come to the same verdicts.
type Walker uint8

// The walkers.
const (
	Portable Walker = iota // plain Go, on every CPU
	AVX2                   // amd64 assembly: four keys of a burst side by side, four boxes at once
	AVX512                 // amd64 assembly: all keys of a burst side by side
)

// allWalkers are the walkers, the fastest first.
var allWalkers = [...]Walker{AVX512, AVX2, Portable} // arch:var a constant table

// Walkers are those that this CPU can run, the fastest first. Load chooses the first.
func Walkers() []Walker { return pick(true) }

// MissingWalkers are those that this CPU cannot run.
func MissingWalkers() []Walker { return pick(false) }

func pick(runs bool) (out []Walker) {
	for _, w := range allWalkers {
		if w.runs() == runs {
			out = append(out, w)
		}
	}
	return out
}

// String is the walker's name in lower case.
func (w Walker) String() string {
	switch w {
	case Portable:
		return "portable"
	case AVX2:
		return "avx2"
	case AVX512:
		return "avx512"
	}
	return fmt.Sprintf("walker %d", uint8(w))
}

// Needs is what a CPU must have for the walker, for people; empty if nothing.
func (w Walker) Needs() string {
	switch w {
	case AVX2:
		return "AVX2, BMI2 and POPCNT"
	case AVX512:
		return "AVX-512 (F, BW, DQ, VL) and BMI2"
	}
	return ""
}

// By returns a program with the same tables that the given walker walks: one of
// Walkers, or it is Portable.
func (p *Program) By(w Walker) *Program {
	q := *p
	q.walker = Portable
	if w.runs() {
		q.walker = w
	}
	return &q
}
