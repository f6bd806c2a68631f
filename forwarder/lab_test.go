package forwarder_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/built"
	"margay.dev/margay/internal/hostnet"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// binary is the daemon, built once for all tests.
var binary = sync.OnceValues(func() (string, error) { return built.Program("margay-forwarder") })

// dialEnv asks this binary to dial a socket instead of testing; see dialAs.
const dialEnv = "MARGAY_DIAL"

func TestMain(m *testing.M) {
	if at := os.Getenv(dialEnv); at != "" {
		if err := dialAs(at); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// lab is a node with a forwarder, and pods:
//
//	pod "a", TUN  10.1.0.2 fd00::2 ──┤           ├── 10.1.0.3 fd00::3  TUN, pod "b"
//	                                 │ forwarder │
//	pod "c", veth 10.1.0.4 fd00::4 ──┤           ├── margay0 10.1.0.1 fd00::1, the node
type lab struct {
	t       *testing.T
	node    *hostnet.Namespace
	pods    map[string]*hostnet.Namespace
	dir     string
	cmd     *exec.Cmd
	log     *logBuffer
	conn    *grpc.ClientConn
	workers int
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Len is how many bytes were written.
func (l *logBuffer) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newLab makes the namespaces; pod "c" gets a veth whose node end is "vc".
func newLab(t *testing.T) *lab {
	t.Helper()
	NeedRoot(t)
	OfProcesses(t)
	l := &lab{t: t, node: Namespace(t), pods: map[string]*hostnet.Namespace{}, dir: t.TempDir(), log: &logBuffer{}, workers: 1}
	for _, name := range []string{"a", "b", "c"} {
		l.pods[name] = Namespace(t)
		Run(t, l.pods[name], "ip", "link", "set", "lo", "up")
	}
	Run(t, l.node, "ip", "link", "set", "lo", "up")
	l.cable()
	t.Cleanup(func() {
		l.kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("the forwarder's log:\n%s", l.log)
		}
	})
	return l
}

// cable makes pod c's veth.
func (l *lab) cable() {
	l.t.Helper()
	c := l.pods["c"]
	Run(l.t, l.node, "ip", "link", "add", "vc", "type", "veth", "peer", "name", "eth0", "netns", Name(c))
	Run(l.t, l.node, "ip", "link", "set", "vc", "up")
	for _, arg := range [][]string{
		{"ethtool", "-K", "eth0", "tx", "off"},
		{"ip", "addr", "add", "10.1.0.4/32", "dev", "eth0"},
		{"ip", "addr", "add", "fd00::4/128", "dev", "eth0", "nodad"},
		{"ip", "link", "set", "eth0", "up"},
		{"ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0", "onlink"},
		{"ip", "route", "add", "default", "via", "fe80::1", "dev", "eth0", "onlink"},
	} {
		Run(l.t, c, arg...)
	}
	Run(l.t, l.node, "ethtool", "-K", "vc", "tx", "off")
}

func (l *lab) socket() string { return filepath.Join(l.dir, "run", "s") }

// start runs the daemon in the node's namespace and waits until it answers.
func (l *lab) start(flags ...string) {
	l.t.Helper()
	path, err := binary()
	if err != nil {
		l.t.Fatal(err)
	}
	args := append([]string{"--socket", l.socket(), "--state-dir", filepath.Join(l.dir, "state"), "--metrics", "",
		"--workers", fmt.Sprint(l.workers), "--log-level", "debug"}, flags...)
	l.cmd = exec.Command(path, args...)
	l.cmd.Stderr = l.log
	if err := l.node.Do(l.cmd.Start); err != nil {
		l.t.Fatal(err)
	}
	Eventually(l.t, "the forwarder answers", func() bool {
		c, err := net.Dial("unix", l.socket())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	l.conn, err = grpc.NewClient("unix:"+l.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		l.t.Fatal(err)
	}
}

// kill ends the daemon and returns how it ended.
func (l *lab) kill(s syscall.Signal) error {
	if l.cmd == nil {
		return nil
	}
	_ = l.cmd.Process.Signal(s) // it may have ended by itself
	err := l.cmd.Wait()
	l.conn.Close()
	l.cmd = nil
	return err
}

func (l *lab) inspect() pb.InspectClient { return pb.NewInspectClient(l.conn) }

// client is one stream.
type client struct {
	lab    *lab
	rpc    grpc.BidiStreamingClient[pb.ClientMessage, pb.ServerMessage]
	cancel context.CancelFunc
	gen    uint64

	mu         sync.Mutex
	conditions map[string]*pb.Condition
	answers    chan *pb.ServerMessage
	failed     chan error
}

func (l *lab) connect() *client {
	l.t.Helper()
	c, err := l.dial(&pb.Hello{Version: pb.Version, MinVersion: pb.MinVersion, Client: "test"})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *lab) dial(hello *pb.Hello) (*client, error) {
	ctx, cancel := context.WithCancel(context.Background())
	l.t.Cleanup(cancel)
	rpc, err := pb.NewDataplaneClient(l.conn).Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &client{lab: l, rpc: rpc, cancel: cancel, conditions: map[string]*pb.Condition{},
		answers: make(chan *pb.ServerMessage, 100), failed: make(chan error, 1)}
	if err := rpc.Send(&pb.ClientMessage{Message: &pb.ClientMessage_Hello{Hello: hello}}); err != nil {
		return nil, err
	}
	m, err := rpc.Recv()
	if err != nil {
		return nil, err
	}
	if m.GetWelcome() == nil {
		return nil, fmt.Errorf("the first answer is %v", m)
	}
	c.gen = m.GetWelcome().GetGeneration()
	go c.receive()
	return c, nil
}

func (c *client) receive() {
	for {
		m, err := c.rpc.Recv()
		if err != nil {
			c.failed <- err
			return
		}
		if x := m.GetCondition(); x != nil {
			c.mu.Lock()
			c.conditions[x.Object] = x
			c.mu.Unlock()
			continue
		}
		c.answers <- m
	}
}

// send sends chunks and a commit, and returns the faults; nil means acknowledged.
func (c *client) send(snapshot bool, chunks ...*pb.Chunk) []string {
	c.lab.t.Helper()
	c.gen++
	for _, m := range chunks {
		if err := c.rpc.Send(&pb.ClientMessage{Message: &pb.ClientMessage_Chunk{Chunk: m}}); err != nil {
			c.lab.t.Fatalf("send chunk: %v", err)
		}
	}
	commit := &pb.Commit{Generation: c.gen, Snapshot: snapshot}
	if err := c.rpc.Send(&pb.ClientMessage{Message: &pb.ClientMessage_Commit{Commit: commit}}); err != nil {
		c.lab.t.Fatalf("send commit: %v", err)
	}
	select {
	case m := <-c.answers:
		if r := m.GetRefusal(); r != nil {
			return r.Faults
		}
		if m.GetAck().GetGeneration() != c.gen {
			c.lab.t.Fatalf("answer is %v, want an ack of %d", m, c.gen)
		}
		return nil
	case err := <-c.failed:
		c.lab.t.Fatalf("stream ended: %v", err)
	case <-time.After(2 * time.Minute):
		c.lab.t.Fatal("no answer to a commit within two minutes")
	}
	return nil
}

// must is send for commits that have no faults.
func (c *client) must(snapshot bool, chunks ...*pb.Chunk) {
	c.lab.t.Helper()
	if faults := c.send(snapshot, chunks...); faults != nil {
		c.lab.t.Fatalf("refused: %s", strings.Join(faults, "\n"))
	}
}

func (c *client) condition(object string) *pb.Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conditions[object]
}

// tunPod is a pod's TUN port and endpoint.
func (l *lab) tunPod(name, ip4, ip6 string) (*pb.Port, *pb.Endpoint) {
	path, err := hostnet.NamespacePath(Name(l.pods[name]))
	if err != nil {
		l.t.Fatal(err)
	}
	return &pb.Port{Name: name, Device: "eth0", Netns: path, Kind: &pb.Port_Tun{Tun: &pb.TunPort{
			Keep: true, Addresses: []string{ip4 + "/32", ip6 + "/128"}, Routes: []string{"0.0.0.0/0", "::/0"},
		}}},
		&pb.Endpoint{Id: name, Port: name, Addresses: []string{ip4, ip6}, Policy: pb.Endpoint_POLICY_OFF}
}

// snapshot is the whole lab.
func (l *lab) snapshot() *pb.Chunk {
	pa, ea := l.tunPod("a", "10.1.0.2", "fd00::2")
	pbb, eb := l.tunPod("b", "10.1.0.3", "fd00::3")
	return &pb.Chunk{
		Ports: []*pb.Port{pa, pbb, {Name: "c", Device: "vc", Kind: &pb.Port_Xsk{Xsk: &pb.XskPort{Takeover: true}}}},
		Endpoints: []*pb.Endpoint{ea, eb,
			{Id: "c", Port: "c", Addresses: []string{"10.1.0.4", "fd00::4"}, Policy: pb.Endpoint_POLICY_OFF}},
		HostPort: &pb.HostPort{
			Addresses: []string{"10.1.0.1", "fd00::1"}, Routes: []string{"10.1.0.0/24", "fd00::/64"}, Guarded: []string{"10.1.0.0/24", "fd00::/64"},
		},
	}
}

// ping sends echo requests from a pod and wants every reply.
func (l *lab) ping(pod, to string) {
	l.t.Helper()
	if out, err := l.tryPing(l.pods[pod], to); err != nil {
		l.t.Fatalf("ping from %s to %s: %v\n%s", pod, to, err, out)
	}
}

func (l *lab) tryPing(from *hostnet.Namespace, to string) (string, error) {
	return TryRun(from, "ping", "-c", "3", "-i", "0.05", "-W", "1", to)
}

// pings wants everybody to reach everybody.
func (l *lab) pings() {
	l.t.Helper()
	for from, own := range map[string]string{"a": "2", "b": "3", "c": "4"} {
		for _, to := range []string{"1", "2", "3", "4"} {
			if to != own {
				l.ping(from, "10.1.0."+to)
				l.ping(from, "fd00::"+to)
			}
		}
	}
	for _, to := range []string{"2", "3", "4"} {
		for _, addr := range []string{"10.1.0." + to, "fd00::" + to} {
			if out, err := l.tryPing(l.node, addr); err != nil {
				l.t.Fatalf("ping from the node to %s: %v\n%s", addr, err, out)
			}
		}
	}
}
