package nft

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/classifier"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// Destinations are translated between preDNAT policy, which sees what was asked for,
// and all other policy, which sees where it goes.
func TestTranslation(t *testing.T) {
	h := newHost(t, Options{})
	h.nft(`table inet nat {
		chain in { type nat hook prerouting priority dstnat; tcp dport 8080 dnat ip to 10.9.0.1:80; tcp dport 8080 dnat ip6 to [2001:db8:9::1]:80;
			tcp dport 8081 dnat ip to 10.2.0.1:80; tcp dport 8081 dnat ip6 to [2001:db8:2::1]:80; }
		chain out { type nat hook output priority -100; tcp dport 8081 dnat ip to 10.2.0.1:80; tcp dport 8081 dnat ip6 to [2001:db8:2::1]:80; }
	}`)
	to := func(port uint16, from, source, destination int) []packet {
		return both(packet{from: from, protocol: 6, sourcePort: 1000 + port, destinationPort: port}, source, destination)
	}
	pass := func(rules ...classifier.Rule) *Judgement { return only(classifier.Pass, rules...) }
	deny := func(port uint16) classifier.Rule {
		r := allow(1, 6, port)
		r.Action = classifier.Deny
		return r
	}
	eth0 := func(e Endpoint) *Desired {
		e.Name, e.Interface = "eth0", "eth0"
		return &Desired{Endpoints: []Endpoint{e}}
	}
	eth1 := func(e Endpoint) *Desired {
		e.Name, e.Interface = "eth1", "eth1"
		return &Desired{Endpoints: []Endpoint{e}}
	}
	tests := map[string]struct {
		desired *Desired
		packets []packet
		want    bool
	}{
		"input policy sees the translated port":         {eth0(Endpoint{Normal: [2]*Judgement{openTo80}}), to(8080, 0, 1, ownNetwork), true},
		"and not the one that was asked for":            {eth0(Endpoint{Normal: [2]*Judgement{only(classifier.Deny, allow(1, 6, 8080))}}), to(8080, 0, 1, ownNetwork), false},
		"preDNAT policy sees the one asked for":         {eth0(Endpoint{PreDNAT: pass(deny(8080))}), to(8080, 0, 1, ownNetwork), false},
		"and not the translated one":                    {eth0(Endpoint{PreDNAT: pass(deny(80))}), to(8080, 0, 1, ownNetwork), true},
		"what preDNAT allows, normal policy is not for": {eth0(Endpoint{PreDNAT: pass(allow(1, 6, 8080)), Normal: [2]*Judgement{closed}}), to(8080, 0, 1, ownNetwork), true},
		"untracked policy sees the one asked for":       {eth0(Endpoint{Untracked: [2]*Judgement{pass(deny(8080))}}), to(8080, 0, 1, ownNetwork), false},
		"forward policy of where it comes in":           {eth0(Endpoint{Forward: [2]*Judgement{openTo80}}), to(8081, 0, 1, ownNetwork), true},
		"forward policy of where it leaves": {
			eth1(Endpoint{Forward: [2]*Judgement{nil, only(classifier.Deny, allow(1, 6, 8081))}}), to(8081, 0, 1, ownNetwork), false,
		},
		"what preDNAT allows, policy of where it leaves is for": {
			&Desired{Endpoints: []Endpoint{
				{Name: "a", Interface: "eth0", PreDNAT: pass(allow(1, 6, 8081)), Forward: [2]*Judgement{closed}}, {Name: "b", Interface: "eth1", Forward: [2]*Judgement{nil, closed}},
			}}, to(8081, 0, 1, ownNetwork), false,
		},
		"the host's own, by the interface that it leaves by in the end": {eth1(Endpoint{Normal: [2]*Judgement{nil, openTo80}}), to(8081, -1, ownNetwork, 3), true},
		"and not another one":                        {eth1(Endpoint{Normal: [2]*Judgement{nil, closed}}), to(8081, -1, ownNetwork, 3), false},
		"normal policy is not for what is forwarded": {eth1(Endpoint{Normal: [2]*Judgement{closed, closed}}), to(8081, 0, 1, ownNetwork), true},
	}
	for name, tt := range tests {
		apply(t, h, Change{Whole: true, Desired: tt.desired})
		for i := range tt.packets { // where they go in the end decides which of the probe's sets has them
			if p := &tt.packets[i]; p.destinationPort == 8081 && p.from >= 0 {
				came := h.sendForwarded(p)
				if came != tt.want {
					t.Errorf("%s: %v came through: %v, want %v", name, p, came, tt.want)
				}
				continue
			}
			h.wantThrough(name, tt.packets[i:i+1], tt.want)
		}
	}
}

