package node_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/node"
)

var broadcast = node.MAC{255, 255, 255, 255, 255, 255}

// events takes all that the workers have noticed.
func events(l *gt.Lab) (all []node.NeighbourEvent) {
	for {
		select {
		case e := <-l.Tables.Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// wantLearned fails t unless exactly this was learnt; the zero Addr is nothing.
func wantLearned(t *testing.T, l *gt.Lab, port uint16, addr netip.Addr, mac node.MAC) {
	t.Helper()
	got := events(l)
	if !addr.IsValid() {
		if len(got) > 0 {
			t.Errorf("learnt %v, want nothing", got)
		}
		return
	}
	want := node.NeighbourEvent{Kind: node.Learned, Port: port, Addr: addr, MAC: mac}
	if len(got) != 1 || got[0] != want {
		t.Errorf("learnt %v, want %v", got, want)
	}
}

func TestARP(t *testing.T) {
	station, other := gt.StationMAC(gt.NetUp, gt.Unknown), node.MAC{2, 9, 9, 9, 9, 9}
	a := func(n, h int) netip.Addr { return gt.Addr(false, n, h) }
	ours, asker := a(gt.NetUp, gt.Ours), a(gt.NetUp, gt.Unknown)
	any4, link4 := netip.IPv4Unspecified(), netip.MustParseAddr("169.254.1.1")
	none := netip.Addr{}
	pod := a(gt.NetPods, gt.VethHost)
	tests := map[string]struct {
		port   uint16
		frame  []byte
		reply  netip.Addr // the address that the reply tells the MAC of
		learnt netip.Addr
		want   graph.Reason
	}{
		"a request for ours":                         {gt.Up, gt.ARP(broadcast, station, 1, asker, node.MAC{}, ours), ours, asker, 0},
		"a unicast request for ours":                 {gt.Up, gt.ARP(gt.MAC(gt.Up), station, 1, asker, gt.MAC(gt.Up), ours), ours, asker, 0},
		"a request for another":                      {gt.Up, gt.ARP(broadcast, station, 1, asker, node.MAC{}, a(gt.NetUp, 9)), none, asker, 0},
		"a request for ours of another port":         {gt.Up, gt.ARP(broadcast, station, 1, asker, node.MAC{}, a(gt.NetSmall, gt.Ours)), none, asker, 0},
		"a request for a pod":                        {gt.Up, gt.ARP(broadcast, station, 1, asker, node.MAC{}, pod), none, asker, 0},
		"a probe for ours":                           {gt.Up, gt.ARP(broadcast, station, 1, any4, node.MAC{}, ours), ours, none, 0},
		"a probe for another":                        {gt.Up, gt.ARP(broadcast, station, 1, any4, node.MAC{}, asker), none, none, 0},
		"a gratuitous request":                       {gt.Up, gt.ARP(broadcast, station, 1, asker, node.MAC{}, asker), none, asker, 0},
		"a gratuitous reply":                         {gt.Up, gt.ARP(broadcast, station, 2, asker, broadcast, asker), none, asker, 0},
		"a reply to us":                              {gt.Up, gt.ARP(gt.MAC(gt.Up), station, 2, asker, gt.MAC(gt.Up), ours), none, asker, 0},
		"a reply that tells nothing new":             {gt.Up, gt.ARP(gt.MAC(gt.Up), gt.StationMAC(gt.NetUp, gt.Station), 2, a(gt.NetUp, gt.Station), gt.MAC(gt.Up), ours), none, none, 0},
		"the MAC of a neighbour changed":             {gt.Up, gt.ARP(broadcast, other, 1, a(gt.NetUp, gt.Gateway), node.MAC{}, a(gt.NetUp, gt.Gateway)), none, a(gt.NetUp, gt.Gateway), 0},
		"who claims our address":                     {gt.Up, gt.ARP(broadcast, station, 1, ours, node.MAC{}, ours), none, none, graph.ARPInvalid},
		"who claims a pod's address":                 {gt.Up, gt.ARP(broadcast, station, 2, pod, node.MAC{}, ours), none, none, graph.ARPInvalid},
		"who claims an address behind the gateway":   {gt.Up, gt.ARP(broadcast, station, 2, a(gt.NetRemote, 5), node.MAC{}, ours), none, none, graph.ARPInvalid},
		"who claims an address without a route":      {gt.Up, gt.ARP(broadcast, station, 2, a(gt.NetNowhere, 5), node.MAC{}, ours), none, none, graph.ARPInvalid},
		"who claims multicast":                       {gt.Up, gt.ARP(broadcast, station, 2, netip.MustParseAddr("224.0.0.1"), node.MAC{}, ours), none, none, graph.ARPInvalid},
		"another sender than the frame's":            {gt.Up, patch(gt.ARP(broadcast, station, 1, asker, node.MAC{}, ours), 14+8, other[:]...), none, none, graph.ARPInvalid},
		"a group as the sender":                      {gt.Up, gt.ARP(broadcast, node.MAC{1, 2, 3, 4, 5, 6}, 1, asker, node.MAC{}, ours), none, none, graph.ARPInvalid},
		"nobody as the sender":                       {gt.Up, gt.ARP(broadcast, node.MAC{}, 1, asker, node.MAC{}, ours), none, none, graph.ARPInvalid},
		"another operation":                          {gt.Up, gt.ARP(broadcast, station, 3, asker, node.MAC{}, ours), none, none, graph.ARPInvalid},
		"operation zero":                             {gt.Up, gt.ARP(broadcast, station, 0, asker, node.MAC{}, ours), none, none, graph.ARPInvalid},
		"another hardware":                           {gt.Up, patch(gt.ARP(broadcast, station, 1, asker, node.MAC{}, ours), 14+1, 6), none, none, graph.ARPInvalid},
		"another protocol":                           {gt.Up, patch(gt.ARP(broadcast, station, 1, asker, node.MAC{}, ours), 14+2, 0x86, 0xdd), none, none, graph.ARPInvalid},
		"another hardware length":                    {gt.Up, patch(gt.ARP(broadcast, station, 1, asker, node.MAC{}, ours), 14+4, 8), none, none, graph.ARPInvalid},
		"another protocol length":                    {gt.Up, patch(gt.ARP(broadcast, station, 1, asker, node.MAC{}, ours), 14+5, 16), none, none, graph.ARPInvalid},
		"on a port that the kernel shares":           {gt.Side, gt.ARP(broadcast, station, 1, a(gt.NetSide, gt.Unknown), node.MAC{}, a(gt.NetSide, gt.Ours)), none, none, graph.ARPInvalid},
		"with a priority tag":                        {gt.Up, gt.ARP(broadcast, station, 1, asker, node.MAC{}, ours, 0), ours, asker, 0},
		"on a VLAN":                                  {gt.Tag, gt.ARP(broadcast, station, 1, a(gt.NetTag, gt.Unknown), node.MAC{}, a(gt.NetTag, gt.Ours), 7), a(gt.NetTag, gt.Ours), a(gt.NetTag, gt.Unknown), 0},
		"for an address of the main port on a VLAN":  {gt.Tag, gt.ARP(broadcast, station, 1, a(gt.NetTag, gt.Unknown), node.MAC{}, ours, 7), none, a(gt.NetTag, gt.Unknown), 0},
		"a pod asks for its gateway":                 {gt.Veth, gt.ARP(broadcast, gt.VethMAC, 1, pod, node.MAC{}, link4), link4, none, 0},
		"a pod asks for another pod":                 {gt.Veth, gt.ARP(broadcast, gt.VethMAC, 1, pod, node.MAC{}, a(gt.NetPods, gt.PodHost)), none, none, 0},
		"a pod probes for its own":                   {gt.Veth, gt.ARP(broadcast, gt.VethMAC, 1, any4, node.MAC{}, pod), none, none, 0},
		"a pod announces itself":                     {gt.Veth, gt.ARP(broadcast, gt.VethMAC, 2, pod, broadcast, pod), none, none, 0},
		"a pod claims another pod":                   {gt.Veth, gt.ARP(broadcast, gt.VethMAC, 2, a(gt.NetPods, gt.PodHost), broadcast, pod), none, none, graph.ARPInvalid},
		"a pod claims the gateway":                   {gt.Veth, gt.ARP(broadcast, gt.VethMAC, 2, link4, broadcast, pod), none, none, graph.ARPInvalid},
		"a pod claims a station":                     {gt.Veth, gt.ARP(broadcast, gt.VethMAC, 1, asker, node.MAC{}, link4), none, none, graph.ARPInvalid},
		"a pod with another MAC":                     {gt.Veth, gt.ARP(broadcast, other, 1, pod, node.MAC{}, link4), none, none, graph.SpoofedMAC},
		"the pods' gateway, asked for on the uplink": {gt.Up, gt.ARP(broadcast, station, 1, asker, node.MAC{}, link4), none, asker, 0},
	}
	for name, tt := range tests {
		neighbourly(t, name, func(t *testing.T, l *gt.Lab) {
			main := tt.port
			if main == gt.Tag {
				main = gt.Up
			}
			l.Inject(main, tt.frame)
			l.Run()
			wantLearned(t, l, tt.port, tt.learnt, node.MAC(tt.frame[6:12]))
			c := l.Change()
			if tt.want != graph.NoReason {
				wantNone(t, l)
				if c.Drops[tt.want] != 1 {
					t.Errorf("drops %v, want %s", dropNames(&c), tt.want)
				}
				return
			}
			if c.Consumed[graph.UsedARP] != 1 || c.Dropped() != 0 {
				t.Errorf("consumed %v, drops %v", c.Consumed, dropNames(&c))
			}
			if !tt.reply.IsValid() {
				wantNone(t, l)
				return
			}
			wantARPReply(t, wantOne(t, l, main).Bytes, tt.frame, tt.reply, gt.MAC(main))
		})
	}
}

// wantARPReply fails t unless got tells who sent asked that addr is at mac.
func wantARPReply(t *testing.T, got, asked []byte, addr netip.Addr, mac node.MAC) {
	t.Helper()
	l3 := len(asked) - 28
	them, theirs := node.MAC(asked[6:12]), netip.AddrFrom4([4]byte(asked[l3+14:]))
	var vlans []uint16
	if l3 == 18 {
		vlans = []uint16{binary.BigEndian.Uint16(asked[14:])}
	}
	wantBytes(t, got, gt.ARP(them, mac, 2, addr, them, theirs, vlans...))
}

// patch overwrites bytes of b.
func patch(b []byte, at int, with ...byte) []byte {
	copy(b[at:], with)
	return b
}

// An ARP frame is padded to the least that Ethernet carries; and no chain of
// buffers is an ARP message.
func TestARPPaddedAndInPieces(t *testing.T) {
	ask := gt.ARP(broadcast, gt.StationMAC(gt.NetUp, 3), 1, gt.Addr(false, gt.NetUp, 3), node.MAC{}, gt.Addr(false, gt.NetUp, gt.Ours))
	l := gt.Standard(t, 1)
	l.Inject(gt.Up, append(ask, make([]byte, 18)...))
	l.Run()
	wantARPReply(t, wantOne(t, l, gt.Up).Bytes[:42], ask, gt.Addr(false, gt.NetUp, gt.Ours), gt.MAC(gt.Up))
	l.Change()
	l.InjectPackets(gt.Up, gt.Packet{Bytes: append(ask, make([]byte, 4000)...), Pieces: []int{100, 3000}})
	l.Run()
	wantNone(t, l)
	l.WantDrops(t, map[graph.Reason]uint64{graph.ARPInvalid: 1})
}
