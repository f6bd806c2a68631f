package node_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

// options4 is a UDP packet with an options field.
func options4(w ends, options []byte) []byte {
	udp := gt.UDP(w.src, w.dst, 40)
	h := append(append([]byte(nil), udp[:20]...), options...)
	h[0] = 0x40 | byte(len(h)/4)
	ip := append(h, udp[20:]...)
	setLength(ip)
	return ip
}

// part is one part of a datagram in UDP, at a multiple of 8 bytes.
func part(ipv6 bool, w ends, at int, more bool, payload []byte) []byte {
	word := uint16(at)
	if ipv6 {
		if more {
			word |= 1
		}
		frag := []byte{17, 0, byte(word >> 8), byte(word), 0, 0, 0, 9}
		return gt.Frame(gt.IP(w.src, w.dst, 44), gopacket.Payload(append(frag, payload...)))
	}
	ip := gt.Frame(gt.IP(w.src, w.dst, 17), gopacket.Payload(payload))
	word = uint16(at / 8)
	if more {
		word |= 0x2000
	}
	binary.BigEndian.PutUint16(ip[6:], word)
	copy(ip, sumHeader(ip))
	return ip
}

// extension is an IPv6 extension header: its number, and what follows its first
// two bytes.
type extension struct {
	kind byte
	body []byte
}

// chain6 is a UDP packet with extension headers.
func chain6(w ends, exts ...extension) []byte {
	return chainTo(w, 17, gt.UDP(w.src, w.dst, 24)[40:], exts...)
}

// chainTo is chain6 with another transport.
func chainTo(w ends, proto byte, transport []byte, exts ...extension) []byte {
	var body []byte
	for i, e := range exts {
		next := proto
		if i+1 < len(exts) {
			next = exts[i+1].kind
		}
		size := byte((len(e.body)+2)/8 - 1)
		if e.kind == 51 {
			size = byte((len(e.body)+2)/4 - 2)
		}
		body = append(append(body, next, size), e.body...)
	}
	first := proto
	if len(exts) > 0 {
		first = exts[0].kind
	}
	return gt.Frame(gt.IP(w.src, w.dst, layers.IPProtocol(first)), gopacket.Payload(append(body, transport...)))
}

// spoilt are packets from Up to the pod with one thing wrong or odd.
type spoilt struct {
	ip   func(ipv6 bool, w ends) []byte
	want graph.Reason // NoReason: it arrives
}

// changed is a UDP packet after change, its IPv4 checksum mended.
func changed(change func(ip []byte)) func(ipv6 bool, w ends) []byte {
	return func(ipv6 bool, w ends) []byte {
		ip := gt.UDP(w.src, w.dst, 40)
		change(ip)
		if !ipv6 && ip[0]&15 >= 5 && int(ip[0]&15)*4 <= len(ip) {
			copy(ip, sumHeader(ip))
		}
		return ip
	}
}

func runSpoilt(t *testing.T, ipv6 bool, tests map[string]spoilt) {
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := gt.Standard(t, 1)
			ip := tt.ip(ipv6, toPod(ipv6))
			l.Inject(gt.Up, gt.EtherType(gt.MAC(gt.Up), gt.StationMAC(gt.NetUp, gt.Station), etherType(ipv6), ip))
			l.Run()
			if tt.want == graph.NoReason {
				got := wantOne(t, l, gt.Pod).Bytes
				wantBytes(t, got, older(t, ip)[:len(got)])
				return
			}
			wantNone(t, l)
			l.WantDrops(t, map[graph.Reason]uint64{tt.want: 1})
		})
	}
}

func etherType(ipv6 bool) layers.EthernetType {
	if ipv6 {
		return layers.EthernetTypeIPv6
	}
	return layers.EthernetTypeIPv4
}

