package flow

import (
	"errors"
	"fmt"
	"time"

	"margay.dev/margay/internal/mem"
)

// LayoutVersion counts the layouts of a table's memory. Who attaches to a table
// must have the same.
const LayoutVersion = 2

// Tick is a time in quarters of a second of a clock that does not jump; it wraps
// around after 34 years.
type Tick uint32

const tick = 250 * time.Millisecond

// ticks is d as a number of ticks, rounded up.
func ticks(d time.Duration) uint32 { return uint32((d + tick - 1) / tick) }

// Timeouts are how long a flow stays that no packet belongs to. Each is from one
// second to an hour.
type Timeouts struct {
	TCPOpening     time.Duration // both SYNs are not yet acknowledged
	TCPEstablished time.Duration // also while only one side has sent its FIN
	TCPClosed      time.Duration // both sides have sent their FIN
	TCPReset       time.Duration
	UDPOneWay      time.Duration // only the originator has sent
	UDP            time.Duration
	ICMP           time.Duration
	Generic        time.Duration // all other protocols
	Fragment       time.Duration // from a datagram's first fragment to its last
}

// DefaultTimeouts are those of Calico's own dataplane.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		TCPOpening: 20 * time.Second, TCPEstablished: time.Hour, TCPClosed: 30 * time.Second, TCPReset: 40 * time.Second,
		UDPOneWay: time.Minute, UDP: time.Minute, ICMP: 5 * time.Second, Generic: 10 * time.Minute, Fragment: 30 * time.Second,
	}
}

// Config sizes a table.
type Config struct {
	Workers   int  // that look up and insert, 1 to 256
	Endpoints int  // that flows are charged to, 1 to 65,536
	Liberal   bool // a segment out of its window is Stale, not Refused; resets are checked all the same
	Timeouts  Timeouts
}

// MinBytes and MaxBytes bound the memory of a table. A MiB holds some 3,600 flows;
// the least has room for 4,000.
const (
	MinBytes = 2 << 20
	MaxBytes = 1 << 38
)

const (
	maxTimeout = time.Hour
	wheelSlots = 1 << 14 // ticks that the wheel reaches: more than maxTimeout
	chains     = 8       // buckets that a key may lie in
	cells      = 8       // keys of a bucket
	counters   = 64      // words of a worker's counters, see stats.go
)

// validate reports the first thing that is wrong with a configuration.
func (c Config) validate() error {
	switch {
	case c.Workers < 1 || c.Workers > 256:
		return fmt.Errorf("make flow table: workers is %d, want 1 to 256", c.Workers)
	case c.Endpoints < 1 || c.Endpoints > 1<<16:
		return fmt.Errorf("make flow table: endpoints is %d, want 1 to %d", c.Endpoints, 1<<16)
	}
	for i, d := range c.Timeouts.list() {
		if d < time.Second || d > maxTimeout {
			return fmt.Errorf("make flow table: timeout %s is %v, want 1s to %v", timeoutNames[i], d, maxTimeout)
		}
	}
	return nil
}

// list is the timeouts in the order of timeoutNames.
func (t *Timeouts) list() [timeoutCount]time.Duration {
	return [timeoutCount]time.Duration{t.TCPOpening, t.TCPEstablished, t.TCPClosed, t.TCPReset, t.UDPOneWay, t.UDP, t.ICMP, t.Generic, t.Fragment}
}

// timeoutsOf is the way back, from ticks.
func timeoutsOf(list [timeoutCount]uint32) Timeouts {
	d := func(i int) time.Duration { return time.Duration(list[i]) * tick }
	return Timeouts{
		TCPOpening: d(timeoutTCPOpening), TCPEstablished: d(timeoutTCPEstablished), TCPClosed: d(timeoutTCPClosed), TCPReset: d(timeoutTCPReset),
		UDPOneWay: d(timeoutUDPOneWay), UDP: d(timeoutUDP), ICMP: d(timeoutICMP), Generic: d(timeoutGeneric), Fragment: d(timeoutFragment),
	}
}

// The places of timeouts in lists of them.
const (
	timeoutTCPOpening = iota
	timeoutTCPEstablished
	timeoutTCPClosed
	timeoutTCPReset
	timeoutUDPOneWay
	timeoutUDP
	timeoutICMP
	timeoutGeneric
	timeoutFragment
	timeoutCount
)

var timeoutNames = [timeoutCount]string{
	"TCPOpening", "TCPEstablished", "TCPClosed", "TCPReset", "UDPOneWay", "UDP", "ICMP", "Generic", "Fragment",
}

// side is one direction of a flow: what only its own packets change. A cache line.
type side struct {
	key     Key
	packets uint64
	bytes   uint64
	seen    uint32 // tick of the latest packet
	_       uint32
}

