package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is a resource of the group.
//
// +kubebuilder:object:generate=false
type Object interface {
	runtime.Object
	metav1.Object

	// Default fills in what a writer may leave out and Calico then takes for
	// granted; by says how it finds the directions of a policy.
	Default(by TypesBy)

	// Validate gives every fault of the object, each with the field and the mend:
	// none is nil, and at most MaxFaults and one that says that there are more. It
	// expects what Default fills in.
	Validate() field.ErrorList
}

// New is an empty resource of a kind, without even the kind in it; nil for a kind
// that the group has not.
func New(kind string) Object {
	switch kind {
	case KindNetworkPolicy:
		return &NetworkPolicy{}
	case KindGlobalNetworkPolicy:
		return &GlobalNetworkPolicy{}
	case KindStagedNetworkPolicy:
		return &StagedNetworkPolicy{}
	case KindStagedGlobalNetworkPolicy:
		return &StagedGlobalNetworkPolicy{}
	case KindStagedKubernetesNetworkPolicy:
		return &StagedKubernetesNetworkPolicy{}
	case KindTier:
		return &Tier{}
	case KindNetworkSet:
		return &NetworkSet{}
	case KindGlobalNetworkSet:
		return &GlobalNetworkSet{}
	case KindProfile:
		return &Profile{}
	case KindHostEndpoint:
		return &HostEndpoint{}
	case KindWorkloadEndpoint:
		return &WorkloadEndpoint{}
	}
	return nil
}
