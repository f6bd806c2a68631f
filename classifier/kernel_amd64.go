package classifier

import "golang.org/x/sys/cpu"

// runs reports whether this CPU can run the walker.
func (w Walker) runs() bool {
	switch x := &cpu.X86; w {
	case Portable:
		return true
	case AVX2:
		return x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasPOPCNT
	case AVX512:
		return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasBMI1 && x.HasBMI2
	}
	return false
}

// walk leaves in out the ranks of up to Burst keys, by the program's walker.
//
//fastpath:hot
func (p *Program) walk(keys []Key, out []Verdict) {
	none := uint32(len(p.verdicts) - 1)
	switch p.walker {
	case AVX512:
		burst512(p.cells, p.boxes, p.trees, none, keys, out)
	case AVX2:
		burst256(p.cells, p.boxes, p.trees, none, keys, out)
	default:
		p.burst(keys, out)
	}
}

// walkOne is the rank of the rule that decides, by the program's walker.
//
//fastpath:hot
func (p *Program) walkOne(k *Key) uint32 {
	none := uint32(len(p.verdicts) - 1)
	switch p.walker {
	case AVX512:
		return one512(p.cells, p.boxes, p.trees, none, k)
	case AVX2:
		return one256(p.cells, p.boxes, p.trees, none, k)
	}
	return p.rank(k)
}

// burst512 is burst in vectors of eight keys, and burst256 in those of four: out
// has the length of keys, at most Burst.
//
//go:noescape
func burst512(cells []uint64, boxes []box, trees []tree, none uint32, keys []Key, out []Verdict)

//go:noescape
func burst256(cells []uint64, boxes []box, trees []tree, none uint32, keys []Key, out []Verdict)

// one512 and one256 are rank with the boxes of a leaf compared four at a time.
//
//go:noescape
func one512(cells []uint64, boxes []box, trees []tree, none uint32, k *Key) uint32

//go:noescape
func one256(cells []uint64, boxes []box, trees []tree, none uint32, k *Key) uint32
