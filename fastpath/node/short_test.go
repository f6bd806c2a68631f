package node

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/plain"
	"margay.dev/margay/internal/pkt"
)

// Each stop of the main way has a loop for what most packets need and a function
// for one packet of any kind. What the loop takes, the function must treat alike.

const at = 512 // where the packets of these tests lie

// shelf is a worker with one packet in slot 0.
type shelf struct {
	w     graph.Worker
	metas graph.Slots
}

func newShelf(link int, ip []byte) *shelf {
	s := &shelf{}
	s.w.Mem = make([]byte, 4096)
	copy(s.w.Mem[at+link:], ip)
	n := uint32(link + len(ip))
	s.metas[0] = graph.Meta{Off: at, Len: n, Head: n, Bufs: 1, Segments: 1, L3: uint16(link)}
	return s
}

func (s *shelf) clone() *shelf {
	c := &shelf{metas: s.metas}
	c.w.Mem = bytes.Clone(s.w.Mem)
	return c
}

// alike fails t unless the short way and the long way did the same.
func alike(t *testing.T, what string, short, long *shelf, shortEdge, longEdge graph.Edge) {
	t.Helper()
	if shortEdge != longEdge || short.metas[0] != long.metas[0] || !bytes.Equal(short.w.Mem, long.w.Mem) {
		t.Errorf("%s in short: edge %d, %+v\n%x\nat length: edge %d, %+v\n%x", what, shortEdge, short.metas[0],
			short.w.Mem[at-32:at+64], longEdge, long.metas[0], long.w.Mem[at-32:at+64])
	}
}

// checkShortInput says whether ip-input takes the packet in short.
func checkShortInput(t *testing.T, s *shelf) bool {
	t.Helper()
	long, next := s.clone(), []graph.Edge{graph.Gone}
	if plain.IPv4(s.w.Mem, &s.metas, []uint16{0}, next, ipRoute)+plain.IPv6(s.w.Mem, &s.metas, []uint16{0}, next, ipRoute) == 0 {
		if s.metas != long.metas || next[0] != graph.Gone {
			t.Errorf("a packet that was passed over is changed: %+v", s.metas[0])
		}
		return false
	}
	alike(t, "ip-input", s, long, next[0], inspect(&long.w, &long.metas[0]))
	return true
}

func ipv4(proto uint8, ttl uint8, payload []byte) []byte {
	p := make([]byte, pkt.IPv4Size)
	putIPv4(p, proto, []byte{10, 0, 0, 1}, []byte{20, 0, 0, 1}, len(payload))
	p[8] = ttl
	return append(resum(p), payload...)
}

// resum makes the checksum of an IPv4 header right.
func resum(p []byte) []byte {
	size := min(int(p[0]&15)*4, len(p))
	if size < pkt.IPv4Size {
		return p
	}
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^pkt.Fold(pkt.Sum(p[:size])))
	return p
}

func ipv6(proto uint8, hops uint8, payload []byte) []byte {
	p := make([]byte, pkt.IPv6Size)
	src, dst := netip.MustParseAddr("2001:db8::1").As16(), netip.MustParseAddr("fd00::2").As16()
	putIPv6(p, proto, hops, src[:], dst[:], len(payload))
	return append(p, payload...)
}

func udp(n int) []byte {
	p := make([]byte, 8+n)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
	return p
}

func tcp(n int) []byte { return append(append(make([]byte, 12), 0x50), make([]byte, 7+n)...) }

