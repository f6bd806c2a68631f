package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NetworkSetSpec is the addresses of a set.
type NetworkSetSpec struct {
	// Nets are addresses in CIDR form, or single ones, of both families.
	// +optional
	Nets []string `json:"nets,omitempty"`
}

// NetworkSet is addresses that selectors pick by the set's labels, which it
// inherits from its namespace too.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=netset
type NetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the addresses.
	// +optional
	Spec NetworkSetSpec `json:"spec,omitzero"`
}

// NetworkSetList is a list of them.
//
// +kubebuilder:object:root=true
type NetworkSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NetworkSet `json:"items"`
}

// GlobalNetworkSetSpec is the addresses of a set that belongs to no namespace.
type GlobalNetworkSetSpec struct {
	// Nets are addresses in CIDR form, or single ones, of both families.
	// +optional
	Nets []string `json:"nets,omitempty"`
}

// GlobalNetworkSet is addresses that selectors pick by the set's labels, if they
// do not ask for a namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=gns
type GlobalNetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the addresses.
	// +optional
	Spec GlobalNetworkSetSpec `json:"spec,omitzero"`
}

// GlobalNetworkSetList is a list of them.
//
// +kubebuilder:object:root=true
type GlobalNetworkSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GlobalNetworkSet `json:"items"`
}
