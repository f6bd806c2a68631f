//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Perf says what to send from one place to another.
type Perf struct {
	From, To       Place
	Source, Target netip.Addr    // of one family
	UDP            bool          // datagrams; else TCP
	Streams        int           // 0: 1
	Size           int           // bytes of a write, or of a datagram's payload; 0: 128 KiB, or what fits in MTU
	MTU            int           // L3, for the default Size of datagrams; 0: 1500
	Duration       time.Duration // 0: 5 s
	Rate           uint64        // bits per second that UDP offers, of payload; 0: as much as goes
}

// Result is what Perf measured. Bytes and packets are payload as the receiving
// sockets saw it.
type Result struct {
	Proto     string  `json:"proto"` // tcp4, udp6 ...
	Streams   int     `json:"streams"`
	Size      int     `json:"size"`
	Seconds   float64 `json:"seconds"`
	Bytes     uint64  `json:"bytes"`
	GbitPerS  float64 `json:"gbit_per_s"`
	Sent      uint64  `json:"datagrams_sent,omitempty"` // UDP
	Received  uint64  `json:"datagrams_received,omitempty"`
	MpktPerS  float64 `json:"mpkt_per_s,omitempty"`
	Loss      float64 `json:"loss"` // UDP: share of what was sent
	Reordered uint64  `json:"reordered,omitempty"`
	// Of the datagrams lost, those that the kernels at both ends threw away:
	// the rest was lost between them.
	LostSending   uint64 `json:"lost_sending,omitempty"`   // no room in the sender's transmit queue
	LostReceiving uint64 `json:"lost_receiving,omitempty"` // no room in the receiver's sockets
	Retransmits   uint64 `json:"retransmits,omitempty"`    // TCP segments
	RTT           RTT    `json:"rtt"`                      // of UDP echoes while the load ran
}

const (
	tcpSize    = 128 << 10
	udpHeader  = 8
	stampSize  = 8 // bytes of a datagram that are ours
	largestUDP = 65507
)

// Validate reports every fault.
func (p Perf) Validate() error {
	var errs []error
	if p.Source.Is4() != p.Target.Is4() || !p.Source.IsValid() || !p.Target.IsValid() {
		errs = append(errs, fmt.Errorf("addresses are %v and %v, want two of one family", p.Source, p.Target))
	}
	if p.Streams < 0 || p.Streams > 256 {
		errs = append(errs, fmt.Errorf("streams is %d, want 1 to 256", p.Streams))
	}
	if p.UDP && p.Size != 0 && (p.Size < stampSize || p.Size > largestUDP) {
		errs = append(errs, fmt.Errorf("size is %d, want %d to %d bytes for UDP", p.Size, stampSize, largestUDP))
	}
	if !p.UDP && (p.Size < 0 || p.Size > 16<<20) {
		errs = append(errs, fmt.Errorf("size is %d, want 1 byte to 16 MiB for TCP", p.Size))
	}
	if !p.UDP && p.Rate != 0 {
		errs = append(errs, errors.New("rate is set for TCP, which finds its own"))
	}
	if p.Duration < 0 || p.Duration > time.Hour {
		errs = append(errs, fmt.Errorf("duration is %v, want up to 1h", p.Duration))
	}
	return errors.Join(errs...)
}

func (p Perf) withDefaults() Perf {
	p.Streams, p.MTU = orElse(p.Streams, 1), orElse(p.MTU, 1500)
	p.Duration = orElse(p.Duration, 5*time.Second)
	header := 40
	if p.Target.Is4() {
		header = 20
	}
	if p.Size == 0 {
		p.Size = tcpSize
		if p.UDP {
			p.Size = p.MTU - header - udpHeader
		}
	}
	return p
}

// Run sends, and measures until Duration is over or ctx ends, which is an error.
func (p Perf) Run(ctx context.Context) (Result, error) {
	if err := p.Validate(); err != nil {
		return Result{}, err
	}
	p = p.withDefaults()
	out := Result{Proto: p.proto(), Streams: p.Streams, Size: p.Size}
	probe, err := p.openProbe()
	if err != nil {
		return out, fmt.Errorf("open the probe of round trips: %w", err)
	}
	defer probe.close()
	run := p.tcp
	if p.UDP {
		run = p.udp
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	began := func() { wg.Go(func() { out.RTT = probe.run(ctx, p.Duration) }) }
	err = run(ctx, &out, began)
	if err != nil {
		cancel()
	}
	wg.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if out.Seconds > 0 {
		out.GbitPerS = float64(out.Bytes) * 8 / out.Seconds / 1e9
		out.MpktPerS = float64(out.Received) / out.Seconds / 1e6
	}
	return out, err
}

func (p Perf) proto() string {
	name, family := "tcp", "6"
	if p.UDP {
		name = "udp"
	}
	if p.Target.Is4() {
		family = "4"
	}
	return name + family
}

// listenUDP opens a datagram socket at a place, at a port the kernel chooses.
func listenUDP(place Place, addr netip.Addr) (*net.UDPConn, error) {
	var c *net.UDPConn
	err := place.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	})
	return c, err
}

// dialUDP opens a socket at a place that is connected to another.
func dialUDP(place Place, from netip.Addr, to *net.UDPConn) (*net.UDPConn, error) {
	var c *net.UDPConn
	err := place.Do(func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), to.LocalAddr().(*net.UDPAddr))
		return err
	})
	return c, err
}
