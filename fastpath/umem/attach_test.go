package umem

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/mem"
)

// attach maps a once more, as another process does.
func attach(t *testing.T, a *Arena, cfg Config) (*Arena, error) {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(a.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Attach(fd, cfg)
	if err != nil {
		if other := unix.Close(fd); other != nil {
			t.Errorf("a failed attach closed its descriptor: %v", other)
		}
		return nil, err
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, nil
}

// mappings counts the arenas that this process has mapped.
func mappings(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "memfd:margay-arena")
}

func TestAttachGoesOnWithTheAccount(t *testing.T) {
	cfg := Config{Frames: 2000, Supers: 40, Caches: 3}
	a := arena(t, cfg.Frames, cfg.Supers, cfg.Caches)
	if a.Config() != cfg {
		t.Fatalf("the arena was made with %+v, want %+v", a.Config(), cfg)
	}
	var held [700]Buf
	if n := a.Cache(1).Frames(held[:]); n != len(held) {
		t.Fatalf("got %d frames", n)
	}
	super, _ := a.Cache(0).Super()
	a.Lend(held[3], 7)
	copy(a.Bytes()[a.Start(super):], "hello")

	b, err := attach(t, a, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if f, s := b.Free(); f != cfg.Frames-len(held) || s != cfg.Supers-1 {
		t.Errorf("%d frames and %d supers are free after the attach", f, s)
	}
	if got := string(b.Bytes()[b.Start(super):][:5]); got != "hello" || b.Holder(held[3]) != 7 {
		t.Errorf("the attached arena reads %q, and holder %d", got, b.Holder(held[3]))
	}
	if told := b.Fallbacks(); len(told) != 0 {
		t.Errorf("what the maker has told is told again: %q", told)
	}
	for _, f := range held {
		b.Cache(1).Free(f)
	}
	b.Cache(0).Free(super)
	if f, s := a.Free(); f != cfg.Frames || s != cfg.Supers {
		t.Errorf("%d frames and %d supers are free in the end, want all", f, s)
	}
}

func TestAttachRefuses(t *testing.T) {
	cfg := Config{Frames: 100, Supers: 5, Caches: 2}
	with := func(change func(*Config)) Config {
		other := cfg
		change(&other)
		return other
	}
	tests := map[string]struct {
		cfg   Config
		spoil func(*Arena)
		want  error // nil: any
	}{
		"more frames":        {cfg: with(func(c *Config) { c.Frames++ })},
		"fewer supers":       {cfg: with(func(c *Config) { c.Supers-- })},
		"another cache":      {cfg: with(func(c *Config) { c.Caches++ })},
		"no frames":          {cfg: with(func(c *Config) { c.Frames = 0 })},
		"absurd caches":      {cfg: with(func(c *Config) { c.Caches = 1 << 60 })},
		"frame count":        {cfg, func(a *Arena) { a.frame.words[depotCount] = 101 }, mem.ErrCorrupt},
		"super count":        {cfg, func(a *Arena) { a.super.words[depotCount] = 1 << 31 }, mem.ErrCorrupt},
		"frame in depot":     {cfg, func(a *Arena) { a.frame.words[depotHead+7] = 100 }, mem.ErrCorrupt},
		"frame for super":    {cfg, func(a *Arena) { a.super.words[depotHead] = 99 }, mem.ErrCorrupt},
		"super too high":     {cfg, func(a *Arena) { a.super.words[depotHead+4] = 105 }, mem.ErrCorrupt},
		"cache count":        {cfg, func(a *Arena) { a.Cache(1).words[frameCount] = frameStock + 1 }, mem.ErrCorrupt},
		"cached frame":       {cfg, func(a *Arena) { a.Cache(1).words[frameCount], a.Cache(1).words[frameBase] = 1, 1<<32-1 }, mem.ErrCorrupt},
		"cached super count": {cfg, func(a *Arena) { a.Cache(0).words[superCount] = superStock + 1 }, mem.ErrCorrupt},
		"cached super":       {cfg, func(a *Arena) { a.Cache(0).words[superCount] = 1 }, mem.ErrCorrupt},
		"another version":    {cfg, ageHeader, mem.ErrCorrupt},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := arena(t, cfg.Frames, cfg.Supers, cfg.Caches)
			if tt.spoil != nil {
				tt.spoil(a)
			}
			_, err := attach(t, a, tt.cfg)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("attach says %v, want %v", err, tt.want)
			}
			if n := mappings(t); n != 1 {
				t.Errorf("%d arenas are mapped after a refusal, want 1", n)
			}
		})
	}
}

