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
//	Node, IPPool         the machines and the addresses of the network (package fabric)
//	FelixConfiguration   settings of agents (package felix)
//	ClusterInformation   what all know of the cluster
//
// What a field means is said beside it, what it may hold too. A manifest goes
//
//	DecodeAll ► Object.Default ► Object.Validate
//
// and each step reports all that it finds. Some things are not as in Calico:
// reading is as strict as kubectl's, not as calicoctl's, so that a number where a
// text belongs is an error; a direction of a profile has at most MaxRules rules;
// and addresses that are IPv4 within IPv6 are refused. A CRD judges less than
// Validate does: it cannot read selectors, nor compare numbers of ports and
// protocols.
//
// +groupName=projectcalico.org
// +kubebuilder:object:generate=true
package v3

//go:generate ../../hack/controller-gen.sh ./api/v3/...
