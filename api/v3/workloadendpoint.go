package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	QoSControls *QoSControls `json:"qosControls,omitempty"`
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

// QoSControls limit what an endpoint may use, seen from the endpoint. What is 0 has
// no limit, or the default that is said.
type QoSControls struct {
	// IngressBandwidth is in bits a second, 1k to 1P.
	// +optional
	IngressBandwidth int64 `json:"ingressBandwidth,omitempty"`

	// EgressBandwidth is in bits a second, 1k to 1P.
	// +optional
	EgressBandwidth int64 `json:"egressBandwidth,omitempty"`

	// IngressBurst is in bits, 1k to 34,359,738,360; 4Gi where there is a bandwidth.
	// +optional
	IngressBurst int64 `json:"ingressBurst,omitempty"`

	// EgressBurst is in bits, 1k to 34,359,738,360; 4Gi where there is a bandwidth.
	// +optional
	EgressBurst int64 `json:"egressBurst,omitempty"`

	// IngressPeakrate is in bits a second, more than the bandwidth, 1.01k to 1.01P.
	// +optional
	IngressPeakrate int64 `json:"ingressPeakrate,omitempty"`

	// EgressPeakrate is in bits a second, more than the bandwidth, 1.01k to 1.01P.
	// +optional
	EgressPeakrate int64 `json:"egressPeakrate,omitempty"`

	// IngressMinburst is in bytes, 1k to 100M: what may pass at once at the peak
	// rate; the MTU where there is one.
	// +optional
	IngressMinburst int64 `json:"ingressMinburst,omitempty"`

	// EgressMinburst is in bytes, 1k to 100M: what may pass at once at the peak
	// rate; the MTU where there is one.
	// +optional
	EgressMinburst int64 `json:"egressMinburst,omitempty"`

	// IngressPacketRate is packets a second, 1 to 10k.
	// +optional
	IngressPacketRate int64 `json:"ingressPacketRate,omitempty"`

	// EgressPacketRate is packets a second, 1 to 10k.
	// +optional
	EgressPacketRate int64 `json:"egressPacketRate,omitempty"`

	// IngressPacketBurst is packets at once, 1 to 10k; 5 where there is a rate.
	// +optional
	IngressPacketBurst int64 `json:"ingressPacketBurst,omitempty"`

	// EgressPacketBurst is packets at once, 1 to 10k; 5 where there is a rate.
	// +optional
	EgressPacketBurst int64 `json:"egressPacketBurst,omitempty"`

	// IngressMaxConnections is connections at once, 1 to 4,294,967,295.
	// +optional
	IngressMaxConnections int64 `json:"ingressMaxConnections,omitempty"`

	// EgressMaxConnections is connections at once, 1 to 4,294,967,295.
	// +optional
	EgressMaxConnections int64 `json:"egressMaxConnections,omitempty"`

	// DSCP is what the packets that it sends are marked with.
	// +optional
	DSCP *DSCP `json:"dscp,omitempty"`
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
}

// WorkloadEndpointList is a list of them.
//
// +kubebuilder:object:root=true
type WorkloadEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []WorkloadEndpoint `json:"items"`
}