// core is what packets of both directions read: a cache line.
type core struct {
	state   uint64    // see the word type
	sent    [2]uint64 // by direction: what it has sent and offered, see tcp.go
	heard   [2]uint64 // by direction: what it has acknowledged and granted
	verdict uint64    // of the source's side in the lower half, the destination's in the upper
	nextHop [2]uint32 // by direction
	stamp   uint64    // generation of what was decided, twice, and 1 while it is being changed
}

// rest is what nobody reads per packet: a cache line.
type rest struct {
	wake       uint32 // the next flow on the intake
	queued     uint32 // it is on the intake
	endpoint   uint32 // that it is charged to
	created    uint32 // tick
	class      [2]uint32
	prev, next uint32 // in its slot of the wheel; or next in limbo, or on the free list
	slot       uint32 // of the wheel plus one, or unslotted, or inLimbo
	_          uint32
	removed    uint64 // generation in which it was taken out
	asked      [2]uint32
	_          uint64
}

// entry is one flow: four cache lines.
type entry struct {
	sides [2]side
	core  core
	rest  rest
}

// bucket holds the keys whose hashes agree in their lower bits: a cache line.
type bucket struct {
	tags  uint64 // a byte for each cell: 0 free, 1 being written, else of the key's hash
	refs  [cells]uint32
	lock  uint32 // held by who inserts a key that belongs here
	spill uint32 // keys that were turned on to the next bucket of their chain, as this one was full
	_     [2]uint64
}

// head is what a table knows of itself, a page in front of all else. What is
// written often has a cache line of its own.
type head struct {
	size               uint64 // of the memory in all
	workers, endpoints uint32
	liberal            uint32
	timeouts           [timeoutCount]uint32 // ticks
	seed               seed
	era                uint64 // who have taken the table up
	_                  [2]uint64

	freed    uint64 // top of the free list: count of changes 32, flow 32 bits
	fresh    uint32 // the first flow that was never used
	vacant   uint32 // flows that are free
	_        [6]uint64
	intake   uint32 // top of the stack of flows that the owner of the wheel must look at
	_        [15]uint32
	wheelNow uint32    // the owner's from here on: tick that the wheel has reached
	pending  uint32    // taken from the intake, not yet looked at
	due      uint32    // taken from a slot, not yet looked at
	limbo    [2]uint32 // first and last flow of those that readers may still see
	_        [1]uint32
	batch    uint64 // generation of the latest removals
}

// Sizes in bytes, which a test holds against those of the types.
const (
	headSize        = 4096
	lineSize        = 64
	entrySize       = 4 * lineSize
	fragmentSetSize = 2112
)

// layout holds where each part starts, in bytes.
type layout struct {
	flows, buckets                                int
	counts, owned, wheel, fragments, index, entry int
}

// layoutOf divides size bytes of memory: as many flows as fit beside their index,
// which has at most four keys in a bucket of eight on average.
func layoutOf(size int, cfg Config) (layout, error) {
	var l layout
	if size < MinBytes || size > MaxBytes {
		return l, fmt.Errorf("make flow table: memory is %d bytes, want %d to %d", size, MinBytes, MaxBytes)
	}
	l.counts = headSize
	l.owned = l.counts + (cfg.Workers+1)*counters*8
	l.wheel = l.owned + pad(cfg.Endpoints*4)
	l.fragments = l.wheel + wheelSlots*4
	l.index = l.fragments + fragmentSets*fragmentSetSize
	room := size - l.index
	for buckets := 256; buckets*lineSize < room; buckets *= 2 {
		if flows := min((room-buckets*lineSize)/entrySize, buckets*2); flows > l.flows {
			l.flows, l.buckets = flows, buckets
		}
	}
	if l.flows == 0 {
		return l, errors.New("make flow table: memory is too small for so many endpoints and workers")
	}
	l.entry = l.index + l.buckets*lineSize
	return l, nil
}

func pad(n int) int { return (n + 63) &^ 63 }

// viewHead casts the memory's first page.
func (t *Table) viewHead(memory []byte) error {
	heads, err := mem.View[head](memory, 1)
	if err != nil {
		return fmt.Errorf("lay out flow table: %w", err)
	}
	t.head = &heads[0]
	return nil
}

// view casts the memory into the parts of t.
func (t *Table) view(memory []byte, l layout, cfg Config) error {
	errs := make([]error, 0, 6)
	note := func(err error) { errs = append(errs, err) }
	var err error
	t.counts, err = mem.View[[counters]uint64](memory[l.counts:], cfg.Workers+1)
	note(err)
	t.owned, err = mem.View[uint32](memory[l.owned:], cfg.Endpoints)
	note(err)
	t.wheel, err = mem.View[uint32](memory[l.wheel:], wheelSlots)
	note(err)
	t.fragments, err = mem.View[fragmentSet](memory[l.fragments:], fragmentSets)
	note(err)
	t.index, err = mem.View[bucket](memory[l.index:], l.buckets)
	note(err)
	t.entries, err = mem.View[entry](memory[l.entry:], l.flows)
	note(err)
	note(t.viewHead(memory))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lay out flow table: %w", err)
	}
	return nil
}
