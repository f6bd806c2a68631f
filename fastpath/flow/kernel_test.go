package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/port/tundev"
)

// The kernel's own connection tracking is a witness that nobody here has written:
//
//	left TUN ── ip forward, "ct state invalid drop" ── right TUN
//
// A packet written to one TUN comes out of the other, or does not.
type kernel struct {
	fds  [2]int // left, right
	buf  []byte
	mark uint64
}

// inKernel runs f in a network namespace of its own that tracks connections.
func inKernel(t *testing.T, f func(t *testing.T, k *kernel)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	if _, err := os.Stat("/proc/net/nf_conntrack"); err != nil {
		t.Skipf("needs a kernel that lists its tracked connections: %v", err)
	}
	done := make(chan struct{})
	go func() { // its thread ends with it, and the namespace with that
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		k, err := newKernel()
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(k.fds[0])
		defer unix.Close(k.fds[1])
		f(t, k)
	}()
	<-done
}

// newKernel sets the calling thread's namespace up.
func newKernel() (*kernel, error) {
	k := &kernel{buf: make([]byte, 1<<16)}
	for i, name := range []string{"left", "right"} {
		fd, err := unix.Open(tundev.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", tundev.Path, err)
		}
		if err := tundev.Attach(fd, name); err != nil {
			return nil, fmt.Errorf("make TUN %s: %w", name, err)
		}
		k.fds[i] = fd
	}
	const script = `set -e
for d in left right; do
  echo 0 > /proc/sys/net/ipv4/conf/$d/rp_filter
  echo 0 > /proc/sys/net/ipv6/conf/$d/accept_dad
  ip link set $d up
done
echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ip route add 10.1.0.0/24 dev left; ip route add 10.2.0.0/24 dev right
ip -6 route add fd01::/64 dev left; ip -6 route add fd02::/64 dev right
nft -f - <<END
table inet t {
 chain f {
  type filter hook forward priority 0; policy accept;
  ct state invalid drop
 }
}
END
echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose
echo 0 > /proc/sys/net/netfilter/nf_conntrack_checksum`
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("set up the namespace: %w\n%s", err, out)
	}
	return k, nil
}

// vnetSize is the offload header in front of each packet of a TUN.
const vnetSize = 10

// pass offers a packet at one side and reports whether it comes out of the other:
// before a second one that always does.
func (k *kernel) pass(b []byte, from int) (bool, error) {
	k.mark++
	mark := ipPacket(ends[0][from], ends[0][1-from], 253, binary.BigEndian.AppendUint64(nil, k.mark))
	for _, b := range [][]byte{b, mark} {
		if _, err := unix.Write(k.fds[from], append(make([]byte, vnetSize), b...)); err != nil {
			return false, fmt.Errorf("write to TUN: %w", err)
		}
	}
	through := false
	for {
		n, err := unix.Read(k.fds[1-from], k.buf)
		if errors.Is(err, unix.EAGAIN) {
			ready := []unix.PollFd{{Fd: int32(k.fds[1-from]), Events: unix.POLLIN}}
			if n, err := unix.Poll(ready, 5000); err == nil && n == 0 {
				return false, errors.New("the kernel forwards nothing")
			}
			continue
		}
		if err != nil {
			return false, fmt.Errorf("read from TUN: %w", err)
		}
		got := k.buf[vnetSize:n]
		if got[9] == 253 && string(got[20:]) == string(mark[20:]) {
			return through, nil
		}
		if len(got) == len(b) && string(got[12:]) == string(b[12:]) {
			through = true
		}
	}
}

// state is what the kernel calls the state of the connection from a port of the
// left side, or "" if it knows none.
func (k *kernel) state(port uint16) string {
	b, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); strings.Contains(line, fmt.Sprintf("sport=%d ", port)) {
			return words[5]
		}
	}
	return ""
}

// step is a segment of a scenario, and whether it passes.
type step struct {
	from int // 0 left, who opens; 1 right
	seg  seg
	want Outcome
}

// The two sides' first numbers, so that scenarios read as offsets from them. The
// left one's wraps around on the way.
const (
	left  = 1<<32 - 1000
	right = 5_000_000
)

// l and r are segments of the left and the right side: seq counts from its own
// first number, ack from the other's.
func l(want Outcome, flags uint8, seq, ack uint32, n int, options ...byte) step {
	return step{0, seg{flags, left + seq, right + ack, 1000, n, options}, want}
}

func r(want Outcome, flags uint8, seq, ack uint32, n int, options ...byte) step {
	return step{1, seg{flags, right + seq, left + ack, 1000, n, options}, want}
}

