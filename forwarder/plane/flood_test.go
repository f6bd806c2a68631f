package plane

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/forwarder/connections"
)

// flood is a node with four pods, and a way in from outside:
//
//	outside ── up ┤      ├ p1  who floods, from within
//	              │ node ├ p2  who is flooded
//	              │      ├ p3 ─┐
//	              └      ┴ p4 ─┘ others, who talk to each other
type flood struct {
	*bench
	sent       uint64 // packets, since the beginning
	said, lost int    // segments of the others
	port       uint16 // of their next connection
	lasting    []conversation
}

// conversation is a TCP connection that both sides have opened.
type conversation struct {
	from, to int
	six      bool
	port     uint16
	seq      [2]uint32
}

func newFlood(t *testing.T) *flood {
	t.Helper()
	f := &flood{bench: newBench(t, 2), port: 1024}
	web := classifier.Rule{ID: 1, Action: classifier.Allow, Protocols: []classifier.Range{{First: 6, Last: 6}}, Destination: classifier.Side{Ports: []classifier.Range{{First: 80, Last: 80}}}}
	m := &pb.Chunk{
		Ports:    []*pb.Port{{Name: "up", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}},
		NextHops: []*pb.NextHop{{Id: 1, Kind: pb.NextHop_KIND_FORWARD, Members: []*pb.NextHop_Member{{Port: "up"}}}},
		Routes: &pb.RouteColumns{ // senders to whom no way leads are refused
			Addresses4: make([]byte, 4), Lengths4: []byte{0}, NextHops4: []uint32{1}, Addresses6: make([]byte, 16), Lengths6: []byte{0}, NextHops6: []uint32{1},
		},
	}
	for id, rules := range [][]classifier.Rule{{web}, {{ID: 2, Action: classifier.Allow}}} {
		c, err := classifier.Compile(rules, classifier.Options{})
		if err != nil {
			t.Fatal(err)
		}
		m.Programs = append(m.Programs, &pb.ProgramPart{Id: uint32(1 + id), Size: uint32(len(c.Image)), Image: c.Image})
	}
	for i := 1; i <= 4; i++ {
		p, e := policed(i)
		e.Egress = []*pb.Stage{{Program4: 2, Program6: 2, Name: "default"}}
		m.Ports, m.Endpoints = append(m.Ports, p), append(m.Endpoints, e)
	}
	f.apply(true, m)
	return f
}

// pass lets packets come in by ports, waits until all that ever came are told of,
// and returns how many came out by pods' ports.
func (f *flood) pass(packets map[string][][]byte) (came int) {
	f.t.Helper()
	for in, list := range packets {
		f.sent += uint64(len(list))
		half := len(list) / 2
		f.opener.get(in).Inject(0, list[:half]...)
		f.opener.get(in).Inject(1, list[half:]...)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Microsecond) {
		if c := f.Engine().Total(); c.Rx == f.sent && c.In() == c.Out() {
			break
		}
		if time.Now().After(end) {
			f.t.Fatalf("of %d packets not all are told of: %+v", f.sent, f.Engine().Total())
		}
	}
	for i := 1; i <= 4; i++ {
		for q := range 2 {
			came += len(f.opener.get(fmt.Sprint("p", i)).Collect(q))
		}
	}
	return came
}

func address(i int, six bool) netip.Addr {
	if six {
		return addr6(i)
	}
	return addr4(i)
}

func tcp(src, dst netip.Addr, sport, dport uint16, seq, ack uint32, syn bool, n int) []byte {
	h := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: seq, Ack: ack, SYN: syn, ACK: ack != 0, Window: 60000}
	return graphtest.Frame(graphtest.IP(src, dst, layers.IPProtocolTCP), h, graphtest.Payload(n))
}

// segment is the next one of side 0 or 1, with n bytes or a SYN.
func (c *conversation) segment(side int, syn bool, n int) []byte {
	ends := [2]int{c.from, c.to}
	ports := [2]uint16{c.port, 80}
	ack := c.seq[1-side]
	if syn && side == 0 {
		ack = 0
	}
	p := tcp(address(ends[side], c.six), address(ends[1-side], c.six), ports[side], ports[1-side], c.seq[side], ack, syn, n)
	if c.seq[side] += uint32(n); syn {
		c.seq[side]++
	}
	return p
}

// say has a side of each conversation send a segment, and notes how many came.
func (f *flood) say(all []conversation, side int, syn bool, n int) {
	f.t.Helper()
	packets := map[string][][]byte{}
	for i := range all {
		c := &all[i]
		from := fmt.Sprint("p", [2]int{c.from, c.to}[side])
		packets[from] = append(packets[from], c.segment(side, syn, n))
	}
	f.said += len(all)
	f.lost += len(all) - f.pass(packets)
}

