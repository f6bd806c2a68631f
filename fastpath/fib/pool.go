package fib

// generation numbers the changes of a Table; every retired index carries the
// one it was retired in.
type generation uint64

// pool hands out indexes that were used before. A retired index waits until
// every reader that could have seen it has moved on.
type pool struct {
	now     *generation
	free    []uint32
	waiting []waiting // by rising generation
}

type waiting struct {
	gen   generation
	index uint32
}

// take returns a free index, if there is one.
func (p *pool) take() (uint32, bool) {
	n := len(p.free)
	if n == 0 {
		return 0, false
	}
	i := p.free[n-1]
	p.free = p.free[:n-1]
	return i, true
}

// retire keeps index until quiesced passes the present generation.
func (p *pool) retire(index uint32) {
	p.waiting = append(p.waiting, waiting{*p.now, index})
}

// quiesced frees what was retired in generation g or before.
func (p *pool) quiesced(g generation) {
	n := 0
	for n < len(p.waiting) && p.waiting[n].gen <= g {
		p.free = append(p.free, p.waiting[n].index)
		n++
	}
	p.waiting = append(p.waiting[:0], p.waiting[n:]...)
}
