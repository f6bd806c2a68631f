package xdpgen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
)

const (
	xdpDrop = 1
	xdpPass = 2

	// burst is how many frames a Source that was kept from its CPU sends at
	// once to make up for it; what it is behind by more than that it leaves out.
	burst = 64
	// clockShift makes nanoseconds fine enough to tell rates apart.
	clockShift = 8
	// batch is how many frames the kernel makes before it lets their receiver
	// run, and spins how often each looks at the clock, about spinTime in
	// all, before it gives its turn up.
	batch    = 32
	spins    = 64
	spinTime = time.Microsecond
	// longest is the longest call of the kernel, which nothing interrupts; to
	// set one up and to end it takes some 30 ms.
	longest = time.Second
	// flood is more frames a second than any CPU makes.
	flood = 1e7
	// held is later than any time.
	held = 1 << 62
	// patience is how long one of several Sources waits until all are ready,
	// and lead how long after that they begin.
	patience = 300 * time.Millisecond
	lead     = time.Millisecond
)

// pace is the map of a Source's program. Times are the kernel's monotonic clock,
// shifted.
type pace struct {
	Sent     uint64 // frames redirected
	Due      uint64 // when the next is due; 0 before the first, if that is due at once
	Interval uint64 // between two; 0 for as fast as can be
	Behind   uint64 // how far Due may lie back
	Length   uint64 // from the first on
	Start    uint64 // of the first
	Last     uint64 // when the program last had a frame to send, at most Start and Length
	Running  uint64 // not 0 from the program's first run on
}

// Offsets of the fields of pace.
const (
	atSent, atDue, atInterval, atBehind, atLength, atStart, atLast, atRunning = 0, 8, 16, 24, 32, 40, 48, 56
	paceSize                                                                  = 64
)

// Queue is the receive queue, of so many at the other end of the veth, that frames
// come in at which a Source sends from a CPU: veth spreads what is redirected to it
// by the CPU's number alone, whatever the frames hold.
func Queue(cpu, queues int) int { return cpu % queues }

// Source sends frames of one Stream into a link. It is one goroutine's.
type Source struct {
	ns      *hostnet.Namespace
	cpu     int
	frame   []byte
	pace    *ebpf.Map
	program *ebpf.Program
}

// NewSource makes one that sends into link, in namespace ns, from a CPU. ns must
// stay open.
func NewSource(ns *hostnet.Namespace, link string, cpu int, s Stream) (_ *Source, err error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("make source: %w", err)
	}
	index, _, err := find(ns, link)
	if err != nil {
		return nil, fmt.Errorf("make source: %w", err)
	}
	g := &Source{ns: ns, cpu: cpu, frame: s.Frame()}
	g.pace, err = ebpf.NewMap(&ebpf.MapSpec{Name: "margay_pace", Type: ebpf.Array, KeySize: 4, ValueSize: paceSize, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make source: %w (this needs CAP_BPF)", err)
	}
	g.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "margay_source", Type: ebpf.XDP, License: "GPL", Instructions: g.instructions(s, index),
	})
	if err != nil {
		g.pace.Close()
		return nil, fmt.Errorf("make source: load its program: %w", err)
	}
	return g, nil
}

