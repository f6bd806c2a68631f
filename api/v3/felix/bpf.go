package felix

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BPFConntrackTimeouts are how long connections are known to the eBPF dataplane
// after a packet; each is a duration, or Auto: the kernel's own.
type BPFConntrackTimeouts struct {
	// CreationGracePeriod is how long a new one is never forgotten (10s).
	CreationGracePeriod string `json:"creationGracePeriod,omitempty"`
	// TCPSynSent is while TCP opens (20s).
	TCPSynSent string `json:"tcpSynSent,omitempty"`
	// TCPEstablished is while TCP is open (1h).
	TCPEstablished string `json:"tcpEstablished,omitempty"`
	// TCPFinsSeen is after TCP was closed (Auto).
	TCPFinsSeen string `json:"tcpFinsSeen,omitempty"`
	// TCPResetSeen is after TCP was reset (40s).
	TCPResetSeen string `json:"tcpResetSeen,omitempty"`
	// UDPTimeout is of UDP (60s).
	UDPTimeout string `json:"udpTimeout,omitempty"`
	// GenericTimeout is of other protocols (10m).
	GenericTimeout string `json:"genericTimeout,omitempty"`
	// ICMPTimeout is of ICMP (5s).
	ICMPTimeout string `json:"icmpTimeout,omitempty"`
}

// BPF is settings of Calico's eBPF dataplane.
type BPF struct {
	// BPFEnabled uses it (false).
	BPFEnabled *bool `json:"bpfEnabled,omitempty"`
	// BPFDisableUnprivileged forbids programs of users (true).
	BPFDisableUnprivileged *bool `json:"bpfDisableUnprivileged,omitempty"`
	// BPFJITHardening is the kernel's care with compiled programs: Auto, Strict (Auto).
	BPFJITHardening string `json:"bpfJITHardening,omitempty"`
	// BPFLogLevel is how much it logs: Off, Info, Debug (Off).
	BPFLogLevel string `json:"bpfLogLevel,omitempty"`
	// BPFConntrackLogLevel is how much connection tracking logs: Off, Debug (Off).
	BPFConntrackLogLevel string `json:"bpfConntrackLogLevel,omitempty"`
	// BPFLogFilters are filters of tcpdump by interface, for what is logged.
	BPFLogFilters map[string]string `json:"bpfLogFilters,omitempty"`
	// BPFCTLBLogFilter is whether the balancing of connects logs: all.
	BPFCTLBLogFilter string `json:"bpfCTLBLogFilter,omitempty"`
	// BPFConntrackMode is who forgets connections: Auto, Userspace, BPFProgram (Auto).
	BPFConntrackMode string `json:"bpfConntrackMode,omitempty"`
	// BPFConntrackTimeouts are how long they are known.
	BPFConntrackTimeouts *BPFConntrackTimeouts `json:"bpfConntrackTimeouts,omitempty"`
	// BPFIPFragTimeout is how long fragments are waited for; left out: as the kernel does.
	BPFIPFragTimeout *metav1.Duration `json:"bpfIPFragTimeout,omitempty"`
	// BPFIPFragmentReassemblyEnabled puts fragments together (true).
	BPFIPFragmentReassemblyEnabled *bool `json:"bpfIPFragmentReassemblyEnabled,omitempty"`
	// BPFDataIfacePattern is a regular expression for the interfaces that lead out.
	BPFDataIfacePattern string `json:"bpfDataIfacePattern,omitempty"`
	// BPFL3IfacePattern is a regular expression for interfaces without Ethernet.
	BPFL3IfacePattern string `json:"bpfL3IfacePattern,omitempty"`
	// BPFConnectTimeLoadBalancingEnabled is the former way to say the next.
	BPFConnectTimeLoadBalancingEnabled *bool `json:"bpfConnectTimeLoadBalancingEnabled,omitempty"`
	// BPFConnectTimeLoadBalancing picks a service's backend in connect(): TCP, Enabled, Disabled (TCP).
	BPFConnectTimeLoadBalancing string `json:"bpfConnectTimeLoadBalancing,omitempty"`
	// BPFHostNetworkedNATWithoutCTLB serves the node's own processes otherwise: Enabled, Disabled (Enabled).
	BPFHostNetworkedNATWithoutCTLB string `json:"bpfHostNetworkedNATWithoutCTLB,omitempty"`
	// BPFExternalServiceMode is the way of replies to who is outside: Tunnel, DSR (Tunnel).
	BPFExternalServiceMode string `json:"bpfExternalServiceMode,omitempty"`
	// BPFDSROptoutCIDRs are clients for whom it is Tunnel, whatever the mode.
	BPFDSROptoutCIDRs []string `json:"bpfDSROptoutCIDRs,omitempty"`
	// BPFExtToServiceConnmark marks connections of who is outside, 0 to 4294967295 (0).
	BPFExtToServiceConnmark *int64 `json:"bpfExtToServiceConnmark,omitempty"`
	// BPFOverlayHostSourceIP is the node's address within tunnels: TunnelAddress, HostAddress (TunnelAddress).
	BPFOverlayHostSourceIP string `json:"bpfOverlayHostSourceIP,omitempty"`
	// BPFKubeProxyIptablesCleanupEnabled removes kube-proxy's rules (true).
	BPFKubeProxyIptablesCleanupEnabled *bool `json:"bpfKubeProxyIptablesCleanupEnabled,omitempty"`
	// BPFKubeProxyMinSyncPeriod is between changes of services (1s).
	BPFKubeProxyMinSyncPeriod *metav1.Duration `json:"bpfKubeProxyMinSyncPeriod,omitempty"`
	// BPFKubeProxyHealthzPort is where load balancers ask for health, 0 to 65535; 0: nowhere (10256).
	BPFKubeProxyHealthzPort *int `json:"bpfKubeProxyHealthzPort,omitempty"`
	// BPFKubeProxyEndpointSlicesEnabled is said no more: slices are always used.
	BPFKubeProxyEndpointSlicesEnabled *bool `json:"bpfKubeProxyEndpointSlicesEnabled,omitempty"`
	// BPFPSNATPorts are the ports of those whose source port another has (20000:29999).
	BPFPSNATPorts *PortRange `json:"bpfPSNATPorts,omitempty"`
	// BPFHostConntrackBypass keeps workloads' packets from the kernel's connection tracking (false).
	BPFHostConntrackBypass *bool `json:"bpfHostConntrackBypass,omitempty"`
	// BPFEnforceRPF is the check of source addresses: Disabled, Strict, Loose (Loose).
	BPFEnforceRPF string `json:"bpfEnforceRPF,omitempty"`
	// BPFPolicyDebugEnabled keeps policy readable, for tools (true).
	BPFPolicyDebugEnabled *bool `json:"bpfPolicyDebugEnabled,omitempty"`
	// BPFForceTrackPacketsFromIfaces are interfaces whose packets the kernel tracks, a + at the end for any end (docker+).
	BPFForceTrackPacketsFromIfaces []string `json:"bpfForceTrackPacketsFromIfaces,omitempty"`
	// BPFDisableGROForIfaces is a regular expression for interfaces that receive without joining packets.
	BPFDisableGROForIfaces string `json:"bpfDisableGROForIfaces,omitempty"`
	// BPFExcludeCIDRsFromNAT are destinations that no service translates.
	BPFExcludeCIDRsFromNAT []string `json:"bpfExcludeCIDRsFromNAT,omitempty"`
	// BPFRedirectToPeer is the short way into pods: Enabled, Disabled, L2Only (L2Only).
	BPFRedirectToPeer string `json:"bpfRedirectToPeer,omitempty"`
	// BPFAttachType is how programs are attached: TC, TCX, Netkit (TCX).
	BPFAttachType string `json:"bpfAttachType,omitempty"`
	// BPFProfiling measures the programs: Enabled, Disabled (Disabled).
	BPFProfiling string `json:"bpfProfiling,omitempty"`
	// CgroupV2Path is where the group of control groups is mounted.
	CgroupV2Path string `json:"cgroupV2Path,omitempty"`
}

