package xsk

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Actions of the kernel's enum xdp_action.
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpRedirect = 4
)

// verdicts of the steering program on a frame.
type verdict string

const (
	ours     verdict = "ours"
	theirs   verdict = "not ours"
	unparsed verdict = "unparsed"
)

// bench runs a program that is attached to a port of its own.
type bench struct {
	t       testing.TB
	program *Program
}

// newBench attaches a steering program to a veth and gives it a socket, if so wished.
func newBench(t testing.TB, steering *Steering, takeover, socket bool) *bench {
	t.Helper()
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	far.ip("link set v0 down") // neighbour discovery would move the counters
	p, err := Attach(ProgramConfig{Interface: "v0", NetNS: near.fd, Takeover: takeover}, steering)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if socket {
		if err := p.SetSocket(0, open(t, copyUMEM(t, 8), near, "v0")); err != nil {
			t.Fatal(err)
		}
	}
	return &bench{t: t, program: p}
}

// run has the program judge a frame and returns the action and which counters moved.
func (b *bench) run(frame []byte) (action uint32, counted Counters) {
	b.t.Helper()
	before, err := b.program.Counters()
	if err != nil {
		b.t.Fatal(err)
	}
	action, err = b.program.program.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		b.t.Fatalf("run on %d bytes: %v", len(frame), err)
	}
	after, err := b.program.Counters()
	if err != nil {
		b.t.Fatal(err)
	}
	// The kernel runs the program again when a signal of the Go runtime interrupts it.
	return action, Counters{
		Redirected: min(1, after.Redirected-before.Redirected),
		Passed:     min(1, after.Passed-before.Passed),
		NoSocket:   min(1, after.NoSocket-before.NoSocket),
		Unparsed:   min(1, after.Unparsed-before.Unparsed),
	}
}

// forget empties the table of fragments.
func (b *bench) forget(s *Steering) {
	b.t.Helper()
	var key steerFragmentKey
	for s.maps.Fragments.NextKey(nil, &key) == nil {
		if err := s.maps.Fragments.Delete(key); err != nil {
			b.t.Fatal(err)
		}
	}
}

// judge returns the verdict on a frame, checked against the action and the counters.
func (b *bench) judge(frame []byte) verdict {
	b.t.Helper()
	action, counted := b.run(frame)
	type outcome struct {
		action  uint32
		counted Counters
	}
	for v, want := range map[verdict]outcome{
		ours:     {xdpRedirect, Counters{Redirected: 1}},
		theirs:   {xdpPass, Counters{Passed: 1}},
		unparsed: {xdpPass, Counters{Passed: 1, Unparsed: 1}},
	} {
		if (outcome{action, counted}) == want {
			return v
		}
	}
	b.t.Fatalf("action %d with counters %+v fits no verdict", action, counted)
	return ""
}

