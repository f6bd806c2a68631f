package xdpgen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/pkt"
)

// caught is an entry, for a receive queue, of the map where a Sink's program leaves
// a frame that was asked for.
type caught struct {
	Wanted uint64 // 1 until one came
	Size   uint64 // of the whole frame
	Head   [MinSize]byte
}

// Offsets of the fields of caught.
const (
	atWanted, atSize, atHead = 0, 8, 16
	caughtSize               = atHead + MinSize
)

// sunk is an entry of the map of a Sink's program, which has one for each receive
// queue: the kernel runs the program on one CPU at a time for each. Every mark-th
// frame it looks at the clock.
type sunk struct {
	Frames uint64
	First  uint64 // time of the first mark; 0 before
	Last   uint64 // time of the last mark
	Marked uint64 // Frames then
}

// Offsets of the fields of sunk.
const (
	mark                                  = 64
	atFrames, atFirst, atLastMark, atMark = 0, 8, 16, 24
	sunkSize                              = 32
	// atQueue is rx_queue_index in struct xdp_md.
	atQueue = 16
)

// Sink counts the frames of Sources that come in at a link. Its program is held by
// a bpf_link, which goes with the process.
type Sink struct {
	queues       int // that it counts apart
	sunk, caught *ebpf.Map
	program      *ebpf.Program
	link         link.Link
}

// NewSink attaches one to a link in namespace ns, which must have no native XDP
// program yet.
func NewSink(ns *hostnet.Namespace, name string) (_ *Sink, err error) {
	s := &Sink{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make sink at %s: %w", name, err), s.Close())
		}
	}()
	index, queues, err := find(ns, name)
	if err != nil {
		return nil, err
	}
	s.queues = max(queues, 1)
	s.sunk, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "margay_sunk", Type: ebpf.Array, KeySize: 4, ValueSize: sunkSize, MaxEntries: uint32(s.queues),
	})
	if err != nil {
		return nil, err
	}
	s.caught, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "margay_caught", Type: ebpf.Array, KeySize: 4, ValueSize: caughtSize, MaxEntries: uint32(s.queues),
	})
	if err != nil {
		return nil, err
	}
	s.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "margay_sink", Type: ebpf.XDP, License: "GPL", Instructions: s.instructions(),
	})
	if err != nil {
		return nil, err
	}
	err = ns.Do(func() error {
		s.link, err = link.AttachXDP(link.XDPOptions{Program: s.program, Interface: index, Flags: link.XDPDriverMode})
		return err
	})
	return s, err
}

// instructions are the program: choose, count, keep one that is wanted, drop.
func (s *Sink) instructions() asm.Instructions {
	big := func(v uint16) int32 { return int32(binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)})) }
	ins := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R8, asm.R6, 0, asm.Word), // data
		asm.LoadMem(asm.R9, asm.R6, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R2, asm.R8),
		asm.Add.Imm(asm.R2, MinSize),
		asm.JGT.Reg(asm.R2, asm.R9, "pass"),
		asm.LoadMem(asm.R2, asm.R8, 12, asm.Half),
		asm.JEq.Imm(asm.R2, big(pkt.EtherIPv4), "four"),
		asm.JNE.Imm(asm.R2, big(pkt.EtherIPv6), "pass"),
		asm.LoadMem(asm.R3, asm.R8, pkt.EthernetSize+6, asm.Byte),
		asm.LoadMem(asm.R4, asm.R8, pkt.EthernetSize+pkt.IPv6Size+2, asm.Half),
		asm.Ja.Label("udp"),
		asm.LoadMem(asm.R3, asm.R8, pkt.EthernetSize+9, asm.Byte).WithSymbol("four"),
		asm.LoadMem(asm.R4, asm.R8, pkt.EthernetSize+pkt.IPv4Size+2, asm.Half),
		asm.JNE.Imm(asm.R3, pkt.ProtoUDP, "pass").WithSymbol("udp"),
		asm.JNE.Imm(asm.R4, big(discard), "pass"),
	}
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.R6, atQueue, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word))
	ins = append(ins, ofQueue(s.sunk)...)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.R7, atFrames, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R7, atFrames, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.And.Imm(asm.R2, mark-1),
		asm.JNE.Imm(asm.R2, 0, "counted"),
		asm.StoreMem(asm.R7, atMark, asm.R1, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.R7, atLastMark, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, atFirst, asm.DWord),
		asm.JNE.Imm(asm.R1, 0, "counted"),
		asm.StoreMem(asm.R7, atFirst, asm.R0, asm.DWord),
	)
	found := ofQueue(s.caught)
	found[0] = found[0].WithSymbol("counted")
	ins = append(ins, found...)
	return append(ins,
		asm.LoadMem(asm.R1, asm.R7, atWanted, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "drop"),
		asm.Sub.Reg(asm.R9, asm.R8),
		asm.StoreMem(asm.R7, atSize, asm.R9, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, atHead),
		asm.Mov.Imm(asm.R4, MinSize),
		asm.FnXdpLoadBytes.Call(),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R7, atWanted, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"),
		asm.Return(),
	)
}

// ofQueue points R7 to the map's entry for the receive queue, whose number is on
// the stack, and goes to "pass" where there is none: a queue that came later.
func ofQueue(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R7, asm.R0),
	}
}

// Arrived is what came to a Sink.
type Arrived struct {
	Frames uint64
	Rate   float64  // frames a second between the first of them and the last; 0 if there were few
	Queues []uint64 // of Frames, by receive queue
}

// Arrived is what came since the last Reset, or since the sink was made.
func (s *Sink) Arrived() (a Arrived, err error) {
	var marked, last uint64
	first := uint64(math.MaxUint64)
	for q := range s.queues {
		var v sunk
		if err := s.sunk.Lookup(uint32(q), &v); err != nil {
			return Arrived{}, fmt.Errorf("read what came to the sink: %w", err)
		}
		a.Frames += v.Frames
		a.Queues = append(a.Queues, v.Frames)
		if v.Marked > 0 {
			first, last = min(first, v.First), max(last, v.Last)
			marked += v.Marked - mark
		}
	}
	if last > first {
		a.Rate = float64(marked) / time.Duration(last-first).Seconds()
	}
	return a, nil
}

// Reset has it count from zero. Nothing may arrive meanwhile.
func (s *Sink) Reset() error {
	var errs []error
	for q := range s.queues {
		errs = append(errs, s.sunk.Put(uint32(q), sunk{}))
	}
	return errors.Join(errs...)
}

// Catch has the sink keep the head of the next frame of each receive queue.
func (s *Sink) Catch() error {
	var errs []error
	for q := range s.queues {
		errs = append(errs, s.caught.Put(uint32(q), caught{Wanted: 1}))
	}
	return errors.Join(errs...)
}

// Caught is the first MinSize bytes of a frame that came after Catch, the first of
// its queue, and the size of the whole; nil as long as none came.
func (s *Sink) Caught() (head []byte, size int, err error) {
	for q := range s.queues {
		var c caught
		if err := s.caught.Lookup(uint32(q), &c); err != nil {
			return nil, 0, fmt.Errorf("read what the sink caught: %w", err)
		}
		if c.Wanted == 0 && c.Size != 0 {
			return c.Head[:], int(c.Size), nil
		}
	}
	return nil, 0, nil
}

// Close takes the program off.
func (s *Sink) Close() error {
	var errs []error
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	return errors.Join(append(errs, s.program.Close(), s.sunk.Close(), s.caught.Close())...) // each may be nil
}
