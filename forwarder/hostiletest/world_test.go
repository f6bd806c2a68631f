package hostiletest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/control/domains"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/plane/planetest"
	"margay.dev/margay/forwarder/session"
	"margay.dev/margay/internal/lab/policies"
	"margay.dev/margay/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what anything may take on a machine that is busy with other things.
const patience = 5 * time.Minute

// uplink is a port that is nobody's endpoint: packets of any source may come by it.
const uplink = "uplink"

// world is a node with pods p1, p2 ... and an uplink, its forwarder, and the
// resources that make its policy.
type world struct {
	*planetest.Bench
	t         *testing.T
	core      *core
	stream    *dataplane.Stream
	guard     *guard.Guard
	endpoints map[policy.Key]*v1.Endpoint // as they are without policy
	sent      uint64                      // packets, since the beginning
	keeper    *domains.Keeper             // of names that pods are told
	behind    atomic.Bool                 // what is overheard is left lying
}

// core puts commits in force, as the daemon does but for the disk, and remembers
// how large their messages were.
type core struct {
	*plane.Plane
	largest, chunks int
}

func (c *core) Commit(ctx context.Context, one session.Commit) ([]string, error) {
	for _, m := range one.Chunks {
		c.chunks, c.largest = c.chunks+1, max(c.largest, proto.Size(m))
	}
	return c.Apply(ctx, one.Generation, one.Change, one.Snapshot)
}

func (c *core) Acknowledged() {}

// raise makes a world with so many pods, of which none has policy.
func raise(t *testing.T, pods int, cfg plane.Config) *world {
	t.Helper()
	cfg.Workers = max(cfg.Workers, 1)
	cfg.Frames = max(cfg.Frames, 4096)
	w := &world{Bench: planetest.New(t, cfg), t: t, endpoints: map[policy.Key]*v1.Endpoint{}, guard: guard.New("here")}
	w.core = &core{Plane: w.Plane}
	dir, err := os.MkdirTemp("", "mgh") // t.TempDir has the test's name in it: too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer(grpc.MaxRecvMsgSize(session.MaxMessage))
	v1.RegisterDataplaneServer(rpc, session.NewServer(w.core, w.core.Plane, "boot", slog.New(slog.DiscardHandler)))
	served := make(chan error)
	go func() { served <- rpc.Serve(l) }()
	t.Cleanup(func() { rpc.Stop(); <-served })
	w.keeper = domains.NewKeeper(domains.Limits{}, func(ids []uint64) { w.stream.AnswersRead(ids) })
	t.Cleanup(w.keeper.Stop)
	ready := make(chan struct{}) // w.stream is there
	hear := func(o *v1.Overheard) {
		if <-ready; !w.behind.Load() {
			w.keeper.Hear(o)
		}
	}
	if w.stream, err = dataplane.Dial(t.Context(), socket, dataplane.Options{Client: "hostile", OnOverheard: hear}); err != nil {
		t.Fatal(err)
	}
	close(ready)
	t.Cleanup(w.stream.Close)
	w.begin(pods)
	return w
}

// begin sends the state of a node without policy.
func (w *world) begin(pods int) {
	w.t.Helper()
	s := dataplane.State{Ports: []*v1.Port{{Name: uplink, Kind: &v1.Port_Tun{Tun: &v1.TunPort{}}}}}
	for i := 1; i <= pods; i++ {
		e := &v1.Endpoint{Id: "pod/" + pod(i), Port: pod(i), Policy: v1.Endpoint_POLICY_OFF}
		for _, six := range families {
			e.Addresses = append(e.Addresses, addr(i, six).String())
		}
		s.Ports = append(s.Ports, &v1.Port{Name: pod(i), Kind: &v1.Port_Tun{Tun: &v1.TunPort{}}})
		s.Endpoints = append(s.Endpoints, e)
		w.endpoints[keyOf(i)] = e
	}
	s.NextHops = []*v1.NextHop{{Id: 1, Kind: v1.NextHop_KIND_FORWARD, Members: []*v1.NextHop_Member{{Port: uplink}}}}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		s.Routes = append(s.Routes, dataplane.Route{Prefix: netip.MustParsePrefix(all), NextHop: 1})
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if _, err := w.stream.Apply(ctx, s); err != nil {
		w.t.Fatal(err)
	}
}

var families = []bool{false, true} // six

func pod(i int) string { return fmt.Sprint("p", i) }

func addr(i int, six bool) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)})
	}
	return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
}

func keyOf(i int) policy.Key {
	return policy.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "default", Name: pod(i)}
}