// instructions are the program: wait for the frame's time, make the frame what it
// was, for a receiver may have written into the page, and redirect it.
func (g *Source) instructions(s Stream, index int) asm.Instructions {
	ins := append(g.await(),
		asm.LoadMem(asm.R1, asm.R6, 0, asm.Word).WithSymbol("send"), // data
		asm.LoadMem(asm.R2, asm.R6, 4, asm.Word),                    // data_end
		asm.Mov.Reg(asm.R3, asm.R1),
		asm.Add.Imm(asm.R3, MinSize),
		asm.JGT.Reg(asm.R3, asm.R2, "drop"))
	for at := 0; at < 32; at += 8 { // as far as the time to live, its checksum, and the hop limit
		ins = append(ins,
			asm.LoadImm(asm.R3, int64(binary.NativeEndian.Uint64(g.frame[at:])), asm.DWord),
			asm.StoreMem(asm.R1, int16(at), asm.R3, asm.DWord))
	}
	udp := int16(s.transport())
	return append(ins,
		asm.LoadMem(asm.R3, asm.R7, atSent, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.R3),
		asm.Add.Imm(asm.R4, 1),
		asm.StoreMem(asm.R7, atSent, asm.R4, asm.DWord),
		asm.Mod.Imm(asm.R3, int32(s.Ports)),
		asm.Add.Imm(asm.R3, firstPort),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.StoreMem(asm.R1, udp, asm.R3, asm.Half),
		asm.Xor.Imm(asm.R3, 0xffff),
		asm.StoreMem(asm.R1, udp+8, asm.R3, asm.Half),
		asm.Mov.Imm(asm.R1, int32(index)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"),
		asm.Return(),
	)
}

// await goes to "send" when the frame is due, and to "drop" when it is not for
// long or the time is over.
func (g *Source) await() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, g.pace.FD(), 0),
		asm.Mov.Imm(asm.R9, spins),
		asm.StoreMem(asm.R7, atRunning, asm.R9, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.LSh.Imm(asm.R0, clockShift),
		asm.LoadMem(asm.R2, asm.R7, atDue, asm.DWord),
		asm.JNE.Imm(asm.R2, 0, "begun"),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.StoreMem(asm.R7, atDue, asm.R0, asm.DWord),
		asm.StoreMem(asm.R7, atStart, asm.R0, asm.DWord),

		asm.LoadMem(asm.R3, asm.R7, atStart, asm.DWord).WithSymbol("begun"),
		asm.LoadMem(asm.R4, asm.R7, atLength, asm.DWord),
		asm.Add.Reg(asm.R3, asm.R4),
		asm.JLT.Reg(asm.R0, asm.R3, "look"),
		asm.StoreMem(asm.R7, atLast, asm.R3, asm.DWord),
		asm.Ja.Label("drop"),

		asm.JGE.Reg(asm.R0, asm.R2, "due").WithSymbol("look"),
		asm.Sub.Imm(asm.R9, 1),
		asm.JEq.Imm(asm.R9, 0, "drop"),
		asm.FnKtimeGetNs.Call(),
		asm.LSh.Imm(asm.R0, clockShift),
		asm.LoadMem(asm.R2, asm.R7, atDue, asm.DWord),
		asm.Ja.Label("look"),

		asm.StoreMem(asm.R7, atLast, asm.R0, asm.DWord).WithSymbol("due"),
		asm.LoadMem(asm.R3, asm.R7, atBehind, asm.DWord),
		asm.Sub.Reg(asm.R0, asm.R3),
		asm.JGE.Reg(asm.R2, asm.R0, "on time"),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.LoadMem(asm.R3, asm.R7, atInterval, asm.DWord).WithSymbol("on time"),
		asm.Add.Reg(asm.R2, asm.R3),
		asm.StoreMem(asm.R7, atDue, asm.R2, asm.DWord),
	}
}

// Sent is what a Source did.
type Sent struct {
	Frames uint64 // given to the link, which may have dropped some
	Took   time.Duration
}

// Rate is frames a second.
func (s Sent) Rate() float64 { return float64(s.Frames) / max(s.Took.Seconds(), 1e-9) }

// Send offers frames for d, evenly at rate frames a second, or at rate 0 as many
// as the CPU makes. It takes the CPU whole meanwhile. Where somebody else takes of
// it, fewer go out than rate says: Sent tells how many did. It ends within a
// second of ctx, which is no error.
func (g *Source) Send(ctx context.Context, rate float64, d time.Duration) (Sent, error) {
	return g.send(ctx, pace{}, rate, d)
}

// SendAll has Sources, each of a CPU of its own, send as Send does, rate frames a
// second each. They begin at the same time: what it takes the kernel to set each up
// differs by more than a short d. One whose CPU is taken from it just then loses of
// its d.
func SendAll(ctx context.Context, sources []*Source, rate float64, d time.Duration) ([]Sent, error) {
	if len(sources) == 1 { // has nobody to wait for
		sent, err := sources[0].Send(ctx, rate, d)
		return []Sent{sent}, err
	}
	sent, errs := make([]Sent, len(sources)), make([]error, len(sources)+1)
	for _, g := range sources {
		if err := g.pace.Put(uint32(0), pace{}); err != nil {
			return nil, fmt.Errorf("send frames: %w", err)
		}
	}
	var all sync.WaitGroup
	var ended atomic.Bool
	for i, g := range sources {
		all.Go(func() {
			sent[i], errs[i] = g.send(ctx, pace{Due: held, Start: held}, rate, d)
			ended.Store(true)
		})
	}
	errs[len(sources)] = release(sources, &ended)
	all.Wait()
	return sent, errors.Join(errs...)
}

