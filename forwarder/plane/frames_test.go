package plane

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strconv"
	"testing"
	"time"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestShares(t *testing.T) {
	type port struct{ queues, asked, want int } // want 0: refused
	tests := map[string]struct {
		spare int
		ports []port
	}{
		"one port gets what it asks for":           {13824, []port{{2, 2048, 2048}}},
		"many queues get smaller rings":            {13824, []port{{32, 2048, 128}}},
		"later ports get less, but some":           {8192, []port{{1, 2048, 2048}, {1, 2048, 2048}, {1, 2048, 2048}, {1, 2048, 1024}, {1, 2048, 512}, {1, 2048, 256}}},
		"the last frames go to the smallest rings": {128, []port{{1, 2048, 64}, {1, 2048, 64}, {1, 2048, 0}}},
		"asked for small, asked for large":         {8192, []port{{1, 64, 64}, {1, 65536, 2048}}},
		"not even the smallest":                    {1000, []port{{16, 2048, 0}, {4, 2048, 64}}},
		"nothing to spare":                         {-20, []port{{1, 64, 0}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var s shares
			for i, p := range tt.ports {
				got, ok := s.take(umem.Holder(i+1), tt.spare, p.queues, p.asked)
				if got != p.want || ok != (p.want > 0) {
					t.Errorf("port %d of %d queues got rings of %d, %v; want %d", i, p.queues, got, ok, p.want)
				}
			}
			for i := range tt.ports {
				s.give(umem.Holder(i + 1))
			}
			if got, ok := s.take(1, 4096, 1, 2048); got != 2048 || !ok {
				t.Errorf("a port got rings of %d, %v, of all frames that were given back", got, ok)
			}
		})
	}
}

// What enough says is enough in every order of opening, and one frame less is not.
func TestSharesEnough(t *testing.T) {
	asked := []int{256, 2048, 4096, 512}
	var s shares
	for i, n := range asked[1:] {
		s.take(umem.Holder(i+2), 1<<30, 1, n)
	}
	enough := s.enough(1, asked[0])
	if again := func() int { s.take(1, 1<<30, 1, asked[0]); return s.enough(1, asked[0]) }(); again != enough {
		t.Errorf("enough is %d before the port is opened and %d after", enough, again)
	}
	short := false
	for range 200 {
		rand.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
		var all, fewer shares
		for i, n := range asked {
			if got, _ := all.take(umem.Holder(i+1), enough, 1, n); got != n {
				t.Fatalf("of %d spare frames the ports of %v get rings of %d at %d", enough, asked, got, i)
			}
			got, _ := fewer.take(umem.Holder(i+1), enough-1, 1, n)
			short = short || got != n
		}
	}
	if !short {
		t.Errorf("%d spare frames would have been enough", enough-1)
	}
}

// manyQueues is a plane whose ports are veths of 16 queues in a namespace.
type manyQueues struct {
	*Plane
	t   *testing.T
	gen uint64
}

