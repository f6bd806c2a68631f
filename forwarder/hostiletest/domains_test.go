package hostiletest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/miekg/dns"

	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/overhear"
	"margay.dev/margay/forwarder/plane"
)

// namesPolicy has p1 ask servers of names, and talk to names of two network sets.
const namesPolicy = `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: web, labels: {to: web}}, spec: {allowedEgressDomains: ["*.web.example", plain.example]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: names}, spec: {selector: "app == 'asks'", types: [Egress], egress: [
  {action: Allow, protocol: UDP, destination: {ports: [53]}},
  {action: Allow, destination: {selector: "to == 'web'"}}]}}
`

// asking is p1 of a world, in one family, and the server that it asks.
type asking struct {
	*world
	six    bool
	server netip.Addr
	ports  uint16
}

func newAsking(t *testing.T) [2]*asking {
	w := raise(t, 2, plane.Config{})
	w.put(append(w.read(openProfile+"---\n"+namesPolicy), workload(1, map[string]string{"app": "asks"}, "open"), workload(2, nil, "open"))...)
	return [2]*asking{
		{world: w, server: netip.MustParseAddr("192.0.2.53"), ports: 20000},
		{world: w, six: true, server: netip.MustParseAddr("2001:db8::53"), ports: 30000},
	}
}

// eachFamily asks in both.
func eachFamily(t *testing.T, f func(t *testing.T, a *asking)) {
	for _, a := range newAsking(t) {
		t.Run(fmt.Sprint("IPv6 ", a.six), func(t *testing.T) {
			a.t = t
			f(t, a)
		})
	}
}

// host is an address beyond the uplink.
func (a *asking) host(i int) netip.Addr {
	if a.six {
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 2: 0x0d, 3: 0xb8, 14: byte(i >> 8), 15: byte(i)})
	}
	return netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
}

// message is a question of p1, or with addresses an answer to it.
func (a *asking) message(id uint16, name string, addresses ...netip.Addr) []byte {
	a.t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeANY)
	m.Id, m.Response, m.Compress = id, len(addresses) > 0, true
	for _, to := range addresses {
		h := dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
		if to.Is4() {
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: to.AsSlice()})
		} else {
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: to.AsSlice()})
		}
	}
	b, err := m.Pack()
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func carry(from, to netip.Addr, sport, dport uint16, payload []byte) []byte {
	h := &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}
	return graphtest.Frame(graphtest.IP(from, to, layers.IPProtocolUDP), h, gopacket.Payload(payload))
}

// ask has p1 ask, from a port of its own, which it returns.
func (a *asking) ask(id uint16, name string) (port uint16) {
	a.t.Helper()
	a.ports++
	came := a.offer(pod(1), uplink, carry(addr(1, a.six), a.server, a.ports, overhear.Port, a.message(id, name)))
	if came[[2]uint16{a.ports, overhear.Port}] != 1 {
		a.t.Fatalf("the question did not pass: %v", came)
	}
	return a.ports
}

// answer has a server answer to a port, and tells whether that has come to p1 when
// nothing moves any more.
func (a *asking) answer(from netip.Addr, port uint16, message []byte) bool {
	a.t.Helper()
	return a.offer(uplink, pod(1), carry(from, addr(1, a.six), overhear.Port, port, message))[[2]uint16{overhear.Port, port}] == 1
}

// tell has a server answer with something that is not believed, and waits for it.
func (a *asking) tell(from netip.Addr, port uint16, message []byte) {
	a.t.Helper()
	if !a.answer(from, port, message) {
		a.awaits(port)
	}
}

// awaits waits until a packet from a server has come to p1.
func (a *asking) awaits(port uint16) {
	a.t.Helper()
	for end := time.Now().Add(patience); a.collect(pod(1))[[2]uint16{overhear.Port, port}] == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			a.t.Fatal("no answer comes to the pod")
		}
	}
}

// reaches tells whether p1 gets to a host.
func (a *asking) reaches(to netip.Addr) bool {
	a.t.Helper()
	a.ports++
	return a.offer(pod(1), uplink, datagram(addr(1, a.six), to, a.ports, 443))[[2]uint16{a.ports, 443}] == 1
}

// learn puts in force what the keeper has next.
func (a *asking) learn() {
	a.t.Helper()
	for end := time.After(patience); ; {
		select {
		case <-a.keeper.Ready():
		case <-end:
			a.t.Fatal("nothing is learned")
		}
		b := a.keeper.Take()
		if b == nil {
			continue
		}
		for _, c := range b.Changes {
			a.guard.SetDomain(c.Pattern, c.Joined, c.Left)
		}
		if err := a.flush(); err != nil {
			a.t.Fatal(err)
		}
		b.InForce()
		return
	}
}

