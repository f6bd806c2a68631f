package felix

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Settings is what a FelixConfiguration says.
type Settings struct {
	// NodeSelector picks the nodes that a configuration is for whose name says none;
	// of several that pick a node the oldest holds.
	// +kubebuilder:validation:MaxLength=1024
	NodeSelector string `json:"nodeSelector,omitempty"`

	Host       `json:",inline"`
	Logs       `json:",inline"`
	Policy     `json:",inline"`
	Tables     `json:",inline"`
	Routes     `json:",inline"`
	Tunnels    `json:",inline"`
	Monitoring `json:",inline"`
	Debug      `json:",inline"`
	BPF        `json:",inline"`
	BPFMaps    `json:",inline"`
}

// Host is settings of the agent's process, and of the machine that it runs on.
type Host struct {
	// UseInternalDataplaneDriver has the agent program the kernel itself (true).
	UseInternalDataplaneDriver *bool `json:"useInternalDataplaneDriver,omitempty"`
	// DataplaneDriver is the path of the program that does it otherwise.
	DataplaneDriver string `json:"dataplaneDriver,omitempty"`
	// DataplaneWatchdogTimeout is how long that may hang before it counts as dead (90s).
	DataplaneWatchdogTimeout *metav1.Duration `json:"dataplaneWatchdogTimeout,omitempty"`
	// IPv6Support is whether there is IPv6 (true).
	IPv6Support *bool `json:"ipv6Support,omitempty"`
	// InterfacePrefix is how names of workloads' interfaces begin, with commas between (cali).
	InterfacePrefix string `json:"interfacePrefix,omitempty"`
	// InterfaceExclude is names that no host endpoint means, with commas between; /regexp/ is one, too (kube-ipvs0).
	InterfaceExclude string `json:"interfaceExclude,omitempty"`
	// MTUIfacePattern is a regular expression for the interfaces that lead out, whose MTU counts.
	MTUIfacePattern string `json:"mtuIfacePattern,omitempty"`
	// RequireMTUFile has pods wait for the file that says the MTU (false).
	RequireMTUFile *bool `json:"requireMTUFile,omitempty"`
	// FeatureDetectOverride says what the kernel can, as A=true,B=false.
	FeatureDetectOverride string `json:"featureDetectOverride,omitempty"`
	// FeatureGates turns on what is being tried, as A=true,B=Enabled.
	FeatureGates string `json:"featureGates,omitempty"`
	// NetlinkTimeout is how long the kernel may take to answer (10s).
	NetlinkTimeout *metav1.Duration `json:"netlinkTimeout,omitempty"`
	// MetadataAddr is where pods find OpenStack's metadata; none: nowhere (127.0.0.1).
	MetadataAddr string `json:"metadataAddr,omitempty"`
	// MetadataPort is the port there, 0 to 65535 (8775).
	MetadataPort *int `json:"metadataPort,omitempty"`
	// OpenstackRegion is the part of OpenStack that the agent serves.
	OpenstackRegion string `json:"openstackRegion,omitempty"`
	// ReportingInterval is between reports of the agent's state; 0: none (30s).
	ReportingInterval *metav1.Duration `json:"reportingInterval,omitempty"`
	// ReportingTTL is how long a report holds (90s).
	ReportingTTL *metav1.Duration `json:"reportingTTL,omitempty"`
	// EndpointReportingEnabled reports the state of each endpoint (false).
	EndpointReportingEnabled *bool `json:"endpointReportingEnabled,omitempty"`
	// EndpointReportingDelay gathers such reports (1s).
	EndpointReportingDelay *metav1.Duration `json:"endpointReportingDelay,omitempty"`
	// EndpointStatusPathPrefix is the folder where the state of endpoints lies (/var/run/calico).
	EndpointStatusPathPrefix string `json:"endpointStatusPathPrefix,omitempty"`
	// PolicySyncPathPrefix is the folder of the sockets by which proxies ask for policy; empty: none.
	PolicySyncPathPrefix string `json:"policySyncPathPrefix,omitempty"`
	// UsageReportingEnabled tells Calico's makers of the cluster's size (true).
	UsageReportingEnabled *bool `json:"usageReportingEnabled,omitempty"`
	// UsageReportingInitialDelay is before the first such report (300s).
	UsageReportingInitialDelay *metav1.Duration `json:"usageReportingInitialDelay,omitempty"`
	// UsageReportingInterval is between such reports (86400s).
	UsageReportingInterval *metav1.Duration `json:"usageReportingInterval,omitempty"`
	// AWSSrcDstCheck is what to do with AWS's check of addresses: DoNothing, Enable, Disable (DoNothing).
	AWSSrcDstCheck string `json:"awsSrcDstCheck,omitempty"`
	// WindowsManageFirewallRules has Windows' firewall let our ports pass: Enabled, Disabled (Disabled).
	WindowsManageFirewallRules string `json:"windowsManageFirewallRules,omitempty"`
	// GoGCThreshold is Go's GOGC, in percent; -1: no collection (40).
	GoGCThreshold *int `json:"goGCThreshold,omitempty"`
	// GoMemoryLimitMB is Go's GOMEMLIMIT; -1: none (-1).
	GoMemoryLimitMB *int `json:"goMemoryLimitMB,omitempty"`
	// GoMaxProcs is Go's GOMAXPROCS; -1: the number of CPUs (-1).
	GoMaxProcs *int `json:"goMaxProcs,omitempty"`
	// SidecarAccelerationEnabled takes a short way between a pod and its proxy (false).
	SidecarAccelerationEnabled *bool `json:"sidecarAccelerationEnabled,omitempty"`
	// IstioAmbientMode lets a mesh without sidecars work: Enabled, Disabled (Disabled).
	IstioAmbientMode string `json:"istioAmbientMode,omitempty"`
	// IstioDSCPMark tells such a mesh's packets, 0 to 63 (23).
	IstioDSCPMark *int `json:"istioDSCPMark,omitempty"`
}

