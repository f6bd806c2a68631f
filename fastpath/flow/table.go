package flow

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Table is the flows of a forwarder. Workers look up and insert through a Worker
// each; one owner ages the table (Advance, Quiesced); anybody may look at it.
type Table struct {
	head      *head
	counts    [][counters]uint64 // of each worker, and at last of the owner
	owned     []uint32           // flows charged to each endpoint
	wheel     []uint32           // the first flow of each slot
	fragments []fragmentSet
	index     []bucket
	entries   []entry // 0 is none

	seed     seed
	mask     uint64 // of the index
	liberal  bool
	timeouts [timeoutCount]uint32
}

// New makes an empty table in memory, which must be zero, aligned to eight bytes
// and stay where it is as long as the table is used. All of it is used.
func New(memory []byte, cfg Config) (*Table, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	lay, err := layoutOf(len(memory), cfg)
	if err != nil {
		return nil, err
	}
	t := new(Table)
	if err := t.view(memory, lay, cfg); err != nil {
		return nil, err
	}
	h := t.head
	h.size, h.workers, h.endpoints = uint64(len(memory)), uint32(cfg.Workers), uint32(cfg.Endpoints)
	if cfg.Liberal {
		h.liberal = 1
	}
	for i, d := range cfg.Timeouts.list() {
		h.timeouts[i] = ticks(d)
	}
	var secret [8 * len(h.seed)]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, fmt.Errorf("make flow table: choose a hash: %w", err)
	}
	for i := range h.seed {
		h.seed[i] = binary.LittleEndian.Uint64(secret[8*i:])
	}
	h.fresh, h.vacant = 1, uint32(lay.flows-1)
	t.adopt()
	h.era = 1
	return t, nil
}

// Attach goes on with the table that New made in this memory, maybe in another
// process, all of whose users have stopped between two vectors. Where they may
// have stopped elsewhere, Rebuild comes next.
func Attach(memory []byte) (*Table, error) {
	if len(memory) < MinBytes {
		return nil, fmt.Errorf("attach flow table: memory has %d bytes, want at least %d", len(memory), MinBytes)
	}
	peek := new(Table)
	if err := peek.viewHead(memory); err != nil {
		return nil, err
	}
	h := peek.head
	cfg := Config{Workers: int(h.workers), Endpoints: int(h.endpoints), Timeouts: timeoutsOf(h.timeouts)}
	if err := cfg.validate(); err != nil || h.size != uint64(len(memory)) {
		return nil, errors.Join(fmt.Errorf("attach flow table: memory of %d bytes holds no table, or one of %d bytes", len(memory), h.size), err)
	}
	lay, err := layoutOf(len(memory), cfg)
	if err != nil {
		return nil, err
	}
	t := new(Table)
	if err := t.view(memory, lay, cfg); err != nil {
		return nil, err
	}
	if fresh := atomic.LoadUint32(&h.fresh); fresh < 1 || fresh > uint32(len(t.entries)) {
		return nil, fmt.Errorf("attach flow table: says that %d of %d flows were used", fresh-1, t.Limit())
	}
	t.adopt()
	h.era++
	return t, nil
}

// Era counts who have taken the table up: New, and each Attach. Whoever stamps
// decisions with generations of its own must begin beyond those of eras before.
func (t *Table) Era() uint64 { return t.head.era }

// adopt copies what lookups need out of the shared memory.
func (t *Table) adopt() {
	t.seed, t.timeouts, t.liberal = t.head.seed, t.head.timeouts, t.head.liberal != 0
	t.mask = uint64(len(t.index) - 1)
}

// Workers is how many workers the table was made for.
func (t *Table) Workers() int { return len(t.counts) - 1 }

// Limit is how many flows there may be.
func (t *Table) Limit() int { return len(t.entries) - 1 }

// word is a flow's state: what both directions must agree on, changed by
// compare-and-swap.
//
//	incarnation 32 | window shifts 2×4 | SYNs' scales 2×4 | crossed, dead, busy, reset | flags of both directions 8 | state 4
type word uint64

// The parts of a word. Flags of the second direction are those of the first one
// bit higher.
const (
	stateMask word = 15

	synSeen  word = 1 << 4  // the direction has sent its SYN
	synAcked word = 1 << 6  // and the other has acknowledged it
	finSeen  word = 1 << 8  // the direction has sent its FIN
	finAcked word = 1 << 10 // and the other has acknowledged it

	rstSeen word = 1 << 12 // a reset ended the connection
	busy    word = 1 << 13 // one worker is changing the flow, others wait
	dead    word = 1 << 14 // no lookup finds it any more
	crossed word = 1 << 15 // both sides have opened the connection at once

	// Of each direction, 4 bits: the window scale of its SYN plus one, 0 if it had
	// none; and what its windows are shifted by, see derive.
	scaleShift, offerShift = 16, 24

	incarnationShift      = 32
	incarnationUnit  word = 1 << incarnationShift
)

