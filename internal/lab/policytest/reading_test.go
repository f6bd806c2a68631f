package policytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/internal/lab/truth"
)

// What of networking.k8s.io/v1 a NetworkPolicy is, for a reader that asks for
// nothing but being right.
type (
	policy struct {
		APIVersion, Kind string
		Metadata         struct{ Namespace, Name string }
		Spec             struct {
			PodSelector     selector
			PolicyTypes     []string
			Ingress, Egress []rule
		}
	}
	rule struct {
		From, To []peer
		Ports    []port
	}
	peer struct {
		PodSelector, NamespaceSelector *selector
		IPBlock                        *block
	}
	block struct {
		CIDR   netip.Prefix
		Except []netip.Prefix
	}
	port struct {
		Protocol string
		Port     any // nil, a number, or a name
		EndPort  uint16
	}
	selector struct {
		MatchLabels      map[string]string
		MatchExpressions []struct {
			Key, Operator string
			Values        []string
		}
	}
)

func (s *selector) picks(labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		v, has := labels[e.Key]
		in := has && slices.Contains(e.Values, v)
		if ok, known := map[string]bool{"In": in, "NotIn": !in, "Exists": has, "DoesNotExist": !has}[e.Operator]; !ok || !known {
			return false
		}
	}
	return true
}

// A grant is one conversation's kind that a pod may have: with whom, and by what.
type grant struct {
	peer        block  // anybody, or addresses
	protocol    string // or any
	first, last uint16 // ports
}

// grants are what policies leave a pod, in one direction.
type grants struct {
	all  bool // no policy is about the pod
	list []grant
}

// reading is how we read a state.
type reading struct {
	truth.State
	ports    []truth.Port
	policies []policy
}

func read(s truth.State, ports []truth.Port) (*reading, error) {
	r := &reading{State: s, ports: ports}
	for _, b := range s.Policies {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields() // nothing may be overlooked
		var p policy
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("read policy %s: %w", b, err)
		}
		r.policies = append(r.policies, p)
	}
	return r, nil
}

// grants collects what the policies about a pod grant it.
func (r *reading) grants(pod truth.Pod, direction string) grants {
	g := grants{all: true}
	for _, p := range r.policies {
		if p.Metadata.Namespace != pod.Namespace || !p.Spec.PodSelector.picks(pod.Labels) || !slices.Contains(p.Spec.PolicyTypes, direction) {
			continue
		}
		g.all = false
		rules := p.Spec.Ingress
		if direction == "Egress" {
			rules = p.Spec.Egress
		}
		for _, rule := range rules {
			for _, b := range r.blocks(p.Metadata.Namespace, slices.Concat(rule.From, rule.To)) {
				for _, ports := range r.portsOf(rule.Ports) {
					ports.peer = b
					g.list = append(g.list, ports)
				}
			}
		}
	}
	return g
}

// blocks are the addresses of peers; no peers are everybody.
func (r *reading) blocks(namespace string, peers []peer) (out []block) {
	if len(peers) == 0 {
		return []block{{}}
	}
	for _, p := range peers {
		if p.IPBlock != nil {
			out = append(out, *p.IPBlock)
			continue
		}
		for _, pod := range r.Pods {
			here := pod.Namespace == namespace
			if p.NamespaceSelector != nil {
				here = p.NamespaceSelector.picks(r.Namespaces[pod.Namespace])
			}
			if here && (p.PodSelector == nil || p.PodSelector.picks(pod.Labels)) {
				for _, a := range pod.Addresses {
					out = append(out, block{CIDR: netip.PrefixFrom(a, a.BitLen())})
				}
			}
		}
	}
	return out
}

// portsOf are the ranges of ports; no ports are all, of all protocols.
func (r *reading) portsOf(ports []port) (out []grant) {
	if len(ports) == 0 {
		return []grant{{last: 65535}}
	}
	for _, p := range ports {
		if p.Protocol == "" {
			p.Protocol = truth.TCP
		}
		switch n := p.Port.(type) {
		case nil:
			out = append(out, grant{protocol: p.Protocol, last: 65535})
		case float64:
			out = append(out, grant{protocol: p.Protocol, first: uint16(n), last: max(uint16(n), p.EndPort)})
		case string: // every pod has the same ports, whoever is asked
			for _, known := range r.ports {
				if known.Name == n && known.Protocol == p.Protocol {
					out = append(out, grant{protocol: p.Protocol, first: known.Number, last: known.Number})
				}
			}
		}
	}
	return out
}

// allow tells whether a conversation with a peer is granted.
func (g grants) allow(peer netip.Addr, q truth.Query) bool {
	return g.all || slices.ContainsFunc(g.list, func(g grant) bool {
		return g.peer.contains(peer) && (g.protocol == "" || g.protocol == q.Protocol) && g.first <= q.Port && q.Port <= g.last
	})
}

func (b block) contains(a netip.Addr) bool {
	return !b.CIDR.IsValid() || b.CIDR.Contains(a) && !slices.ContainsFunc(b.Except, func(e netip.Prefix) bool { return e.Contains(a) })
}

// table is what we read the state to come to.
func (r *reading) table(queries []truth.Query) truth.Table {
	pods, in, out := map[string]truth.Pod{}, map[string]grants{}, map[string]grants{}
	for _, p := range r.Pods {
		pods[p.Key()], in[p.Key()], out[p.Key()] = p, r.grants(p, "Ingress"), r.grants(p, "Egress")
	}
	t := truth.Table{}
	for _, q := range queries {
		t[q] = truth.Refused
		if out[q.From].allow(pods[q.To].Addr(q.Family), q) && in[q.To].allow(pods[q.From].Addr(q.Family), q) {
			t[q] = truth.Allowed
		}
	}
	return t
}

// TestTablesAgreeWithAPlainReading holds every table against a second opinion,
// which knows nothing of Cyclonus.
func TestTablesAgreeWithAPlainReading(t *testing.T) {
	s := cyclonus(t)
	var now *reading
	apply := func(_ context.Context, state truth.State) (err error) {
		now, err = read(state, s.World.Ports)
		return err
	}
	verdicts := 0
	ask := func(_ context.Context, queries []truth.Query) (truth.Table, error) {
		verdicts += len(queries)
		return now.table(queries), nil
	}
	for i := range s.Cases {
		faults, err := s.Cases[i].Play(t.Context(), apply, ask)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range faults {
			t.Error(f)
		}
	}
	if verdicts < 250_000 {
		t.Errorf("%d verdicts were compared, want more than 250,000", verdicts)
	}
}
