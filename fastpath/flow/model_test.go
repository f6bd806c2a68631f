package flow

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"margay.dev/margay/internal/pkt"
)

// model is the table as one would write it without a thought to speed: a map, and a
// state machine of named parts.
type model map[Key]*conversation

type conversation struct {
	tcp     bool
	proto   uint8
	keys    [2]Key
	side    [2]speaker
	reset   bool
	crossed bool
	replied bool // other protocols
	seen    Tick
	packets [2]int
}

// speaker is what one side of a TCP connection has shown.
type speaker struct {
	syn, synAcked bool
	fin, finAcked bool
	next          uint32 // behind the last byte sent
	window        uint32 // largest offered
	scale         int    // -1 without the option
	acked         uint32 // highest acknowledgement sent
	edge          uint32 // right edge of the largest offer
	challenge     bool   // no SYN, but an ACK of something else, with challenged
	challenged    uint32
}

func (c *conversation) state() State {
	a, b := &c.side[0], &c.side[1]
	switch {
	case !c.tcp && c.replied:
		return BothWays
	case !c.tcp:
		return OneWay
	case c.reset:
		return Reset
	case a.finAcked && b.finAcked:
		return Closed
	case a.fin && b.fin:
		return Closing
	case a.fin || b.fin:
		return HalfClosed
	case a.synAcked && b.synAcked:
		return Established
	case a.syn && b.syn:
		return Answered
	}
	return Opening
}

// timeout is by the defaults.
func (c *conversation) timeout() time.Duration {
	d := DefaultTimeouts()
	switch s := c.state(); {
	case c.proto == pkt.ProtoUDP:
		return d.UDP
	case !c.tcp:
		return d.ICMP
	case s == Opening || s == Answered:
		return d.TCPOpening
	case s == Closing || s == Closed:
		return d.TCPClosed
	case s == Reset:
		return d.TCPReset
	}
	return DefaultTimeouts().TCPEstablished
}

// expire ends what has been idle for too long.
func (m model) expire(now Tick) {
	for k, c := range m {
		if uint32(now-c.seen) >= ticks(c.timeout()) {
			delete(m, k)
		}
	}
}

// pass says what becomes of a packet at a node that allows all.
func (m model) pass(now Tick, p Packet) Outcome {
	c, d := m[p.Key], 0
	if c != nil && c.keys[1] == p.Key {
		d = 1
	}
	if c != nil {
		o := c.judge(d, &p)
		if o == Hit {
			c.seen = now
			c.packets[d]++
		}
		if o != Reopen {
			return o
		}
		delete(m, c.keys[0])
		delete(m, c.keys[1])
	}
	tcp := p.Key.Proto() == pkt.ProtoTCP
	if tcp && p.Flags&(SYN|ACK|RST|FIN) != SYN || isICMP(p.Key.Proto()) && !asks[uint8(p.Key.Tail>>8)] {
		return Refused
	}
	c = &conversation{tcp: tcp, proto: p.Key.Proto(), keys: [2]Key{p.Key, p.Key.Reverse()}, seen: now, packets: [2]int{1, 0}}
	if tcp {
		c.open(0, &p)
	}
	m[c.keys[0]], m[c.keys[1]] = c, c
	return Inserted
}

func isICMP(proto uint8) bool { return proto == pkt.ProtoICMP || proto == pkt.ProtoICMPv6 }

func (c *conversation) open(d int, p *Packet) {
	me, you := &c.side[d], &c.side[1-d]
	me.syn, me.scale = true, int(p.Scale)-1
	me.next, me.window = p.Seq+p.Length+1, max(uint32(p.Window), 1)
	you.acked, you.edge = p.Seq, me.next
	if you.syn {
		you.edge = p.Seq + 1 + you.window
	} else {
		you.challenge = false
	}
}

