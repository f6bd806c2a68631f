package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Profiles that nobody has to write.
const (
	ProfileDefaultAllow         = "projectcalico-default-allow" // allows both directions
	ProfileNamespacePrefix      = "kns."                        // before a namespace's name
	ProfileServiceAccountPrefix = "ksa."                        // before namespace.serviceaccount
)

// ProfileSpec is what endpoints get that name the profile.
//
// +kubebuilder:validation:XValidation:rule="!has(self.egress) || self.egress.all(r, !has(r.http))",message="http works in ingress rules alone: take it out"
// +kubebuilder:validation:XValidation:rule="!has(self.ingress) || self.ingress.all(r, !has(r.destination) || !has(r.destination.services))",message="a service is the source of ingress rules: move it there, or take it out"
// +kubebuilder:validation:XValidation:rule="!has(self.egress) || self.egress.all(r, !has(r.source) || !has(r.source.services))",message="a service is the destination of egress rules: move it there, or take it out"
// +kubebuilder:validation:XValidation:rule="!has(self.ingress) || self.ingress.all(r, !has(r.source) || !has(r.source.services) || has(r.source.services.namespace) && size(r.source.services.namespace) > 0)",message="say which namespace the service is in: services need a namespace here"
// +kubebuilder:validation:XValidation:rule="!has(self.egress) || self.egress.all(r, !has(r.destination) || !has(r.destination.services) || has(r.destination.services.namespace) && size(r.destination.services.namespace) > 0)",message="say which namespace the service is in: services need a namespace here"
type ProfileSpec struct {
	// Ingress are the rules for what arrives and no policy governs.
	// +optional
	// +kubebuilder:validation:MaxItems=1024
	Ingress []Rule `json:"ingress,omitempty"`

	// Egress are the rules for what is sent and no policy governs.
	// +optional
	// +kubebuilder:validation:MaxItems=1024
	Egress []Rule `json:"egress,omitempty"`

	// LabelsToApply are labels that the endpoints inherit, where they have none of
	// the name themselves.
	// +optional
	LabelsToApply map[string]string `json:"labelsToApply,omitempty"`
}

// Profile is rules and labels for the endpoints that name it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
type Profile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the profile gives.
	// +optional
	Spec ProfileSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// ProfileList is a list of them.
//
// +kubebuilder:object:root=true
type ProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Profile `json:"items"`
}
