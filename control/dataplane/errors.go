package dataplane

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrClosed says that the Stream was closed before the state was settled.
	ErrClosed = errors.New("stream is closed")
	// ErrTakenOver says that another client took the dataplane over. The Stream
	// does not fight for it: it has ended.
	ErrTakenOver = errors.New("another client took the dataplane over")
)

// A Refusal is the dataplane's answer to a commit that contradicts itself or
// what is in force. Nothing of the commit was applied.
type Refusal struct {
	Generation uint64
	Faults     []string // all of them, each naming object and field
}

// Error lists every fault, one a line.
func (r *Refusal) Error() string {
	if len(r.Faults) == 0 {
		return fmt.Sprintf("dataplane refused generation %d and gave no reason", r.Generation)
	}
	return fmt.Sprintf("dataplane refused generation %d: %s", r.Generation, strings.Join(r.Faults, "\n\t"))
}

// A VersionError says that client and dataplane have no version of the contract
// in common.
type VersionError struct {
	Server              string // name and build it gave
	Spoken              uint32 // what the dataplane wants to speak
	OldestOurs, Highest uint32 // what we speak
}

// Error says what to do as well.
func (e *VersionError) Error() string {
	return fmt.Sprintf("dataplane %q speaks contract version %d, this client %d to %d: upgrade the older of the two",
		e.Server, e.Spoken, e.OldestOurs, e.Highest)
}

// A protocolError is an answer that the contract does not allow.
type protocolError struct{ what string }

func (e *protocolError) Error() string { return "dataplane broke the contract: " + e.what }

// final tells whether trying again cannot help: the other side is there, and
// will not have us.
func final(err error) bool {
	if version := (*VersionError)(nil); errors.As(err, &version) || errors.Is(err, ErrTakenOver) {
		return true
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.FailedPrecondition:
		return true
	}
	return false
}

// told turns what gRPC says into what happened.
func told(err error) error {
	if status.Code(err) == codes.Aborted {
		return fmt.Errorf("%w (%s)", ErrTakenOver, status.Convert(err).Message())
	}
	return err
}
