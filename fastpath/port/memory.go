package port

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

// MemoryConfig makes a port of rings in process.
type MemoryConfig struct {
	Name   string
	Queues int // at least 1
	MTU    int // bytes from the IP header on
	// Offload makes it take superpackets and partial checksums as they are, as a
	// TUN device does; else it gets what goes over a wire, as a NIC does.
	Offload bool
	MAC     net.HardwareAddr // nil for a port without link layer
	Limit   int              // packets a queue holds until they are collected; 0 means 65,536
}

// Packet is a packet outside the arena, and what is known of it: of Meta the
// flags, GSO and checksum fields, L3, and Segments; the rest is made anew.
type Packet struct {
	Bytes []byte
	Meta  graph.Meta
}

// Memory is a port whose other side is Inject and Collect, for tests. A worker
// that sleeps is woken by Inject.
type Memory struct {
	cfg    MemoryConfig
	mtu    atomic.Int32
	queues []*memoryQueue
	closed atomic.Bool
}

var _ Port = (*Memory)(nil)

// NewMemory makes a memory port.
func NewMemory(cfg MemoryConfig) (*Memory, error) {
	if cfg.Queues < 1 {
		return nil, fmt.Errorf("make memory port %s: queues is %d, want at least 1", cfg.Name, cfg.Queues)
	}
	if cfg.Limit == 0 {
		cfg.Limit = 1 << 16
	}
	p := &Memory{cfg: cfg}
	p.mtu.Store(int32(cfg.MTU))
	for range cfg.Queues {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make memory port %s: %w", cfg.Name, err), p.Close(nil))
		}
		p.queues = append(p.queues, &memoryQueue{port: p, fd: fd})
	}
	return p, nil
}

// Name is the name it was given.
func (p *Memory) Name() string { return p.cfg.Name }

// Kind is KindMemory.
func (p *Memory) Kind() Kind { return KindMemory }

// Queues are the port's queues.
func (p *Memory) Queues() []graph.Queue {
	all := make([]graph.Queue, len(p.queues))
	for i, q := range p.queues {
		all[i] = q
	}
	return all
}

// MTU is the most bytes of a packet from the IP header on.
func (p *Memory) MTU() int { return int(p.mtu.Load()) }

// SetMTU changes the MTU.
func (p *Memory) SetMTU(mtu int) { p.mtu.Store(int32(mtu)) }

// MAC is the address it was given.
func (p *Memory) MAC() net.HardwareAddr { return p.cfg.MAC }

// Fallbacks is empty.
func (p *Memory) Fallbacks() []string { return nil }

// Statistics is empty.
func (p *Memory) Statistics() []Statistic { return nil }

// Close closes the queues' descriptors. It holds no buffers between bursts.
func (p *Memory) Close(*umem.Cache) error {
	if p.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, q := range p.queues {
		errs = append(errs, unix.Close(q.fd))
	}
	return errors.Join(errs...)
}

// Inject lets frames come in by queue q. Their bytes are copied when the worker
// takes them. Any goroutine may call it.
func (p *Memory) Inject(q int, frames ...[]byte) {
	packets := make([]Packet, len(frames))
	for i, b := range frames {
		packets[i].Bytes = b
	}
	p.InjectPackets(q, packets...)
}

// InjectPackets is Inject for packets of which something is known.
func (p *Memory) InjectPackets(q int, packets ...Packet) {
	to := p.queues[q]
	to.mu.Lock()
	to.in = append(to.in, packets...)
	to.waiting.Store(int32(len(to.in)))
	to.mu.Unlock()
	one := binary.NativeEndian.AppendUint64(nil, 1)
	_, _ = unix.Write(to.fd, one) // full means that the worker is being woken already
}

// Collect takes what was transmitted by queue q. Any goroutine may call it.
func (p *Memory) Collect(q int) []Packet {
	from := p.queues[q]
	from.mu.Lock()
	defer from.mu.Unlock()
	out := from.out
	from.out = nil
	return out
}

// memoryQueue is not on any fast path: it locks and allocates.
type memoryQueue struct {
	port    *Memory
	fd      int
	waiting atomic.Int32 // packets in in
	low     lowering

	mu      sync.Mutex
	in, out []Packet
}

