package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/api/v3/qos"
)

// WorkloadEndpointSpec says what an interface of a workload is, and what applies
// to it.
type WorkloadEndpointSpec struct {
	// Orchestrator is who made the workload: k8s, cni, openstack, libnetwork.
	// +optional
	Orchestrator string `json:"orchestrator,omitempty"`

	// Workload is the orchestrator's name of it, where that is not a pod.
	// +optional
	Workload string `json:"workload,omitempty"`

	// Node is the name of the node that it is on.
	// +optional
	Node string `json:"node,omitempty"`

	// ContainerID is the runtime's name of the container, or of the pod's sandbox.
	// +optional
	ContainerID string `json:"containerID,omitempty"`

	// Pod is the pod's name.
	// +optional
	Pod string `json:"pod,omitempty"`

	// Endpoint is the interface's name within the workload.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`

	// ServiceAccountName is that of the pod's service account.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`

	// IPNetworks are the endpoint's addresses, in CIDR form with all their bits.
	// +optional
	IPNetworks []string `json:"ipNetworks,omitempty"`

	// IPNATs are addresses by which others may reach those of the endpoint.
	// +optional
	IPNATs []IPNAT `json:"ipNATs,omitempty"`

	// IPv4Gateway is the address that the workload takes for its gateway.
	// +optional
	IPv4Gateway string `json:"ipv4Gateway,omitempty"`

	// IPv6Gateway is the address that the workload takes for its gateway.
	// +optional
	IPv6Gateway string `json:"ipv6Gateway,omitempty"`

	// Profiles decide, in this order, what no policy governs, and lend labels.
	// +optional
	Profiles []string `json:"profiles,omitempty"`

	// InterfaceName is the host's side of the interface.
	// +optional
	InterfaceName string `json:"interfaceName,omitempty"`

	// MAC is the workload's side's address.
	// +optional
	MAC string `json:"mac,omitempty"`

	// Ports are names for ports of the workload.
	// +optional
	Ports []WorkloadEndpointPort `json:"ports,omitempty"`

	// AllowSpoofedSourcePrefixes are what it may send from besides its addresses.
	// +optional
	AllowSpoofedSourcePrefixes []string `json:"allowSpoofedSourcePrefixes,omitempty"`

	// QoSControls limit what it may use.
	// +optional
	QoSControls *qos.Controls `json:"qosControls,omitempty"`
}

// IPNAT is an address by which others may reach an endpoint's.
type IPNAT struct {
	// InternalIP is the endpoint's.
	InternalIP string `json:"internalIP"`

	// ExternalIP is what others use.
	ExternalIP string `json:"externalIP"`
}

// WorkloadEndpointPort is a port that a workload tells of.
type WorkloadEndpointPort struct {
	// Name is what rules say; a port without one is told for HostPort's sake.
	// +optional
	Name string `json:"name,omitempty"`

	// Protocol has ports: TCP, UDP or SCTP.
	Protocol Protocol `json:"protocol"`

	// Port is the workload's, 1 to 65535.
	Port uint16 `json:"port"`

	// HostPort is a port of the host that leads to it; 0: none.
	// +optional
	HostPort uint16 `json:"hostPort,omitempty"`

	// HostIP is the address of the host with HostPort; empty: all.
	// +optional
	HostIP string `json:"hostIP,omitempty"`
}

// WorkloadEndpoint is an interface of a workload. In a Kubernetes cluster it
// follows from a pod and is stored nowhere, so there is no CRD of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:skipversion
type WorkloadEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the endpoint is.
	// +optional
	Spec WorkloadEndpointSpec `json:"spec,omitzero"`

	// Status is what became of it.
	// +optional
	Status Status `json:"status,omitzero"`
}

// WorkloadEndpointList is a list of them.
//
// +kubebuilder:object:root=true
type WorkloadEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []WorkloadEndpoint `json:"items"`
}
