package xsk

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel reads is laid out as the kernel says.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(Desc{})-unsafe.Sizeof(unix.XDPDesc{})]
	_ = [1]struct{}{}[unsafe.Offsetof(Desc{}.Len)-unsafe.Offsetof(unix.XDPDesc{}.Len)]
	_ = [1]struct{}{}[unsafe.Offsetof(Desc{}.Options)-unsafe.Offsetof(unix.XDPDesc{}.Options)]
	_ = [1]struct{}{}[PktContd-unix.XDP_PKT_CONTD]
)

// kernelRing is the kernel's end of a ring over ordinary memory, written plainly.
type kernelRing[T any] struct {
	producer, consumer, flags uint32
	entries                   []T
}

// newKernelRing makes an empty ring whose cursors stand at start.
func newKernelRing[T any](size int, start uint32) *kernelRing[T] {
	return &kernelRing[T]{producer: start, consumer: start, entries: make([]T, size)}
}

func (k *kernelRing[T]) words() words { return words{&k.producer, &k.consumer, &k.flags} }

// produce writes up to len(v) entries, as the kernel does to rx and completion rings.
func (k *kernelRing[T]) produce(v []T) int {
	at := atomic.LoadUint32(&k.producer)
	n := min(len(v), len(k.entries)-int(at-atomic.LoadUint32(&k.consumer)))
	for i := range n {
		k.entries[(at+uint32(i))%uint32(len(k.entries))] = v[i]
	}
	atomic.StoreUint32(&k.producer, at+uint32(n))
	return n
}

// consume reads up to n entries, as the kernel does from fill and tx rings.
func (k *kernelRing[T]) consume(n int) []T {
	at := atomic.LoadUint32(&k.consumer)
	v := make([]T, 0, n)
	for range min(n, int(atomic.LoadUint32(&k.producer)-at)) {
		v = append(v, k.entries[at%uint32(len(k.entries))])
		at++
	}
	atomic.StoreUint32(&k.consumer, at)
	return v
}

// kernelEnd is the kernel's end of all four rings of a socket.
type kernelEnd struct {
	rx, tx           *kernelRing[Desc]
	fill, completion *kernelRing[uint64]
}

// newFakeSocket makes a socket over ordinary memory.
func newFakeSocket(size int, start uint32) (*Socket, *kernelEnd) {
	k := &kernelEnd{
		rx: newKernelRing[Desc](size, start), tx: newKernelRing[Desc](size, start),
		fill: newKernelRing[uint64](size, start), completion: newKernelRing[uint64](size, start),
	}
	return &Socket{
		rx:         newConsumer(k.rx.words(), k.rx.entries),
		tx:         newProducer(k.tx.words(), k.tx.entries),
		fill:       newProducer(k.fill.words(), k.fill.entries),
		completion: newConsumer(k.completion.words(), k.completion.entries),
		fd:         -1,
	}, k
}

// packets makes descriptors numbered from n of packets with the given numbers of chunks.
func packets(n uint64, chunks ...int) []Desc {
	var d []Desc
	for _, c := range chunks {
		for i := range c {
			desc := Desc{Addr: n, Len: uint32(c)}
			if i < c-1 {
				desc.Options = PktContd
			}
			d = append(d, desc)
			n++
		}
	}
	return d
}

func TestTransmitTakesWholePackets(t *testing.T) {
	tests := map[string]struct {
		busy   int // slots taken of 8
		chunks []int
		want   int
	}{
		"all fit":                            {0, []int{1, 1, 1}, 3},
		"single chunks are cut anywhere":     {6, []int{1, 1, 1}, 2},
		"a packet that does not fit waits":   {6, []int{1, 3}, 1},
		"a packet fits exactly":              {4, []int{1, 3, 1}, 4},
		"no room for the first":              {6, []int{3}, 0},
		"full":                               {8, []int{1}, 0},
		"longer than the ring":               {0, []int{9}, 0},
		"nothing to send":                    {0, nil, 0},
		"the ring is filled to the last one": {0, []int{4, 4, 1}, 8},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, k := newFakeSocket(8, math.MaxUint32-2)
			s.Transmit(packets(100, slices.Repeat([]int{1}, tt.busy)...))
			d := packets(0, tt.chunks...)
			if got := s.Transmit(d); got != tt.want {
				t.Fatalf("took %d descriptors, want %d", got, tt.want)
			}
			if got := s.TransmitPending(); got != uint32(tt.busy+tt.want) {
				t.Errorf("%d pending, want %d", got, tt.busy+tt.want)
			}
			k.tx.consume(tt.busy)
			if got := k.tx.consume(8); !slices.Equal(got, d[:tt.want]) {
				t.Errorf("kernel saw %v, want %v", got, d[:tt.want])
			}
		})
	}
}

func TestTransmitHoldsBackAnUnfinishedPacket(t *testing.T) {
	s, _ := newFakeSocket(8, 0)
	d := packets(0, 1, 3)[:3] // the last chunk is missing
	if got := s.Transmit(d); got != 1 {
		t.Errorf("took %d descriptors, want the whole packet only", got)
	}
}