func (c *conversation) judge(d int, p *Packet) Outcome {
	if !c.tcp {
		c.replied = c.replied || d == 1
		return Hit
	}
	fin, syn, rst, ack, urg := p.Flags&FIN != 0, p.Flags&SYN != 0, p.Flags&RST != 0, p.Flags&ACK != 0, p.Flags&URG != 0
	switch {
	case syn && (fin || rst || ack && urg), rst && (fin || urg), !syn && !rst && !ack:
		return Refused
	case syn && !ack:
		return c.syn(d, p)
	case syn:
		return c.synAck(d, p)
	case rst:
		return c.rst(d, p)
	}
	return c.ack(d, p)
}

func (c *conversation) syn(d int, p *Packet) Outcome {
	me, you := &c.side[d], &c.side[1-d]
	switch {
	case c.state() == Closed || c.state() == Reset:
		return Reopen
	case !me.syn:
		c.crossed = true
		c.open(d, p)
	case !me.synAcked && me.next == p.Seq+p.Length+1:
	case !me.synAcked && !you.syn:
		c.open(d, p)
	case d == 0:
		return Stale
	default:
		return Refused
	}
	return Hit
}

func (c *conversation) synAck(d int, p *Packet) Outcome {
	me, you := &c.side[d], &c.side[1-d]
	switch {
	case c.reset, !you.syn, d == 0 && !c.crossed:
		return Refused
	case me.synAcked && you.synAcked:
		return Stale
	case int32(p.Ack-you.next) > 0, !you.synAcked && int32(p.Ack-me.acked) <= 0:
		return Refused
	}
	if !me.syn || !me.synAcked && me.next != p.Seq+p.Length+1 {
		c.open(d, p)
	}
	me.grant(p.Ack, uint32(p.Window))
	you.synAcked = true
	return Hit
}

func (s *speaker) grant(ack, window uint32) {
	if int32(ack-s.acked) > 0 {
		s.acked = ack
	}
	if int32(ack+window-s.edge) > 0 {
		s.edge = ack + window
	}
}

func (c *conversation) rst(d int, p *Packet) Outcome {
	me, you := &c.side[d], &c.side[1-d]
	acks := p.Flags&ACK != 0
	good := false
	switch {
	case c.reset:
		return Stale
	case !me.syn:
		good = acks && int32(p.Ack-me.acked) > 0 && int32(p.Ack-you.next) <= 0
	case !you.syn && you.challenge && p.Seq == you.challenged:
		return Stale
	case !you.syn:
		good = p.Seq == me.next
	case acks && int32(p.Ack-you.next) > 0:
	case p.Seq == you.acked || p.Seq == me.next:
		good = true
	case int32(p.Seq-you.acked) > 0 && int32(p.Seq-you.edge) <= 0:
		return Stale
	}
	if !good {
		return Refused
	}
	c.reset = true
	return Hit
}

func (c *conversation) ack(d int, p *Packet) Outcome {
	me, you := &c.side[d], &c.side[1-d]
	end := p.Seq + p.Length
	if p.Flags&FIN != 0 {
		end++
	}
	window := uint32(p.Window)
	if me.scale > 0 && you.scale >= 0 {
		window <<= me.scale
	}
	open := me.synAcked && you.synAcked
	switch {
	case !me.syn && (c.reset || p.Flags&FIN != 0):
		return Refused
	case !me.syn:
		me.challenge, me.challenged = true, p.Ack
		return Stale
	case !you.syn, !you.synAcked && int32(p.Ack-me.acked) <= 0:
		return Refused
	case int32(p.Seq-you.edge) > 0, int32(p.Ack-you.next) > 0:
		return Refused
	case int32(end-me.next+you.window) < 0, int32(p.Ack-you.next+max(me.window, 66000)) < 0:
		if open {
			return Stale
		}
		return Refused
	}
	you.synAcked = true
	if int32(end-me.next) > 0 {
		me.next = end
	}
	me.window = max(me.window, window)
	me.grant(p.Ack, window)
	me.fin = me.fin || p.Flags&FIN != 0
	you.finAcked = you.finAcked || you.fin && me.acked == you.next
	return Hit
}