// ageHeader changes the version in an arena's header, and not its checksum.
func ageHeader(a *Arena) {
	b, err := unix.Mmap(a.FD(), 0, mem.HeaderSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	b[12]++
	if err := unix.Munmap(b); err != nil {
		panic(err)
	}
}

// Whatever a process wrote before it died, all of it is refused or can be
// rebuilt: the account is exact, and nothing is given out twice.
func FuzzRebuild(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add([]byte("\x00\x00\x01\x00\xff\xff\xff\xff"), uint64(2))
	f.Fuzz(func(t *testing.T, writes []byte, seed uint64) {
		cfg := Config{Frames: 300, Supers: 30, Caches: 2}
		a := arena(t, cfg.Frames, cfg.Supers, cfg.Caches)
		held, lent := share(a, rand.New(rand.NewPCG(seed, 1)))
		spoil(a, writes)
		if b, err := attach(t, a, cfg); err == nil {
			_ = b.Fallbacks()
		}
		a.Rebuild(append(held, None, Buf(cfg.Frames+cfg.Supers))) // and two that are no buffers
		exact(t, a, held, lent)
	})
}

// spoil writes over locks, free lists and caches: four bytes of where, four of what.
func spoil(a *Arena, writes []byte) {
	areas := [][]uint32{a.frame.words, a.super.words, a.caches[0].words[:], a.caches[1].words[:]}
	for ; len(writes) >= 8; writes = writes[8:] {
		area := areas[int(writes[0])%len(areas)]
		area[int(binary.LittleEndian.Uint16(writes[2:]))%len(area)] = binary.LittleEndian.Uint32(writes[4:])
	}
}

// share takes buffers of all kinds out of an arena, in an order of rnd's.
func share(a *Arena, rnd *rand.Rand) (held []Buf, lent map[Buf]Holder) {
	lent = map[Buf]Holder{}
	for range 200 {
		c := a.Cache(rnd.IntN(2))
		b, ok := c.Frame()
		if rnd.IntN(10) == 0 && ok {
			c.Free(b)
			b, ok = c.Super()
		}
		switch {
		case !ok:
		case rnd.IntN(3) == 0:
			c.Free(b)
		case a.IsFrame(b) && rnd.IntN(2) == 0:
			lent[b] = Holder(1 + rnd.IntN(3))
			a.Lend(b, lent[b])
		default:
			held = append(held, b)
		}
	}
	return held, lent
}

// exact takes everything that is free and compares it with the oracle: all
// buffers but those that were shared out.
func exact(t *testing.T, a *Arena, held []Buf, lent map[Buf]Holder) {
	t.Helper()
	free := map[Buf]bool{}
	for b := range Buf(a.Frames() + a.Supers()) {
		free[b] = lent[b] == Graph
	}
	for _, b := range held {
		free[b] = false
	}
	c := a.Cache(1)
	for _, take := range []func() (Buf, bool){c.Frame, c.Super} {
		for b, ok := take(); ok; b, ok = take() {
			if !free[b] {
				t.Fatalf("buffer %d was given out though it is not free, or twice", b)
			}
			free[b] = false
		}
	}
	for b, left := range free {
		if left {
			t.Errorf("buffer %d is lost", b)
		}
	}
	for b, h := range lent {
		if a.Holder(b) != h {
			t.Errorf("frame %d is in the hands of %d, was lent to %d", b, a.Holder(b), h)
		}
	}
}

func TestRebuildAfterDeathWithTheLock(t *testing.T) {
	a := arena(t, 2048, 64, 2)
	held, lent := share(a, rand.New(rand.NewPCG(4, 5)))
	a.frame.lock()
	a.super.lock()
	a.frame.words[depotCount] = 1<<32 - 1
	a.Cache(0).words[frameCount] = 1 << 30
	a.Cache(1).words[superCount] = 99
	a.Rebuild(held)
	exact(t, a, held, lent)
}
