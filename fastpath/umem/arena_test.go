package umem

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func arena(t testing.TB, frames, supers, caches int) *Arena {
	t.Helper()
	a, err := New(Config{Frames: frames, Supers: supers, Caches: caches})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func TestNewRefusesSizes(t *testing.T) {
	for name, cfg := range map[string]Config{
		"too few frames":        {Frames: 63, Caches: 1},
		"no taker":              {Frames: 64},
		"negative supers":       {Frames: 64, Supers: -1, Caches: 1},
		"more than offsets see": {Frames: 1 << 20, Supers: 1, Caches: 1},
	} {
		t.Run(name, func(t *testing.T) {
			if a, err := New(cfg); err == nil {
				_ = a.Close()
				t.Errorf("%+v was accepted", cfg)
			}
		})
	}
}

func TestEveryBufferHasItsOwnRoom(t *testing.T) {
	a := arena(t, 100, 3, 1)
	end := uint32(0)
	for b := range Buf(103) {
		if a.Start(b) != end {
			t.Fatalf("buffer %d starts at %d, want %d", b, a.Start(b), end)
		}
		end += a.Room(b)
	}
	if int(end) != len(a.Bytes()) {
		t.Errorf("buffers end at %d, memory at %d", end, len(a.Bytes()))
	}
	if got := FrameAt(uint64(a.Start(42) + 4095)); got != 42 {
		t.Errorf("last byte of frame 42 lies in %d", got)
	}
}

func TestNoBufferIsLostOrGivenTwice(t *testing.T) {
	a := arena(t, 2000, 40, 2)
	held := map[Buf]bool{}
	rnd := rand.New(rand.NewPCG(1, 2))
	var order []Buf
	for range 20_000 {
		c := a.Cache(rnd.IntN(2))
		if rnd.IntN(2) == 0 && len(order) > 0 {
			i := rnd.IntN(len(order))
			c.Free(order[i])
			delete(held, order[i])
			order[i] = order[len(order)-1]
			order = order[:len(order)-1]
			continue
		}
		take := c.Frame
		if rnd.IntN(20) == 0 {
			take = c.Super
		}
		if b, ok := take(); ok {
			if held[b] {
				t.Fatalf("buffer %d was given out twice", b)
			}
			held[b] = true
			order = append(order, b)
		}
	}
	for _, b := range order {
		a.Cache(0).Free(b)
	}
	if f, s := a.Free(); f != 2000 || s != 40 {
		t.Errorf("%d frames and %d supers are free, want 2000 and 40", f, s)
	}
}

// Frames received by one worker and freed by another must find their way back.
func TestOneWayTrafficDoesNotLeak(t *testing.T) {
	a := arena(t, 1024, 0, 2)
	pass := make(chan Buf, 256)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; n < 200_000; {
			if b, ok := a.Cache(0).Frame(); ok {
				pass <- b
				n++
			}
		}
		close(pass)
	})
	wg.Go(func() {
		for b := range pass {
			a.Cache(1).Free(b)
		}
	})
	wg.Wait()
	if f, _ := a.Free(); f != 1024 {
		t.Errorf("%d frames are free, want 1024", f)
	}
}

func TestReclaimTakesBackWhatASocketHeld(t *testing.T) {
	a := arena(t, 128, 0, 1)
	c := a.Cache(0)
	for range 50 {
		b, _ := c.Frame()
		a.Lend(b, 3)
	}
	if got := a.Lent(3); got != 50 {
		t.Fatalf("%d frames lent, want 50", got)
	}
	if got := a.Reclaim(3, c); got != 50 {
		t.Errorf("took %d frames back, want 50", got)
	}
	c.Flush()
	if f, _ := a.Free(); f != 128 {
		t.Errorf("%d frames are free, want 128", f)
	}
}

func TestFreeChainFollowsSegments(t *testing.T) {
	a := arena(t, 64, 0, 1)
	c := a.Cache(0)
	var chain [3]Buf
	c.Frames(chain[:])
	a.Segment(chain[0]).Next = chain[1]
	a.Segment(chain[1]).Next = chain[2]
	c.FreeChain(chain[0], 3)
	if f, _ := a.Free(); f != 64 {
		t.Errorf("%d frames are free, want 64", f)
	}
}

func TestCacheDoesNotAllocate(t *testing.T) {
	a := arena(t, 2048, 32, 1)
	c := a.Cache(0)
	var bufs [1024]Buf
	if n := testing.AllocsPerRun(50, func() {
		n := c.Frames(bufs[:])
		for _, b := range bufs[:n] {
			c.Free(b)
		}
		if s, ok := c.Super(); ok {
			c.Free(s)
		}
	}); n != 0 {
		t.Errorf("%v allocations per run, want 0", n)
	}
}

func BenchmarkFrame(b *testing.B) {
	a := arena(b, 2048, 0, 1)
	c := a.Cache(0)
	b.ReportAllocs()
	for b.Loop() {
		f, _ := c.Frame()
		c.Free(f)
	}
}

func TestSurplusLeavesFramesForPacketsOnTheirWay(t *testing.T) {
	a, err := New(Config{Frames: 256, Caches: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	idle, c := a.Cache(0), a.Cache(1)
	took := make([]Buf, 300)
	n := 0
	for got := -1; got != 0; n += got { // as rings that fill up while nothing happens
		got = idle.Surplus(took[n:min(n+64, len(took))])
	}
	idle.Flush()
	if n != 256-256/8 {
		t.Errorf("%d of 256 frames were to spare, want %d", n, 256-256/8)
	}
	if got := c.Frames(make([]Buf, 64)); got != 256/8 {
		t.Errorf("%d frames are left for packets on their way, want %d", got, 256/8)
	}
	if got := idle.Surplus(took[:1]); got != 0 {
		t.Errorf("%d frames were to spare when there was none", got)
	}
	idle.Free(took[0])
	if got := idle.Surplus(took[:1]); got != 0 {
		t.Errorf("%d frames were to spare of the first that came back", got)
	}
}

// What Spare promises to fill rings they get, though caches are as full as can be.
func TestFillRingsGetWhatIsSpare(t *testing.T) {
	const caches = 4
	for name, frames := range map[string]int{"ample": 16384, "no multiple of eight": 16383, "just ample": (caches - 1) * reserved * frameStock} {
		t.Run(name, func(t *testing.T) {
			a := arena(t, frames, 0, caches)
			bufs := make([]Buf, frames)
			for i := 1; i < caches; i++ {
				for _, b := range bufs[:a.Cache(i).Frames(bufs[:2*frameStock])] {
					a.Cache(i).Free(b)
				}
				if n := a.caches[i].words[frameCount]; n != frameStock {
					t.Fatalf("cache %d holds %d frames, want it full", i, n)
				}
			}
			spare := a.Spare()
			got := 0
			for n := -1; n != 0; got += n {
				n = a.Cache(0).Surplus(bufs[got:min(got+64, len(bufs))])
			}
			if got < spare {
				t.Errorf("fill rings got %d frames, but %d were spare", got, spare)
			}
		})
	}
}

func TestFramesForMakesThemSpare(t *testing.T) {
	for _, caches := range []int{1, 2, 32} {
		for spare := range 20_000 {
			a := Arena{caches: make([]Cache, caches)} // counts, and no memory
			a.frames = uint32(a.FramesFor(spare))
			if a.Spare() < spare {
				t.Fatalf("%d frames are to make %d spare beside %d caches, but make %d", a.frames, spare, caches, a.Spare())
			}
		}
	}
}