// steeringTests are packets of either family with the verdict due to each.
var steeringTests = map[string]struct {
	packet func(f family) []byte
	want   verdict
}{
	"to a pod":                             {func(f family) []byte { return f.whole(f.peer, f.pod, unix.IPPROTO_TCP, tcp(1, 80)) }, ours},
	"to a pod, unknown protocol":           {func(f family) []byte { return f.whole(f.peer, f.pod, 200, nil) }, ours},
	"to a pod, no more than the IP header": {func(f family) []byte { return f.whole(f.peer, f.pod, unix.IPPROTO_UDP, nil) }, ours},
	"to a pod, later fragment": {func(f family) []byte {
		return f.ip(f.peer, f.pod, unix.IPPROTO_UDP, fragment{1, 185, false}, []byte("rest"))
	}, ours},
	"from a pod to the host":                            {func(f family) []byte { return f.whole(f.pod, f.host, unix.IPPROTO_UDP, udp(4789, 4789)) }, theirs},
	"to the host":                                       {func(f family) []byte { return f.whole(f.peer, f.host, unix.IPPROTO_TCP, tcp(1, 30000)) }, theirs},
	"node port, lowest":                                 {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_TCP, tcp(1, 30000)) }, ours},
	"node port, highest":                                {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_TCP, tcp(1, 32767)) }, ours},
	"below the node ports":                              {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_TCP, tcp(1, 29999)) }, theirs},
	"above the node ports":                              {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_TCP, tcp(1, 32768)) }, theirs},
	"node port as source only":                          {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_TCP, tcp(30000, 22)) }, theirs},
	"node port of another protocol":                     {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_UDP, udp(1, 30000)) }, theirs},
	"tunnel":                                            {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_UDP, udp(5, 4789)) }, ours},
	"beside the tunnel":                                 {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_UDP, udp(5, 4790)) }, theirs},
	"last port of a range":                              {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_UDP, udp(5, 65535)) }, ours},
	"SCTP port":                                         {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_SCTP, sctp(5, 7000)) }, ours},
	"SCTP, other port":                                  {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_SCTP, sctp(5, 7001)) }, theirs},
	"protocol without ports":                            {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_IPIP, make([]byte, 20)) }, ours},
	"another protocol without ports":                    {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_GRE, make([]byte, 20)) }, theirs},
	"service on the local address within the prefix":    {func(f family) []byte { return f.whole(f.peer, f.hole, unix.IPPROTO_UDP, udp(5, 4789)) }, ours},
	"no service on the local address within the prefix": {func(f family) []byte { return f.whole(f.peer, f.hole, unix.IPPROTO_UDP, udp(5, 53)) }, theirs},
	"ports cut off":                                     {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_UDP, udp(5, 4789)[:3]) }, theirs},
	"ports and no more":                                 {func(f family) []byte { return f.whole(f.peer, f.node, unix.IPPROTO_UDP, udp(5, 4789)[:4]) }, ours},
	"echo reply, our id":                                {func(f family) []byte { return f.whole(f.peer, f.node, f.icmp, echo(f.echo[1], 1999)) }, ours},
	"echo reply, another id":                            {func(f family) []byte { return f.whole(f.peer, f.node, f.icmp, echo(f.echo[1], 2000)) }, theirs},
	"echo request to the node":                          {func(f family) []byte { return f.whole(f.peer, f.node, f.icmp, echo(f.echo[0], 1500)) }, theirs},
	"echo reply to the host":                            {func(f family) []byte { return f.whole(f.peer, f.host, f.icmp, echo(f.echo[1], 1500)) }, theirs},
	"ICMP of the other family": {func(f family) []byte {
		other := map[string]uint8{"v4": unix.IPPROTO_ICMPV6, "v6": unix.IPPROTO_ICMP}[f.name]
		return f.whole(f.peer, f.node, other, echo(f.echo[1], 1500))
	}, theirs},
	"error about a pod's packet": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.whole(f.pod, f.peer, unix.IPPROTO_TCP, tcp(80, 1)))
	}, ours},
	"error about the node's packet from our port": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[1], f.whole(f.node, f.peer, unix.IPPROTO_UDP, udp(4789, 9)))
	}, ours},
	"error about the node's packet from another port": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.whole(f.node, f.peer, unix.IPPROTO_UDP, udp(9, 4789)))
	}, theirs},
	"error about the host's packet": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.whole(f.host, f.peer, unix.IPPROTO_UDP, udp(4789, 4789)))
	}, theirs},
	"error about our echo": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.whole(f.node, f.peer, f.icmp, echo(f.echo[0], 1000)))
	}, ours},
	"error about the node's own echo": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.whole(f.node, f.peer, f.icmp, echo(f.echo[0], 999)))
	}, theirs},
	"error about an error": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.whole(f.node, f.peer, f.icmp, echo(f.error[0], 1000)))
	}, theirs},
	"error about our protocol without ports": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.whole(f.node, f.peer, unix.IPPROTO_IPIP, make([]byte, 8)))
	}, ours},
	"error about a later fragment of a pod": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.ip(f.pod, f.peer, unix.IPPROTO_UDP, fragment{7, 100, true}, make([]byte, 8)))
	}, ours},
	"error about a later fragment of the node": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.ip(f.node, f.peer, unix.IPPROTO_UDP, fragment{7, 100, true}, udp(4789, 1)))
	}, theirs},
	"error whose quotation is cut off": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.error[0], f.whole(f.pod, f.peer, unix.IPPROTO_TCP, tcp(80, 1))[:f.header()-1])
	}, theirs},
	"a redirect is the host's affair": {func(f family) []byte {
		return f.quote(f.peer, f.node, f.info[0], f.whole(f.pod, f.peer, unix.IPPROTO_TCP, tcp(80, 1)))
	}, theirs},
}

