package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The tiers that are always there, and what Calico fixes of them.
const (
	TierKubeAdmin    = "kube-admin"    // ClusterNetworkPolicy of tier Admin; order KubeAdminTierOrder, Pass
	TierDefault      = "default"       // where nothing else is said; order DefaultTierOrder, Deny
	TierKubeBaseline = "kube-baseline" // ClusterNetworkPolicy of tier Baseline; order KubeBaselineTierOrder, Pass

	KubeAdminTierOrder    = 1_000.0
	DefaultTierOrder      = 1_000_000.0
	KubeBaselineTierOrder = 10_000_000.0
)

// TierSpec says when a tier's policies are asked, and what becomes of packets
// that they do not decide.
type TierSpec struct {
	// Order places the tier, the lowest first; without one it comes last. Equal
	// ones go by name.
	// +optional
	Order *float64 `json:"order,omitempty"`

	// DefaultAction is what becomes of a packet that a policy of the tier governs
	// and none decides: Deny, which it is where it is left out, or Pass.
	// +optional
	// +kubebuilder:validation:Enum=Deny;Pass
	DefaultAction *Action `json:"defaultAction,omitempty"`
}

// Tier is a group of policies that are judged together.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Order",type=number,JSONPath=`.spec.order`
// +kubebuilder:printcolumn:name="Default",type=string,JSONPath=`.spec.defaultAction`
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'kube-admin' || !has(self.spec) || (!has(self.spec.order) || self.spec.order == 1000.0) && (!has(self.spec.defaultAction) || self.spec.defaultAction == 'Pass')",message="tier kube-admin is built in: its order is 1000 and its action is Pass"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'default' || !has(self.spec) || (!has(self.spec.order) || self.spec.order == 1000000.0) && (!has(self.spec.defaultAction) || self.spec.defaultAction == 'Deny')",message="tier default is built in: its order is 1000000 and its action is Deny"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'kube-baseline' || !has(self.spec) || (!has(self.spec.order) || self.spec.order == 10000000.0) && (!has(self.spec.defaultAction) || self.spec.defaultAction == 'Pass')",message="tier kube-baseline is built in: its order is 10000000 and its action is Pass"
// +kubebuilder:validation:XValidation:rule="!self.metadata.name.contains('.') && size(self.metadata.name) <= 63",message="want a name of one label of DNS, of at most 63 characters"
type Tier struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the tier is to be.
	// +optional
	Spec TierSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// TierList is a list of them.
//
// +kubebuilder:object:root=true
type TierList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Tier `json:"items"`
}