func TestIPv4HeadersThatLie(t *testing.T) {
	put16 := func(at int, v uint16) func(ip []byte) {
		return func(ip []byte) { binary.BigEndian.PutUint16(ip[at:], v) }
	}
	put8 := func(at int, v byte) func(ip []byte) { return func(ip []byte) { ip[at] = v } }
	runSpoilt(t, false, map[string]spoilt{
		"nothing wrong":                     {changed(func([]byte) {}), graph.NoReason},
		"version 0":                         {changed(put8(0, 0x05)), graph.IPVersion},
		"version 5":                         {changed(put8(0, 0x55)), graph.IPVersion},
		"version 6 in an IPv4 frame":        {changed(put8(0, 0x65)), graph.IPVersion},
		"header of 16 bytes":                {changed(put8(0, 0x44)), graph.IPHeaderLength},
		"header of no bytes":                {changed(put8(0, 0x40)), graph.IPHeaderLength},
		"total length below the header":     {changed(put16(2, 19)), graph.IPTruncated},
		"total length zero":                 {changed(put16(2, 0)), graph.IPTruncated},
		"total length beyond the packet":    {changed(put16(2, 69)), graph.IPTruncated},
		"total length 65535":                {changed(put16(2, 65535)), graph.IPTruncated},
		"total length cuts the UDP header":  {changed(put16(2, 27)), graph.L4Truncated},
		"total length cuts the UDP payload": {changed(put16(2, 60)), graph.L4Length},
		"wrong checksum": {func(_ bool, w ends) []byte {
			ip := gt.UDP(w.src, w.dst, 40)
			ip[10] ^= 1
			return ip
		}, graph.IPChecksum},
		"checksum zero": {func(_ bool, w ends) []byte {
			ip := gt.UDP(w.src, w.dst, 40)
			ip[10], ip[11] = 0, 0
			return ip
		}, graph.IPChecksum},
		"reserved flag set":                  {changed(put16(6, 0xc000)), graph.NoReason},
		"UDP length below its header":        {changed(put16(24, 7)), graph.L4Length},
		"UDP length beyond the packet":       {changed(put16(24, 49)), graph.L4Length},
		"UDP length shorter than the packet": {changed(put16(24, 20)), graph.NoReason},
		"UDP without checksum":               {changed(put16(26, 0)), graph.NoReason},
		"header of 60 bytes in fewer":        {func(_ bool, w ends) []byte { ip := gt.UDP(w.src, w.dst, 4); ip[0] = 0x4f; return ip }, graph.IPHeaderLength},
	})
}

func TestIPv6HeadersThatLie(t *testing.T) {
	put16 := func(at int, v uint16) func(ip []byte) {
		return func(ip []byte) { binary.BigEndian.PutUint16(ip[at:], v) }
	}
	runSpoilt(t, true, map[string]spoilt{
		"nothing wrong":                       {changed(func([]byte) {}), graph.NoReason},
		"traffic class and flow label":        {changed(func(ip []byte) { ip[0], ip[1], ip[2] = 0x6f, 0xff, 0xff }), graph.NoReason},
		"version 4 in an IPv6 frame":          {changed(func(ip []byte) { ip[0] = 0x45 }), graph.IPVersion},
		"version 7":                           {changed(func(ip []byte) { ip[0] = 0x70 }), graph.IPVersion},
		"payload length beyond the packet":    {changed(put16(4, 49)), graph.IPTruncated},
		"payload length 65535":                {changed(put16(4, 65535)), graph.IPTruncated},
		"payload length cuts the UDP header":  {changed(put16(4, 7)), graph.L4Truncated},
		"payload length cuts the UDP payload": {changed(put16(4, 40)), graph.L4Length},
		"payload length zero":                 {changed(put16(4, 0)), graph.L4Truncated},
		"UDP length below its header":         {changed(put16(44, 7)), graph.L4Length},
		"UDP length zero":                     {changed(put16(44, 0)), graph.L4Length},
		"UDP length beyond the packet":        {changed(put16(44, 49)), graph.L4Length},
	})
}