func TestSteering(t *testing.T) {
	b := newBench(t, steerFamilies(t), false, true)
	for name, tt := range steeringTests {
		for _, f := range families {
			t.Run(f.name+"/"+name, func(t *testing.T) {
				packet := tt.packet(f)
				for vlans, frame := range map[string][]byte{
					"untagged":             frame(packet),
					"tagged":               frame(packet, unix.ETH_P_8021Q),
					"tagged twice":         frame(packet, unix.ETH_P_8021AD, unix.ETH_P_8021Q),
					"padded, and trailing": append(frame(packet), make([]byte, 60)...),
				} {
					want := tt.want
					if vlans == "padded, and trailing" && endsEarly(name) {
						continue
					}
					if got := b.judge(frame); got != want {
						t.Errorf("%s: %s, want %s", vlans, got, want)
					}
				}
			})
		}
	}
}

// endsEarly names the tests whose point is where the frame ends.
func endsEarly(name string) bool {
	return slices.Contains([]string{"ports cut off", "error whose quotation is cut off"}, name)
}

// TestSteeringNeedsNoMoreThanItReads cuts frames off at every length: the verdict
// must turn at the byte that decides, and no length may upset the program.
func TestSteeringNeedsNoMoreThanItReads(t *testing.T) {
	b := newBench(t, steerFamilies(t), false, true)
	takeover := newBench(t, nil, true, true)
	for _, f := range families {
		header := 14 + f.header()
		tests := map[string]struct {
			frame []byte
			parse int // the frame cannot be parsed below this length
			reads int // the frame is ours from this length on
		}{
			"pod":             {frame(f.whole(f.peer, f.pod, unix.IPPROTO_TCP, tcp(1, 80))), header, header},
			"pod, tagged":     {frame(f.whole(f.peer, f.pod, unix.IPPROTO_TCP, tcp(1, 80)), unix.ETH_P_8021Q), header + 4, header + 4},
			"service":         {frame(f.whole(f.peer, f.node, unix.IPPROTO_UDP, udp(1, 4789))), header, header + 4},
			"echo reply":      {frame(f.whole(f.peer, f.node, f.icmp, echo(f.echo[1], 1500))), header, header + 8},
			"error, pod":      {frame(f.quote(f.peer, f.node, f.error[0], f.whole(f.pod, f.peer, 6, tcp(1, 2)))), header, header + 8 + f.header()},
			"error, our port": {frame(f.quote(f.peer, f.node, f.error[0], f.whole(f.node, f.peer, 17, udp(4789, 2)))), header, header + 8 + f.header() + 4},
		}
		for name, tt := range tests {
			t.Run(f.name+"/"+name, func(t *testing.T) {
				for n := 14; n <= len(tt.frame); n++ {
					want := ours
					switch {
					case n < tt.parse:
						want = unparsed
					case n < tt.reads:
						want = theirs
					}
					if got := b.judge(tt.frame[:n]); got != want {
						t.Errorf("%d of %d bytes: %s, want %s", n, len(tt.frame), got, want)
					}
					if got := takeover.judge(tt.frame[:n]); got != ours {
						t.Errorf("%d of %d bytes under takeover: %s", n, len(tt.frame), got)
					}
				}
			})
		}
	}
}

