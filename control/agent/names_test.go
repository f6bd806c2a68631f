package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "margay.dev/margay/api/agent/v1"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/datastore/file"
	"margay.dev/margay/fastpath/overhear"
)

// namedHost is a set with a name of a host, and a policy that lets ann reach it.
const namedHost = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: web, labels: {to: web}}
spec: {allowedEgressDomains: ["*.web.example"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: out}
spec: {types: [Egress], egress: [{action: Allow, destination: {selector: to == 'web'}}]}
`

// ask has a workload ask for a name, and a server answer in a packet with an id.
func (f *forwarder) ask(t *testing.T, id uint64, name, address string) {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	say := func(id uint64) {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		h := overhear.Heard{ID: id, Client: netip.MustParseAddr("10.1.0.2"), Server: netip.MustParseAddr("10.0.0.10"), ClientPort: 4000, Query: id == 0, Size: len(b)}
		copy(h.Payload[:], b)
		f.heard <- h
	}
	say(0)
	r, err := dns.NewRR(name + " 60 A " + address)
	if err != nil {
		t.Fatal(err)
	}
	m.Response, m.Answer = true, []dns.RR{r}
	say(id)
}

// knows says whether a set has an address.
func (f *forwarder) knows(a string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	addr := netip.MustParseAddr(a)
	for _, set := range f.state.Sets {
		if _, has := set.Get(netip.PrefixFrom(addr, addr.BitLen())); has {
			return true
		}
	}
	return false
}

// names are patterns, names and addresses, as the agent tells of them.
func (h *house) names() (all []string) {
	h.t.Helper()
	conn, err := grpc.NewClient("unix://"+h.cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := agentv1.NewAgentClient(conn).ListNames(ctx, &agentv1.ListNamesRequest{}, grpc.WaitForReady(true))
	for err == nil {
		var chunk *agentv1.NameList
		if chunk, err = stream.Recv(); err != nil {
			break
		}
		all = append(all, chunk.GetPatterns()...)
		for _, n := range chunk.GetNames() {
			all = append(all, n.GetName())
			for _, a := range n.GetAddresses() {
				all = append(all, net.IP(a).String())
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		h.t.Fatal(err)
	}
	return all
}

func TestNamesAreLearnedAndKept(t *testing.T) {
	cfg := file.Config{Dir: t.TempDir()}
	h := newHouse(t, connect.Config{Folder: &cfg}, func() (datastore.Store, error) { return file.Open(cfg) })
	a := h.run()
	h.apply(objects)
	h.apply(namedHost)
	eventually(t, "the name is wanted", func() bool { stats, _ := a.names.Stats(); return stats.Patterns == 1 })
	h.f.ask(t, 7, "a.web.example.", "192.0.2.1")
	eventually(t, "the answer goes on", func() bool {
		h.f.mu.Lock()
		defer h.f.mu.Unlock()
		return slices.Equal(h.f.read, []uint64{7})
	})
	if !h.f.knows("192.0.2.1") {
		t.Error("the answer has gone on, and its address is not in force")
	}
	h.web(a, "/metrics", "margay_agent_names_addresses 1", "margay_agent_names_answers_learned_total 1", "margay_agent_names_answers_unasked_total 0")
	if got := h.names(); !slices.Equal(got, []string{"*.web.example", "a.web.example", "192.0.2.1"}) {
		t.Errorf("the agent tells of %v", got)
	}
	life := func(damage string) (*Agent, uint64) {
		t.Helper()
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		if damage != "" {
			if err := os.WriteFile(a.namesFile(), []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before := h.f.Generation()
		return h.run(), before
	}
	eventually(t, "it is saved before the agent ends", func() bool {
		b, err := os.ReadFile(a.namesFile())
		return err == nil && strings.Contains(string(b), "192.0.2.1")
	})
	_, before := life("")
	eventually(t, "the next life has sent its state", func() bool { return h.f.Generation() > before })
	if !h.f.knows("192.0.2.1") {
		t.Error("the next life does not know what the former was told")
	}
	_, before = life("{")
	eventually(t, "a life with a damaged file has sent its state", func() bool { return h.f.Generation() > before })
	if h.f.knows("192.0.2.1") {
		t.Error("an address is in force, and nothing says so")
	}
}
