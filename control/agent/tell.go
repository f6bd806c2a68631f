package agent

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "margay.dev/margay/api/agent/v1"
	"margay.dev/margay/control/converge"
)

// teller is the Agent service.
type teller struct {
	agentv1.UnimplementedAgentServer
	ask  func(context.Context) (converge.Stats, error)
	node string
}

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
