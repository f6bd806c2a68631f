package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HostEndpointSpec says which interfaces of which node are meant, and what
// applies to them.
//
// +kubebuilder:validation:XValidation:rule="size(self.node) > 0",message="node is needed: the name of the node whose interface this is"
// +kubebuilder:validation:XValidation:rule="has(self.interfaceName) && size(self.interfaceName) > 0 || has(self.expectedIPs) && size(self.expectedIPs) > 0",message="interfaceName or expectedIPs is needed: say which interface is meant"
type HostEndpointSpec struct {
	// Node is the name of the node.
	Node string `json:"node"`

	// InterfaceName is an interface of the node; "*" is all that no other host
	// endpoint has; empty: the one with an address of ExpectedIPs.
	// +optional
	InterfaceName string `json:"interfaceName,omitempty"`

	// ExpectedIPs are the interface's addresses, by which it is found where
	// InterfaceName is empty, and which selectors of rules pick.
	// +optional
	ExpectedIPs []string `json:"expectedIPs,omitempty"`

	// Profiles decide, in this order, what no policy governs.
	// +optional
	Profiles []string `json:"profiles,omitempty"`

	// Ports are names for ports of the host.
	// +optional
	Ports []EndpointPort `json:"ports,omitempty"`
}

// EndpointPort is a name for a port.
type EndpointPort struct {
	// Name is what rules say.
	Name string `json:"name"`

	// Protocol has ports: TCP, UDP or SCTP.
	Protocol Protocol `json:"protocol"`

	// Port is 1 to 65535.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port uint16 `json:"port"`
}

// HostEndpoint is an interface of a node.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hep
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Interface",type=string,JSONPath=`.spec.interfaceName`
type HostEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is meant, and what applies.
	// +optional
	Spec HostEndpointSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// HostEndpointList is a list of them.
//
// +kubebuilder:object:root=true
type HostEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HostEndpoint `json:"items"`
}