// opened begins a scenario with an established connection.
func opened(more ...step) []step {
	return append([]step{l(Inserted, SYN, 0, 0, 0), r(Hit, SYN|ACK, 0, 1, 0), l(Hit, ACK, 1, 1, 0)}, more...)
}

// scenarios are connections as they come, and what the kernel calls their ends. It
// forgets refused connections, and takes an open by both sides to be done when one
// more segment has come.
var scenarios = map[string]struct {
	steps  []step
	state  State
	kernel string
}{
	"opened":                        {opened(), Established, "ESTABLISHED"},
	"data both ways":                {opened(l(Hit, ACK|PSH, 1, 1, 100), r(Hit, ACK, 1, 101, 200), l(Hit, ACK, 101, 201, 0)), Established, "ESTABLISHED"},
	"retransmission":                {opened(l(Hit, ACK, 1, 1, 100), l(Hit, ACK, 1, 1, 100), r(Hit, ACK, 1, 101, 0)), Established, "ESTABLISHED"},
	"SYN once more":                 {[]step{l(Inserted, SYN, 0, 0, 0), l(Hit, SYN, 0, 0, 0)}, Opening, "SYN_SENT"},
	"SYN with a new number":         {[]step{l(Inserted, SYN, 0, 0, 0), l(Hit, SYN, 500, 0, 0), r(Hit, SYN|ACK, 0, 501, 0), l(Hit, ACK, 501, 1, 0)}, Established, "ESTABLISHED"},
	"SYN-ACK once more":             {[]step{l(Inserted, SYN, 0, 0, 0), r(Hit, SYN|ACK, 0, 1, 0), r(Hit, SYN|ACK, 0, 1, 0), l(Hit, ACK, 1, 1, 0)}, Established, "ESTABLISHED"},
	"SYN-ACK of nothing sent":       {[]step{l(Inserted, SYN, 0, 0, 0), r(Refused, SYN|ACK, 0, 77, 0)}, Opening, "SYN_SENT"},
	"closed by the left":            {opened(l(Hit, FIN|ACK, 1, 1, 0), r(Hit, ACK, 1, 2, 0), r(Hit, FIN|ACK, 1, 2, 0), l(Hit, ACK, 2, 2, 0)), Closed, "TIME_WAIT"},
	"closed by the right":           {opened(r(Hit, FIN|ACK, 1, 1, 0), l(Hit, FIN|ACK, 1, 2, 0), r(Hit, ACK, 2, 2, 0)), Closed, "TIME_WAIT"},
	"closed by both at once":        {opened(l(Hit, FIN|ACK, 1, 1, 0), r(Hit, FIN|ACK, 1, 1, 0), l(Hit, ACK, 2, 2, 0), r(Hit, ACK, 2, 2, 0)), Closed, "TIME_WAIT"},
	"half closed, data goes on":     {opened(l(Hit, FIN|ACK, 1, 1, 0), r(Hit, ACK, 1, 2, 500), l(Hit, ACK, 2, 501, 0)), HalfClosed, "CLOSE_WAIT"},
	"FIN with data":                 {opened(l(Hit, FIN|ACK, 1, 1, 100), r(Hit, FIN|ACK, 1, 102, 100), l(Hit, ACK, 102, 102, 0)), Closed, "TIME_WAIT"},
	"reset by the left":             {opened(l(Hit, RST, 1, 0, 0)), Reset, "CLOSE"},
	"reset by the right":            {opened(l(Hit, ACK, 1, 1, 100), r(Hit, RST|ACK, 1, 101, 0)), Reset, "CLOSE"},
	"reset behind data of its own":  {opened(l(Hit, ACK, 1, 1, 100), l(Hit, RST, 101, 0, 0)), Reset, "CLOSE"},
	"reset in the window":           {opened(l(Stale, RST, 300, 0, 0)), Established, "ESTABLISHED"},
	"reset before the window":       {opened(l(Hit, ACK, 1, 1, 500), r(Hit, ACK, 1, 501, 0), l(Refused, RST, 100, 0, 0)), Established, "ESTABLISHED"},
	"reset far behind the window":   {opened(l(Refused, RST, 100_000, 0, 0)), Established, "ESTABLISHED"},
	"refused":                       {[]step{l(Inserted, SYN, 0, 0, 0), r(Hit, RST|ACK, 0, 1, 0)}, Reset, ""},
	"refusal of nothing sent":       {[]step{l(Inserted, SYN, 0, 0, 0), r(Refused, RST|ACK, 0, 77, 0)}, Opening, "SYN_SENT"},
	"given up by a reset":           {[]step{l(Inserted, SYN, 0, 0, 0), r(Hit, SYN|ACK, 0, 1, 0), l(Hit, RST, 1, 0, 0)}, Reset, "CLOSE"},
	"data beyond the window":        {opened(l(Refused, ACK, 100_000, 1, 10)), Established, "ESTABLISHED"},
	"data far before the window":    {opened(l(Hit, ACK, 1, 1, 1000), r(Hit, ACK, 1, 1001, 0), l(Hit, ACK, 1001, 1, 1000), l(Stale, ACK, 1<<32-5000, 1, 10)), Established, "ESTABLISHED"},
	"ack of what was not sent":      {opened(l(Refused, ACK, 1, 5000, 0)), Established, "ESTABLISHED"},
	"ack far too old":               {opened(l(Stale, ACK, 1, 1<<32-70000, 0)), Established, "ESTABLISHED"},
	"SYN in an open connection":     {opened(l(Stale, SYN, 77777, 0, 0), r(Hit, ACK, 1, 1, 0)), Established, "ESTABLISHED"},
	"both open at once":             {[]step{l(Inserted, SYN, 0, 0, 0), r(Hit, SYN, 0, 0, 0), l(Hit, SYN|ACK, 0, 1, 0), r(Hit, SYN|ACK, 0, 1, 0)}, Established, "SYN_RECV"},
	"ACK from the middle":           {[]step{l(Refused, ACK, 0, 0, 10)}, Free, ""},
	"SYN-ACK from nowhere":          {[]step{r(Refused, SYN|ACK, 0, 0, 0)}, Free, ""},
	"FIN from nowhere":              {[]step{l(Refused, FIN|ACK, 0, 0, 0)}, Free, ""},
	"reset from nowhere":            {[]step{l(Refused, RST, 0, 0, 0)}, Free, ""},
	"SYN opens what is closed":      {opened(l(Hit, FIN|ACK, 1, 1, 0), r(Hit, FIN|ACK, 1, 2, 0), l(Hit, ACK, 2, 2, 0), l(Inserted, SYN, 9999, 0, 0)), Opening, "SYN_SENT"},
	"SYN opens what was reset":      {opened(l(Hit, RST, 1, 0, 0), l(Inserted, SYN, 9999, 0, 0)), Opening, "SYN_SENT"},
	"null":                          {opened(l(Refused, 0, 1, 1, 0)), Established, "ESTABLISHED"},
	"SYN and FIN":                   {opened(l(Refused, SYN|FIN, 1, 1, 0)), Established, "ESTABLISHED"},
	"christmas tree":                {opened(l(Refused, FIN|PSH|URG, 1, 1, 0)), Established, "ESTABLISHED"},
	"ACK before the answer":         {[]step{l(Inserted, SYN, 0, 0, 0), l(Refused, ACK, 1, 1, 0)}, Opening, "SYN_SENT"},
	"server has an old connection":  {[]step{l(Inserted, SYN, 0, 0, 0), r(Stale, ACK, 70, 9000, 0), l(Stale, RST, 9000, 0, 0), l(Hit, SYN, 0, 0, 0), r(Hit, SYN|ACK, 0, 1, 0)}, Answered, "SYN_RECV"},
	"reset is asked back, and sure": {opened(l(Hit, ACK, 1, 1, 50), l(Stale, RST, 300, 0, 0), r(Hit, ACK, 1, 51, 0), l(Hit, RST, 51, 0, 0)), Reset, "CLOSE"},
	"window scale of both": {[]step{
		l(Inserted, SYN, 0, 0, 0, 1, 3, 3, 7), r(Hit, SYN|ACK, 0, 1, 0, 1, 3, 3, 7), l(Hit, ACK, 1, 1, 0), r(Hit, ACK, 1, 1, 0), l(Hit, ACK, 100_001, 1, 100),
	}, Established, "ESTABLISHED"},
	"window scale of one only": {[]step{
		l(Inserted, SYN, 0, 0, 0, 1, 3, 3, 7), r(Hit, SYN|ACK, 0, 1, 0), l(Hit, ACK, 1, 1, 0), r(Hit, ACK, 1, 1, 0), l(Refused, ACK, 100_001, 1, 100),
	}, Established, "ESTABLISHED"},
	"window scale in a broken list": {[]step{
		l(Inserted, SYN, 0, 0, 0, 8, 0, 3, 3, 7, 0, 0, 0), r(Hit, SYN|ACK, 0, 1, 0, 1, 3, 3, 7), l(Hit, ACK, 1, 1, 0), r(Hit, ACK, 1, 1, 0), l(Refused, ACK, 100_001, 1, 100),
	}, Established, "ESTABLISHED"},
}

