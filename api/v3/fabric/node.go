package fabric

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeAddressType says what an address of a node is for.
//
// +kubebuilder:validation:Enum=CalicoNodeIP;InternalIP;ExternalIP
type NodeAddressType string

// What addresses are for.
const (
	CalicoNodeIP NodeAddressType = "CalicoNodeIP" // between nodes: that of NodeBGPSpec
	InternalIP   NodeAddressType = "InternalIP"   // within the cluster
	ExternalIP   NodeAddressType = "ExternalIP"   // from without
)

// NodeSpec is where a node is reached.
type NodeSpec struct {
	// BGP has the addresses by which other nodes reach this one, with BGP or
	// without.
	// +optional
	BGP *NodeBGPSpec `json:"bgp,omitempty"`

	// IPv4VXLANTunnelAddr is the address of the node's VXLAN device.
	// +optional
	IPv4VXLANTunnelAddr string `json:"ipv4VXLANTunnelAddr,omitempty"`

	// VXLANTunnelMACAddr is that device's MAC address.
	// +optional
	VXLANTunnelMACAddr string `json:"vxlanTunnelMACAddr,omitempty"`

	// IPv6VXLANTunnelAddr is the address of the node's VXLAN device for IPv6.
	// +optional
	IPv6VXLANTunnelAddr string `json:"ipv6VXLANTunnelAddr,omitempty"`

	// VXLANTunnelMACAddrV6 is that device's MAC address.
	// +optional
	VXLANTunnelMACAddrV6 string `json:"vxlanTunnelMACAddrV6,omitempty"`

	// OrchRefs are the node's names with those who run workloads on it.
	// +optional
	OrchRefs []OrchRef `json:"orchRefs,omitempty"`

	// Wireguard has the addresses of the node's WireGuard devices.
	// +optional
	Wireguard *NodeWireguardSpec `json:"wireguard,omitempty"`

	// Addresses are all by which the node can be reached.
	// +optional
	Addresses []NodeAddress `json:"addresses,omitempty"`

	// Interfaces are those of the node that others may care for.
	// +optional
	Interfaces []NodeInterface `json:"interfaces,omitempty"`
}

// NodeBGPSpec is how other nodes reach this one.
type NodeBGPSpec struct {
	// ASNumber is the node's own, where it is not that of all.
	// +optional
	ASNumber *ASNumber `json:"asNumber,omitempty"`

	// IPv4Address is the node's address, as CIDR with the bits of its network; one
	// without bits is in a network of its own.
	// +optional
	IPv4Address string `json:"ipv4Address,omitempty"`

	// IPv6Address is the node's, as IPv4Address is.
	// +optional
	IPv6Address string `json:"ipv6Address,omitempty"`

	// IPv4IPIPTunnelAddr is the address of the node's IPIP device.
	// +optional
	IPv4IPIPTunnelAddr string `json:"ipv4IPIPTunnelAddr,omitempty"`

	// RouteReflectorClusterID makes the node a route reflector, with others of the
	// same; as an IPv4 address.
	// +optional
	RouteReflectorClusterID string `json:"routeReflectorClusterID,omitempty"`
}

// OrchRef is a node's name with one who runs workloads on it.
type OrchRef struct {
	// NodeName is the name; empty: that of the node.
	// +optional
	NodeName string `json:"nodeName,omitempty"`

	// Orchestrator is who calls it so: k8s, openstack.
	Orchestrator string `json:"orchestrator"`
}

// NodeWireguardSpec is the addresses of a node's WireGuard devices.
type NodeWireguardSpec struct {
	// InterfaceIPv4Address is that of the device for IPv4.
	// +optional
	InterfaceIPv4Address string `json:"interfaceIPv4Address,omitempty"`

	// InterfaceIPv6Address is that of the device for IPv6.
	// +optional
	InterfaceIPv6Address string `json:"interfaceIPv6Address,omitempty"`
}

// NodeAddress is an address by which a node can be reached.
type NodeAddress struct {
	// Address is a single one, or a CIDR with the bits of its network.
	Address string `json:"address"`

	// Type is what it is for.
	// +optional
	Type NodeAddressType `json:"type,omitempty"`
}

// NodeInterface is an interface of a node.
type NodeInterface struct {
	// Name is what Linux calls it.
	Name string `json:"name"`

	// Addresses are its own.
	// +optional
	Addresses []string `json:"addresses,omitempty"`
}

// NodeStatus is what a node tells of itself.
type NodeStatus struct {
	// WireguardPublicKey is the key of its device for IPv4, in base64.
	// +optional
	WireguardPublicKey string `json:"wireguardPublicKey,omitempty"`

	// WireguardPublicKeyV6 is the key of its device for IPv6, in base64.
	// +optional
	WireguardPublicKeyV6 string `json:"wireguardPublicKeyV6,omitempty"`

	// PodCIDRs are what its pods' addresses are from, where Kubernetes says it.
	// +optional
	PodCIDRs []string `json:"podCIDRs,omitempty"`

	// Conditions say whether the node is fit to be used, and why not.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
