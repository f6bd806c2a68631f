package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NetworkSetSpec is the addresses of a set.
type NetworkSetSpec struct {
	// Nets are addresses in CIDR form, or single ones, of both families.
	// +optional
	Nets []string `json:"nets,omitempty"`

	// AllowedEgressDomains are names of hosts, and patterns of names, whose
	// addresses are of the set too, where an egress rule that allows picks it as
	// destination: those that DNS tells endpoints. A pattern has one asterisk, which
	// stands for one label or several, not for the last.
	// +optional
	AllowedEgressDomains []string `json:"allowedEgressDomains,omitempty"`
}

// NetworkSet is addresses that selectors pick by the set's labels, which it
// inherits from its namespace too.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=netset
// +kubebuilder:subresource:status
type NetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the addresses.
	// +optional
	Spec NetworkSetSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
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

	// AllowedEgressDomains are names of hosts, and patterns of names, whose
	// addresses are of the set too, where an egress rule that allows picks it as
	// destination: those that DNS tells endpoints. A pattern has one asterisk, which
	// stands for one label or several, not for the last.
	// +optional
	AllowedEgressDomains []string `json:"allowedEgressDomains,omitempty"`
}

// GlobalNetworkSet is addresses that selectors pick by the set's labels, if they
// do not ask for a namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=gns
// +kubebuilder:subresource:status
type GlobalNetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the addresses.
	// +optional
	Spec GlobalNetworkSetSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// GlobalNetworkSetList is a list of them.
//
// +kubebuilder:object:root=true
type GlobalNetworkSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GlobalNetworkSet `json:"items"`
}
