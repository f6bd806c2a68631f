package flow

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"margay.dev/margay/internal/pkt"
)

// port80 are the two ends with ports, by family.
func port80(v6 int, port uint16) [2]netip.AddrPort {
	return [2]netip.AddrPort{netip.AddrPortFrom(ends[v6][0], port), netip.AddrPortFrom(ends[v6][1], 80)}
}

func TestRead(t *testing.T) {
	for v6 := range ends {
		at := port80(v6, 999)
		cut := func(b []byte, n int) []byte { return b[:len(b)-n] }
		echo, reply, redirect := uint8(pkt.ICMPEcho), uint8(pkt.ICMPEchoReply), uint8(5)
		if v6 == 1 {
			echo, reply, redirect = pkt.ICMP6Echo, pkt.ICMP6EchoReply, pkt.ICMP6Redirect
		}
		lying := seg{flags: ACK}.packet(at[0], at[1])
		lying[len(lying)-8] = 0xf0 // data offset
		short := seg{flags: ACK}.packet(at[0], at[1])
		short[len(short)-8] = 0x40
		tests := map[string]struct {
			bytes []byte
			kind  Kind
			ports [2]uint16
		}{
			"TCP":                         {seg{flags: ACK, n: 7}.packet(at[0], at[1]), Steady, [2]uint16{999, 80}},
			"TCP's SYN":                   {seg{flags: SYN}.packet(at[0], at[1]), Plain, [2]uint16{999, 80}},
			"TCP cut short":               {cut(seg{flags: ACK}.packet(at[0], at[1]), 1), Unusable, [2]uint16{}},
			"TCP header beyond the end":   {lying, Unusable, [2]uint16{999, 80}},
			"TCP header of 16 bytes":      {short, Unusable, [2]uint16{999, 80}},
			"UDP":                         {udpPacket(at[0], at[1], 3), Plain, [2]uint16{999, 80}},
			"UDP cut short":               {cut(udpPacket(at[0], at[1], 0), 1), Unusable, [2]uint16{}},
			"SCTP":                        {ipPacket(ends[v6][0], ends[v6][1], pkt.ProtoSCTP, []byte{3, 231, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8}), Plain, [2]uint16{999, 80}},
			"SCTP cut short":              {ipPacket(ends[v6][0], ends[v6][1], pkt.ProtoSCTP, make([]byte, 11)), Unusable, [2]uint16{}},
			"GRE":                         {ipPacket(ends[v6][0], ends[v6][1], 47, make([]byte, 4)), Plain, [2]uint16{}},
			"nothing behind the header":   {ipPacket(ends[v6][0], ends[v6][1], 47, nil), Plain, [2]uint16{}},
			"echo":                        {icmpPacket(ends[v6][0], ends[v6][1], echo, 0, []byte{3, 231, 0, 1}), Plain, [2]uint16{999, uint16(echo) << 8}},
			"echo's reply":                {icmpPacket(ends[v6][0], ends[v6][1], reply, 0, []byte{3, 231, 0, 1}), Plain, [2]uint16{999, uint16(reply) << 8}},
			"redirect":                    {icmpPacket(ends[v6][0], ends[v6][1], redirect, 0, make([]byte, 40)), Untracked, [2]uint16{}},
			"ICMP cut short":              {icmpPacket(ends[v6][0], ends[v6][1], echo, 0, []byte{1, 2, 3}), Unusable, [2]uint16{}},
			"ICMP of the other family":    {ipPacket(ends[v6][0], ends[v6][1], [2]uint8{pkt.ProtoICMPv6, pkt.ProtoICMP}[v6], make([]byte, 8)), Unusable, [2]uint16{}},
			"query of the other family's": {icmpPacket(ends[v6][0], ends[v6][1], [2]uint8{pkt.ICMP6Echo, pkt.ICMPEcho}[v6], 0, make([]byte, 8)), Untracked, [2]uint16{}},
		}
		for name, tt := range tests {
			p := read(tt.bytes)
			src, dst := p.Key.Ports()
			if p.Kind != tt.kind || [2]uint16{src, dst} != tt.ports && tt.kind != Unusable {
				t.Errorf("%s, %s: kind %d, ports %d and %d, want %d, %d", name, family(v6), p.Kind, src, dst, tt.kind, tt.ports)
			}
			from, to := p.Key.Addrs()
			if from != ends[v6][0] || to != ends[v6][1] || p.Key.IPv6() != (v6 == 1) {
				t.Errorf("%s, %s: from %s to %s", name, family(v6), from, to)
			}
			if (p.Why == Malformed) != (tt.kind == Unusable) {
				t.Errorf("%s, %s: it is %v", name, family(v6), p.Why)
			}
		}
	}
}

