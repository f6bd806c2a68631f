package flow

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/port/tundev"
)

// host is a network namespace with a kernel's TCP behind a TUN that sends
// superpackets.
type host struct {
	tun  int
	work chan func()
}

// newHost makes the i-th host, with the i-th of each family's ends.
func newHost(t *testing.T, i int) *host {
	h := &host{work: make(chan func())}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and the namespace with it
		failed <- h.setUp(i)
		for f := range h.work {
			f()
		}
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(h.work)
		_ = unix.Close(h.tun)
	})
	return h
}

func (h *host) setUp(i int) (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if h.tun, err = unix.Open(tundev.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open %s: %w", tundev.Path, err)
	}
	if err := tundev.Attach(h.tun, "wire0"); err != nil {
		return fmt.Errorf("make a TUN: %w", err)
	}
	if err := unix.IoctlSetInt(h.tun, unix.TUNSETOFFLOAD, tundev.Csum|tundev.TSO); err != nil {
		return fmt.Errorf("set offloads: %w", err)
	}
	script := fmt.Sprintf(`set -e
echo 0 > /proc/sys/net/ipv6/conf/wire0/accept_dad
echo 10 > /proc/sys/net/ipv4/tcp_fin_timeout
ip link set lo up; ip addr add %s/24 dev wire0; ip -6 addr add %s/64 dev wire0 nodad; ip link set wire0 up
ip route add default dev wire0; ip -6 route add default dev wire0`, ends[0][i], ends[1][i])
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("set up the namespace: %w\n%s", err, out)
	}
	return nil
}

// in runs f in the host's namespace.
func (h *host) in(f func()) {
	done := make(chan struct{})
	h.work <- func() { f(); close(done) }
	<-done
}

// wire carries packets between two hosts, through a table, and loses, repeats and
// reorders some: before the table sees them, and behind it.
type wire struct {
	hosts  [2]*host
	w      *Worker
	random *rand.Rand
	held   [2][]byte // a packet of each host that others overtake
	seen   atomic.Int64
	supers int
	wrong  []string
}

// carry goes on until stop is closed.
func (x *wire) carry(stop <-chan struct{}) {
	buf := make([]byte, 1<<17)
	for {
		select {
		case <-stop:
			return
		default:
		}
		quiet := true
		for from := range x.hosts {
			n, err := unix.Read(x.hosts[from].tun, buf)
			if err == nil {
				quiet = false
				x.packet(from, append([]byte(nil), buf[:n]...))
			} else if !errors.Is(err, unix.EAGAIN) {
				x.wrong = append(x.wrong, fmt.Sprintf("read from TUN: %v", err))
				return
			}
		}
		if quiet {
			x.release(0)
			x.release(1)
			ready := []unix.PollFd{{Fd: int32(x.hosts[0].tun), Events: unix.POLLIN}, {Fd: int32(x.hosts[1].tun), Events: unix.POLLIN}}
			_, _ = unix.Poll(ready, 5)
		}
	}
}

// packet takes one with its offload header in front.
func (x *wire) packet(from int, b []byte) {
	ip := b[vnetSize:]
	if ip[0]>>4 == 6 && (ip[6] == 0 || ip[6] == 58) { // neighbours and groups
		return
	}
	switch x.random.IntN(50) {
	case 0:
		return // lost before the table
	case 1, 2, 3:
		if x.held[from] == nil {
			x.held[from] = b
			return
		}
	}
	x.judge(from, b)
	if x.random.IntN(3) == 0 {
		x.release(from)
	}
}

// release lets go of what others have overtaken.
func (x *wire) release(from int) {
	if b := x.held[from]; b != nil {
		x.held[from] = nil
		x.judge(from, b)
	}
}