func TestTCPHeadersThatLie(t *testing.T) {
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		offset := func(words byte, payload int) func(bool, ends) []byte {
			return func(_ bool, w ends) []byte {
				ip := gt.TCP(w.src, w.dst, payload)
				ip[len(ip)-payload-8] = words << 4
				return ip
			}
		}
		runSpoilt(t, ipv6, map[string]spoilt{
			"a header of 16 bytes":             {offset(4, 40), graph.L4Length},
			"a header of no bytes":             {offset(0, 40), graph.L4Length},
			"a header of 60 bytes":             {offset(15, 40), graph.NoReason},
			"a header of 60 bytes in fewer":    {offset(15, 39), graph.L4Length},
			"options where the packet ends":    {offset(6, 0), graph.L4Length},
			"a header of 20 bytes and no more": {offset(5, 0), graph.NoReason},
		})
	})
}

func TestIPv4Options(t *testing.T) {
	opt := func(b ...byte) func(bool, ends) []byte { return func(_ bool, w ends) []byte { return options4(w, b) } }
	runSpoilt(t, false, map[string]spoilt{
		"nothing but no-operations":       {opt(1, 1, 1, 1), graph.NoReason},
		"the end at once":                 {opt(0, 0, 0, 0), graph.NoReason},
		"a timestamp":                     {opt(68, 8, 5, 0, 0, 0, 0, 0), graph.NoReason},
		"record route":                    {opt(7, 7, 4, 0, 0, 0, 0, 0), graph.NoReason},
		"router alert":                    {opt(148, 4, 0, 0), graph.NoReason},
		"one that nobody knows":           {opt(0x5e, 4, 1, 2), graph.NoReason},
		"a loose source route":            {opt(131, 7, 4, 10, 0, 0, 1, 0), graph.IPOptions},
		"a strict source route":           {opt(137, 7, 4, 10, 0, 0, 1, 0), graph.IPOptions},
		"a source route behind others":    {opt(1, 68, 6, 5, 0, 0, 0, 1, 131, 3, 4, 0), graph.IPOptions},
		"a source route behind the end":   {opt(0, 131, 3, 4), graph.NoReason},
		"length zero":                     {opt(7, 0, 0, 0), graph.IPOptions},
		"length one":                      {opt(7, 1, 0, 0), graph.IPOptions},
		"length beyond the header":        {opt(7, 5, 4, 0), graph.IPOptions},
		"a kind where the header ends":    {opt(1, 1, 1, 7), graph.IPOptions},
		"forty bytes":                     {opt(append([]byte{7, 39, 4}, make([]byte, 37)...)...), graph.NoReason},
		"a header longer than the packet": {func(_ bool, w ends) []byte { return gt.Frame(ipWords(w, 15)) }, graph.IPHeaderLength},
		"a total length inside the options": {func(_ bool, w ends) []byte {
			ip := options4(w, []byte{1, 1, 1, 1})
			binary.BigEndian.PutUint16(ip[2:], 23)
			copy(ip, sumHeader(ip))
			return ip
		}, graph.IPTruncated},
		"a wrong checksum": {func(_ bool, w ends) []byte {
			ip := options4(w, []byte{1, 1, 1, 1})
			ip[21] = 0
			return ip
		}, graph.IPChecksum},
		"options and a cut UDP header": {func(_ bool, w ends) []byte {
			ip := options4(w, []byte{1, 1, 1, 1})[:31]
			setLength(ip)
			return ip
		}, graph.L4Truncated},
	})
}

// ipWords is a bare IPv4 header that says it has n words.
func ipWords(w ends, n byte) gopacket.Payload {
	ip := gt.Frame(gt.IP(w.src, w.dst, 17))
	ip[0] = 0x40 | n
	return gopacket.Payload(ip)
}

