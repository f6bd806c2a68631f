package v3_test

import (
	"strings"
	"testing"
)

func TestHostEndpoints(t *testing.T) {
	rows{
		"an interface":                     {"{node: a, interfaceName: eth0}", nil},
		"every interface":                  {"{node: a, interfaceName: '*'}", nil},
		"an address":                       {"{node: a, expectedIPs: ['fd00::1']}", nil},
		"node is needed":                   {"{interfaceName: eth0}", []string{"spec.node: which node"}},
		"node that can be none":            {"{node: A_b, interfaceName: eth0}", []string{"spec.node: subdomain"}},
		"interface or address is needed":   {"{node: a}", []string{"spec.interfaceName: or expectedIPs"}},
		"nothing":                          {"{}", []string{"spec.node: which node", "spec.interfaceName: or expectedIPs"}},
		"an interface of 15 characters":    {"{node: a, interfaceName: eth012345678.90}", nil},
		"an interface of 16 characters":    {"{node: a, interfaceName: eth0123456789.90}", []string{"spec.interfaceName: 1 to 15"}},
		"an interface with a slash":        {"{node: a, interfaceName: a/b}", []string{"spec.interfaceName: without /"}},
		"an interface with a blank":        {"{node: a, interfaceName: 'a b'}", []string{"spec.interfaceName: without /"}},
		"an interface that is a folder":    {"{node: a, interfaceName: ..}", []string{"spec.interfaceName: 1 to 15"}},
		"an address that is none":          {"{node: a, expectedIPs: [10.0.0.0/8, 1.2.3]}", []string{"spec.expectedIPs[0]: no address", "spec.expectedIPs[1]: no address"}},
		"a profile that can be none":       {"{node: a, interfaceName: b, profiles: [kns.a, 'k s']}", []string{"spec.profiles[1]: subdomain"}},
		"ports":                            {"{node: a, interfaceName: b, ports: [{name: x, protocol: TCP, port: 1}, {name: z, protocol: 132, port: 65535}]}", nil},
		"a port without anything":          {"{node: a, interfaceName: b, ports: [{}]}", []string{"spec.ports[0].name: 1 to 128", "spec.ports[0].protocol: TCP, UDP or SCTP", "spec.ports[0].port: want 1 to 65535"}},
		"a port of what has none":          {"{node: a, interfaceName: b, ports: [{name: x, protocol: ICMP, port: 1}]}", []string{"spec.ports[0].protocol: TCP, UDP or SCTP"}},
		"a port that is named as a number": {"{node: a, interfaceName: b, ports: [{name: '80', protocol: TCP, port: 80}]}", []string{"spec.ports[0].name: not digits alone"}},
		"a port of a name that is no name": {"{node: a, interfaceName: b, ports: [{name: " + strings.Repeat("x", 129) + ", protocol: TCP, port: 80}]}", []string{"spec.ports[0].name: 1 to 128"}},
	}.run(t, group+"kind: HostEndpoint\nmetadata: {name: a}\nspec: @")
}