// sendForwarded sends a packet for the host that is translated to be forwarded.
func (h *host) sendForwarded(p *packet) bool {
	h.t.Helper()
	h.forget()
	h.sendOne(p, 1)
	return h.through()["forward"][1]
}

// What untracked policy allows is accepted without being tracked, and what it has
// no opinion of is tracked and judged later.
func TestUntracked(t *testing.T) {
	h := newHost(t, Options{})
	h.nft(`table inet probe {
		set untracked4 { typeof ip id; flags dynamic; size 65535; }
		set untracked6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
		chain u { type filter hook input priority 250; ct state untracked add @untracked4 { ip id }; ct state untracked add @untracked6 { ip6 flowlabel }; }
	}`)
	d := onEth0(openTo81, nil)
	d.Endpoints[0].Untracked[Ingress] = only(classifier.Pass, allow(1, 6, 80))
	apply(t, h, Change{Desired: d})
	in80, in81 := both(toPort80, 1, ownNetwork), both(toPort81, 1, ownNetwork)
	h.wantThrough("allowed untracked", in80, true)
	if n := h.through()["untracked"]; len(n) != 2 {
		t.Errorf("packets %v of 2 were untracked", n)
	}
	h.wantThrough("left to later policy", in81, true)
	if n := h.through()["untracked"]; len(n) != 2 {
		t.Errorf("packets %v were untracked, want the former 2", n)
	}
	// Packets that somebody else keeps from being tracked are not allowed for that.
	h.nft("add table inet other")
	h.nft("add chain inet other c { type filter hook prerouting priority -310; meta mark set 0x30000; notrack; }")
	apply(t, h, Change{Whole: true, Desired: onEth0(openTo81, nil)})
	h.wantThrough("untracked and marked by others", in80, false)
}

func TestTunnels(t *testing.T) {
	h := newHost(t, Options{})
	d := onEth0(closed, closed)
	node4, node6 := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("2001:db8:1::1")
	d.Settings.Tunnels = Tunnels{Hosts: []netip.Addr{node4, node6}, IPIP: true, VXLAN: []uint16{4789}, WireGuard: []uint16{51820, 51821}}
	apply(t, h, Change{Desired: d})
	udp := func(port uint16) packet { return packet{protocol: 17, sourcePort: 1000, destinationPort: port} }
	elsewhere := func(p packet) []packet {
		out := both(p, 1, ownNetwork)
		for i := range out {
			out[i].source = out[i].source.Next()
		}
		return out
	}
	ipip := packet{protocol: 4}
	h.wantThrough("VXLAN of a node", both(udp(4789), 1, ownNetwork), true)
	h.wantThrough("VXLAN of others", elsewhere(udp(4789)), false)
	h.wantThrough("WireGuard of others", elsewhere(udp(51821)), true)
	h.wantThrough("another port of a node", both(udp(4790), 1, ownNetwork), false)
	h.wantThrough("IPIP of a node", both(ipip, 1, ownNetwork)[:1], true)
	h.wantThrough("IPIP of others", elsewhere(ipip)[:1], false)
	out := func(p packet) []packet { p.from = -1; return both(p, ownNetwork, 1) }
	h.wantThrough("VXLAN to a node", out(udp(4789)), true)
	h.wantThrough("WireGuard to a node", out(udp(51820)), true)
	h.wantThrough("another port to a node", out(udp(4790)), false)
	h.wantThrough("IPIP to a node", out(ipip)[:1], true)
	// Tunnels are kept to nodes also where nobody protects the host.
	apply(t, h, Change{Desired: &Desired{Settings: d.Settings}})
	h.wantThrough("VXLAN of others, without endpoints", elsewhere(udp(4789)), false)
	h.wantThrough("another port, without endpoints", elsewhere(udp(4790)), true)
}

// joined are a host and a peer with real connections, in both families.
func joinedPair(t *testing.T) (host, peer *hostnet.Host, addresses []string) {
	host, peer = hostnettest.Pair(t)
	for h, last := range map[*hostnet.Host]int{host: 1, peer: 2} {
		link := map[int]string{1: "left", 2: "right"}[last]
		hostnettest.Run(t, h.Namespace(), "ip", "addr", "add", fmt.Sprintf("10.0.0.%d/24", last), "dev", link)
		hostnettest.Run(t, h.Namespace(), "ip", "addr", "add", fmt.Sprintf("2001:db8::%d/64", last), "dev", link, "nodad")
	}
	return host, peer, []string{"10.0.0.1", "2001:db8::1"}
}