// Each of these goes nowhere, whoever sends it.
func TestMartians(t *testing.T) {
	good4, good6 := gt.Addr(false, gt.NetPods, gt.PodHost).String(), gt.Addr(true, gt.NetPods, gt.PodHost).String()
	ok4, ok6 := gt.Addr(false, gt.NetUp, gt.Station).String(), gt.Addr(true, gt.NetUp, gt.Station).String()
	tests := map[string]struct {
		src, dst string
		want     graph.Reason
	}{
		"IPv4 from this network":          {"0.0.0.0", good4, graph.IPMartian},
		"IPv4 from 0.1.2.3":               {"0.1.2.3", good4, graph.IPMartian},
		"IPv4 from loopback":              {"127.0.0.1", good4, graph.IPMartian},
		"IPv4 from multicast":             {"224.0.0.1", good4, graph.IPMartian},
		"IPv4 from class E":               {"240.0.0.1", good4, graph.IPMartian},
		"IPv4 from broadcast":             {"255.255.255.255", good4, graph.IPMartian},
		"IPv4 to this network":            {ok4, "0.0.0.0", graph.IPMartian},
		"IPv4 to loopback":                {ok4, "127.1.2.3", graph.IPMartian},
		"IPv4 to class E":                 {ok4, "250.0.0.1", graph.IPMartian},
		"IPv4 to multicast":               {ok4, "239.255.255.250", graph.IPMulticast},
		"IPv4 to broadcast":               {ok4, "255.255.255.255", graph.IPMulticast},
		"IPv4 from loopback to broadcast": {"127.0.0.1", "255.255.255.255", graph.IPMartian},
		"IPv6 from the unspecified":       {"::", good6, graph.IPMartian},
		"IPv6 from loopback":              {"::1", good6, graph.IPMartian},
		"IPv6 from multicast":             {"ff02::1", good6, graph.IPMartian},
		"IPv6 from mapped IPv4":           {"::ffff:10.0.0.2", good6, graph.IPMartian},
		"IPv6 from link-local":            {"fe80::2", good6, graph.IPMartian},
		"IPv6 from the end of link-local": {"febf::2", good6, graph.IPMartian},
		"IPv6 to the unspecified":         {ok6, "::", graph.IPMartian},
		"IPv6 to loopback":                {ok6, "::1", graph.IPMartian},
		"IPv6 to mapped IPv4":             {ok6, "::ffff:10.1.0.2", graph.IPMartian},
		"IPv6 to link-local":              {ok6, "fe80::1", graph.IPMartian},
		"IPv6 to multicast":               {ok6, "ff05::1:3", graph.IPMulticast},
		"IPv6 to all nodes":               {ok6, "ff02::1", graph.IPMulticast},
	}
	for name, tt := range tests {
		for _, port := range []uint16{gt.Up, gt.Pod, gt.Veth, gt.Host} {
			t.Run(name, func(t *testing.T) {
				l := gt.Standard(t, 1)
				src, dst := netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst)
				l.SendIP(port, gt.UDP(src, dst, 10), gt.TCP(src, dst, 10), gt.Echo(src, dst, 10))
				wantNone(t, l)
				l.WantDrops(t, map[graph.Reason]uint64{tt.want: 3})
			})
		}
	}
}

// All fragment shapes that one who does not reassemble can judge.
func TestFragments(t *testing.T) {
	p := func(at int, more bool, n int) func(bool, ends) []byte {
		return func(ipv6 bool, w ends) []byte {
			body := gt.UDP(w.src, w.dst, 2000)[len(gt.UDP(w.src, w.dst, 0))-8:]
			return part(ipv6, w, at, more, body[:n])
		}
	}
	tcp := func(at int, n int) func(bool, ends) []byte {
		return func(ipv6 bool, w ends) []byte {
			ip := part(ipv6, w, at, true, gt.TCP(w.src, w.dst, 100)[len(gt.TCP(w.src, w.dst, 0))-20:][:n])
			if ipv6 {
				ip[40] = 6
			} else {
				setProto(ip, 6)
			}
			return ip
		}
	}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		runSpoilt(t, ipv6, map[string]spoilt{
			"the first of many":                       {p(0, true, 800), graph.NoReason},
			"one in the middle":                       {p(800, true, 800), graph.NoReason},
			"the last":                                {p(1600, false, 400), graph.NoReason},
			"the last with an odd length":             {p(1600, false, 399), graph.NoReason},
			"the last with a single byte":             {p(1600, false, 1), graph.NoReason},
			"the first with its header only":          {p(0, true, 8), graph.NoReason},
			"a tiny first":                            {p(0, true, 0), graph.FragInvalid},
			"the first with an odd length":            {p(0, true, 801), graph.FragInvalid},
			"one in the middle without a byte":        {p(800, true, 0), graph.FragInvalid},
			"the last without a byte":                 {p(1600, false, 0), graph.FragInvalid},
			"one in the middle with an odd length":    {p(800, true, 7), graph.FragInvalid},
			"the last beyond 65535 bytes":             {p(65528, false, 100), graph.FragInvalid},
			"one in the middle beyond 65535 bytes":    {p(65528, true, 8), graph.FragInvalid},
			"the first of TCP cut in its header":      {tcp(0, 16), graph.FragInvalid},
			"the first of TCP with all of its header": {tcp(0, 24), graph.NoReason},
			"a later one of TCP over its header":      {tcp(8, 32), graph.FragInvalid},
			"a later one of TCP over its flags":       {tcp(16, 32), graph.FragInvalid},
			"a later one of TCP behind its header":    {tcp(24, 32), graph.NoReason},
			"an atomic one":                           {p(0, false, 2008), graph.NoReason},
		})
	})
}