func (w word) state() State { return State(w & stateMask) }

// of is a flag for direction d.
//
//fastpath:hot
func (w word) of(d int) word { return w << (d & 1) }

// shift is how many bits the windows of direction d are scaled by.
//
//fastpath:hot
func (w word) shift(d uint32) uint32 { return uint32(w>>(offerShift+4*(d&1))) & 15 }

// withScale notes the window scale option of direction d's SYN.
func (w word) withScale(d int, scale uint8) word {
	return w&^(15<<(scaleShift+4*d)) | word(scale&15)<<(scaleShift+4*d)
}

// derive gives w the state that its flags add up to, and its windows the shifts
// that count once both SYNs had the option (RFC 7323 section 1.3).
func (w word) derive() word {
	w &^= 255 << offerShift
	if a, b := w>>scaleShift&15, w>>(scaleShift+4)&15; a != 0 && b != 0 {
		w |= (a - 1 | (b-1)<<4) << offerShift
	}
	both := func(f word) bool { return w&f.of(0) != 0 && w&f.of(1) != 0 }
	one := func(f word) bool { return w&(f.of(0)|f.of(1)) != 0 }
	s := Opening
	switch {
	case w&rstSeen != 0:
		s = Reset
	case both(finAcked):
		s = Closed
	case both(finSeen):
		s = Closing
	case one(finSeen):
		s = HalfClosed
	case both(synAcked):
		s = Established
	case both(synSeen):
		s = Answered
	}
	return w&^stateMask | word(s)
}

// freed is the word of a flow that is not in use. It stays dead, so that nobody
// claims it any more.
func (w word) freed() word { return w>>incarnationShift<<incarnationShift | dead }

// claim makes the caller the only one to change the flow, until it stores a word
// without busy. It returns the word as it was; a dead flow is not claimed.
func (c *core) claim() (word, bool) {
	for n := 0; ; n++ {
		w := word(atomic.LoadUint64(&c.state))
		if w&dead != 0 {
			return w, false
		}
		if w&busy == 0 && atomic.CompareAndSwapUint64(&c.state, uint64(w), uint64(w|busy)) {
			return w, true
		}
		yieldAfter(n)
	}
}

// release stores the word that claim is followed by.
func (c *core) release(w word) { atomic.StoreUint64(&c.state, uint64(w&^busy)) }

// take finds a flow that is free.
func (t *Table) take() (uint32, bool) {
	h := t.head
	for {
		n := atomic.LoadUint32(&h.vacant)
		if n == 0 {
			return 0, false
		}
		if atomic.CompareAndSwapUint32(&h.vacant, n, n-1) {
			break
		}
	}
	for { // there is one now: who frees puts it on the list before it counts it
		if i := t.pop(); i != 0 {
			return i, true
		}
		if i := atomic.LoadUint32(&h.fresh); i < uint32(len(t.entries)) && atomic.CompareAndSwapUint32(&h.fresh, i, i+1) {
			return i, true
		}
	}
}

// pop takes the top of the free list, 0 if that is empty.
func (t *Table) pop() uint32 {
	for {
		top := atomic.LoadUint64(&t.head.freed)
		i := uint32(top)
		if i == 0 {
			return 0
		}
		next := atomic.LoadUint32(&t.entries[i].rest.next)
		if atomic.CompareAndSwapUint64(&t.head.freed, top, (top>>32+1)<<32|uint64(next)) {
			fetchEntry(&t.entries[next]) // of the next new flow
			return i
		}
	}
}

// give puts a flow that nobody sees any more on the free list.
func (t *Table) give(i uint32) {
	for {
		top := atomic.LoadUint64(&t.head.freed)
		atomic.StoreUint32(&t.entries[i].rest.next, uint32(top))
		if atomic.CompareAndSwapUint64(&t.head.freed, top, (top>>32+1)<<32|uint64(i)) {
			break
		}
	}
	atomic.AddUint32(&t.head.vacant, 1)
}

// timeout is how many ticks a flow in a state stays idle.
func (t *Table) timeout(proto uint8, s State) uint32 { return t.timeouts[timeoutOf(proto, s)] }

// TickAt is the tick of a clock's reading. All who use a table must read the same
// one: that of the kernel's CLOCK_MONOTONIC, if another process is to go on with it.
func TickAt(since time.Duration) Tick { return Tick(since / tick) }