// chatter is one worker's conversations, some of each protocol and family, and what
// the model says of them.
type chatter struct {
	w      *Worker
	m      model
	random *rand.Rand
	zone   uint16
	talks  [8]talk
	story  []string
}

// next makes up a packet of one of them.
func (c *chatter) next() Packet {
	i := c.random.IntN(len(c.talks))
	at := [2]netip.AddrPort{netip.AddrPortFrom(ends[i%2][0], uint16(1000+i)), netip.AddrPortFrom(ends[i%2][1], 80)}
	var b []byte
	switch from := c.random.IntN(2); {
	case i < 6:
		if c.random.IntN(200) == 0 {
			c.talks[i] = talk{}
		}
		var s seg
		from, s = c.talks[i].next(c.random)
		if s.flags&SYN != 0 && c.random.IntN(2) == 0 {
			s.options = []byte{1, 3, 3, uint8(c.random.IntN(16))}
		}
		b = s.packet(at[from], at[1-from])
	case c.random.IntN(2) == 0:
		b = udpPacket(at[from], at[1-from], 10)
	default:
		kind := [2][2]uint8{{pkt.ICMPEcho, pkt.ICMPEchoReply}, {pkt.ICMP6Echo, pkt.ICMP6EchoReply}}[i%2][c.random.IntN(2)]
		b = icmpPacket(ends[i%2][from], ends[i%2][1-from], kind, 0, []byte{0, uint8(i), 0, 0})
	}
	var p Packet
	s := shapeOf(b)
	s.Zone = c.zone
	p.Read(b, s)
	return p
}

// step gives one packet to table and model. It returns what is wrong.
func (c *chatter) step(now Tick) error {
	p := c.next()
	got, want := passPacket(c.w, now, p), c.m.pass(now, p)
	c.story = append(c.story, fmt.Sprintf("%+v: %v %v", p, got.Outcome, got.Reason))
	if len(c.story) > 60 {
		c.story = c.story[1:]
	}
	if got.Outcome != want {
		return fmt.Errorf("the table says %v (%v), the model %v, of the last of\n%s", got.Outcome, got.Reason, want, strings.Join(c.story, "\n"))
	}
	return nil
}

// agree holds the flows of a zone against the model's.
func (c *chatter) agree(now Tick) error {
	n := 0
	for f := range c.w.t.All(now) {
		if f.Key[0].Zone() != c.zone {
			continue
		}
		n++
		want := c.m[f.Key[0]]
		if want == nil || want.keys != f.Key || want.state() != f.State || want.packets != [2]int{int(f.Packets[0]), int(f.Packets[1])} {
			return fmt.Errorf("the table has %+v, the model %+v", f, want)
		}
	}
	if n != len(c.m)/2 {
		return fmt.Errorf("the table has %d flows, the model %d", n, len(c.m)/2)
	}
	return nil
}

func newChatter(w *Worker, seed uint64) *chatter {
	return &chatter{w: w, m: model{}, random: rand.New(rand.NewPCG(seed, 3)), zone: uint16(seed)}
}

// TestModel runs packets in any order, and time in steps, against the model.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		table := newTable(t, nil)
		c := newChatter(table.Worker(0), seed)
		now := Tick(1<<32 - 500) // the clock wraps around on the way
		table.Advance(now, wheelSlots+1)
		for i := range 2000 {
			if err := c.step(now); err != nil {
				t.Fatalf("seed %d, packet %d: %v", seed, i, err)
			}
			if c.random.IntN(20) == 0 {
				now += Tick(c.random.IntN(60))
				if c.random.IntN(20) == 0 {
					now += Tick(c.random.IntN(20_000))
				}
				for table.Advance(now, 50) {
				}
				table.Quiesced(table.Generation())
				c.m.expire(now)
				if err := c.agree(now); err != nil {
					t.Fatalf("seed %d, after packet %d: %v\n%s", seed, i, err, strings.Join(c.story, "\n"))
				}
			}
		}
		balanced(t, table)
		drain(t, table, now)
	}
}

