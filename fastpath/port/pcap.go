package port

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port/tape"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/pkt"
)

// PcapConfig makes a port of capture files.
type PcapConfig struct {
	Name string
	MTU  int // bytes from the IP header on, 68 to 65,535
	// MAC is nil for a port without link layer. It replays and records raw IP
	// then (link types 101, 228, 229), and else Ethernet (1).
	MAC net.HardwareAddr

	Replay string    // a pcap or pcapng file, a regular one; none if empty
	Pace   tape.Pace // of the replay
	Times  int       // passes over the file, 0 means 1; math.MaxInt until the port is closed

	Record    string // a pcapng file, which is made anew; none if empty
	Delivered bool   // record what was replayed as well, as inbound
}

// Pcap is a port whose wire is capture files: what comes in is replayed from
// one, and what is transmitted is recorded to another, as it would go over a
// wire. It has one queue, and the replay begins with its first burst: add it to an
// engine after the ports that it leads to. Beside the packets on their way it
// keeps at most 5 MiB of each file in memory, however long they are.
//
// A replay waits for buffers, where a NIC would drop. What cannot come in by this
// port is left out and counted: packets of which not all was captured, of
// another link type, longer than the MTU. A recording never waits: what the file
// is too slow for is counted, and Close tells of it.
type Pcap struct {
	cfg    PcapConfig
	mtu    atomic.Int32
	queue  pcapQueue
	closed atomic.Bool
}

var _ Port = (*Pcap)(nil)

// OpenPcap opens the files. It fails where there is nothing to replay.
func OpenPcap(cfg PcapConfig) (p *Pcap, err error) {
	if cfg.MTU < 68 || cfg.MTU > 1<<16-1 {
		return nil, fmt.Errorf("open pcap port %s: MTU is %d, want 68 to 65535", cfg.Name, cfg.MTU)
	}
	p = &Pcap{cfg: cfg}
	p.mtu.Store(int32(cfg.MTU))
	q := &p.queue
	q.mtu, q.both = &p.mtu, cfg.Delivered
	raw := cfg.MAC == nil
	if cfg.Replay != "" {
		q.player, err = tape.OpenPlayer(tape.PlayerConfig{File: cfg.Replay, Raw: raw, Pace: cfg.Pace, Times: cfg.Times, Largest: p.largest})
	}
	if err == nil && cfg.Record != "" {
		q.recorder, err = tape.OpenRecorder(tape.RecorderConfig{File: cfg.Record, Name: cfg.Name, Raw: raw})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pcap port %s: %w", cfg.Name, err), p.Close(nil))
	}
	return p, nil
}

// largest is the most bytes of what comes in.
func (p *Pcap) largest() int {
	if p.cfg.MAC == nil {
		return p.MTU()
	}
	return p.MTU() + pkt.EthernetSize + pkt.VLANSize
}

// Name is the name it was given.
func (p *Pcap) Name() string { return p.cfg.Name }

// Kind is KindPcap.
func (p *Pcap) Kind() Kind { return KindPcap }

// Queues is the port's one queue.
func (p *Pcap) Queues() []graph.Queue { return []graph.Queue{&p.queue} }

// MTU is the most bytes of a packet from the IP header on.
func (p *Pcap) MTU() int { return int(p.mtu.Load()) }

// SetMTU changes the MTU, for what has not been read ahead.
func (p *Pcap) SetMTU(mtu int) { p.mtu.Store(int32(mtu)) }

// MAC is the address it was given.
func (p *Pcap) MAC() net.HardwareAddr { return p.cfg.MAC }

// Fallbacks is empty.
func (p *Pcap) Fallbacks() []string { return nil }

// Ended says that all that is to be replayed has come in, or that nothing is.
func (p *Pcap) Ended() bool { return p.queue.player == nil || p.queue.player.Ended() }

// Statistics tells what of the files passed, and what did not and why.
func (p *Pcap) Statistics() []Statistic {
	var all []Statistic
	if r := p.queue.player; r != nil {
		n := &r.Played
		all = append(all, Statistic{"replay-packets", n.Packets.Load()}, Statistic{"replay-passes", n.Passes.Load()},
			Statistic{"replay-truncated", n.Truncated.Load()}, Statistic{"replay-malformed", n.Malformed.Load()},
			Statistic{"replay-other-link", n.OtherLink.Load()}, Statistic{"replay-oversize", n.Oversize.Load()},
			Statistic{"replay-faults", n.Faults.Load()})
	}
	if r := p.queue.recorder; r != nil {
		n := &r.Recorded
		all = append(all, Statistic{"record-packets", n.Packets.Load()}, Statistic{"record-lost", n.Lost.Load()},
			Statistic{"record-failed", n.Failed.Load()})
	}
	return all
}

// Close ends the replay, writes what is left of the recording, and tells of a
// file that could not be read to its end and of packets that are missing in the
// other. It holds no buffers between bursts.
func (p *Pcap) Close(*umem.Cache) error {
	if p.closed.Swap(true) {
		return nil
	}
	var errs []error
	if p.queue.player != nil {
		errs = append(errs, p.queue.player.Close())
	}
	if p.queue.recorder != nil {
		errs = append(errs, p.queue.recorder.Close())
	}
	return errors.Join(errs...)
}
