package xsk

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	"golang.org/x/sys/unix"
)

// SocketConfig says which queue of which device a socket serves, and how.
type SocketConfig struct {
	Interface string // name; may be empty when Index is given
	Index     int    // interface index in its namespace; 0 to look Interface up
	Queue     int    // queue of the interface, from 0
	RingSize  uint32 // entries of each of the four rings, a power of two
	TxBudget  int    // most descriptors that one Kick sends in copy mode; 0 for DefaultTxBudget
	BusyPoll  BusyPoll
	NetNS     int // descriptor of the namespace that the interface is in; -1 for ours
}

// BusyPoll has the application drive the device's queue instead of interrupts.
type BusyPoll struct {
	Prefer bool          // SO_PREFER_BUSY_POLL; interrupts must be deferred on the device as well
	Time   time.Duration // SO_BUSY_POLL, in whole microseconds
	Budget int           // SO_BUSY_POLL_BUDGET, packets per poll; 0 for the kernel's choice
}

// DefaultTxBudget is what a Kick sends at most unless configured. In copy mode
// the kernel works a microsecond or more on each packet, and while it does the
// thread cannot be stopped for the garbage collector: this bounds how long.
const DefaultTxBudget = 64

// kernelTxBudget is the least that XDP_MAX_TX_SKB_BUDGET accepts, and its default.
const kernelTxBudget = 32

// Open waits this long for a queue that is busy: the kernel gives it back a moment
// after the Close of the socket that had it.
const (
	bindPatience = 500 * time.Millisecond
	bindPause    = 2 * time.Millisecond
)

// Socket is an AF_XDP socket bound to one queue, with its four rings. One
// goroutine owns it.
type Socket struct {
	rx         consumer[Desc]
	fill       producer[uint64]
	tx         producer[Desc]
	completion consumer[uint64]
	pending    uint32 // descriptors transmitted and not completed
	fd         int

	umem      *UMEM
	device    device
	queue     int
	mode      Mode
	mappings  [][]byte
	fallbacks []Fallback
}

// Open binds a socket to a queue, sharing the UMEM with the sockets it has. The
// rings start empty: frames must be given to Fill before anything is received, and
// a Program must have the socket (Program.SetSocket).
// A queue that is busy is tried again for half a second.
func (u *UMEM) Open(cfg SocketConfig) (*Socket, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s, err := u.open(cfg)
	if u.fallback == nil || !errors.Is(err, unix.EOPNOTSUPP) {
		return s, err
	}
	refused := err
	if s, err = u.fallback.Open(cfg); err != nil {
		return nil, err
	}
	s.fellBack("zero-copy mode", "copy mode", refused)
	return s, nil
}

func (c SocketConfig) validate() error {
	var errs []error
	if c.Queue < 0 {
		errs = append(errs, fmt.Errorf("queue is %d, want 0 or more", c.Queue))
	}
	if bits.OnesCount32(c.RingSize) != 1 || c.RingSize > 1<<20 {
		errs = append(errs, fmt.Errorf("ring size is %d, want a power of two up to %d", c.RingSize, 1<<20))
	}
	if c.TxBudget < 0 {
		errs = append(errs, fmt.Errorf("tx budget is %d, want 0 or more", c.TxBudget))
	}
	return errors.Join(errs...)
}

func (u *UMEM) open(cfg SocketConfig) (_ *Socket, err error) {
	s := &Socket{fd: -1, umem: u, queue: cfg.Queue}
	s.device, err = findDevice(cfg.NetNS, cfg.Interface, cfg.Index)
	if err != nil {
		return nil, fault(opFind, device{name: cfg.name()}, -1, err)
	}
	err = inNamespace(cfg.NetNS, func() (err error) { // a socket binds to devices of the namespace it is opened in
		s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fault(opOpen, s.device, -1, err)
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if err := s.makeRings(cfg.RingSize); err != nil {
		return nil, fault(opRings, s.device, s.queue, err)
	}
	s.tune(cfg)
	if err := u.bind(s); err != nil {
		return nil, err
	}
	if s.mode, err = readMode(s.fd); err != nil {
		u.leave(s)
		return nil, fault(opOpen, s.device, s.queue, err)
	}
	return s, nil
}

// name tells the device of the configuration in an error about it.
func (c SocketConfig) name() string {
	if c.Index != 0 {
		return fmt.Sprintf("interface %q of index %d", c.Interface, c.Index)
	}
	return fmt.Sprintf("interface %q", c.Interface)
}

// makeRings sizes and maps the four rings, which must be done before the bind.
func (s *Socket) makeRings(size uint32) error {
	for _, option := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, option, int(size)); err != nil {
			return err
		}
	}
	return s.mapRings(size)
}

