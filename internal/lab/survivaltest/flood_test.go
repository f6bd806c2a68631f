package survivaltest

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/pkt"
)

var floodLoad = flag.Uint64("flood", 2000, "how many datagrams others send on each of four paths while TestSYNFloodAtOnePod floods; the long form is 50000")

// Connections to a pod that does not answer are opened as fast as it goes: by a pod, whose own
// node refuses what is beyond its share of the table of connections, and from outside, with
// packets that share the uplink with those of others, and are charged to who is flooded. Others
// lose less than a thousandth either way, their connections go on, and new ones begin.
func TestSYNFloodAtOnePod(t *testing.T) {
	tests := map[string]struct{ in, device, refuses string }{
		"by a pod":     {"ann", "eth0", "north"},
		"from outside": {"north", uplink, "south"}, // what north's kernel sends is not judged on its way out
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := raise(t, 1, func(string) map[string]any { return map[string]any{"flows": 2} })
			w.police(`{action: Allow}`)
			for _, six := range []bool{false, true} { // whose SYNs cleo gets
				a := w.addr("ann", six)
				w.run("cleo", "ip", "route", "add", "blackhole", netip.PrefixFrom(a, a.BitLen()).String())
			}
			f := w.newFlood("ann", "cleo", tt.in, tt.device)
			others := w.connections([2]string{"amy", "dave"}, [2]string{"dave", "amy"})
			talk := w.datagrams([2]string{"amy", "dave"}, [2]string{"dave", "amy"})
			was := map[string]map[string]uint64{"north": w.counters("north").Drops, "south": w.counters("south").Drops}
			f.among(talk, tt.refuses, was[tt.refuses])
			w.lived(others)
			for node := range was {
				w.only(node, was[node], append([]string{"flow-over-share"}, reasons...)...)
			}
			w.balanced()
		})
	}
}

// among floods, and wants a node to refuse what is beyond a share, and others to fare well
// meanwhile.
func (f *synFlood) among(talk *load.Steady, refuses string, was map[string]uint64) {
	f.t.Helper()
	over := func() uint64 { return f.dropped(refuses, was)["flow-over-share"] }
	from, ended := talk.Mark(), make(chan error, 1)
	go func() { ended <- f.run() }()
	f.eventually(refuses+" refuses what is beyond one pod's share", func() bool { return over() > 500 })
	most, limit := uint64(0), uint64(0)
	f.eventually(refuses+"'s table is full of the flood", func() bool { most, limit = f.held(refuses); return most*2 > limit })
	if most*5 > limit*4+5 {
		f.t.Errorf("one pod holds %d of %d flows that %s may have, want four fifths at most", most, limit, refuses)
	}
	for i := range 40 {
		pair := [][2]string{{"amy", "dave"}, {"dave", "amy"}}[i/2%2]
		a, b, err := f.connect(pair[0], pair[1], i%2 == 1)
		if err != nil {
			f.t.Fatalf("connection %d, from %s to %s, does not begin during the flood: %v", i, pair[0], pair[1], err)
		}
		_ = errors.Join(a.Close(), b.Close()) // they have begun, which is all that is asked
	}
	f.eventually("others have said enough", func() bool { return least(from, talk.Mark()) >= *floodLoad })
	to := talk.Mark()
	f.ending.Store(true)
	if err := <-ended; err != nil {
		f.t.Error(err)
	}
	talk.Stop()
	sent, lost := uint64(0), uint64(0)
	for _, fate := range talk.Between(from, to) {
		sent, lost = sent+fate.Sent, lost+fate.Lost
	}
	f.t.Logf("of %d SYNs %s refused %d; others lost %d of %d datagrams", f.sent, refuses, over(), lost, sent)
	if lost*1000 >= sent {
		f.t.Errorf("others lost %d of %d datagrams during the flood, want less than a thousandth", lost, sent)
	}
}

// least is what has been sent since from on the path of which that is least.
func least(from, to load.Mark) uint64 {
	n := to[0] - from[0]
	for i := range from {
		n = min(n, to[i]-from[i])
	}
	return n
}

