package plane

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryOpener gives every port rings in process, unless it is told to fail.
type memoryOpener struct {
	mu    sync.Mutex
	open  map[string]*port.Memory
	fails map[string]error
	wrap  func(*port.Memory) port.Port // may be nil
}

func (o *memoryOpener) Open(want *desired.Port, _ *hostnet.Host, workers int, _ SteeringSource) (*Device, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.fails[want.Name]; err != nil {
		return nil, err
	}
	m, err := port.NewMemory(port.MemoryConfig{Name: want.Name, Queues: workers, MTU: 1500, Offload: true})
	if err != nil {
		return nil, err
	}
	o.open[want.Name] = m
	d := &Device{Port: m, GSO: true, Mode: "memory", Carrier: true}
	if o.wrap != nil {
		d.Port = o.wrap(m)
	}
	return d, nil
}

func (o *memoryOpener) get(name string) *port.Memory {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open[name]
}

func (o *memoryOpener) fail(name string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fails[name] = err
}

type bench struct {
	*Plane
	t      *testing.T
	opener *memoryOpener
	gen    uint64
}

func newBench(t *testing.T, workers int) *bench { return newBenchOf(t, Config{Workers: workers}) }

// newBenchOf makes a dataplane with some things chosen. Who closes it before the
// test ends may do so.
func newBenchOf(t *testing.T, cfg Config) *bench {
	t.Helper()
	hostnettest.NeedRoot(t)
	o := &memoryOpener{open: map[string]*port.Memory{}, fails: map[string]error{}}
	cfg.Frames, cfg.Supers, cfg.Opener, cfg.Spin = 4096, 64, o, time.Millisecond
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.closed {
			return
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &bench{Plane: p, t: t, opener: o}
}

func changeOf(m *pb.Chunk) *desired.Change {
	c := desired.NewChange()
	c.Add(m)
	return c
}

func (b *bench) apply(snapshot bool, m *pb.Chunk) {
	b.t.Helper()
	b.gen++
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	faults, err := b.Apply(ctx, b.gen, changeOf(m), snapshot)
	if faults != nil || err != nil {
		b.t.Fatalf("apply: %v, %v", faults, err)
	}
}

func pod(i int) (*pb.Port, *pb.Endpoint) {
	name := fmt.Sprint("p", i)
	return &pb.Port{Name: name, Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}},
		&pb.Endpoint{Id: name, Port: name, Addresses: []string{addr4(i).String(), addr6(i).String()}, Policy: pb.Endpoint_POLICY_OFF}
}

func addr4(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}) }
func addr6(i int) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)}) }

// packet is an IP packet of an experimental protocol between two pods.
func packet(src, dst netip.Addr) []byte {
	if src.Is4() {
		p := make([]byte, 28)
		p[0], p[8], p[9] = 0x45, 64, 253
		binary.BigEndian.PutUint16(p[2:], 28)
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst.AsSlice())
		sum := uint32(0)
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
		binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
		return p
	}
	p := make([]byte, 48)
	p[0], p[5], p[6], p[7] = 0x60, 8, 253, 64
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return p
}

func destination(p []byte) netip.Addr {
	if p[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(p[16:20]))
	}
	return netip.AddrFrom16([16]byte(p[24:40]))
}

// collect waits for what comes out of a port.
func (b *bench) collect(name string, n int) (out []port.Packet) {
	b.t.Helper()
	hostnettest.Eventually(b.t, fmt.Sprintf("%d packets come out of %s", n, name), func() bool {
		for q := range b.Engine().Workers() {
			out = append(out, b.opener.get(name).Collect(q)...)
		}
		return len(out) >= n
	})
	return out
}

func TestConvergesThroughMemoryPorts(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			b := newBench(t, workers)
			one, e1 := pod(1)
			two, e2 := pod(2)
			b.apply(true, &pb.Chunk{Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2}})
			b.opener.get("p1").Inject(0, packet(addr4(1), addr4(2)), packet(addr6(1), addr6(2)))
			for _, p := range b.collect("p2", 2) {
				if d := destination(p.Bytes); d != addr4(2) && d != addr6(2) {
					t.Errorf("a packet to %v came out", d)
				}
			}
		})
	}
}