func TestReceiveGivesWholePackets(t *testing.T) {
	s, k := newFakeSocket(16, math.MaxUint32-5)
	sent := packets(0, 2, 3, 1, 5, 1)
	k.rx.produce(sent)
	d := make([]Desc, 4)
	var got []Desc
	for _, want := range []int{2, 4, 4, 2} { // the packet of 5 does not fit into 4
		n := s.Receive(d)
		if n != want {
			t.Fatalf("received %d descriptors after %d, want %d", n, len(got), want)
		}
		got = append(got, d[:n]...)
	}
	if !slices.Equal(got, sent) {
		t.Errorf("received %v, want %v", got, sent)
	}
	if n := s.Receive(d); n != 0 {
		t.Errorf("received %d descriptors of an empty ring", n)
	}
}

func TestWakeupFlagsAreRead(t *testing.T) {
	s, k := newFakeSocket(8, 0)
	k.tx.flags, k.fill.flags = ringNeedWakeup, ringNeedWakeup
	if s.KickNeeded() {
		t.Error("kick needed with nothing to send")
	}
	s.Transmit(packets(0, 1))
	if !s.KickNeeded() || !s.WakeNeeded() {
		t.Error("the kernel's flags were not seen")
	}
	k.tx.flags, k.fill.flags = 0, 0
	if s.KickNeeded() || s.WakeNeeded() {
		t.Error("wakeup needed although the kernel looks by itself")
	}
}

func TestClosedSocketTakesNothing(t *testing.T) {
	s, _ := newFakeSocket(8, 0)
	s.closeRings()
	d, a := make([]Desc, 4), make([]uint64, 4)
	for name, n := range map[string]int{
		"Receive": s.Receive(d), "Fill": s.Fill(a), "Transmit": s.Transmit(d), "Complete": s.Complete(a),
		"TransmitFree": int(s.TransmitFree()), "TransmitQueued": int(s.TransmitQueued()),
	} {
		if n != 0 {
			t.Errorf("%s on a closed socket returns %d", name, n)
		}
	}
}

// giveWay lets the other end have the CPU, if there is but one, when an end has
// looked and found nothing for long.
func giveWay(looks *int, moved bool) {
	if *looks++; moved {
		*looks = 0
	} else if *looks > 1000 {
		time.Sleep(time.Microsecond)
	}
}

// TestRingsPassEntriesBetweenThreads has the race detector judge the memory order:
// the entries are plain memory, the cursors alone order them.
func TestRingsPassEntriesBetweenThreads(t *testing.T) {
	const total = 200_000
	s, k := newFakeSocket(64, math.MaxUint32-total/2)
	go func() { // the kernel: sends back what is filled, completes what is transmitted
		for moved, looks := 0, 0; moved < 2*total; {
			before := moved
			for _, a := range k.fill.consume(7) {
				for k.rx.produce([]Desc{{Addr: a}}) == 0 {
					runtime.Gosched()
				}
				moved++
			}
			for _, d := range k.tx.consume(5) {
				for k.completion.produce([]uint64{d.Addr}) == 0 {
					runtime.Gosched()
				}
				moved++
			}
			giveWay(&looks, moved > before)
		}
	}()
	d, a := make([]Desc, 16), make([]uint64, 16)
	var filled, received, completed uint64
	for looks := 0; completed < total; {
		before := filled + received + completed
		// No more on the way than the rx ring holds, or the kernel's end waits for ever.
		n := min(uint64(len(a)), total-filled, 64-(filled-received))
		for i := range n {
			a[i] = filled + i
		}
		filled += uint64(s.Fill(a[:n]))
		// Take no more than the tx ring has room for.
		got := s.Receive(d[:min(len(d), int(s.TransmitFree()))])
		for _, x := range d[:got] {
			if x.Addr != received {
				t.Fatalf("received %d, want %d", x.Addr, received)
			}
			received++
		}
		if sent := s.Transmit(d[:got]); sent != got {
			t.Fatalf("transmitted %d of %d although there was room", sent, got)
		}
		for _, x := range a[:s.Complete(a)] {
			if x != completed {
				t.Fatalf("completed %d, want %d", x, completed)
			}
			completed++
		}
		giveWay(&looks, filled+received+completed > before)
	}
	if s.TransmitPending() != 0 {
		t.Errorf("%d pending after all completed", s.TransmitPending())
	}
}

// model is what a socket is to do, by plain queues.
type model struct {
	size                     int
	rx, tx                   []Desc
	fill, completion         []uint64
	nextPacket, nextAddress  uint64
	transmitted, completions int
}

