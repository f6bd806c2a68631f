package felix

import (
	"fmt"
	"math/bits"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate gives every fault of the settings that stand at p, but for the node
// selector's.
func (s *Settings) Validate(p *field.Path) field.ErrorList {
	c := &checks{at: p}
	c.words(s)
	c.numbers(s)
	c.texts(s)
	c.durations(reflect.ValueOf(s).Elem())
	c.nets(s)
	c.tables(s)
	for i, o := range s.HealthTimeoutOverrides {
		at := p.Child("healthTimeoutOverrides").Index(i)
		if o.Name == "" {
			c.found = append(c.found, field.Required(at.Child("name"), "want the name of a part"))
		}
		if o.Timeout.Duration < 0 {
			c.found = append(c.found, field.Invalid(at.Child("timeout"), o.Timeout.Duration.String(), "want 0 or more"))
		}
	}
	return c.found
}

// checks collects the faults of settings.
type checks struct {
	at    *field.Path
	found field.ErrorList
}

// bad tells that a field must be otherwise.
func (c *checks) bad(name string, value any, want string) {
	if s, ok := value.(string); ok {
		value = cut(s)
	}
	c.found = append(c.found, field.Invalid(c.at.Child(name), value, want))
}

// words judges what is a choice.
func (c *checks) words(s *Settings) {
	const toggle, accept, deny = "Enabled Disabled", "Accept Return", "Drop Reject"
	const levels = "Trace Debug Info Warning Error Fatal None"
	for _, w := range []struct{ name, value, words string }{
		{"awsSrcDstCheck", s.AWSSrcDstCheck, "DoNothing Enable Disable"},
		{"windowsManageFirewallRules", s.WindowsManageFirewallRules, toggle},
		{"istioAmbientMode", s.IstioAmbientMode, toggle},
		{"logSeverityFile", s.LogSeverityFile, levels},
		{"logSeverityScreen", s.LogSeverityScreen, levels},
		{"logSeveritySys", s.LogSeveritySys, levels},
		{"flowLogsLocalReporter", s.FlowLogsLocalReporter, toggle},
		{"flowLogsPolicyEvaluationMode", s.FlowLogsPolicyEvaluationMode, "None Continuous"},
		{"defaultEndpointToHostAction", s.DefaultEndpointToHostAction, "Drop Accept Return"},
		{"workloadSourceSpoofing", s.WorkloadSourceSpoofing, "Disabled Any"},
		{"serviceLoopPrevention", s.ServiceLoopPrevention, "Drop Reject Disabled"},
		{"nftablesMode", s.NFTablesMode, "Enabled Disabled Auto"},
		{"nftablesFilterAllowAction", s.NftablesFilterAllowAction, accept},
		{"nftablesMangleAllowAction", s.NftablesMangleAllowAction, accept},
		{"nftablesFilterDenyAction", s.NftablesFilterDenyAction, deny},
		{"nftablesFlowTableOffload", s.NftablesFlowTableOffload, "All Disabled"},
		{"iptablesBackend", s.IptablesBackend, "Legacy NFT Auto"},
		{"iptablesFilterAllowAction", s.IptablesFilterAllowAction, accept},
		{"iptablesMangleAllowAction", s.IptablesMangleAllowAction, accept},
		{"iptablesFilterDenyAction", s.IptablesFilterDenyAction, deny},
		{"chainInsertMode", s.ChainInsertMode, "Insert Append"},
		{"prometheusMetricsClientAuth", s.PrometheusMetricsClientAuth, "RequireAndVerifyClientCert RequireAnyClientCert VerifyClientCertIfGiven NoClientCert"},
		{"routeSource", s.RouteSource, "CalicoIPAM WorkloadIPs"},
		{"programClusterRoutes", s.ProgramClusterRoutes, "Enabled EnabledIPIPOnly Disabled"},
		{"ipForwarding", s.IPForwarding, toggle},
		{"localSubnetL2Reachability", s.LocalSubnetL2Reachability, "Disabled PodsAndLoadBalancers"},
		{"natOutgoingExclusions", s.NATOutgoingExclusions, "IPPoolsOnly IPPoolsAndHostIPs"},
		{"floatingIPs", s.FloatingIPs, toggle},
		{"bpfJITHardening", s.BPFJITHardening, "Auto Strict"},
		{"bpfLogLevel", s.BPFLogLevel, "Off Info Debug"},
		{"bpfConntrackLogLevel", s.BPFConntrackLogLevel, "Off Debug"},
		{"bpfCTLBLogFilter", s.BPFCTLBLogFilter, "all"},
		{"bpfConntrackMode", s.BPFConntrackMode, "Auto Userspace BPFProgram"},
		{"bpfConnectTimeLoadBalancing", s.BPFConnectTimeLoadBalancing, "TCP Enabled Disabled"},
		{"bpfHostNetworkedNATWithoutCTLB", s.BPFHostNetworkedNATWithoutCTLB, toggle},
		{"bpfExternalServiceMode", s.BPFExternalServiceMode, "Tunnel DSR"},
		{"bpfOverlayHostSourceIP", s.BPFOverlayHostSourceIP, "TunnelAddress HostAddress"},
		{"bpfEnforceRPF", s.BPFEnforceRPF, "Disabled Strict Loose"},
		{"bpfRedirectToPeer", s.BPFRedirectToPeer, "Enabled Disabled L2Only"},
		{"bpfAttachType", s.BPFAttachType, "TC TCX Netkit"},
		{"bpfProfiling", s.BPFProfiling, toggle},
		{"bpfMapSizeConntrackScaling", s.BPFMapSizeConntrackScaling, "Disabled DoubleIfFull"},
	} {
		if w.value != "" && !isOne(w.value, w.words) {
			c.bad(w.name, w.value, "want one of "+strings.ReplaceAll(w.words, " ", ", "))
		}
	}
}

// isOne reports whether a word is one of some, in any case.
func isOne(word, words string) bool {
	for w := range strings.FieldsSeq(words) {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}

// numbers judges what has a range.
func (c *checks) numbers(s *Settings) {
	const port, mtu, priority, size = 1<<16 - 1, 1<<16 - 1, 1<<31 - 2, 1<<31 - 1
	for _, n := range []struct {
		name      string
		value     *int
		low, high int
	}{
		{"metadataPort", s.MetadataPort, 0, port},
		{"goGCThreshold", s.GoGCThreshold, -1, size},
		{"goMemoryLimitMB", s.GoMemoryLimitMB, -1, size},
		{"goMaxProcs", s.GoMaxProcs, -1, size},
		{"istioDSCPMark", s.IstioDSCPMark, 0, 63},
		{"logActionRateLimitBurst", s.LogActionRateLimitBurst, 1, size},
		{"maxIpsetSize", s.MaxIpsetSize, 1, size},
		{"healthPort", s.HealthPort, 0, port},
		{"prometheusMetricsPort", s.PrometheusMetricsPort, 0, port},
		{"debugPort", s.DebugPort, 0, port},
		{"deviceRouteProtocol", s.DeviceRouteProtocol, 0, 255},
		{"ipv4NormalRoutePriority", s.IPv4NormalRoutePriority, 1, priority},
		{"ipv4ElevatedRoutePriority", s.IPv4ElevatedRoutePriority, 1, priority},
		{"ipv6NormalRoutePriority", s.IPv6NormalRoutePriority, 1, priority},
		{"ipv6ElevatedRoutePriority", s.IPv6ElevatedRoutePriority, 1, priority},
		{"ipipMTU", s.IPIPMTU, 0, mtu},
		{"vxlanMTU", s.VXLANMTU, 0, mtu},
		{"vxlanMTUV6", s.VXLANMTUV6, 0, mtu},
		{"vxlanPort", s.VXLANPort, 0, port},
		{"vxlanVNI", s.VXLANVNI, 0, 1<<24 - 1},
		{"wireguardListeningPort", s.WireguardListeningPort, 1, port},
		{"wireguardListeningPortV6", s.WireguardListeningPortV6, 1, port},
		{"wireguardRoutingRulePriority", s.WireguardRoutingRulePriority, 1, 32765},
		{"wireguardMTU", s.WireguardMTU, 0, mtu},
		{"wireguardMTUV6", s.WireguardMTUV6, 0, mtu},
		{"bpfKubeProxyHealthzPort", s.BPFKubeProxyHealthzPort, 0, port},
		{"bpfMapSizeNATFrontend", s.BPFMapSizeNATFrontend, 1, size},
		{"bpfMapSizeNATBackend", s.BPFMapSizeNATBackend, 1, size},
		{"bpfMapSizeNATAffinity", s.BPFMapSizeNATAffinity, 1, size},
		{"bpfMapSizeRoute", s.BPFMapSizeRoute, 1, size},
		{"bpfMapSizeConntrack", s.BPFMapSizeConntrack, 1, size},
		{"bpfMapSizePerCpuConntrack", s.BPFMapSizePerCPUConntrack, 0, size},
		{"bpfMapSizeConntrackCleanupQueue", s.BPFMapSizeConntrackCleanupQueue, 1, size},
		{"bpfMapSizeIPSets", s.BPFMapSizeIPSets, 1, size},
		{"bpfMapSizeIfState", s.BPFMapSizeIfState, 1, size},
		{"bpfExportBufferSizeMB", s.BPFExportBufferSizeMB, 1, size},
		{"bpfMaglevMaxEndpointsPerService", s.BPFMaglevMaxEndpointsPerService, 1, 3000},
		{"bpfMaglevMaxServices", s.BPFMaglevMaxServices, 1, 3000},
	} {
		if n.value != nil && (*n.value < n.low || *n.value > n.high) {
			c.bad(n.name, *n.value, fmt.Sprintf("want %d to %d", n.low, n.high))
		}
	}
	if m := s.BPFExtToServiceConnmark; m != nil && (*m < 0 || *m > 1<<32-1) {
		c.bad("bpfExtToServiceConnmark", *m, "want 0 to 4294967295")
	}
}

// texts judges what has a form of its own.
func (c *checks) texts(s *Settings) {
	for _, t := range []struct{ name, value string }{
		{"mtuIfacePattern", s.MTUIfacePattern},
		{"logDebugFilenameRegex", s.LogDebugFilenameRegex},
		{"nftablesFlowTableDataIfacePattern", s.NftablesFlowTableDataIfacePattern},
		{"bpfDataIfacePattern", s.BPFDataIfacePattern},
		{"bpfL3IfacePattern", s.BPFL3IfacePattern},
		{"bpfDisableGROForIfaces", s.BPFDisableGROForIfaces},
	} {
		if _, err := regexp.Compile(t.value); err != nil {
			c.bad(t.name, t.value, "want a regular expression: "+cut(err.Error()))
		}
	}
	for name := range strings.SplitSeq(s.InterfaceExclude, ",") {
		if inner, ok := strings.CutPrefix(name, "/"); ok {
			if _, err := regexp.Compile(strings.TrimSuffix(inner, "/")); err != nil || !strings.HasSuffix(inner, "/") {
				c.bad("interfaceExclude", name, "want a regular expression between two slashes, or a name without any")
			}
		}
	}
	for _, t := range []struct{ name, value, form, want string }{
		{"interfacePrefix", s.InterfacePrefix, `^[a-zA-Z0-9_-]{1,15}(,[a-zA-Z0-9_-]{1,15})*$`, "names of 1 to 15 letters, digits, _ and -, with commas between"},
		{"featureDetectOverride", s.FeatureDetectOverride, `^([a-zA-Z0-9_-]+=(true|false)?,)*([a-zA-Z0-9_-]+=(true|false)?)?$`, "A=true,B=false without spaces"},
		{"featureGates", s.FeatureGates, `^([a-zA-Z0-9_-]+=[^=,]+,)*([a-zA-Z0-9_-]+=[^=,]+)?$`, "A=true,B=Enabled without spaces"},
		{"logActionRateLimit", s.LogActionRateLimit, `^[1-9][0-9]{0,8}/(second|minute|hour|day)$`, "a number, a slash and second, minute, hour or day, as 10/minute"},
		{"wireguardInterfaceName", s.WireguardInterfaceName, `^[a-zA-Z0-9._-]{1,15}$`, "1 to 15 letters, digits and . _ -"},
		{"wireguardInterfaceNameV6", s.WireguardInterfaceNameV6, `^[a-zA-Z0-9._-]{1,15}$`, "1 to 15 letters, digits and . _ -"},
		{"iptablesNATOutgoingInterfaceFilter", s.IptablesNATOutgoingInterfaceFilter, `^[a-zA-Z0-9:._+-]{1,15}$`, "1 to 15 letters, digits and : . _ + -"},
	} {
		if t.value != "" && !regexp.MustCompile(t.form).MatchString(t.value) {
			c.bad(t.name, t.value, "want "+t.want)
		}
	}
	if m := s.IptablesMarkMask; m != nil && bits.OnesCount32(*m) < 2 {
		c.bad("iptablesMarkMask", *m, "want two bits to mark with at least, as 0xffff0000")
	}
	if m := s.NftablesMarkMask; m != nil && bits.OnesCount32(*m) < 2 {
		c.bad("nftablesMarkMask", *m, "want two bits to mark with at least, as 0xffff0000")
	}
}

// durations wants every duration to be 0 or more; v is a struct of settings.
func (c *checks) durations(v reflect.Value) {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		switch f := v.Field(i); {
		case name == "":
			c.durations(f)
		case f.Type() == reflect.TypeFor[*metav1.Duration]() && !f.IsNil():
			if d := f.Interface().(*metav1.Duration).Duration; d < 0 {
				c.bad(name, d.String(), "want 0 or more")
			}
		}
	}
	if t, ok := v.Addr().Interface().(*BPF); ok && t.BPFConntrackTimeouts != nil {
		c.timeouts(reflect.ValueOf(t.BPFConntrackTimeouts).Elem())
	}
}

// timeouts wants durations above 0, or Auto.
func (c *checks) timeouts(v reflect.Value) {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		text := v.Field(i).String()
		if d, err := time.ParseDuration(text); text != "" && !strings.EqualFold(text, "Auto") && (err != nil || d <= 0) {
			c.bad("bpfConntrackTimeouts."+name, text, "want a duration as 30s, or Auto")
		}
	}
}