func TestExtensionHeaders(t *testing.T) {
	pad6, pad14 := []byte{1, 4, 0, 0, 0, 0}, append([]byte{1, 12}, make([]byte, 12)...)
	routing := func(kind, left byte) []byte { return []byte{kind, left, 0, 0, 0, 0} }
	times := func(n int, e extension) (all []extension) {
		for range n {
			all = append(all, e)
		}
		return all
	}
	ok := func(exts ...extension) func(bool, ends) []byte {
		return func(_ bool, w ends) []byte { return chain6(w, exts...) }
	}
	frag := extension{44, []byte{0, 1, 0, 0, 0, 9}}
	runSpoilt(t, true, map[string]spoilt{
		"hop by hop":                       {ok(extension{0, pad6}), graph.NoReason},
		"hop by hop, options, routing, AH": {ok(extension{0, pad6}, extension{60, pad14}, extension{43, routing(2, 1)}, extension{51, make([]byte, 22)}), graph.NoReason},
		"hop by hop that is not the first": {ok(extension{60, pad6}, extension{0, pad6}), graph.ExtHeader},
		"two hop by hop":                   {ok(extension{0, pad6}, extension{0, pad6}), graph.ExtHeader},
		"routing type 0":                   {ok(extension{43, routing(0, 1)}), graph.ExtHeader},
		"routing type 0 with no segments":  {ok(extension{43, routing(0, 0)}), graph.ExtHeader},
		"routing type 4 (segment routing)": {ok(extension{43, routing(4, 0)}), graph.NoReason},
		"eight":                            {ok(times(8, extension{60, pad6})...), graph.NoReason},
		"nine":                             {ok(times(9, extension{60, pad6})...), graph.ExtHeader},
		"a hundred":                        {ok(times(100, extension{60, pad6})...), graph.ExtHeader},
		"an atomic fragment":               {ok(extension{44, []byte{0, 0, 0, 0, 0, 9}}), graph.NoReason},
		"an atomic fragment of a fragment": {ok(extension{44, []byte{0, 0, 0, 0, 0, 9}}, frag), graph.NoReason},
		"a fragment of a fragment":         {ok(frag, frag), graph.ExtHeader},
		"an atomic fragment in a fragment": {ok(frag, extension{44, []byte{0, 0, 0, 0, 0, 9}}), graph.ExtHeader},
		"encrypted payload":                {func(_ bool, w ends) []byte { return chainTo(w, 50, gt.Payload(64), extension{60, pad6}) }, graph.NoReason},
		"a protocol that nobody knows":     {func(_ bool, w ends) []byte { return chainTo(w, 253, gt.Payload(1), extension{60, pad6}) }, graph.NoReason},
		"no next header":                   {func(_ bool, w ends) []byte { return chainTo(w, 59, nil, extension{60, pad6}) }, graph.NoReason},
		"no next header, and bytes":        {func(_ bool, w ends) []byte { return chainTo(w, 59, gt.Payload(9)) }, graph.NoReason},
		"a header that says it is longer":  {lengthened(1), graph.L4Truncated},
		"a header longer than the packet":  {lengthened(200), graph.ExtHeader},
		"nothing behind the last":          {func(_ bool, w ends) []byte { return chainTo(w, 17, nil, extension{60, pad6}) }, graph.L4Truncated},
		"a chain that ends in a header":    {func(_ bool, w ends) []byte { return chainTo(w, 60, nil, extension{60, pad6}) }, graph.ExtHeader},
		"a cut transport header":           {func(_ bool, w ends) []byte { return chainTo(w, 6, gt.Payload(19), extension{60, pad6}) }, graph.L4Truncated},
		"discovery behind an option": {func(_ bool, w ends) []byte {
			return chainTo(w, 58, append([]byte{135, 0}, make([]byte, 22)...), extension{60, pad6})
		}, graph.NDInvalid},
		"discovery in an atomic fragment": {func(_ bool, w ends) []byte {
			return chainTo(w, 58, append([]byte{136, 0}, make([]byte, 22)...), extension{44, []byte{0, 0, 0, 0, 0, 9}})
		}, graph.NDInvalid},
		"discovery in a first fragment": {func(_ bool, w ends) []byte {
			return chainTo(w, 58, append([]byte{137, 0}, make([]byte, 38)...), extension{44, []byte{0, 1, 0, 0, 0, 9}})
		}, graph.NDInvalid},
		"a first fragment without its transport": {func(_ bool, w ends) []byte {
			return chainTo(w, 60, pad(pad6), frag)
		}, graph.FragInvalid},
		"a first fragment with a part of its chain": {func(_ bool, w ends) []byte {
			return chainTo(w, 60, append([]byte{17, 9}, make([]byte, 6)...), frag)
		}, graph.ExtHeader},
	})
}

