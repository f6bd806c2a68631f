package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PendingChangeSpec is how to undo a change, and when.
type PendingChangeSpec struct {
	// Within is how long after its making the change is undone: a second to a day.
	Within metav1.Duration `json:"within"`

	// Before are objects as they were before the change, each as JSON; they are put
	// back.
	// +optional
	Before []string `json:"before,omitempty"`

	// Created are objects that were not there before the change; they are deleted.
	// +optional
	Created []ObjectName `json:"created,omitempty"`
}

// ObjectName names an object of the group.
type ObjectName struct {
	// Kind is one of the group's.
	Kind string `json:"kind"`

	// Namespace is empty for kinds that have none.
	// +optional
	Namespace string `json:"namespace,omitempty"`

	// Name is the object's.
	Name string `json:"name"`
}

// PendingChange is a change that is undone unless somebody confirms it in time, by
// deleting this. It is Margay's own: who changes objects writes it before them, and
// agents undo it, so that it happens also to who has locked himself out.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
type PendingChange struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is how to undo it.
	// +optional
	Spec PendingChangeSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// PendingChangeList is a list of them.
//
// +kubebuilder:object:root=true
type PendingChangeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PendingChange `json:"items"`
}