// nets judges addresses.
func (c *checks) nets(s *Settings) {
	for _, a := range []struct {
		name, value string
		is          func(netip.Addr) bool
		want        string
	}{
		{"natOutgoingAddress", s.NATOutgoingAddress, netip.Addr.Is4, "want an IPv4 address"},
		{"deviceRouteSourceAddress", s.DeviceRouteSourceAddress, netip.Addr.Is4, "want an IPv4 address"},
		{"deviceRouteSourceAddressIPv6", s.DeviceRouteSourceAddressIPv6, netip.Addr.Is6, "want an IPv6 address"},
	} {
		if v, err := netip.ParseAddr(a.value); a.value != "" && (err != nil || !a.is(v) || v.Zone() != "" || v.Is4In6()) {
			c.bad(a.name, a.value, a.want)
		}
	}
	c.cidrs("externalNodesList", s.ExternalNodesList)
	c.cidrs("bpfDSROptoutCIDRs", s.BPFDSROptoutCIDRs)
	c.cidrs("bpfExcludeCIDRsFromNAT", s.BPFExcludeCIDRsFromNAT)
	c.failsafes("failsafeInboundHostPorts", s.FailsafeInboundHostPorts)
	c.failsafes("failsafeOutboundHostPorts", s.FailsafeOutboundHostPorts)
}