func TestNewKeyIsWhatReadMakes(t *testing.T) {
	for v6 := range ends {
		p := Packet{}
		b := udpPacket(port80(v6, 999)[0], port80(v6, 999)[1], 1)
		s := shapeOf(b)
		s.Zone = 7
		p.Read(b, s)
		if k := NewKey(ends[v6][0], ends[v6][1], pkt.ProtoUDP, 999, 80, 7); k != p.Key || k.Zone() != 7 {
			t.Errorf("%s: %+v of a packet, %+v of its tuple", family(v6), p.Key, k)
		}
		if back := p.Key.Reverse(); back.Reverse() != p.Key || back == p.Key {
			t.Errorf("%s: %+v reversed twice is %+v", family(v6), p.Key, back.Reverse())
		}
	}
}

func TestWindowScaleOfHostileOptions(t *testing.T) {
	for name, tt := range map[string]struct {
		options []byte
		want    uint8
	}{
		"none":                     {nil, 0},
		"alone":                    {[]byte{3, 3, 7, 0}, 8},
		"behind others":            {[]byte{2, 4, 5, 180, 4, 2, 1, 3, 3, 0}, 1},
		"behind timestamps":        {[]byte{8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 2, 1}, 3},
		"above the most":           {[]byte{3, 3, 200}, 15},
		"behind the end":           {[]byte{0, 3, 3, 7}, 0},
		"length 0":                 {[]byte{8, 0, 3, 3, 7}, 0},
		"length 1":                 {[]byte{8, 1, 3, 3, 7}, 0},
		"length beyond the end":    {[]byte{8, 10, 0, 3, 3, 7}, 0},
		"its own length cut":       {[]byte{1, 1, 1, 3}, 0},
		"its own length is 2":      {[]byte{3, 2, 3, 3, 5, 0}, 6},
		"its own length is beyond": {[]byte{3, 9, 7}, 0},
		"forty of them":            {bytes.Repeat([]byte{1}, 40), 0},
	} {
		if got := windowScale(tt.options); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// FuzzRead reads any bytes as a packet and as a fragment, and gives what comes of it
// to a table: nothing may panic, and what is read lies within the bytes.
func FuzzRead(f *testing.F) {
	for v6 := range ends {
		at := port80(v6, 999)
		tcp := seg{flags: SYN, options: []byte{2, 4, 5, 180, 1, 3, 3, 7}}.packet(at[0], at[1])
		f.Add(tcp, uint8(pkt.ProtoTCP), uint8(len(tcp)-28))
		f.Add(udpPacket(at[0], at[1], 9), uint8(pkt.ProtoUDP), uint8(20+20*v6))
		quote := icmpPacket(ends[v6][1], ends[v6][0], [2]uint8{3, 1}[v6], 1, append(make([]byte, 4), tcp...))
		f.Add(quote, quote[[2]int{9, 6}[v6]], uint8(20+20*v6))
	}
	f.Add(parts(1, 3000, 1480)[1], uint8(pkt.ProtoUDP), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, proto, l4 uint8) {
		if len(b) == 0 || b[0]>>4 != 4 && b[0]>>4 != 6 {
			return
		}
		s := Shape{L4: int(l4), Length: len(b), Proto: proto, IPv6: b[0]>>4 == 6, Segments: 1}
		var p Packet
		p.Read(b, s)
		if p.Key.Tail&tailMark == 0 || p.Key.IPv6() != s.IPv6 {
			t.Errorf("%+v is no key", p.Key)
		}
		if p.Kind == Steady && int(p.Length)+20+s.L4 > len(b) {
			t.Errorf("%d bytes of payload in %d", p.Length, len(b))
		}
		if (p.Kind == Unusable) != (p.Why != NoReason) {
			t.Errorf("kind %d for %v", p.Kind, p.Why)
		}
		w := newTable(t, nil).Worker(0)
		if r := passPacket(w, 0, p); r.Outcome == Hit || r.Outcome == Stale {
			t.Errorf("the first packet is %v", r.Outcome)
		}
		var part Part
		if part.Read(b, s) && (part.To <= part.From || int(part.To-part.From) > len(b)) {
			t.Errorf("a fragment of %d bytes from %d to %d", len(b), part.From, part.To)
		}
	})
}

// TestErrorsFollowWhatTheyQuote has routers and hosts send ICMP errors about flows.
func TestErrorsFollowWhatTheyQuote(t *testing.T) {
	for v6 := range ends {
		table := newTable(t, nil)
		w := table.Worker(0)
		at := port80(v6, 999)
		a, b := ends[v6][0], ends[v6][1]
		router := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}[v6]
		unreachable, tooBig, code := [2]uint8{3, 1}[v6], [2]uint8{3, 2}[v6], [2]uint8{4, 0}[v6]
		echo := [2]uint8{pkt.ICMPEcho, pkt.ICMP6Echo}[v6]
		about := func(b []byte, n int) []byte { return append(make([]byte, 4), b[:n]...) }
		mtu := func(n int, b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(n)), b...) }
		header := 20 + 20*v6
		udp, ping := udpPacket(at[0], at[1], 100), icmpPacket(a, b, echo, 0, []byte{1, 2, 0, 0, 9, 9})
		for _, b := range [][]byte{udp, ping} {
			pass(w, 0, b)
		}
		for _, s := range opened(l(Hit, ACK, 1, 1, 100), l(Hit, ACK, 101, 1, 400), r(Hit, ACK, 1, 101, 0)) {
			pass(w, 0, s.seg.packet(at[s.from], at[1-s.from]))
		}
		segAt := func(n uint32) []byte { return seg{flags: ACK, seq: left + n}.packet(at[0], at[1]) }
		later := append([]byte(nil), udp...)
		later[7] = 1
		before := table.Stats()
		tests := map[string]struct {
			packet []byte
			want   Reason
		}{
			"about a datagram":               {icmpPacket(router, a, unreachable, 1, about(udp, header+8)), NoReason},
			"about a segment under way":      {icmpPacket(router, a, unreachable, 1, about(segAt(101), header+8)), NoReason},
			"about what is sent next":        {icmpPacket(router, a, unreachable, 1, about(segAt(501), header+8)), NoReason},
			"about an echo":                  {icmpPacket(router, a, unreachable, 1, about(ping, header+8)), NoReason},
			"asking for smaller packets":     {icmpPacket(router, a, tooBig, code, mtu(1400, udp)), NoReason},
			"about a segment that arrived":   {icmpPacket(router, a, unreachable, 1, about(segAt(50), header+8)), ForgedQuote},
			"about a segment not sent":       {icmpPacket(router, a, unreachable, 1, about(segAt(502), header+8)), ForgedQuote},
			"asking for far too small ones":  {icmpPacket(router, a, tooBig, code, mtu([2]int{67, 1279}[v6], udp)), ForgedQuote},
			"about nothing we know":          {icmpPacket(router, a, unreachable, 1, about(udpPacket(port80(v6, 7)[0], at[1], 0), header+8)), UnknownQuote},
			"to another than who sent it":    {icmpPacket(router, b, unreachable, 1, about(udp, header+8)), BadQuote},
			"with a quote cut short":         {icmpPacket(router, a, unreachable, 1, about(udp, header+7)), BadQuote},
			"with no quote":                  {icmpPacket(router, a, unreachable, 1, make([]byte, 4)), BadQuote},
			"with a header of the other":     {icmpPacket(router, a, unreachable, 1, about(udpPacket(port80(1-v6, 7)[0], port80(1-v6, 7)[1], 60), 48)), BadQuote},
			"about an error":                 {icmpPacket(router, a, unreachable, 1, about(icmpPacket(a, b, unreachable, 0, make([]byte, 8)), header+8)), BadQuote},
			"about a reply, to who asks":     {icmpPacket(router, b, unreachable, 1, about(udpPacket(at[1], at[0], 0), header+8)), NoReason},
			"about a segment never answered": {icmpPacket(router, b, unreachable, 1, about(seg{seq: right + 900}.packet(at[1], at[0]), header+8)), ForgedQuote},
		}
		if v6 == 0 {
			tests["about a later fragment"] = struct {
				packet []byte
				want   Reason
			}{icmpPacket(router, a, unreachable, 1, about(later, header+8)), BadQuote}
		}
		for name, tt := range tests {
			got := pass(w, 40, tt.packet)
			if want := map[bool]Outcome{true: Hit, false: Refused}[tt.want == NoReason]; got.Outcome != want || got.Reason != tt.want {
				t.Errorf("%s, %s: %v (%v), want %v (%v)", name, family(v6), got.Outcome, got.Reason, want, tt.want)
			}
			toOriginator := name != "about a reply, to who asks"
			if got.Outcome == Hit && (got.Ref&1 == 1) != toOriginator {
				t.Errorf("%s, %s: it goes in direction %d", name, family(v6), got.Ref&1)
			}
		}
		if after := table.Stats(); after.ByState != before.ByState || after.Inserted != before.Inserted {
			t.Errorf("%s: errors have changed %v to %v", family(v6), before.ByState, after.ByState)
		}
		for f := range table.All(40) {
			if f.Idle != 40*tick {
				t.Errorf("%s: an error has kept a flow alive", family(v6))
			}
		}
	}
}

// TestRepliesOpenNothing: an answer to what nobody asked is refused.
func TestRepliesOpenNothing(t *testing.T) {
	for v6 := range ends {
		w := newTable(t, nil).Worker(0)
		a, b := ends[v6][0], ends[v6][1]
		echo, reply := [2]uint8{8, 128}[v6], [2]uint8{0, 129}[v6]
		id := []byte{1, 2, 0, 0}
		for i, step := range []struct {
			packet []byte
			want   Outcome
		}{
			{icmpPacket(b, a, reply, 0, id), Refused},
			{icmpPacket(a, b, echo, 0, id), Inserted},
			{icmpPacket(b, a, reply, 0, id), Hit},
			{icmpPacket(b, a, reply, 0, []byte{1, 3, 0, 0}), Refused},
			{icmpPacket(a, b, reply, 0, id), Refused},
			{icmpPacket(b, a, echo, 0, id), Inserted}, // the other asks: a flow of its own
		} {
			if got := pass(w, 0, step.packet); got.Outcome != step.want {
				t.Errorf("%s, packet %d: %v (%v), want %v", family(v6), i, got.Outcome, got.Reason, step.want)
			}
		}
	}
}
