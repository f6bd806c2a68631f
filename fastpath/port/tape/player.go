package tape

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/pcapng"
)

// Pace is when the packets of a file are due. The zero Pace is as fast as the
// worker takes them.
type Pace struct {
	Rate  float64 // packets per second; 0 for none
	Timed bool    // as they were captured, and from one pass to the next without a pause
}

// PlayerConfig says what a Player plays.
type PlayerConfig struct {
	File  string // pcap or pcapng, a regular file
	Raw   bool   // packets begin at the IP header; else they are Ethernet frames
	Pace  Pace
	Times int // passes over the file, 0 means 1; math.MaxInt for as long as it is open
	// Largest is the most bytes of a packet, up to MaxPacket; longer ones are
	// left out. It is read for each packet, and may change.
	Largest func() int
}

// Played is what a Player counted. Any goroutine may read it.
type Played struct {
	Packets   atomic.Uint64 // put before the worker
	Passes    atomic.Uint64 // over the file, to its end or to where it cannot be read on
	Truncated atomic.Uint64 // left out: not all of it was captured
	Malformed atomic.Uint64 // left out: empty, or more bytes captured than it had
	OtherLink atomic.Uint64 // left out: of another link type than the port
	Oversize  atomic.Uint64 // left out: longer than the port takes
	Faults    atomic.Uint64 // passes that ended because the file could not be read on
}

// Player reads a capture file ahead of a worker. The worker calls Next, Take and
// Release; any goroutine may call Ended, and Close once the worker does not.
type Player struct {
	Played Played

	cfg   PlayerConfig
	file  *os.File
	ring  *ring
	pace  pacer
	stop  chan struct{}
	done  chan struct{}
	ended atomic.Bool // nothing more will be put into the ring
	head  slot        // what Next gave
	fault error       // the first; for Close, after done
}

// OpenPlayer opens a file and begins to read ahead. It fails where the file is
// no capture file, has no packet, or its first packet is of the wrong link type.
func OpenPlayer(cfg PlayerConfig) (*Player, error) {
	if err := cfg.Pace.valid(); err != nil {
		return nil, fmt.Errorf("play %s: %w", cfg.File, err)
	}
	if cfg.Times < 0 {
		return nil, fmt.Errorf("play %s: times is %d, want at least 0", cfg.File, cfg.Times)
	}
	// A pipe would block in open, or be at its end for the second pass.
	file, err := os.OpenFile(cfg.File, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("play: %w", err)
	}
	p := &Player{cfg: cfg, file: file, ring: newRing(), pace: pacer{Pace: cfg.Pace}, stop: make(chan struct{}), done: make(chan struct{})}
	if err := p.inspect(); err != nil {
		return nil, errors.Join(fmt.Errorf("play %s: %w", cfg.File, err), file.Close())
	}
	go p.run()
	return p, nil
}

func (p Pace) valid() error {
	switch {
	case p.Timed && p.Rate != 0:
		return fmt.Errorf("rate is %v, and the file's own timing is asked for: want one of them", p.Rate)
	case p.Rate < 0 || math.IsNaN(p.Rate) || math.IsInf(p.Rate, 0):
		return fmt.Errorf("rate is %v, want packets per second, or 0 for as fast as possible", p.Rate)
	}
	return nil
}

// inspect looks at the file as far as its first packet, and goes back.
func (p *Player) inspect() error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no regular file: save the capture to one first")
	}
	r, err := pcapng.NewReader(p.file)
	if err != nil {
		return err
	}
	var rec pcapng.Record
	if err := r.Read(&rec); err == io.EOF {
		return errors.New("it has no packets")
	} else if err != nil {
		return err
	}
	if !p.plays(rec.Link) {
		want := "Ethernet (1)"
		if p.cfg.Raw {
			want = "raw IP (101, 228, 229)"
		}
		return fmt.Errorf("its packets are of link type %d, and the port takes %s: capture on a device of that kind", rec.Link, want)
	}
	return p.rewind()
}

func (p *Player) rewind() error {
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// plays says whether packets of a link type can come in by the port.
func (p *Player) plays(link pcapng.LinkType) bool {
	switch link {
	case pcapng.LinkEthernet:
		return !p.cfg.Raw
	case pcapng.LinkRaw, pcapng.LinkIPv4, pcapng.LinkIPv6:
		return p.cfg.Raw
	}
	return false
}

// run reads the file as many times as it is to be played, ahead of the worker.
// It ends early when a pass finds nothing to play.
func (p *Player) run() {
	defer close(p.done)
	defer p.ended.Store(true)
	for range max(1, p.cfg.Times) {
		before := p.Played.Packets.Load()
		err := p.pass()
		if p.stopped() {
			return
		}
		if err != nil {
			p.Played.Faults.Add(1)
			if p.fault == nil {
				p.fault = fmt.Errorf("play %s: %w", p.cfg.File, err)
			}
		}
		p.Played.Passes.Add(1)
		if p.Played.Packets.Load() == before {
			return
		}
	}
}

// pass plays the file once.
func (p *Player) pass() error {
	if err := p.rewind(); err != nil {
		return err
	}
	r, err := pcapng.NewReader(p.file)
	if err != nil {
		return err // it was good when it was opened: somebody changed it
	}
	p.pace.again()
	var rec pcapng.Record
	for !p.stopped() {
		if err := r.Read(&rec); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if p.playable(&rec) {
			p.put(&rec)
		}
	}
	return nil
}

func (p *Player) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// playable says whether a packet can come in as it was on the wire, and counts
// why not.
func (p *Player) playable(rec *pcapng.Record) bool {
	n := len(rec.Data)
	var why *atomic.Uint64
	switch {
	case !p.plays(rec.Link):
		why = &p.Played.OtherLink
	case n < rec.Length:
		why = &p.Played.Truncated
	case n == 0 || n > rec.Length:
		why = &p.Played.Malformed
	case n > min(p.cfg.Largest(), MaxPacket):
		why = &p.Played.Oversize
	default:
		return true
	}
	why.Add(1)
	return false
}

// put hands a packet to the worker, and waits for room.
func (p *Player) put(rec *pcapng.Record) {
	due := p.pace.due(rec.Nanos)
	for {
		if to := p.ring.reserve(len(rec.Data), due, 0); to != nil {
			copy(to, rec.Data)
			p.Played.Packets.Add(1)
			p.ring.publish()
			return
		}
		if !p.ring.sleep(p.stop, p.ring.roomy) {
			return
		}
	}
}

// Next is the packet whose turn it is, and when it is due: in ns after the first.
// It stays, and its bytes are good, until Take.
//
//fastpath:hot
func (p *Player) Next() (data []byte, due int64, ok bool) {
	p.head, ok = p.ring.next()
	return p.head.data, p.head.at, ok
}

// Take takes the packet that Next gave.
//
//fastpath:hot
func (p *Player) Take() { p.ring.drop(p.head) }

// Release gives the room of the packets taken back. It is due once per burst.
//
//fastpath:hot
func (p *Player) Release() {
	p.ring.release()
	if p.ring.roomy() {
		p.ring.rouse()
	}
}

// Ended says that the worker has taken every packet of every pass.
//
//fastpath:hot
func (p *Player) Ended() bool { return p.ended.Load() && p.ring.empty() }

// Close ends the reading, and tells why the file could not be read to its end,
// if it could not. It must be called once.
func (p *Player) Close() error {
	close(p.stop)
	<-p.done
	return errors.Join(p.fault, p.file.Close())
}