// epochs tells when every worker has begun another vector.
type epochs []atomic.Uint64

// quiesce waits for that. A worker that has ended counts as past.
func (e epochs) quiesce() {
	var seen [8]uint64
	for i := range e {
		seen[i] = e[i].Load()
	}
	for i := range e {
		for e[i].Load() == seen[i] && seen[i] != ^uint64(0) {
			time.Sleep(10 * time.Microsecond)
		}
	}
}

// TestModelWithConcurrentWorkers has workers, each with conversations and a model of
// its own, share a table while its owner ages it and others list it. Now and then a
// worker retires a flow of its own.
func TestModelWithConcurrentWorkers(t *testing.T) {
	const workers, packets = 4, 3000
	table := newTable(t, nil)
	past := make(epochs, workers)
	chatters := make([]*chatter, workers)
	var wg sync.WaitGroup
	for i := range workers {
		c := newChatter(table.Worker(i), uint64(i+1))
		chatters[i] = c
		wg.Go(func() {
			defer past[i].Store(^uint64(0))
			for n := range packets {
				past[i].Add(1)
				err := c.step(1000)
				if err == nil && n%100 == 99 {
					err = c.retire()
				}
				if err != nil {
					t.Errorf("worker %d: %v", i, err)
					return
				}
			}
		})
	}
	stop := make(chan struct{})
	var owner sync.WaitGroup
	owner.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			table.Advance(1000, 64)
			g := table.Generation()
			past.quiesce()
			table.Quiesced(g)
		}
	})
	wg.Wait()
	close(stop)
	owner.Wait()
	for i, c := range chatters {
		if err := c.agree(1000); err != nil {
			t.Errorf("worker %d: %v", i, err)
		}
	}
	balanced(t, table)
	drain(t, table, 1000)
}

// retire takes one of the chatter's flows out, of table and model.
func (c *chatter) retire() error {
	for f := range c.w.t.All(1000) {
		if f.Key[0].Zone() != c.zone {
			continue
		}
		if !c.w.t.Retire(f) || c.w.t.Retire(f) {
			return fmt.Errorf("a flow of its own was not to be retired once, and once only: %+v", f)
		}
		delete(c.m, f.Key[0])
		delete(c.m, f.Key[1])
		return nil
	}
	return nil
}

// TestBothDirectionsAtOnce has two workers meet the two directions of the same
// conversations in the same moment: each is one flow.
func TestBothDirectionsAtOnce(t *testing.T) {
	const n = 1500
	for v6 := range ends {
		table := newTable(t, nil)
		var wg sync.WaitGroup
		var inserted atomic.Int64
		for from := range 2 {
			w := table.Worker(from)
			wg.Go(func() {
				for i := range n {
					at := [2]netip.AddrPort{netip.AddrPortFrom(ends[v6][0], uint16(i)), netip.AddrPortFrom(ends[v6][1], 53)}
					switch r := pass(w, 0, udpPacket(at[from], at[1-from], 5)); r.Outcome {
					case Inserted:
						inserted.Add(1)
					case Hit:
					default:
						t.Errorf("%s: packet %d of side %d is %v (%v)", family(v6), i, from, r.Outcome, r.Reason)
					}
				}
			})
		}
		wg.Wait()
		flows := 0
		for f := range table.All(0) {
			flows++
			if f.State != BothWays || f.Packets != [2]uint64{1, 1} {
				t.Errorf("%s: %v has %d packets", family(v6), f.State, f.Packets)
			}
		}
		if flows != n || inserted.Load() != n {
			t.Errorf("%s: %d flows of %d insertions, want %d", family(v6), flows, inserted.Load(), n)
		}
		balanced(t, table)
		drain(t, table, 0)
	}
}
