package filter

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/internal/pkt"
)

func TestRead(t *testing.T) {
	type row struct {
		packet []byte
		l3     bool
		want   Key
	}
	v4 := func(k Key) Key { k.EtherType, k.Src, k.Dst = pkt.EtherIPv4, near4, far4; return k }
	v6 := func(k Key) Key { k.EtherType, k.Src, k.Dst = pkt.EtherIPv6, near6, far6; return k }
	udp := Key{Proto: pkt.ProtoUDP, SrcPort: 4000, DstPort: 53, HasPorts: true}
	patch := func(b []byte, at int, v ...byte) []byte { b = slices.Clone(b); copy(b[at:], v); return b }
	udp4 := ip(near4, far4, pkt.ProtoUDP, ported(4000, 53))
	udp6 := ip(near6, far6, pkt.ProtoUDP, ported(4000, 53))
	tests := map[string]row{
		"nothing":                       {nil, false, Key{}},
		"nothing from L3":               {nil, true, Key{}},
		"a runt":                        {frame(udp4)[:13], false, Key{}},
		"neither version":               {[]byte{0x50, 1, 2, 3}, true, Key{}},
		"v4 from L3":                    {udp4, true, v4(udp)},
		"v6 from L3":                    {udp6, true, v6(udp)},
		"v4 half a tag":                 {frame(udp4, pkt.EtherVLAN, 10)[:17], false, Key{EtherType: pkt.EtherVLAN}},
		"v6 two tags":                   {frame(udp6, pkt.EtherQinQ, 7, pkt.EtherVLAN, 10), false, Key{VLAN: 7, EtherType: pkt.EtherVLAN}},
		"v4 half a header":              {udp4[:19], true, Key{EtherType: pkt.EtherIPv4}},
		"v6 half a header":              {udp6[:39], true, Key{EtherType: pkt.EtherIPv6}},
		"v4 in a frame of v6":           {ether(pkt.EtherIPv6, udp4), false, Key{EtherType: pkt.EtherIPv6}},
		"v6 in a frame of v4":           {ether(pkt.EtherIPv4, udp6), false, Key{EtherType: pkt.EtherIPv4}},
		"v4 one port":                   {udp4[:23], true, v4(Key{Proto: pkt.ProtoUDP})},
		"v6 one port":                   {udp6[:43], true, v6(Key{Proto: pkt.ProtoUDP})},
		"v4 both ports":                 {udp4[:24], true, v4(udp)},
		"v4 header of 12 bytes":         {patch(udp4, 0, 0x43), true, v4(Key{Proto: pkt.ProtoUDP})},
		"v4 options cut short":          {patch(udp4, 0, 0x4f)[:59], true, v4(Key{Proto: pkt.ProtoUDP})},
		"v4 padding is no port":         {patch(udp4, 2, 0, 20), true, v4(Key{Proto: pkt.ProtoUDP})},
		"v6 padding is no port":         {patch(udp6, 4, 0, 3), true, v6(Key{Proto: pkt.ProtoUDP})},
		"v4 length zero, as of offload": {patch(udp4, 2, 0, 0), true, v4(udp)},
		"v6 length zero, as of offload": {patch(udp6, 4, 0, 0), true, v6(udp)},
		"v4 longer than it is":          {patch(udp4, 2, 0xff, 0xff), true, v4(udp)},
		"v4 icmp6":                      {ip(near4, far4, pkt.ProtoICMPv6, icmp(128, 0)), true, v4(Key{Proto: pkt.ProtoICMPv6})},
		"v6 icmp":                       {ip(near6, far6, pkt.ProtoICMP, icmp(8, 0)), true, v6(Key{Proto: pkt.ProtoICMP})},
		"v4 an error's own type":        {ip(near4, far4, 1, icmp(3, 4)), true, v4(Key{Proto: 1, HasICMP: true, ICMPType: 3, ICMPCode: 4})},
		"v6 an error's own type":        {ip(near6, far6, 58, icmp(2, 0)), true, v6(Key{Proto: 58, HasICMP: true, ICMPType: 2})},
		"v4 first part":                 {part(near4, far4, pkt.ProtoUDP, 0, true, ported(4000, 53)), true, v4(fragmented(udp))},
		"v6 first part":                 {part(near6, far6, pkt.ProtoUDP, 0, true, ported(4000, 53)), true, v6(fragmented(udp))},
		"v4 last part":                  {part(near4, far4, pkt.ProtoUDP, 9, false, ported(4000, 53)), true, v4(fragmented(Key{Proto: pkt.ProtoUDP}))},
		"v6 last part":                  {part(near6, far6, pkt.ProtoUDP, 9, false, ported(4000, 53)), true, v6(fragmented(Key{Proto: pkt.ProtoUDP}))},
		"v6 whole in a fragment header": {part(near6, far6, pkt.ProtoUDP, 0, false, ported(4000, 53)), true, v6(udp)},
		"v6 eight extensions":           {ip(near6, far6, pkt.ProtoDestOpts, exts(8, pkt.ProtoUDP, ported(4000, 53))), true, v6(udp)},
		"v6 nine extensions":            {ip(near6, far6, pkt.ProtoDestOpts, exts(9, pkt.ProtoUDP, ported(4000, 53))), true, v6(Key{})},
		"v6 extension cut short":        {ip(near6, far6, 0, ext(pkt.ProtoUDP, ported(4000, 53)))[:47], true, v6(Key{})},
		"v6 extension that lies":        {patch(ip(near6, far6, 0, ext(pkt.ProtoUDP, nil)), 41, 255), true, v6(Key{})},
		"v6 authenticated":              {ip(near6, far6, pkt.ProtoAH, auth(pkt.ProtoUDP, ported(4000, 53))), true, v6(udp)},
		"arp":                           {ether(pkt.EtherARP, arp(1, near4, far4)), false, Key{EtherType: pkt.EtherARP, Src: near4, Dst: far4}},
		"arp cut short":                 {ether(pkt.EtherARP, arp(1, near4, far4))[:41], false, Key{EtherType: pkt.EtherARP}},
		"arp of another protocol":       {patch(ether(pkt.EtherARP, arp(1, near4, far4)), 16, 0x86, 0xdd), false, Key{EtherType: pkt.EtherARP}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Key{InPort: 3, OutPort: 4, Length: 5, VLAN: 6, Src: other6, HasPorts: true, Fragment: true, ICMPType: 9}
			got.Read(tt.packet, !tt.l3)
			tt.want.InPort, tt.want.OutPort, tt.want.Length = 3, 4, 5
			if got != tt.want {
				t.Errorf("read\n%+v, want\n%+v", got, tt.want)
			}
		})
	}
}