func TestPlainPacketsGoInShort(t *testing.T) {
	edit := func(p []byte, i int, b byte) []byte {
		p = slices.Clone(p)
		p[i] = b
		if p[0]>>4 == 4 {
			resum(p)
		}
		return p
	}
	u4, u6 := ipv4(pkt.ProtoUDP, 64, udp(10)), ipv6(pkt.ProtoUDP, 64, udp(10))
	t4, t6 := ipv4(pkt.ProtoTCP, 64, tcp(0)), ipv6(pkt.ProtoTCP, 64, tcp(0))
	tests := map[string]struct {
		ip    []byte
		short bool
	}{
		"UDP":                          {u4, true},
		"UDP, IPv6":                    {u6, true},
		"UDP without payload":          {ipv4(pkt.ProtoUDP, 64, udp(0)), true},
		"UDP without payload, IPv6":    {ipv6(pkt.ProtoUDP, 64, udp(0)), true},
		"TCP":                          {t4, true},
		"TCP, IPv6":                    {t6, true},
		"padded":                       {append(slices.Clone(t4), 1, 2, 3, 4, 5, 6), true},
		"padded, IPv6":                 {append(slices.Clone(t6), 1, 2, 3, 4, 5, 6), true},
		"may not be split":             {edit(u4, 6, 0x40), true},
		"last hop":                     {edit(u4, 8, 1), false},
		"last hop, IPv6":               {edit(u6, 7, 1), false},
		"a part":                       {edit(u4, 6, 0x20), false},
		"a last part":                  {edit(u4, 7, 1), false},
		"from a martian":               {edit(u4, 12, 127), false},
		"to a group":                   {edit(u4, 16, 224), false},
		"to a group, IPv6":             {edit(u6, 24, 0xff), false},
		"from a link, IPv6":            {edit(edit(u6, 8, 0xfe), 9, 0x80), false},
		"to an IPv4-mapped one":        {append(append(slices.Clone(u6[:24]), make([]byte, 10)...), append([]byte{0xff, 0xff, 1, 2, 3, 4}, u6[40:]...)...), false},
		"ICMP":                         {ipv4(pkt.ProtoICMP, 64, make([]byte, 16)), false},
		"ICMPv6":                       {ipv6(pkt.ProtoICMPv6, 64, make([]byte, 16)), false},
		"options":                      {edit(u4, 0, 0x46), false},
		"an extension header, IPv6":    {edit(u6, 6, pkt.ProtoDestOpts), false},
		"checksum":                     {append(slices.Clone(u4[:10]), append([]byte{1, 1}, u4[12:]...)...), false},
		"longer than there is":         {edit(u4, 2, 1), false},
		"longer than there is, IPv6":   {edit(u6, 4, 1), false},
		"shorter than its header":      {edit(u4, 3, 19), false},
		"UDP longer than there is":     {edit(u4, 24, 1), false},
		"UDP of 7 bytes":               {edit(u4, 25, 7), false},
		"UDP of 7 bytes, IPv6":         {edit(u6, 45, 7), false},
		"TCP longer than there is":     {edit(t4, 32, 0x60), false},
		"TCP of 16 bytes":              {edit(t4, 32, 0x40), false},
		"TCP of 16 bytes, IPv6":        {edit(t6, 52, 0x40), false},
		"TCP in 19 bytes of an IP one": {edit(t4, 3, 39), false},
		"version 5":                    {edit(u4, 0, 0x55), false},
		"cut":                          {u4[:27], false},
		"cut, IPv6":                    {u6[:47], false},
		"nothing":                      {nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, link := range []int{0, 14, 18} {
				s := newShelf(link, tt.ip)
				if link > 0 && len(tt.ip) > 0 && tt.ip[0]>>4 == 6 {
					s.metas[0].Flags = graph.IPv6
				}
				if short := checkShortInput(t, s); short != tt.short {
					t.Errorf("behind %d bytes: taken in short: %v, want %v", link, short, tt.short)
				}
			}
		})
	}
	for name, m := range map[string]graph.Meta{
		"partial checksum": {Flags: graph.Partial, Bufs: 1}, "to a group MAC": {Flags: graph.Broadcast, Bufs: 1},
		"superpacket": {GSO: graph.GSOUDP, Bufs: 1}, "a chain": {Bufs: 2}, "the EtherType says otherwise": {Flags: graph.IPv6, Bufs: 1, L3: 14},
	} {
		s := newShelf(int(m.L3), u4)
		s.metas[0].Flags, s.metas[0].GSO, s.metas[0].Bufs = m.Flags, m.GSO, m.Bufs
		if plain.IPv4(s.w.Mem, &s.metas, []uint16{0}, []graph.Edge{0}, ipRoute) != 0 {
			t.Errorf("%s: taken in short", name)
		}
	}
}