// pad is an options header that leads to UDP.
func pad(body []byte) []byte { return append([]byte{17, 0}, body...) }

// lengthened is a chain of one header, whose length field is n.
func lengthened(n byte) func(bool, ends) []byte {
	return func(_ bool, w ends) []byte {
		ip := chain6(w, extension{60, make([]byte, 6)})
		ip[41] = n
		ip = ip[:40+8+10]
		setLength(ip)
		return ip
	}
}

// A chain that goes on in the next buffer is not followed.
func TestHeadersBeyondTheFirstBufferAreNotFollowed(t *testing.T) {
	w := toPod(true)
	long := chain6(w, extension{60, make([]byte, 1022)}, extension{60, make([]byte, 1022)}, extension{60, make([]byte, 1022)})
	tests := map[string]struct {
		ip    []byte
		first int // bytes of the IP packet in the first buffer
		want  graph.Reason
	}{
		"a chain":                  {long, 2000, graph.ExtHeader},
		"the transport header":     {long, 40 + 3*1024, graph.L4Truncated},
		"part of the UDP header":   {long, 40 + 3*1024 + 7, graph.L4Truncated},
		"part of the TCP header":   {gt.TCP(w.src, w.dst, 2000), 59, graph.L4Length},
		"all of the TCP header":    {gt.TCP(w.src, w.dst, 2000), 40, graph.L4Length},
		"all of the ICMPv6 header": {gt.Solicit(w.src, w.dst, w.dst, node.MAC{}), 40, graph.L4Length},
		"part of the IPv6 header":  {long, 39, graph.IPTruncated},
		"the IPv4 options":         {options4(toPod(false), append([]byte{7, 39, 4}, make([]byte, 37)...)), 40, graph.IPHeaderLength},
		"part of the IPv4 header":  {gt.UDP(toPod(false).src, toPod(false).dst, 500), 19, graph.IPTruncated},
		"the UDP header of IPv4":   {gt.UDP(toPod(false).src, toPod(false).dst, 500), 20, graph.L4Length},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := gt.Standard(t, 1)
			l.InjectPackets(gt.Up, gt.Packet{Bytes: gt.Framed(gt.Up, tt.ip), Pieces: []int{14 + tt.first}})
			l.Run()
			wantNone(t, l)
			l.WantDrops(t, map[graph.Reason]uint64{tt.want: 1})
		})
	}
}
