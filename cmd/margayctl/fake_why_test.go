//go:build linux

package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
)

type (
	rule  = dataplanev1.Explanation_Rule
	party = dataplanev1.Explanation_Party
	stage = dataplanev1.Explanation_Stage
	part  = dataplanev1.Explanation_Change_Part
)

const (
	allows = dataplanev1.Explanation_Judgement_SAID_ALLOW
	denies = dataplanev1.Explanation_Judgement_SAID_DENY
)

// Explain answers for two pods of which one is a client, as the request says.
func (f *forwarder) Explain(_ context.Context, in *dataplanev1.ExplainRequest) (*dataplanev1.ExplanationList, error) {
	switch {
	case in.Destination == "zoe":
		return nil, status.Error(codes.NotFound, "destination is \"zoe\", which is neither an address nor an endpoint of this node (pod/ann, pod/bob)")
	case in.Echo:
		return &dataplanev1.ExplanationList{Explanations: []*dataplanev1.Explanation{farEcho(false), farEcho(true)}}, f.fail
	case in.DestinationPort == 53:
		return &dataplanev1.ExplanationList{Explanations: []*dataplanev1.Explanation{nowhere()}}, f.fail
	case in.DestinationPort == 80:
		return &dataplanev1.ExplanationList{Explanations: []*dataplanev1.Explanation{allowed(in.SourcePort)}}, f.fail
	}
	return &dataplanev1.ExplanationList{Explanations: []*dataplanev1.Explanation{denied()}}, f.fail
}

func ann() *party {
	return &party{Endpoint: "pod/ann", Port: "pod-ann", Policy: dataplanev1.Explanation_Party_POLICY_ENFORCED,
		Sets: []*dataplanev1.Explanation_Set{{Id: 3, Name: `role == "client"`}, {Id: 1<<31 + 1, Members: []string{"10.1.0.0/16"}}}, SetsUnlisted: 2}
}

func bob() *party {
	return &party{Endpoint: "pod/bob", Port: "pod-bob", Policy: dataplanev1.Explanation_Party_POLICY_ENFORCED}
}

func to(prefix, port string) *dataplanev1.Explanation_Way {
	return &dataplanev1.Explanation_Way{Prefix: prefix, Adjacencies: []*dataplanev1.RouteList_Adjacency{{Id: 4, Kind: "rewrite", Port: port, Mtu: 1500}}}
}

func clients() *rule {
	return &rule{Id: 7, Tier: "default", Policy: "NetworkPolicy/ns/web", Index: 1, Text: `allow TCP from role == "client" to port 80`}
}

func open() *dataplanev1.Explanation_Judgement {
	return &dataplanev1.Explanation_Judgement{Said: allows, Stages: []*stage{
		{Name: "security", Did: dataplanev1.Explanation_Stage_DID_PASS, Rule: &rule{Id: 2, Tier: "security", Policy: "GlobalNetworkPolicy/gate", Egress: true},
			Logged: []*rule{{Id: 9, Tier: "security", Policy: "GlobalNetworkPolicy/watch", Egress: true}}},
		{Name: "default", Did: dataplanev1.Explanation_Stage_DID_END_PASS},
		{Did: dataplanev1.Explanation_Stage_DID_ALLOW, Rule: &rule{Id: 11}},
	}}
}

func denied() *dataplanev1.Explanation {
	return &dataplanev1.Explanation{
		Generation: 42, Tuple: &dataplanev1.Explanation_Tuple{Source: "10.1.0.2", Destination: "10.1.0.3", Protocol: 6, SourcePort: 40000, DestinationPort: 81},
		Source: ann(), Destination: bob(), Outcome: dataplanev1.Explanation_OUTCOME_DROPPED, Reason: "ingress-denied",
		There: to("10.1.0.3/32", "pod-bob"), Egress: open(),
		Ingress: &dataplanev1.Explanation_Judgement{Said: denies, Stages: []*stage{
			{Name: "default", Did: dataplanev1.Explanation_Stage_DID_END_DENY}, {}}},
		Flows: []*dataplanev1.Explanation_Flow{{SourcePort: 51000, State: "established", IdleMs: 1500, PacketsThere: 12, PacketsBack: 10, Egress: allows, Ingress: denies}},
		Changes: []*dataplanev1.Explanation_Change{
			{Parts: []*part{{Kind: dataplanev1.Explanation_Change_KIND_DESTINATION_PORT, Number: 80, Wants: clients()}}, Then: allows, Rule: clients(), Stage: "default"},
			{Parts: []*part{{Kind: dataplanev1.Explanation_Change_KIND_RULE_ADDED, Stage: "default", Endpoint: "pod/bob"}}, Then: allows, Stage: "default"},
		},
	}
}