// FuzzShortInput compares what package plain accepts with inspect.
func FuzzShortInput(f *testing.F) {
	for _, p := range [][]byte{ipv4(pkt.ProtoUDP, 64, udp(9)), ipv4(pkt.ProtoTCP, 9, tcp(3)), ipv6(pkt.ProtoUDP, 64, udp(9)), ipv6(pkt.ProtoTCP, 9, tcp(3))} {
		f.Add(p, uint8(0), uint8(0), true)
		f.Add(p, uint8(1), uint8(graph.IPv6), true)
		f.Add(p[:len(p)-4], uint8(1), uint8(0), false)
	}
	f.Fuzz(func(t *testing.T, ip []byte, link, how uint8, sum bool) {
		if len(ip) > 2000 {
			return
		}
		if ip = slices.Clone(ip); sum && len(ip) >= pkt.IPv4Size && ip[0]>>4 == 4 {
			resum(ip)
		}
		s := newShelf([]int{0, 14, 18}[link%3], ip)
		m := &s.metas[0]
		m.Flags, m.GSO = graph.Flags(how)&(graph.IPv6|graph.Verified), graph.GSOKind(how>>6)
		checkShortInput(t, s)
	})
}

// FuzzShortLink compares addressed with classify.
func FuzzShortLink(f *testing.F) {
	us, peer := MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}
	header := func(dst, src MAC, rest ...byte) []byte { return append(append(dst[:], src[:]...), rest...) }
	for _, rest := range [][]byte{{8, 0}, {0x86, 0xdd}, {8, 6}, {0x81, 0, 0, 5, 8, 0}, {0x81, 0, 0, 0, 8, 0}, {0x88, 0xa8, 0, 5, 8, 0}} {
		f.Add(header(us, peer, rest...), uint8(0))
		f.Add(header(us, us, rest...), uint8(1))
		f.Add(header(peer, us, rest...), uint8(1))
		f.Add(header(MAC{255, 255, 255, 255, 255, 255}, peer, rest...), uint8(0))
	}
	tb := NewTables()
	tb.Publish(&State{HostPort: graph.NoPort, SubPorts: map[SubPort]uint16{{0, 5}: 2}, Ports: []Port{
		{Flags: L2, MTU: 1500, MAC: us}, {Flags: L2, MTU: 1500, Main: 1, MAC: us, Peer: peer}, {Flags: L2, MTU: 1500, MAC: us, VLAN: 5}}})
	f.Fuzz(func(t *testing.T, frame []byte, port uint8) {
		if len(frame) > 2000 {
			return
		}
		s := newShelf(0, frame)
		s.metas[0].InPort = uint16(port % 4)
		long, next := s.clone(), []graph.Edge{0}
		if addressed(tb.State(), s.w.Mem, &s.metas, []uint16{0}, next) == 1 {
			alike(t, "eth-input", s, long, next[0], classify(tb.State(), long.w.Mem, &long.metas[0]))
		}
	})
}

