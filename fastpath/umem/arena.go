// Package umem is the packet memory of a forwarder: frames that the kernel
// shares by AF_XDP, superpacket buffers for TUN queues, and the account of who
// holds each of them.
//
// All of it lies in one memfd, so that a packet goes from port to port without
// a copy and a new forwarder can take everything over. A buffer is named by
// its index (Buf), a byte of a packet by its offset in the arena (uint32):
// nothing here is a pointer.
//
//	memfd ► header | frames (4 KiB each) | supers (68 KiB each) | segments | holders | depots | caches
//
// A worker takes buffers from its own cache, which exchanges whole batches
// with the shared depot; no buffer is ever made or lost, only moved.
package umem

import (
	"errors"
	"fmt"

	"margay.dev/margay/internal/mem"
)

const (
	// ChunkSize is the size of a frame in bytes, and of an AF_XDP chunk.
	ChunkSize = 4096
	// SuperSize is the size of a superpacket buffer in bytes: 64 KiB of
	// packet, headroom, and the rest of a page.
	SuperSize = 17 * ChunkSize
	// Headroom is the number of bytes kept free in front of a packet, for
	// the headers that a later stop prepends.
	Headroom = 256

	chunkShift = 12
)

// LayoutVersion counts the layouts of an arena's memory, that of the caches and
// depots included. Who attaches to an arena must have the same.
const LayoutVersion = 1

// Buf names one buffer of an arena: a frame, or above the frames a super.
type Buf uint32

// None is no buffer; it ends a chain.
const None Buf = 1<<32 - 1

// Segment is one buffer's part of a packet that fills several frames.
type Segment struct {
	Next Buf    // the following buffer, or None
	Off  uint16 // first byte of this part within its frame
	Len  uint16 // bytes of this part
}

// Holder is who a frame was lent to: the id of an AF_XDP socket, or Graph.
type Holder uint8

// Graph holds every frame that is in no socket: cached, in a vector, waiting.
const Graph Holder = 0

// Config sizes an arena.
type Config struct {
	Frames int // frames of ChunkSize bytes, at least 64
	Supers int // superpacket buffers of SuperSize bytes, may be 0
	Caches int // workers and other takers, at least 1
}

// Arena is all packet memory of one forwarder.
type Arena struct {
	region  *mem.Region
	bytes   []byte // frames and supers: what offsets count in
	frames  uint32
	supers  uint32
	segs    []Segment
	holders []Holder
	frame   depot
	super   depot
	caches  []Cache
}

const maxArena = 1<<32 - 1 // offsets are 32 bits

// New makes an arena of its own memfd with every buffer free.
func New(cfg Config) (*Arena, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	lay := layoutOf(cfg)
	region, err := mem.Create("margay-arena", mem.KindArena, LayoutVersion, lay.total)
	if err != nil {
		return nil, fmt.Errorf("make packet memory: %w", err)
	}
	a := &Arena{region: region, frames: uint32(cfg.Frames), supers: uint32(cfg.Supers)}
	if err := a.view(lay, cfg); err != nil {
		return nil, errors.Join(err, region.Close())
	}
	a.frame.fill(0, a.frames)
	a.super.fill(a.frames, a.supers)
	return a, nil
}

func (c Config) validate() error {
	switch size := int64(c.Frames)*ChunkSize + int64(c.Supers)*SuperSize; {
	case max(c.Frames, c.Supers, c.Caches) > maxArena/ChunkSize:
		return fmt.Errorf("make packet memory: one of %d frames, %d supers and %d caches is too many, want at most %d",
			c.Frames, c.Supers, c.Caches, maxArena/ChunkSize)
	case c.Frames < 64:
		return fmt.Errorf("make packet memory: frames is %d, want at least 64", c.Frames)
	case c.Supers < 0:
		return fmt.Errorf("make packet memory: supers is %d, want at least 0", c.Supers)
	case c.Caches < 1:
		return fmt.Errorf("make packet memory: caches is %d, want at least 1", c.Caches)
	case size > maxArena:
		return fmt.Errorf("make packet memory: %d frames and %d supers need %d bytes, want at most %d",
			c.Frames, c.Supers, size, int64(maxArena))
	}
	return nil
}

// layout holds where each part starts in the payload, in bytes.
type layout struct{ packet, segs, holders, frame, super, caches, total int }

func layoutOf(cfg Config) layout {
	const word = 4
	pad := func(n int) int { return (n + 63) &^ 63 } // a cache line
	var l layout
	l.packet = cfg.Frames*ChunkSize + cfg.Supers*SuperSize
	l.segs = l.packet
	l.holders = l.segs + pad(cfg.Frames*8)
	l.frame = l.holders + pad(cfg.Frames)
	l.super = l.frame + pad((depotHead+cfg.Frames)*word)
	l.caches = l.super + pad((depotHead+cfg.Supers)*word)
	l.total = l.caches + cfg.Caches*pad(cacheWords*word)
	return l
}

