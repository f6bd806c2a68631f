package policy

import (
	"encoding/binary"
	"math/rand/v2"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/pkt"
)

const (
	frames    = 1024                     // that circulate
	vectors   = frames / graph.VectorMax // of a round
	hosts     = 1024                     // behind each side
	payload   = 10                       // bytes of a segment: 64 B in all over IPv4
	firstPort = 20_000                   // of originators, above those that rules name
	ports     = 40_000                   // that they take in turn
	most      = 54 + 20 + payload        // bytes of the longest frame
	offset4   = pkt.EthernetSize + 12    // of the source in an IPv4 frame
	offset6   = pkt.EthernetSize + 8     // and in an IPv6 frame
	opening   = uint32(1) << 30          // a first sequence number, plus the flow's
	window    = 65_535                   // that both sides grant, without scaling
)

// kind is what packets are of.
type kind struct {
	ipv6 bool
	udp  bool
}

// dialog is one conversation: its number gives addresses and ports.
type dialog struct {
	number uint32
	next   [2]uint32 // sequence number of each side's next segment
}

// spread draws one of n things by the number of the conversation.
func (d *dialog) spread(n int) int { return int(uint64(d.number*0x9e3779b1) * uint64(n) >> 32) }

func newDialog(n uint32) dialog { return dialog{n, [2]uint32{opening + n, opening ^ n<<8}} }

// talk is conversations and the frames in which their packets go round. Before
// each round the frames are written anew, each for the next conversation: a
// vector of one side's packets, then one of the other side's.
type talk struct {
	kind
	mem       []byte
	metas     []graph.Meta
	size      int // bytes of a frame
	l4        int
	templates [2][most]byte
	sums      [2]uint32 // of the templates' IPv4 headers, hosts and ports 0
	dialogs   []dialog
	open      []uint16 // ports that they go to
	at        int      // conversation that comes next
	turn      int      // side that sends the first vector
}

// newTalk lays the frames at the start of chunks of the arena, for conversations
// to ports that so many rules let them go to. Their number
// is a multiple of frames, so that both sides of each have their turn.
func newTalk(a *umem.Arena, k kind, rules, dialogs int) *talk {
	t := &talk{kind: k, mem: a.Bytes(), open: openPorts(rules), dialogs: make([]dialog, dialogs)}
	for i := range t.dialogs {
		t.dialogs[i] = newDialog(uint32(i))
	}
	t.l4 = pkt.EthernetSize + pkt.IPv4Size
	if k.ipv6 {
		t.l4 = pkt.EthernetSize + pkt.IPv6Size
	}
	if t.size = t.l4 + 20 + payload; k.udp {
		t.size = 64
	}
	for range frames {
		buf, _ := a.Cache(0).Frame() // the worker's, that is stepped by hand; a bed has as many
		t.metas = append(t.metas, graph.Meta{Off: a.Start(buf) + umem.Headroom, Len: uint32(t.size), Head: uint32(t.size),
			Buf: buf, Bufs: 1, Segments: 1})
	}
	for side := range 2 {
		t.makeTemplate(side)
	}
	return t
}

// shuffle has conversations come in another order than that in which they were
// made, which may be that of their memory.
func (t *talk) shuffle() {
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(t.dialogs), func(i, j int) { t.dialogs[i], t.dialogs[j] = t.dialogs[j], t.dialogs[i] })
	t.at, t.turn = 0, 0
}

// makeTemplate is a frame of a side's, to the first host of the other.
func (t *talk) makeTemplate(side int) {
	f := t.templates[side][:t.size]
	ours, theirs := routerMAC(side), hostMAC(side)
	copy(f, ours[:])
	copy(f[6:], theirs[:])
	ip := f[pkt.EthernetSize:]
	proto := uint8(pkt.ProtoTCP)
	if t.udp {
		proto = pkt.ProtoUDP
	}
	from, to := address(t.ipv6, side, 0), address(t.ipv6, 1-side, 0)
	if t.ipv6 {
		binary.BigEndian.PutUint16(f[12:], pkt.EtherIPv6)
		ip[0], ip[6], ip[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-pkt.IPv6Size))
		copy(f[offset6:], from.AsSlice())
		copy(f[offset6+16:], to.AsSlice())
	} else {
		binary.BigEndian.PutUint16(f[12:], pkt.EtherIPv4)
		ip[0], ip[8], ip[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		copy(f[offset4:], from.AsSlice())
		copy(f[offset4+4:], to.AsSlice())
		t.sums[side] = pkt.Sum(ip[:pkt.IPv4Size])
	}
	if l4 := f[t.l4:]; t.udp {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	} else {
		l4[12] = 5 << 4
		binary.BigEndian.PutUint16(l4[14:], window)
	}
}

// write makes every frame anew.
func (t *talk) write() {
	for v := range vectors {
		t.vector(v, (t.turn+v)&1)
	}
	if t.at == 0 { // the next time each is the other side's to go on with
		t.turn ^= 1
	}
}

// vector writes the frames of a vector for the next conversations.
func (t *talk) vector(v, side int) {
	for i := v * graph.VectorMax; i < (v+1)*graph.VectorMax; i++ {
		d := &t.dialogs[t.at]
		if t.at++; t.at == len(t.dialogs) {
			t.at = 0
		}
		t.frame(&t.metas[i], d, side, flow.ACK|flow.PSH, payload)
	}
}

// frame writes one packet of a conversation, by a side.
func (t *talk) frame(m *graph.Meta, d *dialog, side int, flags uint8, length uint32) {
	f := (*[most]byte)(t.mem[m.Off:])
	*f = t.templates[side]
	host := [2]uint16{uint16(d.number % hosts), uint16(d.number / hosts % hosts)}
	port := [2]uint16{uint16(firstPort + d.number%ports), t.open[d.spread(len(t.open))]}
	if t.ipv6 {
		binary.BigEndian.PutUint16(f[offset6+14:], host[side])
		binary.BigEndian.PutUint16(f[offset6+30:], host[1-side])
	} else {
		binary.BigEndian.PutUint16(f[offset4+2:], host[side])
		binary.BigEndian.PutUint16(f[offset4+6:], host[1-side])
		binary.BigEndian.PutUint16(f[pkt.EthernetSize+10:], ^pkt.Fold(t.sums[side]+uint32(host[0])+uint32(host[1])))
	}
	l4 := f[t.l4:]
	binary.BigEndian.PutUint16(l4, port[side])
	binary.BigEndian.PutUint16(l4[2:], port[1-side])
	if t.udp {
		return
	}
	binary.BigEndian.PutUint32(l4[4:], d.next[side])
	if flags&flow.ACK != 0 {
		binary.BigEndian.PutUint32(l4[8:], d.next[1-side])
	}
	l4[13] = flags
	d.next[side] += length
}

// step is one packet of a handshake.
type step struct {
	side   int
	flags  uint8
	length uint32 // of sequence space
}

// handshake is what opens a conversation.
func (t *talk) handshake() []step {
	if t.udp {
		return []step{{side: 0}, {side: 1}}
	}
	return []step{{0, flow.SYN, 1}, {1, flow.SYN | flow.ACK, 1}, {0, flow.ACK, 0}}
}

// kinds are all there are.
func kinds() []kind { return []kind{{false, false}, {true, false}, {false, true}, {true, true}} }

// String is the kind as it stands behind the name of a case; empty for TCP over IPv4.
func (k kind) String() (s string) {
	if k.ipv6 {
		s += "/ip6"
	}
	if k.udp {
		s += "/udp"
	}
	return s
}
