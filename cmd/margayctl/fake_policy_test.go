//go:build linux

package main

import (
	"context"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
)

// Rules that the fake forwarder judges by.
var (
	webRule = &dataplanev1.RuleName{
		Id: 7, Tier: "default", Policy: "NetworkPolicy shop/web", Index: 1, Text: "allow TCP from role == 'client' in namespace shop to ports 80,443",
	}
	sshRule = &dataplanev1.RuleName{Id: 5, Tier: "platform", Policy: "GlobalNetworkPolicy no-ssh", Text: "deny TCP to ports 22"}
	outRule = &dataplanev1.RuleName{Id: 9, Policy: "Profile kns.shop", Egress: true, Text: "allow everything"}
)

// tracked is the fake forwarder's connections, in chunks.
func tracked() [][]*dataplanev1.FlowList_Flow {
	way := func(from string, sport uint32, to string, dport uint32, packets, bytes uint64, port, gateway string) *dataplanev1.FlowList_Direction {
		return &dataplanev1.FlowList_Direction{
			Source: from, SourcePort: sport, Destination: to, DestinationPort: dport, Packets: packets, Bytes: bytes,
			NextHop: 3, Adjacencies: []*dataplanev1.RouteList_Adjacency{{Id: 9, Kind: "attached", Port: port, Gateway: gateway}},
		}
	}
	nobody := func(endpoint string) *dataplanev1.Ruling {
		return &dataplanev1.Ruling{Endpoint: endpoint, Allowed: true}
	}
	by := func(endpoint string, allowed bool, rule *dataplanev1.RuleName) *dataplanev1.Ruling {
		return &dataplanev1.Ruling{Endpoint: endpoint, Allowed: allowed, By: dataplanev1.Ruling_BY_RULE, Tier: rule.Tier, Rule: rule}
	}
	return [][]*dataplanev1.FlowList_Flow{
		{
			{
				Protocol: 6, State: "established", AgeMs: 3_723_000, IdleMs: 1250,
				Original: way("10.1.0.2", 50_000, "10.1.0.3", 443, 12_345, 1_851_850, "bob", ""), Reply: way("10.1.0.3", 443, "10.1.0.2", 50_000, 9, 540, "ann", ""),
				Egress: by("pod/ann", true, outRule), Ingress: by("pod/bob", true, webRule),
			},
			{
				Protocol: 17, State: "one-way", AgeMs: 4000, IdleMs: 4000, Outdated: true,
				Original: way("fd00::2", 5353, "2001:db8::53", 53, 1, 80, "uplink", "fe80::1"), Reply: way("2001:db8::53", 53, "fd00::2", 5353, 0, 0, "ann", ""),
				Egress: by("pod/ann", true, outRule), Ingress: nobody(""),
			},
		},
		{
			{
				Protocol: 6, State: "half-closed", AgeMs: 61_000, IdleMs: 30_000,
				Original: way("fd00::2", 50_001, "fd00::3", 22, 40, 4000, "bob", ""), Reply: way("fd00::3", 22, "fd00::2", 50_001, 38, 3800, "ann", ""),
				Egress: by("pod/ann", true, outRule), Ingress: by("pod/bob", false, sshRule),
			},
			{
				Protocol: 1, State: "both-ways", AgeMs: 900, IdleMs: 0,
				Original: way("198.51.100.7", 77, "10.1.0.3", 8<<8, 3, 252, "bob", ""), Reply: way("10.1.0.3", 77, "198.51.100.7", 0, 3, 252, "uplink", "198.51.100.1"),
				Egress: nobody(""), Ingress: &dataplanev1.Ruling{Endpoint: "pod/bob", By: dataplanev1.Ruling_BY_TIER, Tier: "default"},
			},
			{
				Protocol: 132, State: "one-way", AgeMs: 1000, IdleMs: 1000,
				Original: way("10.1.0.2", 1, "10.1.0.9", 2, 1, 60, "eve", ""), Reply: way("10.1.0.9", 2, "10.1.0.2", 1, 0, 0, "ann", ""),
				Egress: nobody("pod/ann"), Ingress: &dataplanev1.Ruling{Endpoint: "pod/eve", By: dataplanev1.Ruling_BY_END},
			},
			{
				Protocol: 253, State: "one-way", AgeMs: 1000, IdleMs: 1000,
				Original: way("10.1.0.2", 0, "10.1.0.3", 0, 1, 60, "bob", ""), Reply: way("10.1.0.3", 0, "10.1.0.2", 0, 0, 0, "ann", ""),
				Egress: nobody("pod/ann"), Ingress: by("pod/bob", true, &dataplanev1.RuleName{Id: 4}),
			},
			{
				Protocol: 58, State: "one-way", AgeMs: 1000, IdleMs: 1000,
				Original: way("fd00::9", 1, "2001:db8::1", 128<<8, 1, 104, "uplink", "fe80::1"), Reply: way("2001:db8::1", 1, "fd00::9", 129<<8, 0, 0, "zoe", ""),
				Egress: nobody("pod/zoe"), Ingress: nobody(""),
			},
		},
	}
}

