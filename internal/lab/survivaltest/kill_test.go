package survivaltest

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
	. "margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab/load"
)

const (
	kills = 12
	// detachLoss bounds the kernel's own packets on a shared port that may be
	// lost when a program is taken off the device or put on: a veth then
	// empties the ring of its peer.
	detachLoss = 4
)

// loaded is a world with traffic of all kinds in it.
type loaded struct {
	*world
	talks []*conversation
	host  []*pinging // of the nodes' kernels to each other
}

func loadUp(w *world) *loaded {
	w.t.Helper()
	l := &loaded{world: w, talks: []*conversation{
		w.tcp("ann", "cleo", false), w.tcp("dave", "ann", true), w.tcp("amy", "ann", false),
		w.udp("cleo", "ann", true), w.udp("amy", "dave", false),
	}}
	for i := range kernelNorth {
		l.host = append(l.host, w.ping("kernel to kernel", w.space("north"), kernelNorth[i], kernelSouth[i], time.Second))
	}
	return l
}

// goOn waits until every conversation makes progress.
func (l *loaded) goOn() {
	l.t.Helper()
	for _, c := range l.talks {
		c.goesOn(l.world)
	}
}

func (l *loaded) end() {
	for _, c := range l.talks {
		c.end()
		c.unbent(l.t)
	}
}

// Connections under way outlive the forwarders that judged them.
func TestKilledAtAnyMoment(t *testing.T) {
	w := raise(t, 2, nil)
	w.police(`{action: Allow}`)
	w.everybody()
	l := loadUp(w)
	l.goOn()
	before := w.podDevices()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range kills {
		node, peer := "north", "south"
		if i%2 == 1 {
			node, peer = peer, node
		}
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
		w.kill(node)
		l.away(node, peer)
		if i%3 == 2 { // once more, at any moment of its start
			w.launch(node)
			time.Sleep(time.Duration(random.IntN(120)) * time.Millisecond)
			w.kill(node)
		}
		w.launch(node)
		l.goOn() // with nobody's help
		w.inForce(node)
		if s := w.status(node); !s.GetRestored() || s.GetClientConnected() {
			t.Errorf("%s's forwarder is back with %v, want its state from disk and no client", node, s)
		}
	}
	for i, p := range l.host {
		lost := p.end()
		t.Logf("%d of %d pings between the kernels lost in %d kills (IPv6 %v)", lost, p.sent, kills, i == 1)
		if most := detachLoss * (2*kills + kills/3); lost > most || p.received == 0 {
			t.Errorf("%d of %d pings between the kernels were lost (IPv6 %v), want at most %d: %v", lost, p.sent, i == 1, most, p.last)
		}
	}
	if after := w.podDevices(); after != before {
		t.Errorf("pods have other devices than before, so they were not reattached: indexes\nwere %v, are %v", before, after)
	}
	w.everybody()
	l.end()
	w.balanced()
}

// podDevices are the index of every pod's eth0.
func (w *world) podDevices() (out [4]int) {
	w.t.Helper()
	for i, p := range w.Topology().Pods {
		out[i] = w.link(p.Name).Index
	}
	return out
}

// eth0 is what ip tells of a pod's device.
type eth0 struct {
	Index   int    `json:"ifindex"`
	Address string `json:"address"`
}

func (w *world) link(pod string) eth0 {
	w.t.Helper()
	return JSON[[]eth0](w.t, w.space(pod), "ip", "-j", "link", "show", "eth0")[0]
}

// away looks at a node whose forwarder is dead, while its pods go on sending.
func (l *loaded) away(node, peer string) {
	l.t.Helper()
	here, there := l.sniff(node), l.sniff(peer)
	time.Sleep(150 * time.Millisecond)
	if err := l.KernelForwardsNothing(node); err != nil {
		l.t.Error(err)
	}
	if routes := l.run(node, "ip", "route", "show", "type", "blackhole"); !strings.Contains(routes, "10.78.0.0/16") {
		l.t.Errorf("no blackhole stands behind the pool on %s:\n%s", node, routes)
	}
	if link := l.run(node, "ip", "-d", "link", "show", uplink); strings.Contains(link, "prog/xdp") {
		l.t.Errorf("the dead forwarder's program is still on %s of %s:\n%s", uplink, node, link)
	}
	for _, s := range here.end() {
		// What the node's own stack sends to pods goes to the host port, which nobody reads.
		if s.outgoing && s.device != "margay0" {
			l.t.Errorf("%s's kernel sends a pod's packet while the forwarder is away: %v", node, s)
		}
	}
	for _, s := range there.end() {
		if !s.outgoing && l.lives(s, node) {
			l.t.Errorf("a pod's packet has come from %s to %s's kernel while the forwarder is away: %v", node, peer, s)
		}
	}
	if here.all == 0 || there.all == 0 {
		l.t.Error("not even the kernels' pings were sniffed: the sniffer is deaf")
	}
}