// judge shows a packet to the table, and sends it on, most times.
func (x *wire) judge(from int, b []byte) {
	ip := b[vnetSize:]
	if len(ip) > 1500 {
		x.supers++
	}
	// A segment that was overtaken, and finds its socket gone, is answered by a reset
	// with a number that has been passed: its receiver would ignore it too.
	if r := pass(x.w, 0, ip); !passes(r) && r.Reason != BadReset {
		x.wrong = append(x.wrong, fmt.Sprintf("from %d: % x is %v: %v", from, ip[:min(len(ip), 72)], r.Outcome, r.Reason))
	}
	x.seen.Add(1)
	switch x.random.IntN(50) {
	case 0:
		return // lost behind the table
	case 1:
		x.send(from, b)
	}
	x.send(from, b)
}

func (x *wire) send(from int, b []byte) { _, _ = unix.Write(x.hosts[1-from].tun, b) }

// TestRealConnections has two kernels talk over a lossy wire: every segment of
// theirs passes, and their flows end as they do.
func TestRealConnections(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	hosts := [2]*host{newHost(t, 0), newHost(t, 1)}
	table := newTable(t, nil)
	x := &wire{hosts: hosts, w: table.Worker(0), random: rand.New(rand.NewPCG(1, 2))}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		x.carry(stop)
		close(stopped)
	}()
	for v6 := range ends {
		for name, talk := range map[string]func(client, server *net.TCPConn) error{
			"closed by the client": func(c, s *net.TCPConn) error {
				return errors.Join(send(c, s, 300_000), c.Close(), drained(s), s.Close())
			},
			"half closed": func(c, s *net.TCPConn) error {
				return errors.Join(c.CloseWrite(), send(s, c, 300_000), s.Close(), drained(c), c.Close())
			},
			"both ways": func(c, s *net.TCPConn) error { return errors.Join(bothWays(c, s), c.Close(), s.Close()) },
			"reset": func(c, s *net.TCPConn) error {
				return errors.Join(send(c, s, 100), s.SetLinger(0), s.Close(), refused(c))
			},
		} {
			c, s, err := connect(hosts, v6)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, family(v6), err)
			}
			if err := talk(c, s); err != nil {
				t.Errorf("%s, %s: %v", name, family(v6), err)
			}
		}
	}
	open := ended(table)
	for end := time.Now().Add(10 * time.Second); len(open) > 0 && time.Now().Before(end); open = ended(table) {
		time.Sleep(20 * time.Millisecond)
	}
	close(stop)
	<-stopped
	for _, s := range x.wrong {
		t.Error(s)
	}
	if len(open) > 0 || table.Stats().Flows < 8 {
		t.Errorf("%d flows, of which have not ended: %v", table.Stats().Flows, open)
	}
	if x.seen.Load() < 150 || x.supers < 20 {
		t.Errorf("%d packets and %d superpackets are too few to tell", x.seen.Load(), x.supers)
	}
	balanced(t, table)
}

// ended lists the flows that have not.
func ended(table *Table) (open []string) {
	for f := range table.All(0) {
		if f.State != Closed && f.State != Reset {
			open = append(open, fmt.Sprint(f.Key[0].Addrs()), f.State.String())
		}
	}
	return open
}

// connect opens a connection from the first host to the second.
func connect(hosts [2]*host, v6 int) (client, server *net.TCPConn, err error) {
	var l *net.TCPListener
	hosts[1].in(func() { l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ends[v6][1], 0))) })
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	hosts[0].in(func() { client, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)) })
	if err != nil {
		return nil, nil, err
	}
	server, err = l.AcceptTCP()
	return client, server, err
}

func send(from io.Writer, to io.Reader, n int) error {
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(from, io.LimitReader(strings.NewReader(strings.Repeat("margay ", n/7+1)), int64(n)))
		wrote <- err
	}()
	_, err := io.CopyN(io.Discard, to, int64(n))
	return errors.Join(err, <-wrote)
}

func bothWays(c, s *net.TCPConn) error {
	there := make(chan error)
	go func() { there <- send(c, s, 200_000) }()
	return errors.Join(send(s, c, 200_000), <-there)
}

// drained waits for the end of what the other side sends.
func drained(c *net.TCPConn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

// refused waits until the other side resets the connection.
func refused(c *net.TCPConn) error {
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read ends by %v, want a reset", err)
	}
	return c.Close()
}