// A fragment has no ports: it goes where the first of its packet went.
func TestFragmentsFollowTheirFirst(t *testing.T) {
	type step struct {
		name   string
		packet func(f family) []byte
		want   verdict
	}
	part := func(port uint16, p fragment) func(f family) []byte {
		return func(f family) []byte {
			if p.offset == 0 {
				return f.ip(f.peer, f.node, unix.IPPROTO_UDP, p, udp(9, port))
			}
			return f.ip(f.peer, f.node, unix.IPPROTO_UDP, p, udp(9, 4789)) // what looks like ports is payload
		}
	}
	steps := []step{
		{"later before its first", part(0, fragment{1, 2, true}), theirs},
		{"first of ours", part(4789, fragment{1, 0, true}), ours},
		{"later of ours", part(0, fragment{1, 2, true}), ours},
		{"last of ours", part(0, fragment{1, 4, false}), ours},
		{"later of another id", part(0, fragment{2, 2, true}), theirs},
		{"later from another source", func(f family) []byte {
			return f.ip(f.host, f.node, unix.IPPROTO_UDP, fragment{1, 2, true}, make([]byte, 8))
		}, theirs},
		{"later to another destination", func(f family) []byte {
			return f.ip(f.peer, f.hole, unix.IPPROTO_UDP, fragment{1, 2, true}, make([]byte, 8))
		}, theirs},
		{"first of the host with the same id", part(53, fragment{1, 0, true}), theirs},
		{"later of the host with the same id", part(0, fragment{1, 2, true}), theirs},
		{"first whose ports are cut off", func(f family) []byte {
			return f.ip(f.peer, f.node, unix.IPPROTO_UDP, fragment{3, 0, true}, udp(9, 4789)[:3])
		}, theirs},
		{"later of it", part(0, fragment{3, 2, true}), theirs},
		{"first of an error about a pod", func(f family) []byte {
			e := f.quote(f.peer, f.node, f.error[0], f.whole(f.pod, f.peer, unix.IPPROTO_TCP, tcp(80, 1)))
			return f.ip(f.peer, f.node, f.icmp, fragment{4, 0, true}, e[f.header():])
		}, ours},
		{"later of the error", func(f family) []byte {
			return f.ip(f.peer, f.node, f.icmp, fragment{4, 9, false}, make([]byte, 8))
		}, ours},
	}
	b := newBench(t, steerFamilies(t), false, true)
	for _, f := range families {
		for _, s := range steps {
			if got := b.judge(frame(s.packet(f))); got != s.want {
				t.Errorf("%s, %s: %s, want %s", f.name, s.name, got, s.want)
			}
		}
	}
	v4 := families[0]
	b.judge(frame(v4.ip(v4.peer, v4.node, unix.IPPROTO_UDP, fragment{5, 0, true}, udp(9, 4789))))
	if got := b.judge(frame(v4.ip(v4.peer, v4.node, unix.IPPROTO_TCP, fragment{5, 2, true}, udp(9, 4789)))); got != theirs {
		t.Errorf("IPv4 fragment of another protocol: %s", got)
	}
}