// wantNet is what a CIDR must be.
const wantNet = "want a CIDR as 10.0.0.0/8 or fd00::/8, or an address"

// cidrs judges a list of CIDRs.
func (c *checks) cidrs(name string, list []string) {
	for i, text := range list {
		if !isNet(text) {
			c.bad(fmt.Sprintf("%s[%d]", name, i), text, wantNet)
		}
	}
}

// failsafes judges a list of ports.
func (c *checks) failsafes(name string, list []ProtoPort) {
	for i, port := range list {
		if port.Protocol != "" && !isOne(port.Protocol, "tcp udp sctp") {
			c.bad(fmt.Sprintf("%s[%d].protocol", name, i), port.Protocol, "want tcp, udp or sctp")
		}
		if port.Net != "" && !isNet(port.Net) {
			c.bad(fmt.Sprintf("%s[%d].net", name, i), port.Net, wantNet)
		}
	}
}

// isNet reports whether a text is a CIDR or an address, of IPv4 or of IPv6.
func isNet(text string) bool {
	if p, err := netip.ParsePrefix(text); err == nil {
		return !p.Addr().Is4In6()
	}
	a, err := netip.ParseAddr(text)
	return err == nil && a.Zone() == "" && !a.Is4In6()
}

// tables judges numbers of routing tables.
func (c *checks) tables(s *Settings) {
	if r := s.RouteTableRange; r != nil {
		if r.Min < 1 || r.Max > 250 || r.Min > r.Max {
			c.bad("routeTableRange", fmt.Sprintf("%d to %d", r.Min, r.Max), "want numbers from 1 to 250, the least first")
		}
		if len(s.RouteTableRanges) > 0 {
			c.found = append(c.found, field.Forbidden(c.at.Child("routeTableRange"), "not beside routeTableRanges: take it out"))
		}
	}
	for i, r := range s.RouteTableRanges {
		if r.Min < 1 || r.Max > 1<<32-1 || r.Min > r.Max {
			c.bad(fmt.Sprintf("routeTableRanges[%d]", i), fmt.Sprintf("%d to %d", r.Min, r.Max), "want numbers from 1 to 4294967295, the least first")
		}
	}
}