// Logs is settings of what is written down.
type Logs struct {
	// LogFilePath is the file of the agent's log; none: no file (/var/log/calico/felix.log).
	LogFilePath string `json:"logFilePath,omitempty"`
	// LogSeverityFile is the least that goes there: Trace, Debug, Info, Warning, Error, Fatal (Info).
	LogSeverityFile string `json:"logSeverityFile,omitempty"`
	// LogSeverityScreen is the least that goes to standard output (Info).
	LogSeverityScreen string `json:"logSeverityScreen,omitempty"`
	// LogSeveritySys is the least that goes to syslog (Info).
	LogSeveritySys string `json:"logSeveritySys,omitempty"`
	// LogDebugFilenameRegex picks the source files whose lines of level Debug are written.
	LogDebugFilenameRegex string `json:"logDebugFilenameRegex,omitempty"`
	// FlowLogsFlushInterval is between two reports of a flow (300s).
	FlowLogsFlushInterval *metav1.Duration `json:"flowLogsFlushInterval,omitempty"`
	// FlowLogsCollectorDebugTrace logs what is done for the reports (false).
	FlowLogsCollectorDebugTrace *bool `json:"flowLogsCollectorDebugTrace,omitempty"`
	// FlowLogsGoldmaneServer is where they go, host:port; empty: nowhere.
	FlowLogsGoldmaneServer string `json:"flowLogsGoldmaneServer,omitempty"`
	// FlowLogsLocalReporter gives them to programs of the node, too: Enabled, Disabled (Disabled).
	FlowLogsLocalReporter string `json:"flowLogsLocalReporter,omitempty"`
	// FlowLogsPolicyEvaluationMode asks anew what policy says of flows that go on: None, Continuous (Continuous).
	FlowLogsPolicyEvaluationMode string `json:"flowLogsPolicyEvaluationMode,omitempty"`
}

// Policy is settings of what is allowed beside what policies say.
type Policy struct {
	// DefaultEndpointToHostAction is what becomes of packets from a workload to its node that its policy lets pass: Drop, Accept, Return (Drop).
	DefaultEndpointToHostAction string `json:"defaultEndpointToHostAction,omitempty"`
	// FailsafeInboundHostPorts are never closed to a host with a host endpoint; [] is none (tcp 22, 179, 2379, 2380, 5473, 6443, 6666, 6667, udp 68).
	FailsafeInboundHostPorts []ProtoPort `json:"failsafeInboundHostPorts,omitzero"`
	// FailsafeOutboundHostPorts are never closed from a host with a host endpoint; [] is none (tcp 179, 2379, 2380, 5473, 6443, 6666, 6667, udp 53, 67).
	FailsafeOutboundHostPorts []ProtoPort `json:"failsafeOutboundHostPorts,omitzero"`
	// LogPrefix begins the line of a rule that logs: %t is its tier, %k its policy's kind, %n its name, %p all of it (calico-packet).
	LogPrefix string `json:"logPrefix,omitempty"`
	// LogActionRateLimit is how often such a rule writes a line, as 10/minute; empty: always.
	LogActionRateLimit string `json:"logActionRateLimit,omitempty"`
	// LogActionRateLimitBurst is how many may come at once, from 1 (5).
	LogActionRateLimitBurst *int `json:"logActionRateLimitBurst,omitempty"`
	// DisableConntrackInvalidCheck lets packets pass that belong to no connection (false).
	DisableConntrackInvalidCheck *bool `json:"disableConntrackInvalidCheck,omitempty"`
	// WorkloadSourceSpoofing lets workloads ask for foreign source addresses: Disabled, Any (Disabled).
	WorkloadSourceSpoofing string `json:"workloadSourceSpoofing,omitempty"`
	// AllowVXLANPacketsFromWorkloads lets workloads send VXLAN (false).
	AllowVXLANPacketsFromWorkloads *bool `json:"allowVXLANPacketsFromWorkloads,omitempty"`
	// AllowIPIPPacketsFromWorkloads lets workloads send IPIP (false).
	AllowIPIPPacketsFromWorkloads *bool `json:"allowIPIPPacketsFromWorkloads,omitempty"`
	// ServiceLoopPrevention is what becomes of packets to addresses of services that nobody has: Drop, Reject, Disabled (Drop).
	ServiceLoopPrevention string `json:"serviceLoopPrevention,omitempty"`
	// KubeNodePortRanges are the ports by which services are reached on nodes; [] is none (30000:32767).
	KubeNodePortRanges []PortRange `json:"kubeNodePortRanges,omitzero"`
}

