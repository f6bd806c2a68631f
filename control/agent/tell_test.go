package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"google.golang.org/grpc"

	agentv1 "margay.dev/margay/api/agent/v1"
	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/domains"
)

// chunks is who is told of names.
type chunks struct {
	grpc.ServerStream
	all []*agentv1.NameList
}

func (c *chunks) Send(l *agentv1.NameList) error {
	c.all = append(c.all, l)
	return nil
}

// Many names come in chunks, each once and in order, and none is a chunk too.
func TestNamesAreToldInChunks(t *testing.T) {
	for _, n := range []int{0, 1, namesChunk, namesChunk + 1, 2*namesChunk + 1} {
		k := domains.NewKeeper(domains.Limits{}, func([]uint64) {})
		t.Cleanup(k.Stop)
		if err := k.Want([]string{"*.example"}, nil); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			hear(t, k, uint16(i+1), fmt.Sprintf("n%05d.example.", i))
		}
		var c chunks
		if err := (&teller{names: k}).ListNames(nil, &c); err != nil {
			t.Fatal(err)
		}
		if want := max(1, (n+namesChunk-1)/namesChunk); len(c.all) != want || len(c.all[0].GetPatterns()) != 1 {
			t.Errorf("%d names come in %d chunks, of %v; want %d", n, len(c.all), c.all[0].GetPatterns(), want)
		}
		told := 0
		for _, chunk := range c.all {
			if len(chunk.GetNames()) > namesChunk {
				t.Errorf("a chunk has %d names", len(chunk.GetNames()))
			}
			for _, name := range chunk.GetNames() {
				if want := fmt.Sprintf("n%05d.example", told); name.GetName() != want || len(name.GetAddresses()) != 2 {
					t.Fatalf("name %d is %v, want %s with two addresses", told, name, want)
				}
				told++
			}
		}
		if told != n {
			t.Errorf("%d names of %d are told", told, n)
		}
	}
}

// hear has a keeper overhear a question for a name, and an answer of both families.
func hear(t *testing.T, k *domains.Keeper, id uint16, name string) {
	t.Helper()
	for _, answer := range []dns.RR{
		&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{192, 0, 2, 1}},
		&dns.AAAA{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeAAAA, Class: dns.ClassINET, Ttl: 60}, AAAA: netip.MustParseAddr("2001:db8::1").AsSlice()},
	} {
		m := new(dns.Msg).SetQuestion(name, answer.Header().Rrtype)
		m.Id = id
		for _, query := range []bool{true, false} {
			if m.Response = !query; m.Response {
				m.Answer = []dns.RR{answer}
			}
			b, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			k.Hear(&v1.Overheard{Client: []byte{10, 1, 0, 2}, ClientPort: 4000, Server: []byte{10, 0, 0, 10}, Query: query, Payload: b})
		}
	}
}