// FuzzRings has a socket and its model go through the same calls.
func FuzzRings(f *testing.F) {
	f.Add([]byte{0, 5, 1, 3, 2, 9, 3, 2, 4, 4, 5, 8, 6, 4, 7, 9}, uint32(0))
	f.Add([]byte{4, 0xff, 5, 3, 4, 0x35, 6, 9, 7, 2, 4, 1}, uint32(math.MaxUint32))
	random := make([]byte, 4000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	f.Add(random, uint32(math.MaxUint32-100))
	f.Fuzz(func(t *testing.T, calls []byte, start uint32) {
		const size = 16
		s, k := newFakeSocket(size, start)
		m := &model{size: size}
		for i := 0; i+1 < len(calls); i += 2 {
			m.step(t, s, k, calls[i]%8, int(calls[i+1]))
			m.check(t, s)
		}
	})
}

// step makes one call of either end; n is how much of it.
func (m *model) step(t *testing.T, s *Socket, k *kernelEnd, call byte, n int) {
	switch few := n % 24; call {
	case 0:
		a := make([]uint64, few)
		for i := range a {
			a[i] = m.nextAddress + uint64(i)
		}
		want := min(few, m.size-len(m.fill))
		equal(t, "filled", s.Fill(a), want)
		m.fill = append(m.fill, a[:want]...)
		m.nextAddress += uint64(want)
	case 1:
		want := min(few, len(m.fill))
		equalSlices(t, "kernel's fill ring", k.fill.consume(few), m.fill[:want])
		m.fill = m.fill[want:]
	case 2:
		d := packets(m.nextPacket, 1+n%4, 1+n/4%4, 1+n/16%4)
		if len(d) <= m.size-len(m.rx) {
			k.rx.produce(d)
			m.rx = append(m.rx, d...)
			m.nextPacket += uint64(len(d))
		}
	case 3:
		d := make([]Desc, few)
		want := m.receivable(few)
		equal(t, "received", s.Receive(d), want)
		equalSlices(t, "received", d[:want], m.rx[:want])
		m.rx = m.rx[want:]
	case 4:
		d := packets(m.nextPacket, 1+n%4, 1+n/4%4, 1+n/16%4, 1+n/64)
		want := wholeBefore(d, m.size-len(m.tx))
		equal(t, "transmitted", s.Transmit(d), want)
		m.tx = append(m.tx, d[:want]...)
		m.nextPacket += uint64(want)
		m.transmitted += want
	case 5:
		want := min(few, len(m.tx))
		equalSlices(t, "kernel's tx ring", k.tx.consume(few), m.tx[:want])
		m.tx = m.tx[want:]
	case 6:
		a := make([]uint64, min(few, m.size-len(m.completion), m.transmitted-m.completions-len(m.completion)))
		k.completion.produce(a)
		m.completion = append(m.completion, a...)
	case 7:
		a := make([]uint64, few)
		want := min(few, len(m.completion))
		equal(t, "completed", s.Complete(a), want)
		equalSlices(t, "completed", a[:want], m.completion[:want])
		m.completion = m.completion[want:]
		m.completions += want
	}
}

// receivable is what Receive returns with room for n: whole packets, or a part of
// one that is longer than n.
func (m *model) receivable(n int) int {
	if w := wholeBefore(m.rx, n); w != 0 {
		return w
	}
	return min(n, len(m.rx))
}

// wholeBefore counts the descriptors of d's whole packets within the first n,
// packet by packet from the front.
func wholeBefore(d []Desc, n int) int {
	whole := 0
	for i := range min(n, len(d)) {
		if d[i].Options&PktContd == 0 {
			whole = i + 1
		}
	}
	return whole
}

func (m *model) check(t *testing.T, s *Socket) {
	t.Helper()
	equal(t, "room of the fill ring", int(s.fill.room(uint32(m.size))), m.size-len(m.fill))
	equal(t, "room of the tx ring", int(s.TransmitFree()), m.size-len(m.tx))
	equal(t, "queued", int(s.TransmitQueued()), len(m.tx))
	equal(t, "pending", int(s.TransmitPending()), m.transmitted-m.completions)
}

func equal(t *testing.T, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %d, want %d", what, got, want)
	}
}

func equalSlices[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// cycle moves a burst once around: filled, received, transmitted, completed.
func cycle(s *Socket, k *kernelEnd, d []Desc, a []uint64) {
	s.Fill(a)
	k.fill.consumer = k.fill.producer
	k.rx.producer += uint32(len(d))
	s.Receive(d)
	s.Transmit(d)
	k.tx.consumer = k.tx.producer
	k.completion.producer += uint32(len(a))
	s.Complete(a)
}

func TestBurstsDoNotAllocate(t *testing.T) {
	s, k := newFakeSocket(2048, 0)
	d, a := make([]Desc, 64), make([]uint64, 64)
	if n := testing.AllocsPerRun(1000, func() { cycle(s, k, d, a) }); n != 0 {
		t.Errorf("%v allocs per cycle, want 0", n)
	}
	if s.TransmitPending() != 0 {
		t.Errorf("%d pending: the cycle did not go around", s.TransmitPending())
	}
}

// BenchmarkBurst is one cycle of fill, receive, transmit and complete.
func BenchmarkBurst(b *testing.B) {
	const burst = 64
	s, k := newFakeSocket(2048, 0)
	d, a := make([]Desc, burst), make([]uint64, burst)
	b.ReportAllocs()
	for b.Loop() {
		cycle(s, k, d, a)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*burst), "ns/pkt")
}