// Tables is settings of the kernel's filters: which, and how they are kept.
type Tables struct {
	// NFTablesMode is whether nftables is used and iptables not: Enabled, Disabled, Auto (Auto).
	NFTablesMode string `json:"nftablesMode,omitempty"`
	// NftablesRefreshInterval is between looks at whether all is still there; 0: never (180s).
	NftablesRefreshInterval *metav1.Duration `json:"nftablesRefreshInterval,omitempty"`
	// NftablesFilterAllowAction is what allowed packets meet next: Accept, Return (Accept).
	NftablesFilterAllowAction string `json:"nftablesFilterAllowAction,omitempty"`
	// NftablesMangleAllowAction is what packets meet that are allowed before translation: Accept, Return (Accept).
	NftablesMangleAllowAction string `json:"nftablesMangleAllowAction,omitempty"`
	// NftablesFilterDenyAction is what denied packets meet: Drop, Reject (Drop).
	NftablesFilterDenyAction string `json:"nftablesFilterDenyAction,omitempty"`
	// NftablesMarkMask is the bits of marks that are ours (0xffff0000).
	NftablesMarkMask *uint32 `json:"nftablesMarkMask,omitempty"`
	// NftablesFlowTableOffload has the kernel forward known flows by themselves: All, Disabled (Disabled).
	NftablesFlowTableOffload string `json:"nftablesFlowTableOffload,omitempty"`
	// NftablesFlowTableDataIfacePattern is a regular expression for the interfaces of that.
	NftablesFlowTableDataIfacePattern string `json:"nftablesFlowTableDataIfacePattern,omitempty"`
	// IptablesBackend is the variant of iptables: Legacy, NFT, Auto (Auto).
	IptablesBackend string `json:"iptablesBackend,omitempty"`
	// IptablesRefreshInterval is as that of nftables (180s).
	IptablesRefreshInterval *metav1.Duration `json:"iptablesRefreshInterval,omitempty"`
	// IptablesPostWriteCheckInterval is after a change until it is read back (5s).
	IptablesPostWriteCheckInterval *metav1.Duration `json:"iptablesPostWriteCheckInterval,omitempty"`
	// IptablesLockFilePath is the lock that users of iptables share (/run/xtables.lock).
	IptablesLockFilePath string `json:"iptablesLockFilePath,omitempty"`
	// IptablesLockTimeout is how long it is waited for; 0: not at all (0s).
	IptablesLockTimeout *metav1.Duration `json:"iptablesLockTimeout,omitempty"`
	// IptablesLockProbeInterval is between two tries (50ms).
	IptablesLockProbeInterval *metav1.Duration `json:"iptablesLockProbeInterval,omitempty"`
	// IptablesFilterAllowAction is as that of nftables: Accept, Return (Accept).
	IptablesFilterAllowAction string `json:"iptablesFilterAllowAction,omitempty"`
	// IptablesMangleAllowAction is as that of nftables: Accept, Return (Accept).
	IptablesMangleAllowAction string `json:"iptablesMangleAllowAction,omitempty"`
	// IptablesFilterDenyAction is as that of nftables: Drop, Reject (Drop).
	IptablesFilterDenyAction string `json:"iptablesFilterDenyAction,omitempty"`
	// IptablesMarkMask is as that of nftables (0xffff0000).
	IptablesMarkMask *uint32 `json:"iptablesMarkMask,omitempty"`
	// ChainInsertMode is where our rules stand among those of others: Insert before them, Append (Insert).
	ChainInsertMode string `json:"chainInsertMode,omitempty"`
	// MaxIpsetSize is how many entries a set of iptables may have (1048576).
	MaxIpsetSize *int `json:"maxIpsetSize,omitempty"`
	// IpsetsRefreshInterval is between looks at the sets; 0: never (90s).
	IpsetsRefreshInterval *metav1.Duration `json:"ipsetsRefreshInterval,omitempty"`
	// XDPEnabled drops untracked packets of host endpoints as early as the driver can (true).
	XDPEnabled *bool `json:"xdpEnabled,omitempty"`
	// GenericXDPEnabled does it also where the driver cannot (false).
	GenericXDPEnabled *bool `json:"genericXDPEnabled,omitempty"`
	// XDPRefreshInterval is between looks at the programs; 0: never (90s).
	XDPRefreshInterval *metav1.Duration `json:"xdpRefreshInterval,omitempty"`
}