func (f *forwarder) ListFlows(r *dataplanev1.ListFlowsRequest, s dataplanev1.Inspect_ListFlowsServer) error {
	asked := &dataplanev1.ListFlowsRequest{Endpoint: "ann", Address: "fd00::/64", Protocol: 6, Port: 443, Verdict: dataplanev1.ListFlowsRequest_VERDICT_DENIED, Limit: 1}
	switch {
	case r.GetProtocol() == 47, f.fail != nil:
		return f.fail
	case r.String() == asked.String():
		return s.Send(&dataplanev1.FlowList{Flows: tracked()[1][:1], More: true})
	}
	for _, chunk := range tracked() {
		if err := s.Send(&dataplanev1.FlowList{Flows: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func (f *forwarder) SummarizeFlows(context.Context, *dataplanev1.SummarizeFlowsRequest) (*dataplanev1.FlowSummary, error) {
	return &dataplanev1.FlowSummary{
		Limit: 226_000, Flows: 1234, Waiting: 5, ByState: map[string]uint64{"established": 1200, "one-way": 30, "opening": 4, "reset": 0},
		Inserted: 50_000, Expired: 40_000, Retired: 8766, Refused: map[string]uint64{"mid-flow": 12, "bad-flags": 0, "out-of-window": 12, "table-full": 900}, Partial: 1,
		Holders: []*dataplanev1.FlowSummary_Holder{{Endpoint: "pod/ann", Flows: 1200}, {Endpoint: "pod/bob", Flows: 34}},
	}, f.fail
}

func (f *forwarder) ListPolicies(context.Context, *dataplanev1.ListPoliciesRequest) (*dataplanev1.PolicyList, error) {
	return &dataplanev1.PolicyList{Generation: 42, Endpoints: []*dataplanev1.PolicyList_Entry{
		{Endpoint: "pod/ann", Port: "ann", Policy: dataplanev1.Endpoint_POLICY_OFF},
		{Endpoint: "pod/bob", Port: "bob", Policy: dataplanev1.Endpoint_POLICY_ENFORCED, EgressTiers: 1, IngressTiers: 3, Rules: 12_000, Staged: true, Flows: 34},
		{Endpoint: "pod/eve", Port: "eve", Policy: dataplanev1.Endpoint_POLICY_ENFORCED, Closed: true, EgressTiers: 1, IngressTiers: 1},
		{Endpoint: "pod/zoe", Port: "zoe"},
	}}, f.fail
}

func (f *forwarder) ShowPolicy(r *dataplanev1.ShowPolicyRequest, s dataplanev1.Inspect_ShowPolicyServer) error {
	if f.fail != nil {
		return f.fail
	}
	head := &dataplanev1.EndpointPolicy{Endpoint: "pod/ann", Port: "ann", Policy: dataplanev1.Endpoint_POLICY_OFF, Generation: 42}
	switch r.GetEndpoint() {
	case "eve":
		head.Endpoint, head.Port, head.Policy, head.Closed = "pod/eve", "eve", dataplanev1.Endpoint_POLICY_ENFORCED, true
	case "bob":
		head = bobsPolicy()
	}
	tiers := head.Tiers
	head.Tiers = tiers[:min(2, len(tiers))]
	if err := s.Send(head); err != nil || len(tiers) < 3 {
		return err
	}
	return s.Send(&dataplanev1.EndpointPolicy{Tiers: tiers[2:]})
}

// bobsPolicy is of all that a policy may have; its third tier goes on with the
// rules of the second.
func bobsPolicy() *dataplanev1.EndpointPolicy {
	counted := func(n uint64) *dataplanev1.PacketCount {
		return &dataplanev1.PacketCount{Packets: n, Segments: n, Bytes: 60 * n}
	}
	rule := func(name *dataplanev1.RuleName, action string, ipv4, ipv6 bool, n uint64) *dataplanev1.EndpointPolicy_Rule {
		return &dataplanev1.EndpointPolicy_Rule{Name: name, Action: action, Ipv4: ipv4, Ipv6: ipv6, Decided: counted(n)}
	}
	log := &dataplanev1.RuleName{Id: 6, Tier: "platform", Policy: "GlobalNetworkPolicy no-ssh", Index: 1, Text: "log"}
	six := &dataplanev1.RuleName{Id: 8, Tier: "default", Policy: "NetworkPolicy shop/web", Index: 2, Text: "allow ICMPv6"}
	would := &dataplanev1.RuleName{Id: 11, Tier: "default", Policy: "StagedNetworkPolicy shop/web", Text: "deny from 192.0.2.0/24"}
	return &dataplanev1.EndpointPolicy{
		Endpoint: "pod/bob", Port: "bob", Policy: dataplanev1.Endpoint_POLICY_ENFORCED, Generation: 42, HostDenied: true, Flows: 34,
		Addresses: []*dataplanev1.EndpointPolicy_Address{
			{Prefix: "10.1.0.3/32", Class: 7, Sets: []*dataplanev1.EndpointPolicy_Set{{Id: 1, Name: `(projectcalico.org/namespace == "shop" && role == "server")`}, {Id: 1<<31 | 1, Name: "nets 10.0.0.0/8"}, {Id: 4}}, SetsUnlisted: 2},
			{Prefix: "fd00::3/128"},
		},
		Tiers: []*dataplanev1.EndpointPolicy_Tier{
			{Egress: true, Passes: true, Rules: []*dataplanev1.EndpointPolicy_Rule{rule(outRule, "allow", true, true, 12)}},
			{Name: "platform", Passes: true, Rules: []*dataplanev1.EndpointPolicy_Rule{rule(sshRule, "deny", true, true, 1_234_567)}},
			{Name: "platform", Passes: true, Continued: true, Rules: []*dataplanev1.EndpointPolicy_Rule{rule(log, "log", true, true, 0)}},
			{Name: "default", Denied: counted(3), Rules: []*dataplanev1.EndpointPolicy_Rule{
				rule(webRule, "allow", true, true, 40), rule(six, "allow", false, true, 0), rule(&dataplanev1.RuleName{Id: 4}, "pass", true, false, 0),
			}},
			{Name: "empty"}, {Passes: true},
			{Name: "default", Staged: true, Denied: counted(5), Rules: []*dataplanev1.EndpointPolicy_Rule{rule(would, "deny", true, false, 5)}},
		},
		Directions: []*dataplanev1.EndpointPolicy_Direction{
			{Egress: true, Denied: counted(1)}, {Denied: counted(0), Staged: true, WouldDeny: counted(5), WouldPermit: counted(1)},
		},
	}
}

func (*fresh) ListFlows(*dataplanev1.ListFlowsRequest, dataplanev1.Inspect_ListFlowsServer) error {
	return nil
}

func (*fresh) SummarizeFlows(context.Context, *dataplanev1.SummarizeFlowsRequest) (*dataplanev1.FlowSummary, error) {
	return &dataplanev1.FlowSummary{Limit: 226_000}, nil
}

func (*fresh) ListPolicies(context.Context, *dataplanev1.ListPoliciesRequest) (*dataplanev1.PolicyList, error) {
	return &dataplanev1.PolicyList{}, nil
}