// datagrams begins to send 1,000 a second in either family between pairs of pods, until the
// test ends.
func (w *world) datagrams(pairs ...[2]string) *load.Steady {
	w.t.Helper()
	s, err := load.StartSteady(w.paths(pairs...), 1000, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Stop)
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := s.Await(ctx); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// held is how many flows the endpoint holds that holds most of a node's, and how many
// all of them may.
func (w *world) held(node string) (most, limit uint64) {
	w.t.Helper()
	s, err := w.inspect(node).SummarizeFlows(w.t.Context(), &v1.SummarizeFlowsRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range s.GetHolders() {
		most = max(most, h.GetFlows())
	}
	return most, s.GetLimit()
}

// connections are some that live, in both families, between pairs of pods.
func (w *world) connections(pairs ...[2]string) *load.Connections {
	w.t.Helper()
	c, err := load.StartConnections(w.t.Context(), w.paths(pairs...), 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// lived wants connections to have gone on, and ends them.
func (w *world) lived(c *load.Connections) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	err := c.Await(ctx)
	if l := c.Stop(patience); err != nil || l.Resets != 0 || l.Bent != 0 || l.Received == 0 {
		w.t.Errorf("connections fared so: %+v, %v", l, err)
	}
}

// synFlood is many SYNs from one address to another, of both families, each of another connection.
type synFlood struct {
	*world
	fd     int
	ways   [2]unix.SockaddrLinklayer // by IPv4 and IPv6
	ends   [2][2]netip.Addr
	ending atomic.Bool // it is to end
	sent   uint64      // when it has
}

// newFlood is one that leaves by a device in the namespace of a node or pod.
func (w *world) newFlood(from, to, in, device string) *synFlood {
	w.t.Helper()
	f, peer := &synFlood{world: w}, &net.Interface{}
	if device == uplink {
		peer = w.device("south", uplink)
	}
	if err := w.space(in).Do(func() (err error) {
		f.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}); err != nil {
		w.t.Fatalf("open a packet socket in %s: %v", in, err)
	}
	w.t.Cleanup(func() { _ = unix.Close(f.fd) })
	index := w.device(in, device).Index
	for k, protocol := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
		f.ends[k] = [2]netip.Addr{w.addr(from, k == 1), w.addr(to, k == 1)}
		f.ways[k] = unix.SockaddrLinklayer{Protocol: bits.ReverseBytes16(protocol), Ifindex: index, Halen: uint8(len(peer.HardwareAddr))}
		copy(f.ways[k].Addr[:], peer.HardwareAddr)
	}
	return f
}

// device is one of a node or pod.
func (w *world) device(of, device string) (link *net.Interface) {
	w.t.Helper()
	if err := w.space(of).Do(func() (err error) { link, err = net.InterfaceByName(device); return err }); err != nil {
		w.t.Fatal(err)
	}
	return link
}

// run sends until it is to end.
func (f *synFlood) run() error {
	const burst, pause = 64, time.Millisecond
	for n := uint32(0); !f.ending.Load(); n++ {
		k := n % 2
		err := unix.Sendto(f.fd, syn(f.ends[k][0], f.ends[k][1], n/2), 0, &f.ways[k])
		switch {
		case err == nil:
			f.sent++
		case !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("send a SYN: %w", err)
		}
		if n%burst == 0 {
			time.Sleep(pause)
		}
	}
	return nil
}

// syn is the n-th packet of a flood, each of another connection.
func syn(src, dst netip.Addr, n uint32) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b[0:], uint16(1024+n%60000))
	binary.BigEndian.PutUint16(b[2:], uint16(1+n/60000))
	binary.BigEndian.PutUint32(b[4:], n)
	b[12], b[13] = 5<<4, 2 // no options; SYN
	binary.BigEndian.PutUint16(b[14:], 60000)
	addrs := append(src.AsSlice(), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[16:], ^pkt.Fold(pkt.PseudoSum(addrs, pkt.ProtoTCP, len(b))+pkt.Sum(b)))
	return slices.Concat(header(addrs, len(b)), b)
}

// header is that of an IP packet with so many bytes of TCP.
func header(addrs []byte, n int) []byte {
	if len(addrs) == 32 {
		return append([]byte{0x60, 0, 0, 0, 0, byte(n), pkt.ProtoTCP, 64}, addrs...)
	}
	h := append([]byte{0x45, 0, 0, byte(20 + n), 0, 0, 0x40, 0, 64, pkt.ProtoTCP, 0, 0}, addrs...)
	binary.BigEndian.PutUint16(h[10:], ^pkt.Fold(pkt.Sum(h)))
	return h
}