// mapRings maps the four rings, which have size entries each.
func (s *Socket) mapRings(size uint32) error {
	at, err := getOption[unix.XDPMmapOffsets](s.fd, unix.XDP_MMAP_OFFSETS)
	if err != nil {
		return err
	}
	if err := mapProducer(s, &s.fill, unix.XDP_UMEM_PGOFF_FILL_RING, at.Fr, size); err != nil {
		return err
	}
	if err := mapConsumer(s, &s.completion, unix.XDP_UMEM_PGOFF_COMPLETION_RING, at.Cr, size); err != nil {
		return err
	}
	if err := mapConsumer(s, &s.rx, unix.XDP_PGOFF_RX_RING, at.Rx, size); err != nil {
		return err
	}
	return mapProducer(s, &s.tx, unix.XDP_PGOFF_TX_RING, at.Tx, size)
}

func mapProducer[T any](s *Socket, r *producer[T], page int64, at unix.XDPRingOffset, n uint32) error {
	m, w, entries, err := mapRing[T](s.fd, page, at, n)
	if err != nil {
		return err
	}
	s.mappings = append(s.mappings, m)
	*r = newProducer(w, entries)
	return nil
}

func mapConsumer[T any](s *Socket, r *consumer[T], page int64, at unix.XDPRingOffset, n uint32) error {
	m, w, entries, err := mapRing[T](s.fd, page, at, n)
	if err != nil {
		return err
	}
	s.mappings = append(s.mappings, m)
	*r = newConsumer(w, entries)
	return nil
}

// tune sets what makes the socket faster and is not needed for it to work.
func (s *Socket) tune(cfg SocketConfig) {
	budget := cfg.TxBudget
	if budget == 0 {
		budget = DefaultTxBudget
	}
	budget = max(kernelTxBudget, min(budget, int(cfg.RingSize)))
	if budget > kernelTxBudget {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, budget); err != nil {
			s.fellBack(fmt.Sprintf("%d packets a kick", budget), fmt.Sprintf("%d packets a kick", kernelTxBudget), err)
		}
	}
	if cfg.BusyPoll.Prefer {
		if err := cfg.BusyPoll.set(s.fd); err != nil {
			s.fellBack("preferred busy polling", "interrupts", err)
		}
	}
}

func (b BusyPoll) set(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUSY_POLL, int(b.Time.Microseconds())); err != nil {
		return fmt.Errorf("set SO_BUSY_POLL to %v: %w", b.Time, err)
	}
	if b.Budget > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUSY_POLL_BUDGET, b.Budget); err != nil {
			return fmt.Errorf("set SO_BUSY_POLL_BUDGET to %d: %w", b.Budget, err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL, 1); err != nil {
		return fmt.Errorf("set SO_PREFER_BUSY_POLL: %w", err)
	}
	return nil
}

func (s *Socket) fellBack(wanted, got string, why error) {
	s.fallbacks = append(s.fallbacks, Fallback{Port: s.device.name, Queue: s.queue, Wanted: wanted, Got: got, Err: why})
}

// bindShared binds the socket to its queue with the memory of socket partner.
func (s *Socket) bindShared(partner int) error {
	return s.bindTo(unix.XDP_SHARED_UMEM, partner)
}

