// Package policies gives the pods of a lab policy from manifests, as an agent
// would from a cluster:
//
//	manifests ─Read─► objects ─Apply─► a control/guard for each node ─► the node's forwarder
package policies
