package lab

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/load"
)

// internet is a pod that may ask servers of names, and reach what a name has.
const internet = `
name: internet
pools: [10.9.0.0/16, "fd09::/48"]
nodes: [{name: w}, {name: e}]
links:
  - name: wire
    ends: [{node: w, addresses: [172.31.9.1/24, "fd31:9::1/64"]}, {node: e, addresses: [172.31.9.2/24, "fd31:9::2/64"]}]
pods:
  - {name: asks, node: w, labels: {role: client}, addresses: [10.9.1.1, "fd09::1:1"]}
  - {name: dns, node: e, addresses: [10.9.2.1, "fd09::2:1"]}
  - {name: web, node: e, addresses: [10.9.2.2, "fd09::2:2"], port: xsk}
  - {name: other, node: e, addresses: [10.9.2.3, "fd09::2:3"]}
`

const namedPolicy = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: web, labels: {to: web}}
spec: {allowedEgressDomains: ["*.example.com"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: out}
spec:
  selector: role == 'client'
  types: [Egress]
  egress:
    - {action: Allow, protocol: UDP, destination: {ports: [53]}}
    - {action: Allow, destination: {selector: to == 'web'}}
`

// serveNames answers in a pod for names, by where web is.
func serveNames(t *testing.T, l *Lab, pod string) {
	t.Helper()
	web, ns := l.Topology().Pod("web"), namespaceOf(t, l, pod)
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 60}
		for _, six := range []bool{false, true} {
			switch a, _ := web.Addr(six); {
			case six && head.Rrtype == dns.TypeAAAA:
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
			case !six && head.Rrtype == dns.TypeA:
				m.Answer = append(m.Answer, &dns.A{Hdr: head, A: a.AsSlice()})
			}
		}
		if err := w.WriteMsg(m); err != nil {
			t.Errorf("answer %s: %v", head.Name, err)
		}
	})
	for _, six := range []bool{false, true} {
		a, _ := l.Topology().Pod(pod).Addr(six)
		var socket net.PacketConn
		if err := ns.Do(func() (err error) {
			socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 53)))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = (&dns.Server{PacketConn: socket, Handler: answer}).ActivateAndServe() // until its socket is closed
		}()
		t.Cleanup(func() { _ = socket.Close(); <-ended })
	}
}

// namespaceOf is the namespace of a pod.
func namespaceOf(t *testing.T, l *Lab, pod string) *hostnet.Namespace {
	t.Helper()
	ns, err := l.Namespace(pod)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// resolve asks a server in a pod for a name from another, once, and gives the address.
func resolve(t *testing.T, l *Lab, from, server, name string, six bool) netip.Addr {
	t.Helper()
	to, _ := l.Topology().Pod(server).Addr(six)
	q := new(dns.Msg).SetQuestion(name, map[bool]uint16{false: dns.TypeA, true: dns.TypeAAAA}[six])
	var socket *net.UDPConn
	if err := namespaceOf(t, l, from).Do(func() (err error) {
		socket, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 53)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	m, _, err := (&dns.Client{Timeout: 5 * time.Second}).ExchangeWithConnContext(t.Context(), q, &dns.Conn{Conn: socket})
	if err != nil || len(m.Answer) != 1 {
		t.Fatalf("ask %s for %s: %v, %v", server, name, m, err)
	}
	switch r := m.Answer[0].(type) {
	case *dns.A:
		return netip.AddrFrom4([4]byte(r.A.To4()))
	case *dns.AAAA:
		return netip.AddrFrom16([16]byte(r.AAAA))
	}
	return netip.Addr{}
}

// TestPodsReachTheNamesThatTheyAskFor has a pod reach what a name has, by its first
// packet, as soon as it was told; nothing else; and still when its agent has begun
// anew, and nobody has asked again.
func TestPodsReachTheNamesThatTheyAskFor(t *testing.T) {
	l := raiseAgents(t, internet)
	serveNames(t, l, "dns")
	withStore(t, l, func(ctx context.Context, s datastore.Store) error {
		objects, err := v3.DecodeAll([]byte(namedPolicy))
		for _, o := range objects {
			if _, _, err = datastore.Apply(ctx, s, o); err != nil {
				break
			}
		}
		return err
	})
	reaches := func(when, to string, six, want bool) {
		t.Helper()
		timeout := map[bool]time.Duration{true: 2 * time.Second, false: 100 * time.Millisecond}[want]
		got, err := l.Ping(t.Context(), "asks", to, six, load.Ping{Timeout: timeout})
		if err != nil || got.OK() != want {
			t.Errorf("%s the pod reaches %s (IPv6 %v): %v, want %v; %v, %v", when, to, six, got.OK(), want, got.Last, err)
		}
	}
	for _, six := range []bool{false, true} {
		reaches("before it asks,", "web", six, false)
		resolve(t, l, "asks", "dns", "web.example.org.", six)
		reaches("told by a name that no set has,", "web", six, false)
		web, _ := l.Topology().Pod("web").Addr(six)
		if a := resolve(t, l, "asks", "dns", "Web.example.com.", six); a != web {
			t.Fatalf("the name has %v, want %v", a, web)
		}
		reaches("told by name,", "web", six, true)
		reaches("told by name,", "other", six, false)
	}
	if err := l.StopAgent("w", false); err != nil {
		t.Fatal(err)
	}
	if err := l.StartAgent(t.Context(), "w"); err != nil {
		t.Fatal(err)
	}
	for _, six := range []bool{false, true} {
		reaches("with an agent begun anew,", "web", six, true)
		reaches("with an agent begun anew,", "other", six, false)
	}
}
