// Package v3 is the API of policy: the resources of group projectcalico.org/v3
// that say what may pass, and between whom, with the fields and the JSON that
// Project Calico gave them.
//
//	Tier                 policies that are judged together, in order of tiers
//	NetworkPolicy        rules for the endpoints of a namespace
//	GlobalNetworkPolicy  rules for any endpoints, hosts too
//	Staged...            the same, judged and reported, never enforced
//	NetworkSet           addresses with labels, of a namespace; GlobalNetworkSet, of none
//	Profile              rules and labels that endpoints name, when no policy decides
//	WorkloadEndpoint     an interface of a pod, or of a machine
//	HostEndpoint         an interface of a node itself
//
// What a field means is said beside it, what it may hold too.
//
// +groupName=projectcalico.org
// +kubebuilder:object:generate=true
package v3

//go:generate ../../hack/controller-gen.sh ./api/v3
