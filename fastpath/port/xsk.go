package port

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
)

// XSKConfig says which device to open AF_XDP sockets on, and where its packets
// are to lie.
type XSKConfig struct {
	Name     string // of the device
	Index    int    // of the device in its namespace; 0 to look Name up
	NetNS    int    // descriptor of the device's namespace; -1 for ours
	Queues   int    // sockets, one on each of the device's queues from 0
	RingSize uint32 // entries of each ring, a power of two
	TxBudget int    // packets per system call in copy mode; 0 for the default
	BusyPoll xsk.BusyPoll
	MTU      int              // bytes from the IP header on
	MAC      net.HardwareAddr // of the device
	UMEM     *xsk.UMEM        // over Arena.FrameArea, with umem.ChunkSize
	Arena    *umem.Arena
	Holder   umem.Holder // whom frames are lent to that the kernel has; this port's alone, not umem.Graph
}

// XSK is a port made of AF_XDP sockets, one for each queue of a device.
type XSK struct {
	name    string
	mac     net.HardwareAddr
	mtu     atomic.Int32
	queues  []*xskQueue
	sockets []*xsk.Socket
	arena   *umem.Arena
	holder  umem.Holder

	mu     sync.Mutex // Statistics while the sockets are open
	closed bool
}

var _ Port = (*XSK)(nil)

// OpenXSK opens the sockets. Nothing is received before a Program of the device
// has them (Sockets) and a worker drives the queues.
func OpenXSK(cfg XSKConfig) (*XSK, error) {
	var errs []error
	if cfg.Queues < 1 {
		errs = append(errs, fmt.Errorf("queues is %d, want at least 1", cfg.Queues))
	}
	if cfg.MTU < 68 {
		errs = append(errs, fmt.Errorf("MTU is %d, want at least 68", cfg.MTU))
	}
	if cfg.Holder == umem.Graph {
		errs = append(errs, errors.New("holder is the graph's, want one of its own"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("open port %s: %w", cfg.Name, err)
	}
	p := &XSK{name: cfg.Name, mac: cfg.MAC, arena: cfg.Arena, holder: cfg.Holder}
	p.mtu.Store(int32(cfg.MTU))
	for i := range cfg.Queues {
		s, err := cfg.UMEM.Open(xsk.SocketConfig{
			Interface: cfg.Name, Index: cfg.Index, NetNS: cfg.NetNS, Queue: i,
			RingSize: cfg.RingSize, TxBudget: cfg.TxBudget, BusyPoll: cfg.BusyPoll,
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open port %s: %w", cfg.Name, err), p.closeSockets())
		}
		p.sockets = append(p.sockets, s)
		p.queues = append(p.queues, &xskQueue{socket: s, holder: cfg.Holder, mtu: &p.mtu, lacking: int(cfg.RingSize)})
	}
	return p, nil
}

// Name is the device's name.
func (p *XSK) Name() string { return p.name }

// Kind is KindXSK.
func (p *XSK) Kind() Kind { return KindXSK }

// Queues are the device's queues from 0.
func (p *XSK) Queues() []graph.Queue {
	all := make([]graph.Queue, len(p.queues))
	for i, q := range p.queues {
		all[i] = q
	}
	return all
}

// Sockets are those of the queues, for the program that steers packets to them.
func (p *XSK) Sockets() []*xsk.Socket { return p.sockets }

// MTU is the most bytes of a packet from the IP header on.
func (p *XSK) MTU() int { return int(p.mtu.Load()) }

// SetMTU notes that the device's MTU has changed.
func (p *XSK) SetMTU(mtu int) { p.mtu.Store(int32(mtu)) }

// MAC is the device's address.
func (p *XSK) MAC() net.HardwareAddr { return p.mac }

// Fallbacks tells what the kernel or the driver refused.
func (p *XSK) Fallbacks() []string {
	var all []string
	for _, s := range p.sockets {
		for _, f := range s.Fallbacks() {
			all = append(all, f.String())
		}
	}
	return all
}

// Statistics tells what the kernel counted for the sockets, all queues
// together, and how often there was no frame to receive into.
func (p *XSK) Statistics() []Statistic {
	var k xsk.Statistics
	var starved, stalls uint64
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, s := range p.sockets {
		starved += p.queues[i].starved.Load()
		stalls += p.queues[i].stalls.Load()
		if p.closed {
			continue
		}
		if one, err := s.Statistics(); err == nil { // a device that is gone may refuse
			k.RxDropped += one.RxDropped
			k.RxInvalidDescs += one.RxInvalidDescs
			k.TxInvalidDescs += one.TxInvalidDescs
			k.RxRingFull += one.RxRingFull
			k.RxFillRingEmptyDescs += one.RxFillRingEmptyDescs
		}
	}
	return []Statistic{
		{"rx-dropped", k.RxDropped},
		{"rx-ring-full", k.RxRingFull},
		{"rx-fill-ring-empty", k.RxFillRingEmptyDescs},
		{"rx-invalid-descriptors", k.RxInvalidDescs},
		{"tx-invalid-descriptors", k.TxInvalidDescs},
		{"fill-starved", starved},
		{"tx-stalls", stalls},
	}
}

// Close closes the sockets and gives every frame that lay in them to c. Closing
// again, or after Forsake, does nothing.
func (p *XSK) Close(c *umem.Cache) error {
	if p.closed {
		return nil
	}
	err := p.closeSockets()
	p.arena.Reclaim(p.holder, c)
	return err
}

func (p *XSK) closeSockets() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, s := range p.sockets {
		errs = append(errs, s.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close port %s: %w", p.name, err)
	}
	return nil
}
