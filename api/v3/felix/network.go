package felix

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RouteTableRange is numbers of the kernel's routing tables, both included.
type RouteTableRange struct {
	// Min is the least, from 1.
	Min int `json:"min"`
	// Max is the greatest, to 4294967295.
	Max int `json:"max"`
}

// Routes is settings of routes and of translated addresses.
type Routes struct {
	// RouteSource is where routes to workloads of other nodes are learnt: CalicoIPAM, WorkloadIPs (CalicoIPAM).
	RouteSource string `json:"routeSource,omitempty"`
	// RouteRefreshInterval is between looks at the kernel's routes; 0: never (90s).
	RouteRefreshInterval *metav1.Duration `json:"routeRefreshInterval,omitempty"`
	// InterfaceRefreshInterval is between looks at the kernel's interfaces; 0: never (90s).
	InterfaceRefreshInterval *metav1.Duration `json:"interfaceRefreshInterval,omitempty"`
	// RouteTableRanges are the tables that may be used, beside those that the system has (1 to 250).
	RouteTableRanges []RouteTableRange `json:"routeTableRanges,omitempty"`
	// RouteTableRange is the former way to say it, 1 to 250; not beside RouteTableRanges.
	RouteTableRange *RouteTableRange `json:"routeTableRange,omitempty"`
	// RouteSyncDisabled leaves all routes to others (false).
	RouteSyncDisabled *bool `json:"routeSyncDisabled,omitempty"`
	// DeviceRouteSourceAddress is the IPv4 source of what the node sends to its workloads; empty: the kernel's choice.
	DeviceRouteSourceAddress string `json:"deviceRouteSourceAddress,omitempty"`
	// DeviceRouteSourceAddressIPv6 is the IPv6 source of it.
	DeviceRouteSourceAddressIPv6 string `json:"deviceRouteSourceAddressIPv6,omitempty"`
	// DeviceRouteProtocol marks our routes, 0 to 255 (3).
	DeviceRouteProtocol *int `json:"deviceRouteProtocol,omitempty"`
	// RemoveExternalRoutes removes routes of others to our workloads' interfaces (true).
	RemoveExternalRoutes *bool `json:"removeExternalRoutes,omitempty"`
	// ProgramClusterRoutes has the agent, not BGP, make routes to other nodes: Enabled, EnabledIPIPOnly, Disabled (EnabledIPIPOnly).
	ProgramClusterRoutes string `json:"programClusterRoutes,omitempty"`
	// IPForwarding turns on forwarding in the kernel: Enabled, Disabled (Enabled).
	IPForwarding string `json:"ipForwarding,omitempty"`
	// ExternalNodesList are CIDRs of machines without an agent that may send us tunnelled packets.
	ExternalNodesList []string `json:"externalNodesList,omitempty"`
	// IPv4NormalRoutePriority is the metric of workloads' routes, 1 to 2147483646 (1024).
	IPv4NormalRoutePriority *int `json:"ipv4NormalRoutePriority,omitempty"`
	// IPv4ElevatedRoutePriority is the metric of those that are preferred, as while a machine moves (512).
	IPv4ElevatedRoutePriority *int `json:"ipv4ElevatedRoutePriority,omitempty"`
	// IPv6NormalRoutePriority is as that of IPv4 (1024).
	IPv6NormalRoutePriority *int `json:"ipv6NormalRoutePriority,omitempty"`
	// IPv6ElevatedRoutePriority is as that of IPv4 (512).
	IPv6ElevatedRoutePriority *int `json:"ipv6ElevatedRoutePriority,omitempty"`
	// LiveMigrationRouteConvergenceTime is how long a moved machine's routes are preferred (30s).
	LiveMigrationRouteConvergenceTime *metav1.Duration `json:"liveMigrationRouteConvergenceTime,omitempty"`
	// LocalSubnetL2Reachability answers for addresses of the node's own network: Disabled, PodsAndLoadBalancers (Disabled).
	LocalSubnetL2Reachability string `json:"localSubnetL2Reachability,omitempty"`
	// LocalSubnetL2ReachabilityRefreshInterval is between looks at that (120s).
	LocalSubnetL2ReachabilityRefreshInterval *metav1.Duration `json:"localSubnetL2ReachabilityRefreshInterval,omitempty"`
	// NATPortRange is the source ports of translated connections; left out: the kernel's choice.
	NATPortRange *PortRange `json:"natPortRange,omitempty"`
	// NATOutgoingAddress is the IPv4 source of what leaves translated; empty: that of the interface.
	NATOutgoingAddress string `json:"natOutgoingAddress,omitempty"`
	// NATOutgoingExclusions is what workloads reach without being translated: IPPoolsOnly, IPPoolsAndHostIPs (IPPoolsOnly).
	NATOutgoingExclusions string `json:"natOutgoingExclusions,omitempty"`
	// IptablesNATOutgoingInterfaceFilter is the interface by which translated packets leave; empty: any.
	IptablesNATOutgoingInterfaceFilter string `json:"iptablesNATOutgoingInterfaceFilter,omitempty"`
	// FloatingIPs gives workloads the addresses that they ask for beside their own: Enabled, Disabled (Disabled).
	FloatingIPs string `json:"floatingIPs,omitempty"`
}