// ways is a table in which a packet may meet every kind of next hop.
func ways(t testing.TB) *Tables {
	tb := NewTables()
	adjacency := func(id fib.AdjacencyID, kind fib.Kind, port uint16, header uint8, mtu uint32) {
		a := fib.Adjacency{Kind: kind, Port: port, HeaderLen: header, MTU: mtu}
		for i := range a.Header[:header] {
			a.Header[i] = byte(id) + byte(i)
		}
		if err := tb.FIB.SetAdjacency(id, a); err != nil {
			t.Fatal(err)
		}
		if err := tb.FIB.SetNextHop(fib.NextHopID(id), []fib.Member{{Adjacency: id, Weight: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	adjacency(1, fib.Rewrite, 0, 14, 1500)
	adjacency(2, fib.Rewrite, 1, 0, 1500)
	adjacency(3, fib.Rewrite, 2, 18, 1500)
	adjacency(4, fib.Rewrite, 3, 14, 100)
	adjacency(5, fib.Blackhole, 0, 0, 0)
	adjacency(6, fib.Incomplete, 0, 14, 1500)
	adjacency(7, fib.Rewrite, 9, 14, 1500)
	adjacency(9, fib.Rewrite, 4, 14, 1500)
	if err := tb.FIB.SetNextHop(8, []fib.Member{{Adjacency: 1, Weight: 1}, {Adjacency: 2, Weight: 1}}); err != nil {
		t.Fatal(err)
	}
	for hop := range fib.NextHopID(8) {
		for _, p := range []string{"20.%.0.0/16", "fd00:%::/32"} {
			if err := tb.FIB.SetRoute(netip.MustParsePrefix(string(bytes.ReplaceAll([]byte(p), []byte{'%'}, []byte{'0' + byte(hop)}))), hop+1); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range []string{"10.0.0.1/32", "2001:db8::1/128"} { // where all packets come from
		if err := tb.FIB.SetRoute(netip.MustParsePrefix(p), 9); err != nil {
			t.Fatal(err)
		}
	}
	tb.Publish(&State{HostPort: graph.NoPort, Ports: []Port{
		{Flags: L2, MTU: 1500}, {MTU: 1500, Main: 1}, {Flags: L2, MTU: 1500, VLAN: 5}, {Flags: L2 | NoPolicyState, MTU: 1500, Main: 3},
		{Flags: L2 | Workload, MTU: 1500, Main: 4}}})
	return tb
}

// FuzzShortWay compares forward with direct and relabel with rebuild.
func FuzzShortWay(f *testing.F) {
	for hop := range uint8(9) {
		for link := range uint8(3) {
			f.Add(hop, uint8(2), uint16(0), uint16(60), false, link)
			f.Add(hop, uint8(0), uint16(0), uint16(0), true, link)
			f.Add(hop, uint8(1), uint16(graph.Expiring), uint16(90), true, link)
			f.Add(hop, uint8(9), uint16(graph.FromUs), uint16(1480), false, link)
			f.Add(hop, uint8(4), uint16(0), uint16(60), link > 0, link)
			f.Add(hop, uint8(4), uint16(0), uint16(60), link > 0, link|128)
		}
	}
	tb := ways(f)
	f.Fuzz(func(t *testing.T, hop, port uint8, flags, size uint16, six bool, link uint8) {
		ip := ipv4(pkt.ProtoUDP, 64, udp(int(size%2000)))
		if six {
			ip = ipv6(pkt.ProtoUDP, 64, udp(int(size%2000)))
			ip[25], ip[26], ip[27] = 0, 0, hop%10
		} else {
			ip[17] = hop % 10
			resum(ip)
		}
		s := newShelf(int([]uint8{0, 14, 18}[link%3]), ip)
		m := &s.metas[0]
		m.InPort, m.Proto = uint16(port), pkt.ProtoUDP
		m.L4 = m.L3 + uint16(len(ip)-len(udp(int(size%2000))))
		m.Flags = graph.Flags(flags) & (graph.Expiring | graph.FromUs | graph.DontFrag | graph.Partial)
		if six {
			m.Flags |= graph.IPv6
		}
		m.To = destination(m, ip)
		view, st, next := tb.FIB.View(), tb.State(), []graph.Edge{0}
		n := &route{Tables: tb}
		n.lookUp(view, s.w.Mem, &s.metas, []uint16{0})
		if got, want := n.batch.NextHop(0), tb.find(s.w.Mem, m); got != want {
			t.Errorf("next hop %d, want %d", got, want)
		}
		long := s.clone()
		proven := graph.NoPort
		if m.InPort == 4 && link >= 128 && refuseSource(&view, st.port(4), s.w.Mem, m) == graph.NoReason {
			proven = m.InPort
		}
		if n.forward(view, st, &s.metas, []uint16{0}, next, 0, proven) == 1 {
			alike(t, "route", s, long, next[0], direct(&view, st, long.w.Mem, &long.metas[0], n.batch.NextHop(0)))
		}
		m.Adjacency = uint32(hop % 10) // whatever route had said: the table may have changed since
		long = s.clone()
		if relabel(view, st, s.w.Mem, &s.metas, []uint16{0}, next) == 1 {
			alike(t, "rewrite", s, long, next[0], rebuild(&view, st, long.w.Mem, &long.metas[0]))
		}
	})
}

// find looks m's destination up by itself.
func (t *Tables) find(mem []byte, m *graph.Meta) fib.NextHopID {
	view, l3 := t.FIB.View(), m.Off+uint32(m.L3)
	if m.Flags&graph.IPv6 == 0 {
		return view.Lookup4(binary.BigEndian.Uint32(mem[l3+16:]))
	}
	return view.Lookup6(binary.BigEndian.Uint64(mem[l3+24:]), binary.BigEndian.Uint64(mem[l3+32:]))
}