// release has Sources begin that are held, as soon as all of them run, or one could
// not and has ended.
func release(sources []*Source, ended *atomic.Bool) error {
	var p pace
	for _, g := range sources {
		for end := time.Now().Add(patience); p.Running == 0 && !ended.Load() && time.Now().Before(end); time.Sleep(lead) {
			if err := g.pace.Lookup(uint32(0), &p); err != nil {
				return fmt.Errorf("wait until a source runs: %w", err)
			}
		}
		p.Running = 0
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil { // what the program reads
		return fmt.Errorf("read the time: %w", err)
	}
	at := uint64(now.Nano()+int64(lead)) << clockShift
	for _, g := range sources {
		err := g.pace.Lookup(uint32(0), &p)
		if p.Due, p.Start = at, at; err == nil {
			err = g.pace.Put(uint32(0), p)
		}
		if err != nil {
			return fmt.Errorf("have a source begin: %w", err)
		}
	}
	return nil
}

// send sends from what p says on: at once, or when somebody says so.
func (g *Source) send(ctx context.Context, p pace, rate float64, d time.Duration) (sent Sent, err error) {
	if rate < 0 || rate > flood {
		return sent, fmt.Errorf("send frames: rate is %g a second, want 0 to %g", rate, flood)
	}
	err = g.ns.Do(func() error {
		return pinned(g.cpu, func() error {
			for left := d; left > 0 && ctx.Err() == nil; left -= longest {
				if err := g.call(p, rate, min(left, longest), &sent); err != nil {
					return err
				}
				p = pace{}
			}
			return nil
		})
	})
	if err != nil {
		return sent, fmt.Errorf("send frames: %w", err)
	}
	return sent, nil
}

// call has the kernel run the program for d from p.Start on, and adds up what was
// sent. The kernel looks up the link in the namespace of the thread that asks.
func (g *Source) call(p pace, rate float64, d time.Duration, sent *Sent) error {
	p.Length = uint64(d) << clockShift
	runs := flood * d.Seconds()
	if rate > 0 {
		p.Interval = uint64(1e9 * (1 << clockShift) / rate)
		p.Behind = (burst - 1) * p.Interval
		runs = rate*d.Seconds() + float64(d/spinTime) // those that send, and those that give up
	}
	if p.Start == held {
		runs += float64(patience / spinTime)
	}
	if err := g.pace.Put(uint32(0), p); err != nil {
		return err
	}
	head := make([]byte, 24) // struct xdp_md; its second word, data_end, is the length
	binary.NativeEndian.PutUint32(head[4:], uint32(len(g.frame)))
	_, err := g.program.Run(&ebpf.RunOptions{
		Data: g.frame, Context: head, Repeat: uint32(runs) + batch, BatchSize: batch, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES,
	})
	if err != nil {
		return err
	}
	if err := g.pace.Lookup(uint32(0), &p); err != nil {
		return err
	}
	sent.Frames += p.Sent
	sent.Took += time.Duration((p.Last - min(p.Start, p.Last)) >> clockShift)
	return nil
}

// Close unloads the program.
func (g *Source) Close() error { return errors.Join(g.program.Close(), g.pace.Close()) }

// pinned runs f with the thread, which the caller has locked, on a CPU.
func pinned(cpu int, f func() error) error {
	var was, want unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return err
	}
	want.Set(cpu)
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		return fmt.Errorf("pin to CPU %d of %d: %w", cpu, runtime.NumCPU(), err)
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &was))
}

// find is the index of a link in its namespace, and how many receive queues are in use.
func find(ns *hostnet.Namespace, link string) (index, queues int, err error) {
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return 0, 0, err
	}
	defer h.Close()
	l, err := h.Link(link)
	if err != nil {
		return 0, 0, err
	}
	c, err := h.Channels(link)
	return l.Index, c.Rx + c.Combined, err
}