// Tunnels is settings of what carries packets between nodes.
type Tunnels struct {
	// IPIPEnabled makes IPIP's device; left out: where a pool needs it.
	IPIPEnabled *bool `json:"ipipEnabled,omitempty"`
	// IPIPMTU is its MTU in bytes; 0: found out (0).
	IPIPMTU *int `json:"ipipMTU,omitempty"`
	// VXLANEnabled makes VXLAN's devices; left out: where a pool needs them.
	VXLANEnabled *bool `json:"vxlanEnabled,omitempty"`
	// VXLANMTU is the MTU of that for IPv4 in bytes; 0: found out (0).
	VXLANMTU *int `json:"vxlanMTU,omitempty"`
	// VXLANMTUV6 is the MTU of that for IPv6 in bytes; 0: found out (0).
	VXLANMTUV6 *int `json:"vxlanMTUV6,omitempty"`
	// VXLANPort is VXLAN's UDP port, 0 to 65535 (4789).
	VXLANPort *int `json:"vxlanPort,omitempty"`
	// VXLANVNI is VXLAN's network, 0 to 16777215 (4096).
	VXLANVNI *int `json:"vxlanVNI,omitempty"`
	// WireguardEnabled encrypts IPv4 between nodes (false).
	WireguardEnabled *bool `json:"wireguardEnabled,omitempty"`
	// WireguardEnabledV6 encrypts IPv6 between nodes (false).
	WireguardEnabledV6 *bool `json:"wireguardEnabledV6,omitempty"`
	// WireguardThreadingEnabled has the kernel work on several CPUs at once (false).
	WireguardThreadingEnabled *bool `json:"wireguardThreadingEnabled,omitempty"`
	// WireguardListeningPort is the UDP port for IPv4, 1 to 65535 (51820).
	WireguardListeningPort *int `json:"wireguardListeningPort,omitempty"`
	// WireguardListeningPortV6 is the UDP port for IPv6, 1 to 65535 (51821).
	WireguardListeningPortV6 *int `json:"wireguardListeningPortV6,omitempty"`
	// WireguardRoutingRulePriority is that of the kernel's rule, 1 to 32765 (99).
	WireguardRoutingRulePriority *int `json:"wireguardRoutingRulePriority,omitempty"`
	// WireguardInterfaceName is the device's for IPv4 (wireguard.cali).
	WireguardInterfaceName string `json:"wireguardInterfaceName,omitempty"`
	// WireguardInterfaceNameV6 is the device's for IPv6 (wg-v6.cali).
	WireguardInterfaceNameV6 string `json:"wireguardInterfaceNameV6,omitempty"`
	// WireguardMTU is the MTU of that for IPv4 in bytes; 0: found out (0).
	WireguardMTU *int `json:"wireguardMTU,omitempty"`
	// WireguardMTUV6 is the MTU of that for IPv6 in bytes; 0: found out (0).
	WireguardMTUV6 *int `json:"wireguardMTUV6,omitempty"`
	// WireguardHostEncryptionEnabled encrypts what is of nodes themselves, too (false).
	WireguardHostEncryptionEnabled *bool `json:"wireguardHostEncryptionEnabled,omitempty"`
	// WireguardPersistentKeepAlive is between packets that keep a way open; 0: none (0).
	WireguardPersistentKeepAlive *metav1.Duration `json:"wireguardKeepAlive,omitempty"`
}
