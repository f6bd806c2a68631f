package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/api/v3/fabric"
	"margay.dev/margay/api/v3/felix"
)

// Default is the name of a ClusterInformation, and of the FelixConfiguration that
// holds where no other says anything.
const Default = "default"

// Node is a machine of the cluster. In a Kubernetes cluster it is seen in the
// node of that name, and stored nowhere else, so there is no CRD of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:skipversion
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is where the node is reached.
	// +optional
	Spec fabric.NodeSpec `json:"spec,omitzero"`

	// Status is what the node tells of itself.
	// +optional
	Status fabric.NodeStatus `json:"status,omitzero"`
}

// NodeList is a list of them.
//
// +kubebuilder:object:root=true
type NodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Node `json:"items"`
}

// IPPool is a range of addresses for workloads.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the range, and what holds for it.
	// +optional
	Spec fabric.IPPoolSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// IPPoolList is a list of them.
//
// +kubebuilder:object:root=true
type IPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IPPool `json:"items"`
}

// FelixConfiguration is settings of the agents: of all (default), of one (node.
// and its name), or of those that its selector picks.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
type FelixConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the settings that it says something of.
	// +optional
	Spec felix.Settings `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// FelixConfigurationList is a list of them.
//
// +kubebuilder:object:root=true
type FelixConfigurationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FelixConfiguration `json:"items"`
}

// ClusterInformationSpec is what all of a cluster's programs know of it.
type ClusterInformationSpec struct {
	// ClusterGUID tells the cluster from all others.
	// +optional
	ClusterGUID string `json:"clusterGUID,omitempty"`

	// ClusterType is what it is made of, as k8s,bgp.
	// +optional
	ClusterType string `json:"clusterType,omitempty"`

	// CalicoVersion is the version of the programs whose store it is.
	// +optional
	CalicoVersion string `json:"calicoVersion,omitempty"`

	// DatastoreReady is false while the store is moved or mended: agents keep what
	// they have. Left out it is true.
	// +optional
	DatastoreReady *bool `json:"datastoreReady,omitempty"`

	// Variant is the edition of the programs: Calico.
	// +optional
	Variant string `json:"variant,omitempty"`
}

// ClusterInformation is what the cluster is; there is one, named default.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=clusterinformations
// +kubebuilder:subresource:status
type ClusterInformation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is known.
	// +optional
	Spec ClusterInformationSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// ClusterInformationList is a list of them.
//
// +kubebuilder:object:root=true
type ClusterInformationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterInformation `json:"items"`
}