// workload is pod i as a resource.
func workload(i int, labels map[string]string, profiles ...string) *v3.WorkloadEndpoint {
	o := v3.New(v3.KindWorkloadEndpoint).(*v3.WorkloadEndpoint)
	o.Namespace, o.Name, o.Labels = "default", pod(i), labels
	o.Spec = v3.WorkloadEndpointSpec{Orchestrator: "k8s", Node: "here", Pod: pod(i), Endpoint: "eth0", Profiles: profiles}
	for _, six := range families {
		o.Spec.IPNetworks = append(o.Spec.IPNetworks, netip.PrefixFrom(addr(i, six), addr(i, six).BitLen()).String())
	}
	return o
}

// openProfile is a profile of pods that may do what no policy of theirs decides.
const openProfile = "{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: open}, spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}}\n"

// read reads a manifest that is sound.
func (w *world) read(manifest string) (objects []metav1.Object) {
	w.t.Helper()
	manifests, err := policies.Read([]byte(manifest))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range manifests {
		objects = append(objects, m.Object)
	}
	return objects
}

// put has resources be there, and returns once that is in force.
func (w *world) put(objects ...metav1.Object) {
	w.t.Helper()
	for _, o := range objects {
		if err := w.guard.Upsert(o); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.flush(); err != nil {
		w.t.Fatal(err)
	}
}

// flush puts what the guard knows in force.
func (w *world) flush() error {
	u := w.guard.Flush()
	for key, stages := range u.Stages {
		e := w.endpoints[key]
		if e == nil {
			return fmt.Errorf("%v is no pod of this world", key)
		}
		e = &v1.Endpoint{Id: e.Id, Port: e.Port, Addresses: e.Addresses, Policy: v1.Endpoint_POLICY_OFF}
		if stages != nil {
			stages.Judge(e)
		}
		u.Delta.Set.Endpoints = append(u.Delta.Set.Endpoints, e)
	}
	if err := w.send(u.Delta); err != nil {
		return err
	}
	w.guard.Settled(u.Generation)
	return w.keeper.Want(u.NewDomains, u.GoneDomains)
}

// send sends a change and waits until it is in force.
func (w *world) send(d dataplane.Delta) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	sent, err := w.stream.SendDelta(ctx, d)
	if err != nil {
		return err
	}
	return sent.Wait(ctx)
}

// datagram is UDP from a source to a pod.
func datagram(from, to netip.Addr, sport, dport uint16) []byte {
	return graphtest.UDPPorts(from, to, 8, sport, dport)
}

// offer lets packets come in by a port and waits until all that ever came are told
// of. It returns which of the packets came out by another port, by their source
// and destination ports.
func (w *world) offer(port, out string, packets ...[]byte) (came map[[2]uint16]int) {
	w.t.Helper()
	w.inject(port, packets...)
	if err := w.settle(); err != nil {
		w.t.Fatal(err)
	}
	return w.collect(out)
}

func (w *world) inject(port string, packets ...[]byte) {
	w.sent += uint64(len(packets))
	w.Port(port).Inject(int(w.sent)%w.Engine().Workers(), packets...)
}

// settle waits until every packet that was sent is told of.
func (w *world) settle() error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Microsecond) {
		c := w.Engine().Total()
		if c.Rx == w.sent && c.In() == c.Out() {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("of %d packets not all are told of: %+v", w.sent, c)
		}
	}
}

// collect takes what has come out of a port, counted by source and destination ports.
func (w *world) collect(out string) map[[2]uint16]int {
	came := map[[2]uint16]int{}
	for q := range w.Engine().Workers() {
		for _, p := range w.Port(out).Collect(q) {
			at := 40
			if p.Bytes[0]>>4 == 4 {
				at = 20
			}
			came[[2]uint16{binary.BigEndian.Uint16(p.Bytes[at:]), binary.BigEndian.Uint16(p.Bytes[at+2:])}]++
		}
	}
	return came
}

// passes tells whether a packet gets to a pod. Each call is a flow of its own.
func (w *world) passes(port string, from netip.Addr, to int, dport uint16) bool {
	w.t.Helper()
	sport := uint16(w.sent%60000) + 1024
	came := w.offer(port, pod(to), datagram(from, addr(to, from.Is6()), sport, dport))
	return came[[2]uint16{sport, dport}] == 1
}

// refusal is the faults of a commit that was refused; nil for any other outcome.
func refusal(err error) []string {
	var r *dataplane.Refusal
	if errors.As(err, &r) {
		return r.Faults
	}
	return nil
}

func (w *world) key(o metav1.Object) policy.Key {
	w.t.Helper()
	key, err := policy.KeyOf(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}