// lives tells whether the packet's source is a pod of the node.
func (l *loaded) lives(s sniffed, node string) bool {
	for _, p := range l.Topology().Pods {
		for _, a := range p.Addresses {
			if a.Addr == s.src && p.Node == node {
				return true
			}
		}
	}
	return false
}

// The sniffer must see what a kernel would leak: else silence proves nothing.
func TestSnifferSeesALeak(t *testing.T) {
	w := raise(t, 1, nil)
	w.everybody()
	w.kill("north")
	// A kernel that does forward, as it would be if we left it so.
	w.run("north", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	w.run("north", "ip", "route", "replace", "10.78.2.0/24", "via", "172.31.78.2")
	here, there := w.sniff("north"), w.sniff("south")
	_, _ = w.Ping(t.Context(), "amy", "cleo", false, ping2)
	leak := func(s sniffed, device string) bool {
		return s.device == device && s.src == w.addr("amy", false) && s.dst == w.addr("cleo", false)
	}
	var left, came bool
	for _, s := range here.end() {
		left = left || s.outgoing && leak(s, uplink)
	}
	for _, s := range there.end() {
		came = came || leak(s, uplink)
	}
	if !left {
		t.Error("a packet that the kernel forwarded was not seen to leave")
	}
	if came { // it is ours, so the living forwarder has it
		t.Error("south's program passed a pod's packet to its kernel")
	}
	w.run("north", "sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
}

func TestSettingsArePutBackByTheNextStart(t *testing.T) {
	w := raise(t, 1, nil)
	const filter, standard = "net.ipv4.conf.margay0.rp_filter", "net.ipv4.conf.default.rp_filter"
	setting := func(key string) string { return strings.TrimSpace(w.run("north", "sysctl", "-n", key)) }
	was := setting(standard)
	if was == "2" {
		t.Fatalf("%s is 2 already, which is what the forwarder sets: nothing can be told from it", standard)
	}
	if got := setting(filter); got != "2" {
		t.Fatalf("%s is %s under the forwarder, want 2", filter, got)
	}
	w.kill("north")
	if got := setting(filter); got != "2" {
		t.Errorf("%s is %s after a kill, want 2: there was nobody to put it back", filter, got)
	}
	// Without a state it has no reason to set it again: what is seen is the journal's work.
	state := filepath.Join(w.NodeDir("north"), "state")
	files, err := os.ReadDir(state)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), "journal") {
			err = errors.Join(err, os.Remove(filepath.Join(state, f.Name())))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	w.launch("north")
	w.eventually("the forwarder answers", func() bool {
		s, err := w.inspect("north").GetStatus(t.Context(), &v1.StatusRequest{})
		return err == nil && s.GetGeneration() == 0
	})
	if got := setting(filter); got != was {
		t.Errorf("%s is %s after the next start, want %s as before the first", filter, got, was)
	}
	w.feed("north")
	if got := setting(filter); got != "2" {
		t.Errorf("%s is %s under a forwarder that was told of its host port again, want 2", filter, got)
	}
	w.everybody()
	w.balanced()
}

// A pod's packets for the networks of its node must not find their way by the
// node's kernel either: its routes there are connected ones.
func TestPodsReachNoNeighbourOfADeadForwarder(t *testing.T) {
	w := raise(t, 1, nil)
	w.everybody()
	w.kill("south")
	there := w.sniff("north")
	for _, pod := range []string{"cleo", "dave"} {
		for i, to := range kernelNorth {
			if got, err := ping2.Run(t.Context(), w.space(pod), w.addr(pod, i == 1), to); got.Received != 0 {
				t.Errorf("%s reaches %v without a forwarder: %v", pod, to, err)
			}
		}
	}
	for _, s := range there.end() {
		if !s.outgoing && s.src.IsValid() && (s.src == w.addr("cleo", s.src.Is6()) || s.src == w.addr("dave", s.src.Is6())) {
			t.Errorf("a pod's packet came to the other node by the kernel: %v", s)
		}
	}
	w.launch("south")
	w.inForce("south")
	w.everybody()
	w.balanced()
}

var ping2 = load.Ping{Count: 2, Timeout: 300 * time.Millisecond}