// bindTo binds, waiting a while for a queue that is about to be given back.
func (s *Socket) bindTo(flags uint16, partner int) error {
	address := &unix.SockaddrXDP{
		Flags:        flags,
		Ifindex:      uint32(s.device.index),
		QueueID:      uint32(s.queue),
		SharedUmemFD: uint32(partner),
	}
	deadline := time.Now().Add(bindPatience)
	for {
		err := unix.Bind(s.fd, address)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fault(opBind, s.device, s.queue, err)
		}
		time.Sleep(bindPause)
	}
}

// readMode learns from the kernel which mode is in force.
func readMode(fd int) (Mode, error) {
	options, err := unix.GetsockoptInt(fd, unix.SOL_XDP, unix.XDP_OPTIONS)
	if err != nil {
		return 0, fmt.Errorf("read mode: %w", err)
	}
	if options&unix.XDP_OPTIONS_ZEROCOPY != 0 {
		return ZeroCopy, nil
	}
	return Copy, nil
}

// FD returns the descriptor, for epoll: readable when the rx ring has something.
func (s *Socket) FD() int { return s.fd }

// Mode returns the mode in force, as the kernel reports it.
func (s *Socket) Mode() Mode { return s.mode }

// UMEM returns the memory that the socket shares: the fallback's when the driver
// refused zero-copy mode.
func (s *Socket) UMEM() *UMEM { return s.umem }

// Fallbacks returns what was asked for and not had.
func (s *Socket) Fallbacks() []Fallback { return s.fallbacks }

// Statistics are the kernel's counts for a socket, in packets or descriptors.
type Statistics struct {
	RxDropped            uint64 // packets lost for other reasons than a full ring
	RxInvalidDescs       uint64 // frames on the fill ring outside the UMEM
	TxInvalidDescs       uint64 // descriptors refused on the tx ring; they are never completed
	RxRingFull           uint64 // packets lost since the rx ring was full
	RxFillRingEmptyDescs uint64 // packets lost, or polls made, while the fill ring was empty
	TxRingEmptyDescs     uint64 // looks of the kernel at an empty tx ring
}

// Statistics reads the kernel's counts.
func (s *Socket) Statistics() (Statistics, error) {
	k, err := getOption[unix.XDPStatistics](s.fd, unix.XDP_STATISTICS)
	if err != nil {
		return Statistics{}, fmt.Errorf("read statistics of queue %d of %s: %w", s.queue, s.device.name, err)
	}
	return Statistics{
		RxDropped:            k.Rx_dropped,
		RxInvalidDescs:       k.Rx_invalid_descs,
		TxInvalidDescs:       k.Tx_invalid_descs,
		RxRingFull:           k.Rx_ring_full,
		RxFillRingEmptyDescs: k.Rx_fill_ring_empty_descs,
		TxRingEmptyDescs:     k.Tx_ring_empty_descs,
	}, nil
}

// Close gives the queue back. The frames that lie on the rings are the caller's
// again. A closed socket receives nothing and takes nothing. Closing it again does
// nothing.
func (s *Socket) Close() error {
	if s.fd < 0 {
		return nil
	}
	s.umem.leave(s)
	return s.release()
}

// release unmaps the rings before it closes the socket: a mapping keeps the socket,
// and with it the queue, alive.
func (s *Socket) release() error {
	fd := s.fd
	return errors.Join(s.unmap(), unix.Close(fd))
}

// unmap is release that leaves the descriptor to the caller.
func (s *Socket) unmap() error {
	var errs []error
	for _, m := range s.mappings {
		errs = append(errs, unix.Munmap(m))
	}
	s.mappings, s.fd = nil, -1
	s.closeRings()
	return errors.Join(errs...)
}

// closeRings leaves rings of no entries behind: nothing to take, no room.
func (s *Socket) closeRings() {
	none := words{producer: new(uint32), consumer: new(uint32), flags: new(uint32)}
	s.fill, s.tx = producer[uint64]{words: none}, producer[Desc]{words: none}
	s.rx, s.completion = consumer[Desc]{words: none}, consumer[uint64]{words: none}
}
