package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PolicyType is a direction that a policy governs, seen from the endpoint.
//
// +kubebuilder:validation:Enum=Ingress;Egress
type PolicyType string

// The directions.
const (
	PolicyTypeIngress PolicyType = "Ingress" // what arrives at the endpoint
	PolicyTypeEgress  PolicyType = "Egress"  // what the endpoint sends
)

// PolicyPerformanceHint is advice about a policy that changes no verdict.
//
// +kubebuilder:validation:Enum=AssumeNeededOnEveryNode
type PolicyPerformanceHint string

// PerfHintAssumeNeededOnEveryNode has every node prepare the policy, also one on
// which it selects nobody yet.
const PerfHintAssumeNeededOnEveryNode PolicyPerformanceHint = "AssumeNeededOnEveryNode"

// NetworkPolicySpec is what every policy says.
//
// +kubebuilder:validation:XValidation:rule="!has(self.egress) || self.egress.all(r, !has(r.http))",message="http works in ingress rules alone: take it out"
// +kubebuilder:validation:XValidation:rule="!has(self.ingress) || self.ingress.all(r, !has(r.destination) || !has(r.destination.services))",message="a service is the source of ingress rules: move it there, or take it out"
// +kubebuilder:validation:XValidation:rule="!has(self.egress) || self.egress.all(r, !has(r.source) || !has(r.source.services))",message="a service is the destination of egress rules: move it there, or take it out"
type NetworkPolicySpec struct {
	// Tier is the name of the tier that the policy is in; empty: default.
	// +optional
	// +kubebuilder:default=default
	// +kubebuilder:validation:MaxLength=63
	Tier string `json:"tier,omitempty"`

	// Order places the policy in its tier, the lowest first; without one it comes
	// last. Equal ones go by name.
	// +optional
	Order *float64 `json:"order,omitempty"`

	// Ingress are the rules for what arrives, the first that matches decides.
	// +optional
	// +kubebuilder:validation:MaxItems=1024
	Ingress []Rule `json:"ingress,omitzero"`

	// Egress are the rules for what is sent, the first that matches decides.
	// +optional
	// +kubebuilder:validation:MaxItems=1024
	Egress []Rule `json:"egress,omitzero"`

	// Selector picks the endpoints; empty: all, in a namespaced policy all of its
	// namespace.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`

	// Types are the directions that the policy governs: in these it denies what no
	// rule allows, or what its tier does with such. Left out, they follow from the
	// rules; a stored policy without any governs both.
	// +optional
	// +kubebuilder:validation:MaxItems=2
	// +listType=set
	Types []PolicyType `json:"types,omitempty"`

	// ServiceAccountSelector narrows Selector to endpoints that run under a service
	// account with such labels; empty: under any or none.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	ServiceAccountSelector string `json:"serviceAccountSelector,omitempty"`

	// PerformanceHints change no verdict.
	// +optional
	// +kubebuilder:validation:MaxItems=1
	// +listType=set
	PerformanceHints []PolicyPerformanceHint `json:"performanceHints,omitempty"`
}

// NetworkPolicy is rules for the endpoints of its namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=np
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Order",type=number,JSONPath=`.spec.order`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$')",message="want a name of one label of DNS, or two with a dot between, as web or tier.web"
type NetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the policy says.
	// +optional
	Spec NetworkPolicySpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// NetworkPolicyList is a list of them.
//
// +kubebuilder:object:root=true
type NetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NetworkPolicy `json:"items"`
}

// GlobalNetworkPolicySpec is what a policy says that belongs to no namespace.
//
// +kubebuilder:validation:XValidation:rule="!has(self.ingress) || self.ingress.all(r, !has(r.source) || !has(r.source.services) || has(r.source.services.namespace) && size(r.source.services.namespace) > 0)",message="say which namespace the service is in: services need a namespace here"
// +kubebuilder:validation:XValidation:rule="!has(self.egress) || self.egress.all(r, !has(r.destination) || !has(r.destination.services) || has(r.destination.services.namespace) && size(r.destination.services.namespace) > 0)",message="say which namespace the service is in: services need a namespace here"
// +kubebuilder:validation:XValidation:rule="!has(self.doNotTrack) || !self.doNotTrack || has(self.applyOnForward) && self.applyOnForward",message="doNotTrack needs applyOnForward true"
// +kubebuilder:validation:XValidation:rule="!has(self.preDNAT) || !self.preDNAT || has(self.applyOnForward) && self.applyOnForward",message="preDNAT needs applyOnForward true"
// +kubebuilder:validation:XValidation:rule="!has(self.preDNAT) || !self.preDNAT || !has(self.doNotTrack) || !self.doNotTrack",message="preDNAT and doNotTrack exclude each other: make two policies of it"
// +kubebuilder:validation:XValidation:rule="!has(self.preDNAT) || !self.preDNAT || (!has(self.egress) || size(self.egress) == 0) && (!has(self.types) || !('Egress' in self.types))",message="preDNAT judges nothing but what arrives: take egress rules and type Egress out, or preDNAT"
type GlobalNetworkPolicySpec struct {
	NetworkPolicySpec `json:",inline"`

	// NamespaceSelector narrows Selector to endpoints in namespaces with such
	// labels; empty: in any or none.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NamespaceSelector string `json:"namespaceSelector,omitempty"`

	// DoNotTrack judges host endpoints' packets before connections are tracked, and
	// each by itself: replies need a rule too. It needs ApplyOnForward.
	// +optional
	DoNotTrack bool `json:"doNotTrack,omitempty"`

	// PreDNAT judges what arrives at host endpoints before its destination is
	// translated. It needs ApplyOnForward, and has no egress rules.
	// +optional
	PreDNAT bool `json:"preDNAT,omitempty"`

	// ApplyOnForward judges what host endpoints forward too, not only what is from
	// or for the host itself.
	// +optional
	ApplyOnForward bool `json:"applyOnForward,omitempty"`
}

// GlobalNetworkPolicy is rules for endpoints of any namespace, and of hosts.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=gnp
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Order",type=number,JSONPath=`.spec.order`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$')",message="want a name of one label of DNS, or two with a dot between, as web or tier.web"
type GlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the policy says.
	// +optional
	Spec GlobalNetworkPolicySpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// GlobalNetworkPolicyList is a list of them.
//
// +kubebuilder:object:root=true
type GlobalNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GlobalNetworkPolicy `json:"items"`
}