func newManyQueues(t *testing.T, frames int) *manyQueues {
	t.Helper()
	p, err := New(Config{Workers: 2, Frames: frames, Log: slog.New(slog.DiscardHandler), Spin: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return &manyQueues{Plane: p, t: t}
}

func (m *manyQueues) apply(c *pb.Chunk) {
	m.t.Helper()
	m.gen++
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if faults, err := m.Apply(ctx, m.gen, changeOf(c), false); faults != nil || err != nil {
		m.t.Fatalf("apply: %v, %v", faults, err)
	}
}

func (m *manyQueues) close() {
	m.t.Helper()
	if err := m.Close(); err != nil {
		m.t.Error(err)
	}
}

// filled stops the workers and wants the fill rings of ports to hold all that
// they were promised: the account of frames must not be read beside workers.
func (m *manyQueues) filled(ports int) {
	m.t.Helper()
	if err := m.engine.Quiesce(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	before := m.engine.Stats()
	hostnettest.Eventually(m.t, "every worker has been through all queues, and sleeps", func() bool {
		m.engine.Kick()
		for i, s := range m.engine.Stats() {
			if s.Load.Sleeps == before[i].Load.Sleeps {
				return false
			}
		}
		return true
	})
	m.engine.Stop()
	if len(m.ports) != ports {
		m.t.Errorf("there are %d ports, want %d", len(m.ports), ports)
	}
	for name, e := range m.ports {
		if e.device == nil {
			m.t.Errorf("port %s is not open", name)
			continue
		}
		x := e.device.Port.(*xskDevice)
		promised := x.owner.xsk.rings[x.holder].got
		if got := m.arena.Lent(x.holder); got != promised || got == 0 {
			m.t.Errorf("the queues of port %s hold %d frames, and %d were promised", name, got, promised)
		}
	}
}

// More queues than frames: who comes late gets less, then nothing and is told
// how many frames would be enough, and gets its share when another port goes.
func TestManyQueuesShareTheFrames(t *testing.T) {
	hostnettest.NeedRoot(t)
	ns := hostnettest.Namespace(t)
	path, err := hostnet.NamespacePath(hostnettest.Name(ns))
	if err != nil {
		t.Fatal(err)
	}
	var ports []*pb.Port
	for _, name := range []string{"v0", "v1", "v2", "v3"} {
		hostnettest.Run(t, ns, "ip", "link", "add", name, "numrxqueues", "16", "numtxqueues", "16", "up", "type", "veth",
			"peer", "name", name+"-peer", "numrxqueues", "16", "numtxqueues", "16")
		ports = append(ports, &pb.Port{Name: name, Netns: path, Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: true, RingSize: 256}}})
		hostnettest.Run(t, ns, "ip", "link", "set", name+"-peer", "up")
	}
	frames := 0
	t.Run("too few frames", func(t *testing.T) {
		m := newManyQueues(t, 4096)
		defer m.close()
		frames = m.lateComer(ports)
		m.filled(len(ports) - 1)
	})
	t.Run("as many frames as were told", func(t *testing.T) {
		m := newManyQueues(t, frames)
		defer m.close()
		m.apply(&pb.Chunk{Ports: ports})
		for _, s := range m.Ports() {
			if s.Queues != 16 || len(s.Fallbacks) != 0 {
				t.Errorf("with %d frames port %s has %d queues and the fallbacks %q", frames, s.Name, s.Queues, s.Fallbacks)
			}
		}
		m.filled(len(ports))
	})
}

// lateComer opens ports of which the last finds no frames, then takes the first
// away. It returns how many frames would have been enough for all.
func (m *manyQueues) lateComer(ports []*pb.Port) (frames int) {
	t, last := m.t, len(ports)-1
	t.Helper()
	for i, p := range ports {
		m.apply(&pb.Chunk{Ports: []*pb.Port{p}})
		if (i == last) != (len(m.Conditions()) > 0) {
			t.Fatalf("after port %s conditions are %v", p.Name, m.Conditions())
		}
	}
	raise := regexp.MustCompile(`raise frames in the configuration to (\d+)`)
	c := m.Conditions()[0]
	told := raise.FindStringSubmatch(c.Message)
	if c.Object != "port/"+ports[last].Name || c.Reason != ReasonFewFrames || told == nil {
		t.Fatalf("condition is %+v", c)
	}
	for _, s := range m.Ports() {
		if s.Queues > 0 && (len(s.Fallbacks) != 1 || !raise.MatchString(s.Fallbacks[0])) {
			t.Errorf("port %s has smaller rings, but its fallbacks are %q", s.Name, s.Fallbacks)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	m.apply(&pb.Chunk{RemovedPorts: []string{ports[0].Name}})
	hostnettest.Eventually(t, "the last port gets the frames of the first", func() bool { return len(m.Conditions()) == 0 })
	frames, err := strconv.Atoi(told[1])
	if err != nil {
		t.Fatal(err)
	}
	return frames
}
