package agent

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "margay.dev/margay/api/agent/v1"
	"margay.dev/margay/control/converge"
	"margay.dev/margay/control/domains"
)

// teller is the Agent service.
type teller struct {
	agentv1.UnimplementedAgentServer
	ask   func(context.Context) (converge.Stats, error)
	node  string
	names *domains.Keeper
}

// namesChunk is how many names are sent together: with all the addresses that a name
// may have less than 3 MB, where clients of gRPC take 4 if they say nothing.
const namesChunk = 500

// GetStatus tells how far the agent is.
func (t *teller) GetStatus(ctx context.Context, _ *agentv1.StatusRequest) (*agentv1.StatusReply, error) {
	s, err := t.ask(ctx)
	if err != nil {
		return nil, status.Error(codes.DeadlineExceeded, err.Error())
	}
	return &agentv1.StatusReply{
		Node: t.node, Synced: s.Synced, Away: s.Away, InForce: s.InForce, Revision: string(s.Revision),
		Generation: s.Generation, Faulty: uint32(s.Faulty),
		CalculatedNanoseconds: uint64(s.Calculating), SentBytes: s.Sent,
	}, nil
}

// ListNames tells of names of hosts, and of their addresses.
func (t *teller) ListNames(_ *agentv1.ListNamesRequest, stream agentv1.Agent_ListNamesServer) error {
	patterns, names := t.names.Known()
	chunk := &agentv1.NameList{Patterns: patterns}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if len(chunk.Names) == namesChunk {
			if err := stream.Send(chunk); err != nil {
				return err
			}
			chunk = &agentv1.NameList{}
		}
		one := &agentv1.NameList_Name{Name: name}
		for _, a := range names[name] {
			one.Addresses = append(one.Addresses, a.AsSlice())
		}
		chunk.Names = append(chunk.Names, one)
	}
	return stream.Send(chunk)
}
