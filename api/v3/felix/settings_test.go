package felix_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"margay.dev/margay/api/v3/felix"
)

func TestSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		spec string
		want []string // parts of the faults, in order; the field before a colon
	}{
		"nothing":                      {`{}`, nil},
		"words in any case":            {`{defaultEndpointToHostAction: ACCEPT, chainInsertMode: insert, bpfLogLevel: "off", iptablesBackend: nft}`, nil},
		"a word that is none":          {`{defaultEndpointToHostAction: Allow}`, []string{"defaultEndpointToHostAction: Drop, Accept, Return"}},
		"a word of two":                {`{chainInsertMode: Insert Append}`, []string{"chainInsertMode: Insert, Append"}},
		"a severity":                   {`{logSeverityScreen: Verbose, logSeveritySys: none}`, []string{"logSeverityScreen: Trace"}},
		"bounds":                       {`{wireguardListeningPort: 1, wireguardListeningPortV6: 65535, bpfMaglevMaxServices: 3000, vxlanVNI: 16777215, goGCThreshold: -1, debugPort: 0}`, nil},
		"beyond bounds":                {`{healthPort: 65536, wireguardListeningPort: 0, wireguardRoutingRulePriority: 32766, ipv4NormalRoutePriority: 0, bpfMaglevMaxServices: 3001, bpfExtToServiceConnmark: 4294967296, deviceRouteProtocol: 256, vxlanMTU: -1, istioDSCPMark: 64, vxlanVNI: 16777216, maxIpsetSize: 0, goGCThreshold: -2}`, []string{"goGCThreshold: -1 to", "istioDSCPMark: 0 to 63", "maxIpsetSize: 1 to", "healthPort: 0 to 65535", "deviceRouteProtocol: 0 to 255", "ipv4NormalRoutePriority: 1 to 2147483646", "vxlanMTU: 0 to", "vxlanVNI: 0 to 16777215", "wireguardListeningPort: 1 to 65535", "wireguardRoutingRulePriority: 1 to 32765", "bpfMaglevMaxServices: 1 to 3000", "bpfExtToServiceConnmark: 0 to 4294967295"}},
		"durations":                    {`{routeRefreshInterval: 0s, bpfConntrackTimeouts: {tcpSynSent: 20s, tcpFinsSeen: auto}}`, nil},
		"durations below none":         {`{routeRefreshInterval: -1s, debugSimulateDataplaneApplyDelay: -1ms}`, []string{"routeRefreshInterval: 0 or more", "debugSimulateDataplaneApplyDelay: 0 or more"}},
		"timeouts of connections":      {`{bpfConntrackTimeouts: {tcpSynSent: never, udpTimeout: 0s, icmpTimeout: "5"}}`, []string{"bpfConntrackTimeouts.tcpSynSent: Auto", "bpfConntrackTimeouts.udpTimeout: Auto", "bpfConntrackTimeouts.icmpTimeout: Auto"}},
		"patterns":                     {`{mtuIfacePattern: "^eth.*", interfaceExclude: "/^kube/,veth1", interfacePrefix: "cali,tap"}`, nil},
		"patterns that are none":       {`{mtuIfacePattern: "(", interfaceExclude: "/^kube,/(/", interfacePrefix: "cali,"}`, []string{"mtuIfacePattern: regular", "interfaceExclude: two slashes", "interfaceExclude: two slashes", "interfacePrefix: 1 to 15"}},
		"texts with a form":            {`{featureDetectOverride: "A=true,B=", featureGates: "A=x", logActionRateLimit: 100/hour, wireguardInterfaceName: wg0}`, nil},
		"texts without it":             {`{featureDetectOverride: "A=maybe", featureGates: A, logActionRateLimit: 0/day, wireguardInterfaceName: a/b, iptablesNATOutgoingInterfaceFilter: "a b"}`, []string{"featureDetectOverride: A=true", "featureGates: A=true", "logActionRateLimit: 10/minute", "wireguardInterfaceName: letters", "iptablesNATOutgoingInterfaceFilter: letters"}},
		"masks":                        {`{iptablesMarkMask: 0, nftablesMarkMask: 0x10000}`, []string{"iptablesMarkMask: bits", "nftablesMarkMask: bits"}},
		"addresses":                    {`{natOutgoingAddress: 10.0.0.1, deviceRouteSourceAddress: 10.0.0.1, deviceRouteSourceAddressIPv6: "fd00::1"}`, nil},
		"addresses of the other kind":  {`{natOutgoingAddress: "fd00::1", deviceRouteSourceAddress: x, deviceRouteSourceAddressIPv6: "::ffff:10.0.0.1"}`, []string{"natOutgoingAddress: IPv4", "deviceRouteSourceAddress: IPv4", "deviceRouteSourceAddressIPv6: IPv6"}},
		"nets":                         {`{externalNodesList: [10.0.0.0/8, "fd00::1"], bpfDSROptoutCIDRs: ["fd00::/8"]}`, nil},
		"nets that are none":           {`{externalNodesList: [10.0.0.0/33, x]}`, []string{"externalNodesList[0]: CIDR", "externalNodesList[1]: CIDR"}},
		"failsafes":                    {`{failsafeInboundHostPorts: [{protocol: TCP, port: 22, net: "::/0"}, {port: 0}], failsafeOutboundHostPorts: []}`, nil},
		"failsafes that are none":      {`{failsafeInboundHostPorts: [{protocol: icmp, port: 22, net: all}]}`, []string{"failsafeInboundHostPorts[0].protocol: tcp", "failsafeInboundHostPorts[0].net: CIDR"}},
		"routing tables":               {`{routeTableRanges: [{min: 1, max: 4294967295}]}`, nil},
		"the former table":             {`{routeTableRange: {min: 1, max: 250}}`, nil},
		"both tables":                  {`{routeTableRange: {min: 1, max: 251}, routeTableRanges: [{min: 0, max: 1}, {min: 2, max: 1}]}`, []string{"routeTableRange: 1 to 250", "routeTableRange: not beside", "routeTableRanges[0]: least first", "routeTableRanges[1]: least first"}},
		"timeouts of parts":            {`{healthTimeoutOverrides: [{name: a, timeout: 5s}, {name: "", timeout: -5s}]}`, []string{"healthTimeoutOverrides[1].name: part", "healthTimeoutOverrides[1].timeout: 0 or more"}},
		"a value as long as it can be": {`{chainInsertMode: ` + strings.Repeat("ä", 4096) + `}`, []string{"chainInsertMode: Insert"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s felix.Settings
			if err := yaml.UnmarshalStrict([]byte(tt.spec), &s); err != nil {
				t.Fatal(err)
			}
			got := s.Validate(nil)
			ok := len(got) == len(tt.want)
			for i := 0; ok && i < len(got); i++ {
				name, words, _ := strings.Cut(tt.want[i], ": ")
				ok = strings.HasPrefix(got[i].Error(), name+": ") && strings.Contains(got[i].Error(), words) && len(got[i].Error()) < 400
			}
			if !ok {
				t.Errorf("faults are %v\nwant %q", got, tt.want)
			}
		})
	}
}