// TestConnections plays each scenario to the table, by both families, and to the
// kernel beside it.
func TestConnections(t *testing.T) {
	playAll(t, nil)
	t.Run("beside the kernel", func(t *testing.T) { inKernel(t, func(t *testing.T, k *kernel) { playAll(t, k) }) })
}

func playAll(t *testing.T, k *kernel) {
	port := uint16(1000)
	for name, sc := range scenarios {
		for v6 := range ends {
			port++
			table := newTable(t, nil)
			play(t, table, k, fmt.Sprintf("%s, %s", name, family(v6)), sc.steps, v6, port)
			if state := stateOf(table); state != sc.state {
				t.Errorf("%s, %s: the flow is %v, want %v", name, family(v6), state, sc.state)
			}
			balanced(t, table)
			if k == nil {
				continue
			}
			if got := k.state(port); got != sc.kernel {
				t.Errorf("%s, %s: the kernel says %q, want %q", name, family(v6), got, sc.kernel)
			}
		}
	}
}

// play gives the steps to the table, and to the kernel if there is one.
func play(t *testing.T, table *Table, k *kernel, name string, steps []step, v6 int, port uint16) {
	w := table.Worker(0)
	at := [2]netip.AddrPort{netip.AddrPortFrom(ends[v6][0], port), netip.AddrPortFrom(ends[v6][1], 80)}
	for i, s := range steps {
		b := s.seg.packet(at[s.from], at[1-s.from])
		got := pass(w, 0, b)
		if got.Outcome != s.want {
			t.Errorf("%s: segment %d is %v (%v), want %v", name, i, got.Outcome, got.Reason, s.want)
		}
		if k == nil {
			continue
		}
		through, err := k.pass(b, s.from)
		if err != nil {
			t.Fatal(err)
		}
		if through != passes(got) {
			t.Errorf("%s: segment %d is %v (%v), and the kernel passes it: %t", name, i, got.Outcome, got.Reason, through)
		}
	}
}