func TestHeadersBetween(t *testing.T) {
	v4, v6 := families[0], families[1]
	const hop, routing, dest, ah, frag = unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_AH, unix.IPPROTO_FRAGMENT
	extended := func(dst netip.Addr, units int, kinds ...uint8) []byte {
		first, b := chain(unix.IPPROTO_UDP, units, kinds...)
		return frame(v6.whole(v6.peer, dst, first, slices.Concat(b, udp(5, 4789))))
	}
	options := func(words int, dst uint16) []byte {
		p := v4.whole(v4.peer, v4.node, unix.IPPROTO_UDP, slices.Concat(make([]byte, words*4), udp(5, dst)))
		p[0] = 0x40 | uint8(5+words)
		return frame(p)
	}
	change := func(b []byte, at int, to byte) []byte {
		b[at] = to
		return b
	}
	tests := map[string]struct {
		frame []byte
		want  verdict
	}{
		"IPv4 options":                     {options(1, 4789), ours},
		"as many IPv4 options as there is": {options(10, 4789), ours},
		"IPv4 options, another port":       {options(10, 53), theirs},
		"IPv4 header shorter than can be":  {change(options(0, 4789), 14, 0x44), unparsed},
		"IPv4 of another version":          {change(options(0, 4789), 14, 0x55), unparsed},
		"IPv4 header beyond the frame":     {change(options(0, 4789)[:40], 14, 0x4f), theirs},
		"IPv6 of another version":          {change(extended(v6.node, 0), 14, 0x40), unparsed},
		"IPv6 without extensions":          {extended(v6.node, 0), ours},
		"each extension":                   {extended(v6.node, 0, hop, routing, dest, ah), ours},
		"an atomic fragment":               {extended(v6.node, 0, frag), ours},
		"long extensions":                  {extended(v6.node, 30, hop, dest, ah), ours},
		"eight extensions":                 {extended(v6.node, 0, slices.Repeat([]uint8{dest}, 8)...), ours},
		"nine extensions":                  {extended(v6.node, 0, slices.Repeat([]uint8{dest}, 9)...), unparsed},
		"nine extensions to a pod":         {extended(v6.pod, 0, slices.Repeat([]uint8{dest}, 9)...), ours},
		"extension beyond the frame":       {change(extended(v6.node, 0, hop), 14+40+1, 200), theirs},
		"extensions beyond the frame":      {change(extended(v6.node, 0, hop, dest), 14+40+1, 200), unparsed},
		"no next header":                   {frame(v6.whole(v6.peer, v6.node, unix.IPPROTO_NONE, nil)), theirs},
		"error quoting extensions": {frame(v6.quote(v6.peer, v6.node, 1, func() []byte {
			first, b := chain(unix.IPPROTO_UDP, 1, hop, dest)
			return v6.whole(v6.node, v6.peer, first, slices.Concat(b, udp(4789, 1)))
		}())), ours},
		"ARP":                      {change(change(frame(v4.whole(v4.peer, v4.pod, 6, nil)), 12, 0x08), 13, 0x06), theirs},
		"three tags":               {frame(v4.whole(v4.peer, v4.pod, 6, tcp(1, 2)), unix.ETH_P_8021Q, unix.ETH_P_8021Q, unix.ETH_P_8021Q), theirs},
		"a tag and nothing behind": {frame(v4.whole(v4.peer, v4.pod, 6, nil), unix.ETH_P_8021Q)[:16], unparsed},
		"Ethernet alone":           {frame(v4.whole(v4.peer, v4.pod, 6, nil))[:14], unparsed},
	}
	b := newBench(t, steerFamilies(t), false, true)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := b.judge(tt.frame); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestOursWithoutASocketIsDroppedAndCounted(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		b := newBench(t, steerFamilies(t), takeover, false)
		for _, f := range families {
			action, counted := b.run(frame(f.whole(f.peer, f.pod, unix.IPPROTO_TCP, tcp(1, 80))))
			if action != xdpDrop || counted != (Counters{NoSocket: 1}) {
				t.Errorf("%s, takeover %v: action %d with counters %+v, want a drop for want of a socket", f.name, takeover, action, counted)
			}
		}
	}
}

// TestVerifierHasLittleToDo guards the program's shape: written carelessly, the walk
// of extension headers alone takes the verifier to its limit of a million.
func TestVerifierHasLittleToDo(t *testing.T) {
	b := newBench(t, steerFamilies(t), false, false)
	info, err := b.program.program.Info()
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := info.VerifiedInstructions(); ok && n > 50_000 {
		t.Errorf("verifier looked at %d instructions, want 50,000 at most", n)
	}
}

func TestCountersHaveNames(t *testing.T) {
	var got []string
	for name, n := range (Counters{Redirected: 1, Passed: 2, NoSocket: 3, Unparsed: 4}).All() {
		got = append(got, fmt.Sprint(name, n))
	}
	if want := []string{"redirected1", "passed2", "no-socket3", "unparsed4"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// BenchmarkSteering is the program's cost per frame in the kernel, without driver
// and delivery.
func BenchmarkSteering(b *testing.B) {
	bench := newBench(b, steerFamilies(b), false, true)
	for _, f := range families {
		for name, packet := range map[string][]byte{
			"pod":     f.whole(f.peer, f.pod, unix.IPPROTO_TCP, tcp(1, 80)),
			"service": f.whole(f.peer, f.node, unix.IPPROTO_UDP, udp(1, 4789)),
			"host":    f.whole(f.peer, f.host, unix.IPPROTO_TCP, tcp(1, 22)),
		} {
			b.Run(f.name+"/"+name, func(b *testing.B) {
				const repeat = 100_000
				for b.Loop() {
					if _, err := bench.program.program.Run(&ebpf.RunOptions{Data: frame(packet), Repeat: repeat}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*repeat), "ns/pkt")
			})
		}
	}
}