func (a *Arena) view(l layout, cfg Config) (err error) {
	p := a.region.Payload()
	a.bytes = p[:l.packet:l.packet]
	if a.segs, err = mem.View[Segment](p[l.segs:], cfg.Frames); err != nil {
		return fmt.Errorf("lay out segments: %w", err)
	}
	if a.holders, err = mem.View[Holder](p[l.holders:], cfg.Frames); err != nil {
		return fmt.Errorf("lay out holders: %w", err)
	}
	if a.frame.words, err = mem.View[uint32](p[l.frame:], depotHead+cfg.Frames); err != nil {
		return fmt.Errorf("lay out frame depot: %w", err)
	}
	if a.super.words, err = mem.View[uint32](p[l.super:], depotHead+cfg.Supers); err != nil {
		return fmt.Errorf("lay out super depot: %w", err)
	}
	all, err := mem.View[[cacheStride]uint32](p[l.caches:], cfg.Caches)
	if err != nil {
		return fmt.Errorf("lay out caches: %w", err)
	}
	a.caches = make([]Cache, cfg.Caches)
	for i := range a.caches {
		a.caches[i] = newCache(a, all[i][:])
	}
	return nil
}

// Config is what the arena was made with.
func (a *Arena) Config() Config {
	return Config{Frames: int(a.frames), Supers: int(a.supers), Caches: len(a.caches)}
}

// Bytes is the memory that packet offsets count in.
func (a *Arena) Bytes() []byte { return a.bytes }

// FrameArea is the part of Bytes that is registered with the kernel: all frames.
func (a *Arena) FrameArea() []byte { return a.bytes[:int(a.frames)<<chunkShift] }

// Frames is the number of frames.
func (a *Arena) Frames() int { return int(a.frames) }

// Supers is the number of superpacket buffers.
func (a *Arena) Supers() int { return int(a.supers) }

// Start is the offset of b's first byte.
//
//fastpath:hot
func (a *Arena) Start(b Buf) uint32 {
	if uint32(b) < a.frames {
		return uint32(b) << chunkShift
	}
	return a.frames<<chunkShift + (uint32(b)-a.frames)*SuperSize
}

// Room is the size of b in bytes.
//
//fastpath:hot
func (a *Arena) Room(b Buf) uint32 {
	if uint32(b) < a.frames {
		return ChunkSize
	}
	return SuperSize
}

// IsFrame tells whether b is a frame, so that a socket can send it as it is.
//
//fastpath:hot
func (a *Arena) IsFrame(b Buf) bool { return uint32(b) < a.frames }

// FrameAt is the frame that the byte at off lies in; off must lie in FrameArea.
//
//fastpath:hot
func FrameAt(off uint64) Buf { return Buf(off >> chunkShift) }

// Segment is b's part of the chain it belongs to; b must be a frame.
//
//fastpath:hot
func (a *Arena) Segment(b Buf) *Segment { return &a.segs[b] }

// Holder tells who frame b was lent to.
func (a *Arena) Holder(b Buf) Holder { return a.holders[b] }

// Lend notes that frame b is in the hands of h from now on.
//
//fastpath:hot
func (a *Arena) Lend(b Buf, h Holder) { a.holders[b] = h }

// Reclaim takes every frame back that h still holds, into c, and returns how
// many. Call it when the socket is closed and cannot touch them any more.
func (a *Arena) Reclaim(h Holder, c *Cache) int {
	n := 0
	for b, holder := range a.holders {
		if holder == h {
			a.holders[b] = Graph
			c.Free(Buf(b))
			n++
		}
	}
	return n
}

// Lent counts the frames in the hands of h. For tests and inspection.
func (a *Arena) Lent(h Holder) int {
	n := 0
	for _, holder := range a.holders {
		if holder == h {
			n++
		}
	}
	return n
}

// Cache is taker i's own stock; each must be used by one goroutine at a time.
func (a *Arena) Cache(i int) *Cache { return &a.caches[i] }

// Free counts free frames and supers, in the depots and all caches. The sum is
// exact only while no cache is in use.
func (a *Arena) Free() (frames, supers int) {
	frames, supers = a.frame.count(), a.super.count()
	for i := range a.caches {
		frames += int(a.caches[i].words[frameCount])
		supers += int(a.caches[i].words[superCount])
	}
	return frames, supers
}

// Fallbacks tells, a line each, what was asked for of the memory and is not in
// force.
func (a *Arena) Fallbacks() []string { return a.region.Fallbacks() }

// Close unmaps the memory. Nothing may use the arena after it.
func (a *Arena) Close() error { return a.region.Close() }