// open opens a connection of each family for each pair of pods, and says something
// by it.
func (f *flood) open(pairs ...[2]int) (all []conversation) {
	f.t.Helper()
	for _, six := range []bool{false, true} {
		for _, p := range pairs {
			f.port++
			all = append(all, conversation{from: p[0], to: p[1], six: six, port: f.port, seq: [2]uint32{1000, 9000}})
		}
	}
	f.say(all, 0, true, 0)
	f.say(all, 1, true, 0)
	f.say(all, 0, false, 0)
	f.say(all, 0, false, 100)
	f.say(all, 1, false, 200)
	return all
}

// others go on with the connections they have, and open some each way.
func (f *flood) others() {
	f.t.Helper()
	for side := range 2 {
		f.say(f.lasting, side, false, 50)
	}
	f.open([2]int{3, 4}, [2]int{4, 3})
}

// syns is a burst of SYNs for pod 2 that no answer follows, from number n on.
func syns(n, burst int, from func(n int, six bool) netip.Addr) (out [][]byte) {
	for i := n; i < n+burst; i++ {
		six := i%2 == 1
		out = append(out, tcp(from(i, six), address(2, six), uint16(1024+i/2%60000), 80, uint32(i), 0, true, 0))
	}
	return out
}

// TestSYNFloodAtOnePod sends three SYNs for each flow that there may be, from outside
// and by a pod of the node: whose flows they are charged to is refused more than its
// share, for a reason that is counted, and nobody else loses anything.
func TestSYNFloodAtOnePod(t *testing.T) {
	outside := func(n int, six bool) netip.Addr {
		if six {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 13: byte(n >> 16), 14: byte(n >> 8), 15: 1})
		}
		return netip.AddrFrom4([4]byte{198, 51, byte(n >> 12), 1})
	}
	tests := map[string]struct {
		port    string
		charged int // the pod that pays
		from    func(n int, six bool) netip.Addr
	}{
		"from outside":           {"up", 2, outside},
		"from a pod on the node": {"p1", 1, func(_ int, six bool) netip.Addr { return address(1, six) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFlood(t)
			f.lasting = f.open([2]int{3, 4}, [2]int{4, 3}, [2]int{3, 2}) // one with the pod that is flooded
			if f.lost > 0 {
				t.Fatalf("before the flood %d of %d segments are lost", f.lost, f.said)
			}
			limit := f.connections.Table.Stats().Limit
			const burst = 300
			total, came := 3*limit/burst*burst, 0
			if testing.Short() {
				total = total / 2 / burst * burst
			}
			for n := 0; n < total; n += burst {
				came += f.pass(map[string][][]byte{tt.port: syns(n, burst, tt.from)})
				f.others()
				if s := f.connections.Table.Stats(); s.Flows > limit {
					t.Fatalf("%d flows, and there may be %d", s.Flows, limit)
				}
			}
			f.flooded(tt.charged, total, came)
			f.after(tt.charged)
		})
	}
}

// flooded looks at what total SYNs, of which so many came, have done.
func (f *flood) flooded(charged, total, came int) {
	f.t.Helper()
	f.t.Logf("%d of %d SYNs of the flood came; the others lost %d of %d segments", came, total, f.lost, f.said)
	if f.lost*1000 >= f.said {
		f.t.Errorf("others have lost %d of %d segments, want less than a thousandth", f.lost, f.said)
	}
	limit, held := f.connections.Table.Stats().Limit, f.connections.Table.Held(f.account(charged))
	if held > limit*4/5+1 || held < limit/2 {
		f.t.Errorf("pod %d has %d flows of %d, want no more than four fifths", charged, held, limit)
	}
	over := f.Engine().Total().Drops[graph.FlowReason(uint8(flow.OverShare))]
	if came+int(over) != total || came == 0 || f.lost == 0 && f.connections.Table.Stats().Refused[flow.OverShare] != over {
		f.t.Errorf("%d SYNs came and %d were refused as over share, want %d in all; the table has refused %d", came, over, total, f.connections.Table.Stats().Refused[flow.OverShare])
	}
}

// account is what a pod's flows are charged to.
func (f *flood) account(pod int) uint32 {
	return uint32(f.ports[fmt.Sprint("p", pod)].index)
}

// after lets the half-open connections time out: then all is as before the flood.
func (f *flood) after(charged int) {
	f.t.Helper()
	f.connections.Table.Advance(flow.TickAt(connections.Now()+flow.DefaultTimeouts().TCPOpening+time.Second), 1<<20)
	g := f.connections.Table.Generation()
	if err := f.Engine().Quiesce(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	f.connections.Table.Quiesced(g)
	s := f.connections.Table.Stats()
	if held := f.connections.Table.Held(f.account(charged)); held > 2 || s.ByState[flow.Opening] != 0 || s.Inserted != uint64(s.Flows)+s.Expired+s.Retired {
		f.t.Errorf("after the flood pod %d still has %d flows; %+v", charged, held, s)
	}
	f.lost = 0
	f.others()
	f.open([2]int{1, 2}, [2]int{3, 2})
	if f.lost > 0 {
		f.t.Errorf("after the flood %d segments of others, or of who was flooded, are lost", f.lost)
	}
}