func allowed(from uint32) *dataplanev1.Explanation {
	e := denied()
	e.Tuple.SourcePort, e.Tuple.DestinationPort = from, 80
	e.Outcome, e.Reason, e.Flows, e.Back = dataplanev1.Explanation_OUTCOME_FORWARDED, "", nil, to("10.1.0.2/32", "pod-ann")
	e.Ingress = &dataplanev1.Explanation_Judgement{Said: allows, Stages: []*stage{{Name: "default", Did: dataplanev1.Explanation_Stage_DID_ALLOW, Rule: clients()}, {}}}
	e.Changes = []*dataplanev1.Explanation_Change{
		{Parts: []*part{{Kind: dataplanev1.Explanation_Change_KIND_SOURCE_LEAVES, Set: e.Source.Sets[0]}}, Then: denies, Stage: "default"},
		{Parts: []*part{{Kind: dataplanev1.Explanation_Change_KIND_RULE_REMOVED, Rule: clients()}}, Then: denies, Stage: "default"},
		{Parts: []*part{{Kind: dataplanev1.Explanation_Change_KIND_RULE_ADDED, Stage: "security", Endpoint: "pod/ann", Egress: true, Rule: open().Stages[0].Rule}}, Then: denies, Stage: "security", Egress: true},
	}
	return e
}

func farEcho(ipv6 bool) *dataplanev1.Explanation {
	e := &dataplanev1.Explanation{
		Tuple:  &dataplanev1.Explanation_Tuple{Source: "10.1.0.2", Destination: "10.2.0.9", Protocol: 1, DestinationPort: 2048},
		Source: ann(), Destination: &party{Port: "uplink"}, Outcome: dataplanev1.Explanation_OUTCOME_HELD,
		There: to("10.2.0.0/16", "uplink"), Back: to("10.1.0.2/32", "pod-ann"), Egress: open(),
		Ingress: &dataplanev1.Explanation_Judgement{Exempt: "no endpoint of this node gets it; where it lives, its own node's forwarder is to be asked"},
		Flows:   []*dataplanev1.Explanation_Flow{{SourcePort: 5, State: "one-way", Current: true, Egress: allows, Ingress: allows, PacketsThere: 1}}, FlowsUnlisted: 1,
	}
	e.There.Adjacencies[0].Gateway, e.There.Adjacencies[0].Down = "198.51.100.1", true
	if ipv6 {
		e.Tuple = &dataplanev1.Explanation_Tuple{Source: "fd00::2", Destination: "fd02::9", Protocol: 58, DestinationPort: 32768}
		e.There.Prefix, e.Back.Prefix, e.Back.Reason = "fd02::/64", "fd00::2/128", "spoofed-source"
	}
	return e
}

func nowhere() *dataplanev1.Explanation {
	return &dataplanev1.Explanation{
		Tuple:  &dataplanev1.Explanation_Tuple{Source: "10.1.0.2", Destination: "10.9.9.9", Protocol: 17, SourcePort: 40000, DestinationPort: 53},
		Source: ann(), Destination: &party{}, Outcome: dataplanev1.Explanation_OUTCOME_DROPPED, Reason: "no-route",
		There:  &dataplanev1.Explanation_Way{Reason: "no-route"},
		Egress: &dataplanev1.Explanation_Judgement{Exempt: "the packet ends before policy is asked"}, Ingress: &dataplanev1.Explanation_Judgement{Exempt: "the packet ends before policy is asked"},
	}
}