// stateOf is the state of the table's only flow.
func stateOf(table *Table) State {
	for f := range table.All(0) {
		return f.State
	}
	return Free
}

// TestNothingPassesThatTheKernelRefuses plays segments that are now right, now a
// little wrong, in any order.
func TestNothingPassesThatTheKernelRefuses(t *testing.T) {
	inKernel(t, func(t *testing.T, k *kernel) {
		var outcomes [Refused + 1]int
		for run := range 400 {
			random := rand.New(rand.NewPCG(uint64(run), 7))
			table := newTable(t, nil)
			var talk talk
			v6 := run % 2
			at := [2]netip.AddrPort{netip.AddrPortFrom(ends[v6][0], uint16(2000+run)), netip.AddrPortFrom(ends[v6][1], 80)}
			var story []string
			for range 24 {
				from, s := talk.next(random)
				b := s.packet(at[from], at[1-from])
				before := stateOf(table)
				got := pass(table.Worker(0), 0, b)
				outcomes[got.Outcome]++
				story = append(story, fmt.Sprintf("%d: flags %06b seq %d ack %d window %d bytes %d: %v %v", from, s.flags, s.seq, s.ack, s.window, s.n, got.Outcome, got.Reason))
				through, err := k.pass(b, from)
				if err != nil {
					t.Fatal(err)
				}
				if passes(got) && !through && !knowingly(got, from, s.flags, before) {
					t.Errorf("run %d: the kernel refuses the last of\n%s", run, strings.Join(story, "\n"))
				}
				if passes(got) != through || got.Outcome == Stale && before == Opening {
					break // it knows more or less of the connection from here on
				}
			}
		}
		t.Logf("outcomes: %v", outcomes)
		if outcomes[Hit] < 1000 || outcomes[Refused] < 100 {
			t.Errorf("%v of miss, hit, stale, reopen, inserted, refused: too few to tell", outcomes)
		}
	})
}

// knowingly reports whether we pass a segment by intent that the kernel refuses.
func knowingly(got Result, from int, flags uint8, before State) bool {
	switch {
	case got.Outcome == Inserted:
		return before == Reset && from == 1 // the other side may open what was reset, if policy lets it
	case before == Reset, before == Closed:
		return true // it forgets some of what has ended at once
	case before == Answered:
		// The SYN's window was offered: an answer of several segments by TFO (RFC 7413)
		// may come; and a SYN-ACK with a new number is as good as the first.
		return flags&RST == 0
	case before == Opening:
		return from == 1 && got.Outcome == Stale // the answer that ends an old connection
	}
	return false
}