func TestWorkloadEndpoints(t *testing.T) {
	rows{
		"nothing":                        {"{}", nil},
		"single addresses":               {"{ipNetworks: [10.0.0.1/32, 'fd00::1/128', 10.0.0.2]}", nil},
		"a network":                      {"{ipNetworks: [10.0.0.0/31, 'fd00::/64', x]}", []string{"spec.ipNetworks[0]: /32", "spec.ipNetworks[1]: /128", "spec.ipNetworks[2]: no address"}},
		"a floating address":             {"{ipNATs: [{internalIP: 10.0.0.1, externalIP: 192.0.2.1}]}", nil},
		"one of the other family":        {"{ipNATs: [{internalIP: 'fd00::1', externalIP: 192.0.2.1}]}", []string{"spec.ipNATs[0].externalIP: family of internalIP"}},
		"one that is none":               {"{ipNATs: [{externalIP: 192.0.2}]}", []string{"spec.ipNATs[0].internalIP: no address", "spec.ipNATs[0].externalIP: no address"}},
		"gateways":                       {"{ipv4Gateway: 169.254.1.1, ipv6Gateway: 'fe80::1'}", nil},
		"gateways of the other family":   {"{ipv4Gateway: 'fe80::1', ipv6Gateway: 169.254.1.1}", []string{"spec.ipv4Gateway: IPv4", "spec.ipv6Gateway: IPv6"}},
		"a gateway that is none":         {"{ipv4Gateway: x}", []string{"spec.ipv4Gateway: no address"}},
		"an interface that can be none":  {"{interfaceName: cali0123456789abc}", []string{"spec.interfaceName: 1 to 15"}},
		"every interface":                {"{interfaceName: '*'}", []string{"spec.interfaceName: the name"}},
		"a mac that is none":             {"{mac: 'ee:ee:ee:ee:ee'}", []string{"spec.mac: six bytes"}},
		"a mac of eight bytes":           {"{mac: 'ee:ee:ee:ee:ee:ee:ee:ee'}", []string{"spec.mac: six bytes"}},
		"a profile that can be none":     {"{profiles: ['']}", []string{"spec.profiles[0]: subdomain"}},
		"a port that is only the host's": {"{ports: [{protocol: TCP, port: 80, hostPort: 80, hostIP: 'fd00::1'}]}", nil},
		"a port for nobody":              {"{ports: [{protocol: TCP, port: 80}]}", []string{"spec.ports[0].name: or give a hostPort"}},
		"a port at an address of none":   {"{ports: [{name: a, protocol: ICMP, port: 80, hostIP: x}]}", []string{"spec.ports[0].protocol: TCP", "spec.ports[0].hostIP: no address"}},
		"spoofing":                       {"{allowSpoofedSourcePrefixes: [10.0.0.0/8, 'fd00::/8']}", nil},
		"spoofing of what is no net":     {"{allowSpoofedSourcePrefixes: [10.0.0.0/8, all]}", []string{"spec.allowSpoofedSourcePrefixes[1]: no address"}},
		"limits that are too low": {`{qosControls: {ingressBandwidth: 999, egressBandwidth: -1, ingressBurst: 999, egressBurst: 999, ingressPeakrate: 1009,
			egressPeakrate: 1009, ingressMinburst: 999, egressMinburst: 999, ingressPacketRate: -1, egressPacketRate: -1,
			ingressPacketBurst: -1, egressPacketBurst: -1, ingressMaxConnections: -1, egressMaxConnections: -1, dscp: CS8}}`, []string{
			"spec.qosControls.ingressBandwidth: 1000 to 1000000000000000", "spec.qosControls.egressBandwidth: 1000 to", "spec.qosControls.ingressBurst: 1000 to 34359738360",
			"spec.qosControls.egressBurst: 1000", "spec.qosControls.ingressPeakrate: 1010 to 1010000000000000", "spec.qosControls.egressPeakrate: 1010 to",
			"spec.qosControls.ingressMinburst: 1000 to 100000000", "spec.qosControls.egressMinburst: 1000 to", "spec.qosControls.ingressPacketRate: 1 to 10000",
			"spec.qosControls.egressPacketRate: 1 to", "spec.qosControls.ingressPacketBurst: 1 to 10000", "spec.qosControls.egressPacketBurst: 1 to",
			"spec.qosControls.ingressMaxConnections: 1 to 4294967295", "spec.qosControls.egressMaxConnections: 1 to", "spec.qosControls.dscp: 0 to 63",
		}},
		"limits that are too high": {`{qosControls: {ingressBandwidth: 1000000000000001, egressBurst: 34359738361, ingressPeakrate: 1010000000000001,
			egressMinburst: 100000001, ingressPacketRate: 10001, egressPacketBurst: 10001, ingressMaxConnections: 4294967296, dscp: 64}}`, []string{
			"spec.qosControls.ingressBandwidth: 1000 to 1000000000000000", "spec.qosControls.egressBurst: 34359738360", "spec.qosControls.ingressPeakrate: 1010000000000000",
			"spec.qosControls.egressMinburst: 100000000", "spec.qosControls.ingressPacketRate: 10000", "spec.qosControls.egressPacketBurst: 10000",
			"spec.qosControls.ingressMaxConnections: 4294967295", "spec.qosControls.dscp: 0 to 63",
		}},
		"a peak no higher than the bandwidth": {"{qosControls: {ingressBandwidth: 5000, ingressPeakrate: 5000, egressBandwidth: 5000, egressPeakrate: 5001}}", []string{"spec.qosControls.ingressPeakrate: 5001 to"}},
	}.run(t, group+"kind: WorkloadEndpoint\nmetadata: {name: a}\nspec: @")
}
