package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group and Version are what apiVersion says of these resources.
const (
	Group   = "projectcalico.org"
	Version = "v3"
)

// The kinds of the group.
const (
	KindNetworkPolicy                 = "NetworkPolicy"
	KindGlobalNetworkPolicy           = "GlobalNetworkPolicy"
	KindStagedNetworkPolicy           = "StagedNetworkPolicy"
	KindStagedGlobalNetworkPolicy     = "StagedGlobalNetworkPolicy"
	KindStagedKubernetesNetworkPolicy = "StagedKubernetesNetworkPolicy"
	KindTier                          = "Tier"
	KindNetworkSet                    = "NetworkSet"
	KindGlobalNetworkSet              = "GlobalNetworkSet"
	KindProfile                       = "Profile"
	KindHostEndpoint                  = "HostEndpoint"
	KindWorkloadEndpoint              = "WorkloadEndpoint"
	KindNode                          = "Node"
	KindIPPool                        = "IPPool"
	KindFelixConfiguration            = "FelixConfiguration"
	KindClusterInformation            = "ClusterInformation"
	KindPendingChange                 = "PendingChange"
)

// GroupVersion is projectcalico.org/v3.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// Kind is what is known of a kind of the group.
//
// +kubebuilder:object:generate=false
type Kind struct {
	Name       string   // as KindTier
	Plural     string   // as tiers
	Short      []string // what people type for it, beside Name and Plural
	Namespaced bool     // whether its objects belong to namespaces
	New        func() Object
	list       runtime.Object // an empty one
}

// Kinds are those of the group.
func Kinds() []Kind {
	return []Kind{
		{Name: KindNetworkPolicy, Plural: "networkpolicies", Short: []string{"np"}, Namespaced: true, New: of[NetworkPolicy], list: &NetworkPolicyList{}},
		{Name: KindGlobalNetworkPolicy, Plural: "globalnetworkpolicies", Short: []string{"gnp"}, New: of[GlobalNetworkPolicy], list: &GlobalNetworkPolicyList{}},
		{Name: KindStagedNetworkPolicy, Plural: "stagednetworkpolicies", Short: []string{"snp"}, Namespaced: true, New: of[StagedNetworkPolicy], list: &StagedNetworkPolicyList{}},
		{Name: KindStagedGlobalNetworkPolicy, Plural: "stagedglobalnetworkpolicies", Short: []string{"sgnp"}, New: of[StagedGlobalNetworkPolicy], list: &StagedGlobalNetworkPolicyList{}},
		{Name: KindStagedKubernetesNetworkPolicy, Plural: "stagedkubernetesnetworkpolicies", Short: []string{"sknp"}, Namespaced: true, New: of[StagedKubernetesNetworkPolicy], list: &StagedKubernetesNetworkPolicyList{}},
		{Name: KindTier, Plural: "tiers", New: of[Tier], list: &TierList{}},
		{Name: KindNetworkSet, Plural: "networksets", Short: []string{"netset"}, Namespaced: true, New: of[NetworkSet], list: &NetworkSetList{}},
		{Name: KindGlobalNetworkSet, Plural: "globalnetworksets", Short: []string{"gns"}, New: of[GlobalNetworkSet], list: &GlobalNetworkSetList{}},
		{Name: KindProfile, Plural: "profiles", New: of[Profile], list: &ProfileList{}},
		{Name: KindHostEndpoint, Plural: "hostendpoints", Short: []string{"hep"}, New: of[HostEndpoint], list: &HostEndpointList{}},
		{Name: KindWorkloadEndpoint, Plural: "workloadendpoints", Short: []string{"wep"}, Namespaced: true, New: of[WorkloadEndpoint], list: &WorkloadEndpointList{}},
		{Name: KindNode, Plural: "nodes", New: of[Node], list: &NodeList{}},
		{Name: KindIPPool, Plural: "ippools", Short: []string{"ipp", "pool"}, New: of[IPPool], list: &IPPoolList{}},
		{Name: KindFelixConfiguration, Plural: "felixconfigurations", Short: []string{"felixconfig"}, New: of[FelixConfiguration], list: &FelixConfigurationList{}},
		{Name: KindClusterInformation, Plural: "clusterinformations", Short: []string{"clusterinfo"}, New: of[ClusterInformation], list: &ClusterInformationList{}},
		{Name: KindPendingChange, Plural: "pendingchanges", New: of[PendingChange], list: &PendingChangeList{}},
	}
}

// of is an empty object.
func of[T any, P interface {
	*T
	Object
}]() Object {
	return P(new(T))
}

// KindNamed is what is known of a kind, by its name; ok is false where the group
// has no such kind.
func KindNamed(name string) (kind Kind, ok bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

// New is an empty resource of a kind, without even the kind in it; nil for a kind
// that the group has not.
func New(kind string) Object {
	k, ok := KindNamed(kind)
	if !ok {
		return nil
	}
	return k.New()
}

// AddToScheme tells a scheme of every kind of the group, and of their lists. It
// does not fail.
func AddToScheme(s *runtime.Scheme) error {
	for _, k := range Kinds() {
		s.AddKnownTypes(GroupVersion(), k.New(), k.list)
	}
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
