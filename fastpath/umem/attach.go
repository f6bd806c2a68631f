package umem

import (
	"errors"
	"fmt"
	"sync/atomic"

	"margay.dev/margay/internal/mem"
)

// FD is the arena's memfd, to be passed to another process that attaches to it;
// the arena keeps owning it.
func (a *Arena) FD() int { return a.region.FD() }

// Attach maps an arena that another process made with cfg and may still be
// using. It changes nothing: until that process has ended or stands still, no
// buffer may be taken or given back here. Memory of another size, kind or
// layout, or with free lists that cannot be, gives an error.
// On success the arena owns fd, on failure the caller still does.
func Attach(fd int, cfg Config) (*Arena, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	region, err := mem.Attach(fd, mem.KindArena, LayoutVersion)
	if err != nil {
		return nil, fmt.Errorf("attach packet memory: %w", err)
	}
	a := &Arena{region: region, frames: uint32(cfg.Frames), supers: uint32(cfg.Supers)}
	lay := layoutOf(cfg)
	if got := len(region.Payload()); got != lay.total {
		err = fmt.Errorf("it has %d bytes, but %d frames, %d supers and %d caches need %d: start both with the same sizes",
			got, cfg.Frames, cfg.Supers, cfg.Caches, lay.total)
	} else if err = a.view(lay, cfg); err == nil {
		err = a.check()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach packet memory: %w", err), region.Unmap())
	}
	return a, nil
}

// check says whether the free lists could be true. It takes no lock, since who
// dies with one stops its other users, and so trusts only what never changes
// for a moment: a count is in range, and what lies below it names buffers.
func (a *Arena) check() error {
	frames, supers := span{0, a.frames}, span{a.frames, a.supers}
	errs := []error{
		frames.check("depot of frames", a.frame.words[depotCount:], a.frame.words[depotHead:]),
		supers.check("depot of supers", a.super.words[depotCount:], a.super.words[depotHead:]),
	}
	for i := range a.caches {
		w := a.caches[i].words
		errs = append(errs,
			frames.check(fmt.Sprintf("cache %d of frames", i), w[frameCount:], w[frameBase:superBase]),
			supers.check(fmt.Sprintf("cache %d of supers", i), w[superCount:], w[superBase:cacheWords]))
	}
	return errors.Join(errs...)
}

// span are the buffers of one kind.
type span struct{ first, n uint32 }

// check says whether a stock's count, the first word of count, and cells could
// be true.
func (s span) check(what string, count, cells []uint32) error {
	n := atomic.LoadUint32(&count[0])
	if n > uint32(len(cells)) {
		return fmt.Errorf("%w: the %s has %d of %d places taken", mem.ErrCorrupt, what, n, len(cells))
	}
	for i := range cells[:n] {
		if b := atomic.LoadUint32(&cells[i]); b-s.first >= s.n {
			return fmt.Errorf("%w: the %s has buffer %d, which is no such buffer", mem.ErrCorrupt, what, b)
		}
	}
	return nil
}

// Rebuild makes the free lists anew, whatever is in them: for when another
// process that used the arena died in the midst of it. Nobody else may use the
// arena meanwhile. Free is afterwards, in the depots, every frame in the hands
// of Graph and every super, but for those in held, which must list every buffer
// of a packet that is in several; the caches are empty. What was lent stays lent.
func (a *Arena) Rebuild(held []Buf) {
	keep := make(map[Buf]bool, len(held))
	for _, b := range held {
		keep[b] = true
	}
	for i := range a.caches {
		a.caches[i].words[frameCount], a.caches[i].words[superCount] = 0, 0
	}
	a.frame.rebuild(0, a.frames, func(b Buf) bool { return a.holders[b] == Graph && !keep[b] })
	a.super.rebuild(a.frames, a.supers, func(b Buf) bool { return !keep[b] })
}

// rebuild leaves the depot unlocked, with those of n buffers from first that
// are free.
func (d *depot) rebuild(first, n uint32, free func(Buf) bool) {
	count := uint32(0)
	for b := first; b < first+n; b++ {
		if free(Buf(b)) {
			d.words[depotHead+count] = b
			count++
		}
	}
	d.words[depotCount] = count
	d.unlock()
}
