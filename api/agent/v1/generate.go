// Package agentv1 is the contract between a node's agent and those who attach
// workloads there; see agent.proto.
package agentv1

//go:generate ../../../hack/protoc.sh api/agent/v1/agent.proto

// DefaultSocket is where an agent listens if nothing else is said.
const DefaultSocket = "/run/margay/agent.sock"
