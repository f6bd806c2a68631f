package attach

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "margay.dev/margay/api/agent/v1"
)

// Server is the Workloads service over a Book.
type Server struct {
	agentv1.UnimplementedWorkloadsServer
	book *Book
}

// NewServer makes the service.
func NewServer(b *Book) *Server { return &Server{book: b} }

// Attach adds or replaces an attachment and waits until it is in force.
func (s *Server) Attach(ctx context.Context, r *agentv1.AttachRequest) (*agentv1.AttachReply, error) {
	a, err := Read(r.GetAttachment())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	version, err := s.book.Put(a)
	if err != nil {
		return nil, answer(err)
	}
	st, err := s.book.Await(ctx, a.Key, version)
	if err != nil {
		return nil, answer(err)
	}
	return &agentv1.AttachReply{Port: a.Port, Endpoint: a.Key.String(), Addresses: st.Addresses}, nil
}

// Detach takes an attachment away and waits until nothing of it is in force.
func (s *Server) Detach(ctx context.Context, r *agentv1.DetachRequest) (*agentv1.DetachReply, error) {
	k := Key{r.GetWorkload().GetNamespace(), r.GetWorkload().GetName()}
	version, err := s.book.Remove(k)
	if err == nil {
		err = s.book.Gone(ctx, k, version)
	}
	if err != nil {
		return nil, answer(err)
	}
	return &agentv1.DetachReply{}, nil
}

// List tells of all attachments.
func (s *Server) List(context.Context, *agentv1.ListRequest) (*agentv1.ListReply, error) {
	all, stand := s.book.List()
	out := &agentv1.ListReply{}
	for i, a := range all {
		out.Attachments = append(out.Attachments, &agentv1.Attached{Attachment: a.Proto(), InForce: stand[i].InForce, Reason: stand[i].Reason})
	}
	return out, nil
}

// answer is an error as a client is told it.
func answer(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, ErrTaken):
		code = codes.AlreadyExists
	case errors.Is(err, ErrFull):
		code = codes.ResourceExhausted
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return status.Error(code, err.Error())
}
