package survivaltest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
)

// sniffing listens by AF_PACKET to every device of a node. The kernel's taps
// see what the kernel sends and what XDP passes to it; what AF_XDP sockets send
// and receive goes past them. So a pod's packet here is one that the kernel has.
type sniffing struct {
	fd   int
	stop chan struct{}
	wg   sync.WaitGroup
	seen []sniffed
	all  int // packets seen, of pods or not
}

// sniffed is a packet with an address of a pod or a host port.
type sniffed struct {
	device   string
	outgoing bool
	src, dst netip.Addr
}

func (s sniffed) String() string {
	return fmt.Sprintf("on %s, outgoing %v: %v to %v", s.device, s.outgoing, s.src, s.dst)
}

// sniff begins to listen in a node.
func (w *world) sniff(node string) *sniffing {
	w.t.Helper()
	s := &sniffing{stop: make(chan struct{})}
	err := w.space(node).Do(func() (err error) {
		proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(proto))
		return err
	})
	if err != nil {
		w.t.Fatalf("sniff in %s: %v", node, err)
	}
	err = errors.Join(
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
	)
	if err != nil {
		w.t.Fatalf("sniff in %s: %v", node, err)
	}
	h, err := hostnet.NewHost(w.space(node))
	if err != nil {
		w.t.Fatal(err)
	}
	s.wg.Go(func() { s.listen(w, h) })
	return s
}

// listen reads until it was told to stop and nothing is left to read.
func (s *sniffing) listen(w *world, h *hostnet.Host) {
	defer h.Close()
	names := map[int]string{}
	b := make([]byte, 128)
	for flags := 0; ; {
		select {
		case <-s.stop:
			flags = unix.MSG_DONTWAIT // what has come until now
		default:
		}
		n, from, err := unix.Recvfrom(s.fd, b, flags)
		if err != nil { // nothing came for a while
			if flags != 0 && !errors.Is(err, unix.EINTR) {
				return
			}
			continue
		}
		at := from.(*unix.SockaddrLinklayer)
		if _, known := names[at.Ifindex]; !known {
			l, _ := h.LinkByIndex(at.Ifindex) // one that has gone has no name
			names[at.Ifindex] = l.Name
		}
		s.all++
		src, dst, ok := addresses(at.Protocol, b[:n])
		if ok && (w.pooled(src) || w.pooled(dst)) && len(s.seen) < 1000 {
			s.seen = append(s.seen, sniffed{names[at.Ifindex], at.Pkttype == unix.PACKET_OUTGOING, src, dst})
		}
	}
}

// addresses are those of an IP packet, or those that an ARP message is about.
func addresses(proto uint16, b []byte) (src, dst netip.Addr, ok bool) {
	at := func(src, dst, size int) (netip.Addr, netip.Addr, bool) {
		if len(b) < dst+size {
			return netip.Addr{}, netip.Addr{}, false
		}
		s, _ := netip.AddrFromSlice(b[src : src+size])
		d, _ := netip.AddrFromSlice(b[dst : dst+size])
		return s, d, true
	}
	switch binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, proto)) {
	case unix.ETH_P_IP:
		return at(12, 16, 4)
	case unix.ETH_P_IPV6:
		return at(8, 24, 16)
	case unix.ETH_P_ARP:
		return at(14, 24, 4)
	}
	return src, dst, false
}

func (w *world) pooled(a netip.Addr) bool {
	for _, p := range w.Topology().Pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// end stops it and returns what was seen of pods.
func (s *sniffing) end() []sniffed {
	close(s.stop)
	s.wg.Wait()
	_ = unix.Close(s.fd)
	return s.seen
}
