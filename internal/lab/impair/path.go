package impair

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Counters are of one direction, in frames since the start. At any time
// Offered + Duplicated = Delivered + Lost + Cut + Overflowed + Waiting.
type Counters struct {
	Offered    uint64 `json:"offered"`
	Duplicated uint64 `json:"duplicated"` // copies made
	Reordered  uint64 `json:"reordered"`  // that overtook others
	Delivered  uint64 `json:"delivered"`
	Lost       uint64 `json:"lost"`       // by chance
	Cut        uint64 `json:"cut"`        // by the partition
	Overflowed uint64 `json:"overflowed"` // found the queue full
	Waiting    uint64 `json:"waiting"`
}

// A Path is one direction of a wire. It is for one goroutine at a time.
type Path struct {
	is       Impairment
	rng      *rand.Rand
	queue    waiting
	free     [][]byte      // buffers of frames that have left
	idle     time.Duration // when the line has sent all it was given
	last     time.Duration // when the latest frame in order leaves
	order    uint64        // of arrival, among frames that leave at the same time
	counters Counters
}

// NewPath makes a direction. All chance in it comes from seed.
func NewPath(seed uint64, is Impairment) *Path {
	return &Path{is: is, rng: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15))}
}

// Impairment is what is in force.
func (p *Path) Impairment() Impairment { return p.is }

// Counters are the counts so far.
func (p *Path) Counters() Counters {
	c := p.counters
	c.Waiting = uint64(len(p.queue))
	return c
}

// Set changes the wire. Frames that wait keep their time of leaving, but a
// partition loses them, as a cut cable does.
func (p *Path) Set(is Impairment) {
	p.is = is
	if !is.Partition {
		return
	}
	for _, w := range p.queue {
		p.free = append(p.free, w.frame)
	}
	p.counters.Cut += uint64(len(p.queue))
	p.queue = p.queue[:0]
	p.idle, p.last = 0, 0
}

// Offer gives the wire a frame at a time, which never runs backwards. The frame
// is copied.
func (p *Path) Offer(now time.Duration, frame []byte) {
	p.counters.Offered++
	// Always four draws, so that turning one knob leaves the others' chance alone.
	loss, twice, jump, jitter := p.rng.Float64(), p.rng.Float64(), p.rng.Float64(), p.rng.Float64()
	switch {
	case p.is.Partition:
		p.counters.Cut++
		return
	case loss < float64(p.is.Loss):
		p.counters.Lost++
		return
	}
	at := p.leaves(now, len(frame), jump, jitter)
	p.enqueue(at, frame)
	if twice < float64(p.is.Duplicate) {
		p.counters.Duplicated++
		p.enqueue(at, frame)
	}
}

// leaves says when a frame gets out at the other end.
func (p *Path) leaves(now time.Duration, size int, jump, jitter float64) time.Duration {
	if p.is.Rate > 0 {
		p.idle = max(p.idle, now) + time.Duration(float64(size)*8/float64(p.is.Rate)*float64(time.Second))
		now = p.idle
	}
	if jump < float64(p.is.Reorder) {
		if p.last > now {
			p.counters.Reordered++
		}
		return now
	}
	delay := time.Duration(p.is.Delay) + time.Duration((2*jitter-1)*float64(p.is.Jitter))
	p.last = max(p.last, now+delay)
	return p.last
}

func (p *Path) enqueue(at time.Duration, frame []byte) {
	if len(p.queue) >= p.is.limit() {
		p.counters.Overflowed++
		return
	}
	var b []byte
	if n := len(p.free); n > 0 {
		b, p.free = p.free[n-1][:0], p.free[:n-1]
	}
	p.order++
	heap.Push(&p.queue, waits{at, p.order, append(b, frame...)})
}

// Due hands every frame whose time has come to send, in order. send does not
// keep the frame.
func (p *Path) Due(now time.Duration, send func(frame []byte)) {
	for len(p.queue) > 0 && p.queue[0].at <= now {
		w := heap.Pop(&p.queue).(waits)
		send(w.frame)
		p.counters.Delivered++
		p.free = append(p.free, w.frame)
	}
}

// Next is when the next frame leaves; false if none waits.
func (p *Path) Next() (time.Duration, bool) {
	if len(p.queue) == 0 {
		return 0, false
	}
	return p.queue[0].at, true
}

// waits is a frame on the wire.
type waits struct {
	at    time.Duration
	order uint64
	frame []byte
}

// waiting is a heap, the frame that leaves next on top.
type waiting []waits

func (w waiting) Len() int { return len(w) }
func (w waiting) Less(i, j int) bool {
	return w[i].at < w[j].at || w[i].at == w[j].at && w[i].order < w[j].order
}
func (w waiting) Swap(i, j int) { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(x any)   { *w = append(*w, x.(waits)) }
func (w *waiting) Pop() any {
	old := *w
	x := old[len(old)-1]
	old[len(old)-1] = waits{}
	*w = old[:len(old)-1]
	return x
}