// HealthTimeoutOverride is how long a part of the agent may be silent.
type HealthTimeoutOverride struct {
	// Name is the part's.
	Name string `json:"name"`
	// Timeout is from one sign of life to the next.
	Timeout metav1.Duration `json:"timeout"`
}

// Monitoring is settings of how the agent is watched.
type Monitoring struct {
	// HealthEnabled serves /liveness and /readiness (false).
	HealthEnabled *bool `json:"healthEnabled,omitempty"`
	// HealthHost is the address for it (localhost).
	HealthHost *string `json:"healthHost,omitempty"`
	// HealthPort is the port for it, 0 to 65535 (9099).
	HealthPort *int `json:"healthPort,omitempty"`
	// HealthTimeoutOverrides are for parts that have reason to be silent for long.
	HealthTimeoutOverrides []HealthTimeoutOverride `json:"healthTimeoutOverrides,omitempty"`
	// PrometheusMetricsEnabled serves /metrics (false).
	PrometheusMetricsEnabled *bool `json:"prometheusMetricsEnabled,omitempty"`
	// PrometheusMetricsHost is the address for it; empty: all.
	PrometheusMetricsHost string `json:"prometheusMetricsHost,omitempty"`
	// PrometheusMetricsPort is the port for it, 0 to 65535 (9091).
	PrometheusMetricsPort *int `json:"prometheusMetricsPort,omitempty"`
	// PrometheusMetricsCAFile has the certificates of who may ask, in PEM.
	PrometheusMetricsCAFile string `json:"prometheusMetricsCAFile,omitempty"`
	// PrometheusMetricsCertFile is the server's certificate; empty: no TLS.
	PrometheusMetricsCertFile string `json:"prometheusMetricsCertFile,omitempty"`
	// PrometheusMetricsKeyFile is its key.
	PrometheusMetricsKeyFile string `json:"prometheusMetricsKeyFile,omitempty"`
	// PrometheusMetricsClientAuth is what who asks must show: RequireAndVerifyClientCert, RequireAnyClientCert, VerifyClientCertIfGiven, NoClientCert (RequireAndVerifyClientCert).
	PrometheusMetricsClientAuth string `json:"prometheusMetricsClientAuth,omitempty"`
	// PrometheusGoMetricsEnabled has metrics of Go (true).
	PrometheusGoMetricsEnabled *bool `json:"prometheusGoMetricsEnabled,omitempty"`
	// PrometheusProcessMetricsEnabled has metrics of the process (true).
	PrometheusProcessMetricsEnabled *bool `json:"prometheusProcessMetricsEnabled,omitempty"`
	// PrometheusWireGuardMetricsEnabled has metrics of WireGuard (true).
	PrometheusWireGuardMetricsEnabled *bool `json:"prometheusWireGuardMetricsEnabled,omitempty"`
}

// Debug is settings for who looks for a mistake in the agent.
type Debug struct {
	// DebugHost is the address of Go's profiles (localhost).
	DebugHost *string `json:"debugHost,omitempty"`
	// DebugPort is the port of them, 0 to 65535; left out: there are none.
	DebugPort *int `json:"debugPort,omitempty"`
	// DebugMemoryProfilePath is the file of memory profiles, which a signal asks for.
	DebugMemoryProfilePath string `json:"debugMemoryProfilePath,omitempty"`
	// DebugDisableLogDropping waits for a log that is slow (false).
	DebugDisableLogDropping *bool `json:"debugDisableLogDropping,omitempty"`
	// DebugSimulateCalcGraphHangAfter stops the calculation after a time; 0: never.
	DebugSimulateCalcGraphHangAfter *metav1.Duration `json:"debugSimulateCalcGraphHangAfter,omitempty"`
	// DebugSimulateDataplaneHangAfter stops the dataplane after a time; 0: never.
	DebugSimulateDataplaneHangAfter *metav1.Duration `json:"debugSimulateDataplaneHangAfter,omitempty"`
	// DebugSimulateDataplaneApplyDelay makes each change slow; 0: not.
	DebugSimulateDataplaneApplyDelay *metav1.Duration `json:"debugSimulateDataplaneApplyDelay,omitempty"`
}