func fragmented(k Key) Key {
	k.Fragment = true
	return k
}

// FuzzRead: nothing that is cut off changes what was read before the cut, and
// what is told to be there is.
func FuzzRead(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.frame, true)
		f.Add(s.frame[pkt.EthernetSize:], false)
	}
	f.Fuzz(func(t *testing.T, b []byte, l2 bool) {
		before := bytes.Clone(b)
		var whole, k Key
		whole.Read(b, l2)
		if !bytes.Equal(b, before) {
			t.Fatal("the packet was written to")
		}
		transport := []uint8{pkt.ProtoTCP, pkt.ProtoUDP, pkt.ProtoSCTP}
		if whole.HasPorts && !slices.Contains(transport, whole.Proto) || whole.HasICMP && whole.HasPorts {
			t.Errorf("%+v has what its protocol has not", whole)
		}
		for n := range b {
			k.Read(b[:n], l2)
			if (k.Src != netip.Addr{}) && (k.Src != whole.Src || k.Dst != whole.Dst) ||
				k.Proto != 0 && k.Proto != whole.Proto || k.Fragment && !whole.Fragment ||
				k.HasPorts && (!whole.HasPorts || k.SrcPort != whole.SrcPort || k.DstPort != whole.DstPort) ||
				k.HasICMP && (!whole.HasICMP || k.ICMPType != whole.ICMPType || k.ICMPCode != whole.ICMPCode) {
				t.Fatalf("of %d bytes\n%+v, of all %d\n%+v", n, k, len(b), whole)
			}
		}
	})
}