// echo answers at a port of the host with what it gets.
func echo(t *testing.T, ns *hostnet.Namespace, address string) {
	t.Helper()
	var l net.Listener
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp", address); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 16)
				for n, err := c.Read(b); err == nil; n, err = c.Read(b) {
					_, _ = c.Write(b[:n])
				}
			}()
		}
	}()
}

func dialFrom(t *testing.T, ns *hostnet.Namespace, address string, patience time.Duration) net.Conn {
	t.Helper()
	var c net.Conn
	_ = ns.Do(func() (err error) { c, err = net.DialTimeout("tcp", address, patience); return err })
	if c != nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c
}

func answers(c net.Conn) bool {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, err := c.Write([]byte("hello"))
	if err == nil {
		_, err = c.Read(make([]byte, 16))
	}
	return err == nil
}

// Connections that are there go on when policy closes, new ones are refused, the
// failsafe port stays open, also for neighbours that must be found first, and a
// lock-out that is only tried ends.
func TestLockOut(t *testing.T) {
	host, peer, addresses := joinedPair(t)
	var table *Table
	if err := host.Namespace().Do(func() (err error) { table, err = Open(Options{}); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	open := &Desired{Endpoints: []Endpoint{{Name: "left", Interface: "left", Normal: [2]*Judgement{
		only(classifier.Deny, allow(1, 6, 80)), only(classifier.Deny),
	}}}}
	if err := table.Apply(Change{Desired: open}); err != nil {
		t.Fatal(err)
	}
	shut := &Desired{Settings: Settings{Failsafe: [2][]Failsafe{Ingress: {{Protocol: 6, Port: 22}}}}, Endpoints: []Endpoint{
		{Name: "left", Interface: "left", Normal: [2]*Judgement{closed, closed}},
	}}
	var connections []net.Conn
	for _, a := range addresses {
		for _, port := range []string{"80", "22"} {
			echo(t, host.Namespace(), net.JoinHostPort(a, port))
		}
		c := dialFrom(t, peer.Namespace(), net.JoinHostPort(a, "80"), 10*time.Second)
		if c == nil || !answers(c) {
			t.Fatalf("%s does not answer while its port is open", a)
		}
		connections = append(connections, c)
	}
	if err := table.Try(Change{Desired: shut}, 4*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []*hostnet.Namespace{host.Namespace(), peer.Namespace()} {
		hostnettest.Run(t, ns, "ip", "neigh", "flush", "all")
	}
	for i, a := range addresses {
		if !answers(connections[i]) {
			t.Errorf("a connection to %s ends when policy closes", a)
		}
		if dialFrom(t, peer.Namespace(), net.JoinHostPort(a, "80"), 300*time.Millisecond) != nil {
			t.Errorf("a new connection to %s is made though policy is closed", a)
		}
		if c := dialFrom(t, peer.Namespace(), net.JoinHostPort(a, "22"), 10*time.Second); c == nil || !answers(c) {
			t.Errorf("the failsafe port of %s is closed", a)
		}
	}
	for _, a := range addresses { // nobody confirms
		if c := dialFrom(t, peer.Namespace(), net.JoinHostPort(a, "80"), 30*time.Second); c == nil || !answers(c) {
			t.Errorf("%s stays closed after an unconfirmed trial", a)
		}
	}
}

// Rejected connections are told at once, and what is denied while the kernel's log is
// watched by a rule says whose rule it was.
func TestRejectAndLog(t *testing.T) {
	host, peer, addresses := joinedPair(t)
	var table *Table
	o := Options{Prefix: func(template string, id uint32) string {
		return fmt.Sprintf("margay-test-%s-%d-%d: ", template, os.Getpid(), id)
	}}
	if err := host.Namespace().Do(func() (err error) { table, err = Open(o); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	logs := classifier.Rule{ID: 7, Action: classifier.Log}
	d := &Desired{Settings: Settings{Reject: true, LogRate: 5, LogBurst: 3, LogPrefix: "a"}, Endpoints: []Endpoint{
		{Name: "left", Interface: "left", Normal: [2]*Judgement{only(classifier.Deny, logs), nil}},
	}}
	if err := table.Apply(Change{Desired: d}); err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := peer.Namespace().Do(func() error {
			_, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(a, "80"))
			return err
		})
		cancel()
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s is rejected with %v after %v", a, err, time.Since(began))
		}
	}
	says := func(want string) {
		t.Helper()
		if text := hostnettest.Run(t, host.Namespace(), "nft", "list", "table", "inet", "margay"); !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	says("\treject comment")
	says("limit rate 5/second burst 3 packets log prefix \"" + o.Prefix("a", 7))
	for _, to := range []struct {
		prefix, unit string
		per          time.Duration
	}{{"b", "second", 0}, {"b", "day", 24 * time.Hour}} {
		d = &Desired{Settings: d.Settings, Endpoints: d.Endpoints}
		d.Settings.LogPrefix, d.Settings.LogPer = to.prefix, to.per
		if err := table.Apply(Change{Desired: d}); err != nil {
			t.Fatal(err)
		}
		says("limit rate 5/" + to.unit + " burst 3 packets log prefix \"" + o.Prefix(to.prefix, 7))
	}
	d = &Desired{Settings: d.Settings, Endpoints: d.Endpoints}
	d.Settings.LogPer = time.Millisecond
	if err := table.Apply(Change{Desired: d}); err == nil || !strings.Contains(err.Error(), "want a second") {
		t.Errorf("lines in a millisecond: %v", err)
	}
}

// Failsafe ports come before policy; before tracking their answers do, too.
func TestFailsafe(t *testing.T) {
	h := newHost(t, Options{})
	none := only(classifier.Pass, classifier.Rule{ID: 1, Action: classifier.Deny})
	failsafe := [2][]Failsafe{
		Ingress: {{Protocol: 6, Port: 22}, {Protocol: 17, Port: 68, Net: netip.MustParsePrefix("10.1.0.0/16")}}, Egress: {{Protocol: 6, Port: 53}},
	}
	in := func(protocol uint8, source, destination uint16, network int) []packet {
		return both(packet{protocol: protocol, sourcePort: source, destinationPort: destination}, network, ownNetwork)
	}
	out := func(source, destination uint16) []packet {
		return both(packet{from: -1, protocol: 6, sourcePort: source, destinationPort: destination}, ownNetwork, 1)
	}
	early := Endpoint{Name: "eth0", Interface: "eth0", Untracked: [2]*Judgement{none, none}}
	late := Endpoint{Name: "eth0", Interface: "eth0", Normal: [2]*Judgement{closed, closed}, PreDNAT: none}
	for _, tt := range []struct {
		what        string
		packets     []packet
		early, late bool
	}{
		{"in to a port", in(6, 1000, 22, 1), true, true},
		{"in to another", in(6, 1000, 23, 1), false, false},
		{"in to it of another protocol", in(17, 1000, 22, 1), false, false},
		{"in to a port of egress", in(6, 1000, 53, 1), false, false},
		{"in from a port of egress", in(6, 53, 1000, 1), true, false},
		{"in from a port of ingress", in(6, 22, 1000, 1), false, false},
		{"in to a port with a net", in(17, 1000, 68, 1)[:1], true, true},
		{"in to it from elsewhere", in(17, 1000, 68, 2)[:1], false, false},
		{"in to it of the other family", in(17, 1000, 68, 1)[1:], false, false},
		{"out to a port", out(1000, 53), true, true},
		{"out to another", out(1000, 54), false, false},
		{"out from a port of ingress", out(22, 1000), true, false},
		{"out from a port of egress", out(53, 1000), false, false},
	} {
		for _, place := range []struct {
			e    Endpoint
			want bool
		}{{early, tt.early}, {late, tt.late}} {
			apply(t, h, Change{Desired: &Desired{Endpoints: []Endpoint{place.e}, Settings: Settings{Failsafe: failsafe}}})
			h.wantThrough(tt.what, tt.packets, place.want)
		}
	}
	// What is forwarded knows none.
	apply(t, h, Change{Desired: &Desired{Settings: Settings{Failsafe: failsafe}, Endpoints: []Endpoint{
		{Name: "eth0", Interface: "eth0", Forward: [2]*Judgement{closed, closed}},
	}}})
	h.wantThrough("forwarded", both(packet{protocol: 6, sourcePort: 1000, destinationPort: 22}, 1, 2), false)
}