func TestFailuresBecomeConditions(t *testing.T) {
	b := newBench(t, 1)
	one, e1 := pod(1)
	two, e2 := pod(2)
	b.opener.fail("p2", errNoDevice)
	var mu sync.Mutex
	heard := map[string]Condition{}
	stop := b.Listen(func(c Condition) {
		mu.Lock()
		defer mu.Unlock()
		heard[c.Object] = c
	})
	defer stop()
	reason := func() string {
		mu.Lock()
		defer mu.Unlock()
		return heard["port/p2"].Reason
	}
	b.apply(true, &pb.Chunk{Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2}})
	if reason() != ReasonDeviceMissing || len(b.Conditions()) != 1 {
		t.Errorf("conditions are %v, heard %v", b.Conditions(), heard)
	}
	b.opener.fail("p2", fmt.Errorf("it burns"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	defer func() { cancel(); <-done }()
	hostnettest.Eventually(t, "the other failure is told", func() bool { return reason() == ReasonDeviceFailed })
	b.opener.fail("p2", nil)
	hostnettest.Eventually(t, "it is tried again by itself", func() bool { return len(b.Conditions()) == 0 && reason() == "" })
	b.opener.get("p1").Inject(0, packet(addr4(1), addr4(2)))
	b.collect("p2", 1)
}

// TestChurnNeverMisdelivers adds and removes pods under traffic: a packet comes
// out of the port of its destination or nowhere, whatever index that had before.
func TestChurnNeverMisdelivers(t *testing.T) {
	b := newBench(t, 2)
	src, e := pod(1)
	b.apply(true, &pb.Chunk{Ports: []*pb.Port{src}, Endpoints: []*pb.Endpoint{e}})
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond):
				to := 2 + i%6
				b.opener.get("p1").Inject(i%2, packet(addr4(1), addr4(to)), packet(addr6(1), addr6(to)))
			}
		}
	})
	r := rand.New(rand.NewPCG(3, 4))
	there := map[int]bool{}
	delivered := 0
	for n := 0; n < 200 || delivered == 0 && n < 10_000; n++ { // on a busy machine traffic may begin late
		i := 2 + r.IntN(6)
		p, e := pod(i)
		if there[i] {
			old := b.opener.get(p.Name)
			for q := range 2 {
				for _, got := range old.Collect(q) {
					delivered++
					if d := destination(got.Bytes); d != addr4(i) && d != addr6(i) {
						t.Fatalf("a packet to %v came out of the port of %v", d, addr4(i))
					}
				}
			}
			b.apply(false, &pb.Chunk{RemovedPorts: []string{p.Name}, RemovedEndpoints: []string{e.Id}})
		} else {
			b.apply(false, &pb.Chunk{Ports: []*pb.Port{p}, Endpoints: []*pb.Endpoint{e}})
		}
		there[i] = !there[i]
	}
	close(stop)
	traffic.Wait()
	if delivered == 0 {
		t.Error("nothing was delivered at all")
	}
	if b.indexes.next > 12 {
		t.Errorf("port indexes up to %d were handed out for 7 ports: they are not used again", b.indexes.next)
	}
	hostnettest.Eventually(t, "every packet is accounted for", func() bool {
		c := b.Engine().Total()
		return c.Rx > 0 && c.In() == c.Out()
	})
}

// BenchmarkDelta is what one endpoint's coming and going costs beside many.
func BenchmarkDelta(b *testing.B) {
	for _, pods := range []int{10, 250} {
		b.Run(fmt.Sprintf("pods=%d", pods), func(b *testing.B) {
			o := &memoryOpener{open: map[string]*port.Memory{}, fails: map[string]error{}}
			p, err := New(Config{Workers: 1, Frames: 1024, Log: slog.New(slog.DiscardHandler), Opener: o})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			all := &pb.Chunk{}
			for i := range pods {
				port, endpoint := pod(i)
				all.Ports, all.Endpoints = append(all.Ports, port), append(all.Endpoints, endpoint)
			}
			gen := uint64(0)
			apply := func(snapshot bool, m *pb.Chunk) {
				gen++
				if faults, err := p.Apply(context.Background(), gen, changeOf(m), snapshot); faults != nil || err != nil {
					b.Fatal(faults, err)
				}
			}
			apply(true, all)
			for b.Loop() {
				apply(false, &pb.Chunk{RemovedEndpoints: []string{"p0"}})
				apply(false, &pb.Chunk{Endpoints: all.Endpoints[:1]})
			}
		})
	}
}
