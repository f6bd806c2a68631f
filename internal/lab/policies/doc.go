// Package policies gives the pods of a lab policy from manifests, as an agent
// would from a cluster:
//
//	topology ─► pods, namespaces, accounts ─┐
//	manifests ──────────Read────────────────┴─► Driver: a control/guard for each node ─► what the node's forwarder is sent
//
// Every pod is a workload endpoint from the first moment, as Kubernetes' pods are:
// with the profiles of its namespace, which allows everything, and of the service
// account "default". So connections are known from their first packet on, and a
// first policy breaks none of those that it allows.
package policies
