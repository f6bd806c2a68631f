package inspect

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/explain"
)

// Explain says what would become of the first packet of a connection, and why.
func (s *Server) Explain(ctx context.Context, in *pb.ExplainRequest) (*pb.ExplanationList, error) {
	out, err := explain.Ask(ctx, s.plane, in)
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, explain.ErrQuestion):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, explain.ErrUnknown):
		return nil, status.Error(codes.NotFound, err.Error())
	}
	return nil, status.FromContextError(err).Err()
}
