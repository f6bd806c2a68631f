//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "margay.dev/margay/api/agent/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/cmd/margayctl/preview"
)

// agentSocketVariable overrides the default socket of the agent.
const agentSocketVariable = "MARGAY_AGENT_SOCKET"

func (c *ctl) agentSocket() string {
	return cmp.Or(c.env(agentSocketVariable), agentv1.DefaultSocket)
}

// learned is what this node's agent knows of names of hosts, if any object asks for
// one. That there is no answer is told, and no error: all else can be judged.
func (c *ctl) learned(ctx context.Context, agent string, objects []v3.Object) preview.Names {
	if !slices.ContainsFunc(objects, hasDomains) {
		return preview.Names{}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	names, err := askNames(ctx, agent)
	if err != nil {
		fmt.Fprintf(c.errOut, "margayctl: names of hosts have no addresses here: the agent at %s does not tell them: %v\n", agent, err)
	}
	return names
}

// hasDomains reports whether an object asks for names of hosts.
func hasDomains(o v3.Object) bool {
	switch s := o.(type) {
	case *v3.NetworkSet:
		return len(s.Spec.AllowedEgressDomains) > 0
	case *v3.GlobalNetworkSet:
		return len(s.Spec.AllowedEgressDomains) > 0
	}
	return false
}

// askNames asks an agent; what it gives with an error is nothing.
func askNames(ctx context.Context, socket string) (preview.Names, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return preview.Names{}, err
	}
	defer conn.Close()
	names := preview.Names{Addresses: make(map[string][]netip.Addr)}
	stream, err := agentv1.NewAgentClient(conn).ListNames(ctx, &agentv1.ListNamesRequest{})
	if err := each(stream, err, func(chunk *agentv1.NameList) {
		names.Patterns = append(names.Patterns, chunk.GetPatterns()...)
		for _, n := range chunk.GetNames() {
			for _, raw := range n.GetAddresses() {
				if a, ok := netip.AddrFromSlice(raw); ok {
					names.Addresses[n.GetName()] = append(names.Addresses[n.GetName()], a)
				}
			}
		}
	}); err != nil {
		return preview.Names{}, err
	}
	return names, nil
}
