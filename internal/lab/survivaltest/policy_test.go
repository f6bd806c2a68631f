package survivaltest

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/pkt"
)

var turns = flag.Int("turns", 20, "how often TestPolicyTurnsUnderTraffic turns policy round, in each family; the long form is 1000")

// A pod that opens connections as fast as it can, to one that does not answer, fills its
// own share of the tables of both nodes. Connections of others go on, and new ones begin.
func TestSYNFloodFromAPod(t *testing.T) {
	w := raise(t, 1, func(string) map[string]any { return map[string]any{"flows": 2} })
	w.police(`{action: Allow}`)
	for _, six := range []bool{false, true} { // whom ann floods
		a := w.addr("ann", six)
		w.run("cleo", "ip", "route", "add", "blackhole", netip.PrefixFrom(a, a.BitLen()).String())
	}
	others := w.connections([2]string{"amy", "dave"}, [2]string{"dave", "amy"})
	was := map[string]map[string]uint64{"north": w.counters("north").Drops, "south": w.counters("south").Drops}
	var ending atomic.Bool
	ended := make(chan error, 2)
	for _, six := range []bool{false, true} {
		go func() { ended <- w.synFlood("ann", "cleo", six, &ending) }()
	}
	w.eventually("north refuses what is beyond one pod's share", func() bool { return w.dropped("north", was["north"])["flow-over-share"] > 500 })
	for _, node := range []string{"north", "south"} {
		most, limit := uint64(0), uint64(0)
		w.eventually(node+"'s table is full of the flood", func() bool { most, limit = w.held(node); return most*2 > limit })
		if most*5 > limit*4+5 {
			t.Errorf("one pod holds %d of %d flows that %s may have, want four fifths at most", most, limit, node)
		}
	}
	for i := range 40 {
		pair := [][2]string{{"amy", "dave"}, {"dave", "amy"}}[i/2%2]
		a, b, err := w.connect(pair[0], pair[1], i%2 == 1)
		if err != nil {
			t.Fatalf("connection %d, from %s to %s, does not begin during the flood: %v", i, pair[0], pair[1], err)
		}
		_ = errors.Join(a.Close(), b.Close()) // they have begun, which is all that is asked
	}
	ending.Store(true)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	w.lived(others)
	for node := range was {
		w.only(node, was[node], append([]string{"flow-over-share"}, reasons...)...)
	}
	w.balanced()
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
	var paths []load.Path
	for _, p := range pairs {
		for _, six := range []bool{false, true} {
			paths = append(paths, load.Path{From: w.space(p[0]), To: w.space(p[1]), Source: w.addr(p[0], six), Target: w.addr(p[1], six)})
		}
	}
	c, err := load.StartConnections(w.t.Context(), paths, 100_000)
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

// synFlood opens connections from one pod to another, none twice, until it is told to end.
func (w *world) synFlood(from, to string, six bool, ending *atomic.Bool) error {
	const burst, pause = 32, time.Millisecond
	src, dst := w.addr(from, six), w.addr(to, six)
	domain, target := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: as4(dst)})
	if six {
		domain, target = unix.AF_INET6, &unix.SockaddrInet6{Addr: dst.As16()}
	}
	fd := -1
	if err := w.space(from).Do(func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	}); err != nil {
		return fmt.Errorf("open a raw socket in %s: %w", from, err)
	}
	defer unix.Close(fd)
	for n := uint32(0); !ending.Load(); n++ {
		if err := unix.Sendto(fd, syn(src, dst, n), 0, target); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("send a SYN from %s: %w", from, err)
		}
		if n%burst == 0 {
			time.Sleep(pause)
		}
	}
	return nil
}

func as4(a netip.Addr) (b [4]byte) {
	copy(b[:], a.AsSlice())
	return b
}

// syn is the n-th segment of a flood, each of another connection.
func syn(src, dst netip.Addr, n uint32) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b[0:], uint16(1024+n%60000))
	binary.BigEndian.PutUint16(b[2:], uint16(1+n/60000))
	binary.BigEndian.PutUint32(b[4:], n)
	b[12], b[13] = 5<<4, 2 // no options; SYN
	binary.BigEndian.PutUint16(b[14:], 60000)
	addrs := append(src.AsSlice(), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[16:], ^pkt.Fold(pkt.PseudoSum(addrs, pkt.ProtoTCP, len(b))+pkt.Sum(b)))
	return b
}

// Policy is turned round as fast as the lab does that, while pods talk. What all
// policies allow goes on unharmed, what none allows never comes, and what one allows
// comes while that is in force.
func TestPolicyTurnsUnderTraffic(t *testing.T) {
	w := raise(t, 2, nil)
	few, more := `{action: Allow, source: {selector: pod == "amy"}}`, `{action: Allow, source: {selector: 'pod in {"amy", "cleo"}'}}`
	w.police(few)
	for _, six := range []bool{false, true} {
		always, never, sometimes := w.connections([2]string{"amy", "dave"}), w.udp("ann", "dave", six), w.udp("cleo", "dave", six)
		began := time.Now()
		for i := range *turns {
			w.police([]string{more, few}[i%2])
		}
		t.Logf("IPv6 %v: %d turns, %.0f a second", six, *turns, float64(*turns)/time.Since(began).Seconds())
		w.police(more)
		sometimes.goesOn(w)
		w.police(few)
		w.eventually("what is denied now comes no more", func() bool {
			was := sometimes.received.Load()
			time.Sleep(200 * time.Millisecond) // in which some two hundred would come
			return sometimes.received.Load() == was
		})
		w.lived(always)
		if n := never.received.Load(); n != 0 {
			t.Errorf("IPv6 %v: %d datagrams came that no policy allows", six, n)
		}
		never.end()
		sometimes.end()
	}
	w.balanced()
}
