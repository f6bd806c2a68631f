// Package dataplanev1 is the contract between a control process and a
// dataplane: desired state down, acknowledged generations up, and Inspect.
// The .proto files hold its documentation.
package dataplanev1

// Version is the contract version this build speaks; MinVersion is the oldest
// it also understands.
const (
	Version    = 1
	MinVersion = 1
)

// DefaultSocket is where a dataplane listens, and its clients look for it, where
// neither is told otherwise.
const DefaultSocket = "/run/margay/forwarder.sock"

// MaxChunk is the largest message in bytes that either side sends.
const MaxChunk = 1 << 20

//go:generate ../../../hack/protoc.sh api/dataplane/v1/dataplane.proto api/dataplane/v1/inspect.proto