// BPFMaps is how much the eBPF dataplane's maps hold, in entries from 1.
type BPFMaps struct {
	// BPFMapSizeNATFrontend is of services (65536).
	BPFMapSizeNATFrontend *int `json:"bpfMapSizeNATFrontend,omitempty"`
	// BPFMapSizeNATBackend is of backends (262144).
	BPFMapSizeNATBackend *int `json:"bpfMapSizeNATBackend,omitempty"`
	// BPFMapSizeNATAffinity is of clients that stay with a backend (65536).
	BPFMapSizeNATAffinity *int `json:"bpfMapSizeNATAffinity,omitempty"`
	// BPFMapSizeRoute is of routes (262144).
	BPFMapSizeRoute *int `json:"bpfMapSizeRoute,omitempty"`
	// BPFMapSizeConntrack is of connections (512000).
	BPFMapSizeConntrack *int `json:"bpfMapSizeConntrack,omitempty"`
	// BPFMapSizePerCPUConntrack is of connections for each CPU; 0: as the former says (0).
	BPFMapSizePerCPUConntrack *int `json:"bpfMapSizePerCpuConntrack,omitempty"`
	// BPFMapSizeConntrackScaling is what happens when that is full: Disabled, DoubleIfFull (DoubleIfFull).
	BPFMapSizeConntrackScaling string `json:"bpfMapSizeConntrackScaling,omitempty"`
	// BPFMapSizeConntrackCleanupQueue is of those that are being forgotten (100000).
	BPFMapSizeConntrackCleanupQueue *int `json:"bpfMapSizeConntrackCleanupQueue,omitempty"`
	// BPFMapSizeIPSets is of members of sets (1048576).
	BPFMapSizeIPSets *int `json:"bpfMapSizeIPSets,omitempty"`
	// BPFMapSizeIfState is of interfaces (1000).
	BPFMapSizeIfState *int `json:"bpfMapSizeIfState,omitempty"`
	// BPFExportBufferSizeMB is of events, in MiB (1).
	BPFExportBufferSizeMB *int `json:"bpfExportBufferSizeMB,omitempty"`
	// BPFMaglevMaxEndpointsPerService is backends of a service that is hashed, 1 to 3000 (100).
	BPFMaglevMaxEndpointsPerService *int `json:"bpfMaglevMaxEndpointsPerService,omitempty"`
	// BPFMaglevMaxServices is services that are hashed, 1 to 3000 (100).
	BPFMaglevMaxServices *int `json:"bpfMaglevMaxServices,omitempty"`
}