func TestPortRange(t *testing.T) {
	for in, want := range map[string]string{
		`80`: `80`, `"80"`: `80`, `"80:90"`: `"80:90"`, `"7:7"`: `7`, `0`: `0`, `"0:65535"`: `"0:65535"`,
		`65536`: "", `-1`: "", `"90:80"`: "", `"80:"`: "", `":80"`: "", `"http"`: "", `""`: "", `1.5`: "", `true`: "", `"1:65536"`: "", `[1]`: "",
	} {
		var r felix.PortRange
		err := json.Unmarshal([]byte(in), &r)
		got, _ := json.Marshal(r)
		if (err == nil) != (want != "") || err == nil && string(got) != want {
			t.Errorf("%s became %s (%v), want %q", in, got, err, want)
		}
	}
}

// Every field has a name of its own in JSON, and may be left out.
func TestFieldsAreTold(t *testing.T) {
	seen := make(map[string]bool)
	var walk func(reflect.Type)
	walk = func(v reflect.Type) {
		for i := range v.NumField() {
			f := v.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous:
				walk(f.Type)
			case name == "" || seen[name] || !strings.HasPrefix(options, "omit"):
				t.Errorf("%s has the tag %q, want a name of its own and omitempty", f.Name, f.Tag)
			}
			seen[name] = true
		}
	}
	walk(reflect.TypeFor[felix.Settings]())
}