// RxBurst copies injected packets into buffers.
func (q *memoryQueue) RxBurst(io *graph.IO, ms []graph.Meta) int {
	if q.waiting.Load() == 0 {
		return 0
	}
	q.mu.Lock()
	n := min(len(ms), len(q.in))
	take := q.in[:n]
	q.in = q.in[n:]
	q.waiting.Store(int32(len(q.in)))
	if len(q.in) == 0 {
		var b [8]byte
		_, _ = unix.Read(q.fd, b[:])
	}
	q.mu.Unlock()
	got := 0
	for i := range take {
		if q.admit(io, &take[i], &ms[got]) {
			got++
		}
	}
	return got
}

// admit puts one packet into buffers: a frame, a super where the port has
// superpackets, a chain of frames else.
func (q *memoryQueue) admit(io *graph.IO, p *Packet, m *graph.Meta) bool {
	k := &p.Meta
	*m = graph.Meta{
		Len: uint32(len(p.Bytes)), Head: uint32(len(p.Bytes)), Bufs: 1, Segments: max(1, k.Segments),
		Flags: k.Flags, GSO: k.GSO, GSOSize: k.GSOSize, L3: k.L3, CsumStart: k.CsumStart, CsumOffset: k.CsumOffset,
	}
	var ok bool
	switch {
	case len(p.Bytes) <= chunkRoom:
		m.Buf, ok = io.Cache.Frame()
	case q.port.cfg.Offload:
		m.Buf, ok = io.Cache.Super()
	default:
		ok = q.low.chain(io, p.Bytes, m)
	}
	if !ok {
		m.Head, m.Bufs = 0, 0
		io.DropRx(graph.RxNoBuffer, m)
		return false
	}
	if m.Bufs == 1 {
		m.Off = io.Arena.Start(m.Buf) + umem.Headroom
		copy(io.Mem[m.Off:m.Off+m.Len], p.Bytes)
	}
	return true
}

// TxBurst hands packets to Collect.
func (q *memoryQueue) TxBurst(io *graph.IO, v *graph.Vector) (refused int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range v.Len() {
		m := v.Meta(i)
		if m.Reason = q.emit(io, m); m.Reason != graph.NoReason {
			refused++
		}
	}
	return refused
}

func (q *memoryQueue) emit(io *graph.IO, m *graph.Meta) graph.Reason {
	if q.port.cfg.Offload {
		if len(q.out) >= q.port.cfg.Limit {
			return graph.TxFull
		}
		q.out = append(q.out, Packet{gather(io, m), *m})
		io.Free(m)
		return graph.NoReason
	}
	q.low.n = 0
	if r := q.low.lower(io, m, q.port.cfg.Limit-len(q.out), q.port.MTU()); r != graph.NoReason {
		return r
	}
	whole := Packet{Meta: graph.Meta{L3: m.L3, Segments: 1}}
	for _, d := range q.low.out[:q.low.n] {
		whole.Bytes = append(whole.Bytes, io.Mem[d.Addr:d.Addr+uint64(d.Len)]...)
		io.Cache.Free(umem.FrameAt(d.Addr))
		if d.Options == 0 {
			q.out = append(q.out, whole)
			whole.Bytes = nil
		}
	}
	return graph.NoReason
}

// gather is a copy of a packet, wherever it lies.
func gather(io *graph.IO, m *graph.Meta) []byte {
	p := append([]byte(nil), io.Mem[m.Off:m.Off+m.Head]...)
	b := m.Buf
	for range m.Bufs - 1 {
		b = io.Arena.Segment(b).Next
		s := io.Arena.Segment(b)
		off := io.Arena.Start(b) + uint32(s.Off)
		p = append(p, io.Mem[off:off+uint32(s.Len)]...)
	}
	return p
}

// Poll has nothing to do.
func (q *memoryQueue) Poll(*graph.IO) bool { return false }

// FD becomes readable when something is injected.
func (q *memoryQueue) FD() int { return q.fd }

// InMemory is true: an idle queue is seen by one load.
func (q *memoryQueue) InMemory() bool { return true }