func TestNamesAreReachedAsSoonAsTheyAreKnown(t *testing.T) {
	eachFamily(t, func(t *testing.T, a *asking) {
		for i, name := range []string{"a.web.example", "A.B.Web.Example", "plain.example"} {
			if a.reaches(a.host(i)) {
				t.Fatalf("%s is reached, and nobody has asked for it", name)
			}
			port := a.ask(uint16(i), name)
			if a.answer(a.server, port, a.message(uint16(i), name, a.host(i))) {
				t.Errorf("the answer about %s passes before it is in force", name)
			}
			a.learn()
			a.awaits(port)
			if !a.reaches(a.host(i)) {
				t.Errorf("%s is not reached when the pod knows its address", name)
			}
		}
		port := a.ask(9, "elsewhere.example")
		a.tell(a.server, port, a.message(9, "elsewhere.example", a.host(9)))
		if a.reaches(a.host(9)) {
			t.Error("a name that no set has is reached")
		}
		if err := a.guard.Upsert(a.read(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: web, labels: {to: web}}, spec: {allowedEgressDomains: [plain.example]}}`)[0]); err != nil {
			t.Fatal(err)
		}
		if err := a.flush(); err != nil {
			t.Fatal(err)
		}
		if a.reaches(a.host(0)) || !a.reaches(a.host(2)) {
			t.Error("a pattern less: its names are reached still, or others no more")
		}
		a.put(a.read(namesPolicy)[0])
	})
}

func TestForgedAnswers(t *testing.T) {
	eachFamily(t, func(t *testing.T, a *asking) {
		name, other := "bank.web.example", a.host(77)
		port := a.ask(100, name)
		forged := []struct {
			why     string
			from    netip.Addr
			port    uint16
			message []byte
		}{
			{"another id", a.server, port, a.message(101, name, a.host(1))},
			{"another name", a.server, port, a.message(100, "x.web.example", a.host(2))},
			{"another server", other, port, a.message(100, name, a.host(3))},
			{"another port", a.server, port + 1000, a.message(100, name, a.host(4))},
			{"cut off", a.server, port, a.message(100, name, a.host(5))[:40]},
			{"no message at all", a.server, port, []byte("never mind")},
			{"nothing", a.server, port, nil},
		}
		for _, f := range forged {
			a.tell(f.from, f.port, f.message)
		}
		loop := a.message(100, name, a.host(6))
		at := len(loop) - 10 - 2 // the owner of the only record
		if !a.six {
			binary.BigEndian.PutUint16(loop[at-4:], 0xc000|uint16(at-4))
		} else {
			binary.BigEndian.PutUint16(loop[at-16:], 0xc000|uint16(at-16))
		}
		a.tell(a.server, port, loop)
		if a.answer(a.server, port, a.message(100, name, a.host(50))) {
			t.Error("the true answer passes before it is in force")
		}
		a.learn()
		a.awaits(port)
		if !a.reaches(a.host(50)) {
			t.Error("the true answer is not believed behind forged ones")
		}
		for i, f := range forged {
			if a.reaches(a.host(i + 1)) {
				t.Errorf("%s: believed", f.why)
			}
		}
		a.tell(a.server, port, a.message(100, name, a.host(51)))
		if a.reaches(a.host(51)) {
			t.Error("a second answer is believed")
		}
	})
}

func TestAnswersPassWithoutWhoLearns(t *testing.T) {
	eachFamily(t, func(t *testing.T, a *asking) {
		a.behind.Store(true)
		defer a.behind.Store(false)
		port := a.ask(1, "slow.web.example")
		if a.answer(a.server, port, a.message(1, "slow.web.example", a.host(200))) {
			t.Error("the answer did not wait")
		}
		a.awaits(port)
		if a.reaches(a.host(200)) {
			t.Error("what nobody has read is in force")
		}
		a.behind.Store(false)
		var all []netip.Addr
		for i := range 40 { // an MTU has no room for more
			all = append(all, a.host(1000+i))
		}
		port = a.ask(2, "many.web.example")
		if a.answer(a.server, port, a.message(2, "many.web.example", all...)) {
			t.Error("an answer passes before it is in force")
		}
		a.learn()
		a.awaits(port)
		if !a.reaches(a.host(1000)) || !a.reaches(a.host(1039)) {
			t.Error("of 40 addresses not all are reached")
		}
	})
}
