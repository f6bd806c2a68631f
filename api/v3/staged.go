package v3

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// StagedAction is what the change would be that a staged policy stands for.
//
// +kubebuilder:validation:Enum=Set;Delete;Learn;Ignore
type StagedAction string

// The changes.
const (
	StagedActionSet    StagedAction = "Set"    // create the policy, or change it
	StagedActionDelete StagedAction = "Delete" // delete the policy of this name
	StagedActionLearn  StagedAction = "Learn"
	StagedActionIgnore StagedAction = "Ignore"
)

// StagedNetworkPolicySpec is a policy's and what to do with it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.stagedAction) || self.stagedAction != 'Delete' || !has(self.order) && (!has(self.ingress) || size(self.ingress) == 0) && (!has(self.egress) || size(self.egress) == 0) && (!has(self.selector) || size(self.selector) == 0) && (!has(self.serviceAccountSelector) || size(self.serviceAccountSelector) == 0) && (!has(self.types) || size(self.types) == 0) && (!has(self.performanceHints) || size(self.performanceHints) == 0)",message="stagedAction Delete needs nothing but the tier: take the other fields out"
type StagedNetworkPolicySpec struct {
	// StagedAction is Set where it is left out. With Delete nothing else is said,
	// but the tier.
	// +optional
	// +kubebuilder:default=Set
	StagedAction StagedAction `json:"stagedAction,omitempty"`

	NetworkPolicySpec `json:",inline"`
}

// StagedNetworkPolicy is a NetworkPolicy that is judged and reported, not
// enforced.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=snp
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Order",type=number,JSONPath=`.spec.order`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$')",message="want a name of one label of DNS, or two with a dot between, as web or tier.web"
type StagedNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the policy says.
	// +optional
	Spec StagedNetworkPolicySpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// StagedNetworkPolicyList is a list of them.
//
// +kubebuilder:object:root=true
type StagedNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []StagedNetworkPolicy `json:"items"`
}

// StagedGlobalNetworkPolicySpec is a global policy's and what to do with it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.stagedAction) || self.stagedAction != 'Delete' || !has(self.order) && (!has(self.ingress) || size(self.ingress) == 0) && (!has(self.egress) || size(self.egress) == 0) && (!has(self.selector) || size(self.selector) == 0) && (!has(self.serviceAccountSelector) || size(self.serviceAccountSelector) == 0) && (!has(self.types) || size(self.types) == 0) && (!has(self.performanceHints) || size(self.performanceHints) == 0) && (!has(self.namespaceSelector) || size(self.namespaceSelector) == 0) && (!has(self.doNotTrack) || !self.doNotTrack) && (!has(self.preDNAT) || !self.preDNAT) && (!has(self.applyOnForward) || !self.applyOnForward)",message="stagedAction Delete needs nothing but the tier: take the other fields out"
type StagedGlobalNetworkPolicySpec struct {
	// StagedAction is Set where it is left out. With Delete nothing else is said,
	// but the tier.
	// +optional
	// +kubebuilder:default=Set
	StagedAction StagedAction `json:"stagedAction,omitempty"`

	GlobalNetworkPolicySpec `json:",inline"`
}

// StagedGlobalNetworkPolicy is a GlobalNetworkPolicy that is judged and reported,
// not enforced.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=sgnp
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Order",type=number,JSONPath=`.spec.order`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$')",message="want a name of one label of DNS, or two with a dot between, as web or tier.web"
type StagedGlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the policy says.
	// +optional
	Spec StagedGlobalNetworkPolicySpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// StagedGlobalNetworkPolicyList is a list of them.
//
// +kubebuilder:object:root=true
type StagedGlobalNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []StagedGlobalNetworkPolicy `json:"items"`
}

// StagedKubernetesNetworkPolicySpec is a Kubernetes NetworkPolicy's and what to do
// with it.
type StagedKubernetesNetworkPolicySpec struct {
	// StagedAction is Set where it is left out. With Delete nothing else is said.
	// +optional
	// +kubebuilder:default=Set
	StagedAction StagedAction `json:"stagedAction,omitempty"`

	// PodSelector picks the pods of the namespace; empty: all.
	// +optional
	PodSelector metav1.LabelSelector `json:"podSelector,omitzero"`

	// Ingress are what may arrive.
	// +optional
	Ingress []networkingv1.NetworkPolicyIngressRule `json:"ingress,omitzero"`

	// Egress are what may be sent.
	// +optional
	Egress []networkingv1.NetworkPolicyEgressRule `json:"egress,omitzero"`

	// PolicyTypes are the directions that the policy governs. Left out, they are
	// Ingress, and Egress if there are egress rules.
	// +optional
	// +kubebuilder:validation:MaxItems=2
	// +listType=set
	PolicyTypes []networkingv1.PolicyType `json:"policyTypes,omitempty"`
}

// StagedKubernetesNetworkPolicy is a Kubernetes NetworkPolicy that is judged and
// reported, not enforced.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=sknp
// +kubebuilder:subresource:status
type StagedKubernetesNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the policy says.
	// +optional
	Spec StagedKubernetesNetworkPolicySpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// StagedKubernetesNetworkPolicyList is a list of them.
//
// +kubebuilder:object:root=true
type StagedKubernetesNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []StagedKubernetesNetworkPolicy `json:"items"`
}
