package fabric_test

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"margay.dev/margay/api/v3/fabric"
)

// judged is what validation says of a manifest's text.
func judged[T any](t *testing.T, text string, judge func(*T) field.ErrorList) (all []string) {
	t.Helper()
	var v T
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	for _, e := range judge(&v) {
		all = append(all, e.Error())
	}
	return all
}

// agree wants faults that begin with a field and have some words, and no others.
func agree(t *testing.T, got, want []string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		path, words, _ := strings.Cut(want[i], ": ")
		ok = strings.HasPrefix(got[i], path+": ") && strings.Contains(got[i], words)
	}
	if !ok {
		t.Errorf("faults are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestPools(t *testing.T) {
	for name, tt := range map[string]struct {
		pool string
		want []string
	}{
		"IPv4":                       {`{cidr: 10.0.0.0/16}`, nil},
		"IPv6":                       {`{cidr: "fd00::/48"}`, nil},
		"none":                       {`{}`, []string{"cidr: want a CIDR"}},
		"an address":                 {`{cidr: 10.0.0.1}`, []string{"cidr: want a CIDR"}},
		"bits beyond, IPv4":          {`{cidr: 10.0.0.1/16}`, []string{"cidr: 10.0.0.0/16"}},
		"bits beyond, IPv6":          {`{cidr: "fd00::1/48"}`, []string{"cidr: fd00::/48"}},
		"IPv4 within IPv6":           {`{cidr: "::ffff:10.0.0.0/112"}`, []string{"cidr: want a CIDR"}},
		"of a link, IPv4":            {`{cidr: 169.254.0.0/24}`, []string{"cidr: 169.254.0.0/16"}},
		"of a link, IPv6":            {`{cidr: "fe80::/64"}`, []string{"cidr: fe80::/10"}},
		"all there is":               {`{cidr: 0.0.0.0/0}`, []string{"cidr: 169.254.0.0/16"}},
		"blocks too large":           {`{cidr: 10.0.0.0/8, blockSize: 19}`, []string{"blockSize: 20 to 32"}},
		"blocks too small":           {`{cidr: 10.0.0.0/8, blockSize: 33}`, []string{"blockSize: 20 to 32"}},
		"blocks of single addresses": {`{cidr: 10.0.0.0/8, blockSize: 32}`, nil},
		"blocks too large, IPv6":     {`{cidr: "fd00::/48", blockSize: 64}`, []string{"blockSize: 116 to 128"}},
		"no room":                    {`{cidr: 10.0.0.0/27}`, []string{"cidr: room for a block"}},
		"no room, IPv6":              {`{cidr: "fd00::/123"}`, []string{"cidr: room for a block"}},
		"no room, and disabled":      {`{cidr: 10.0.0.0/27, disabled: true}`, nil},
		"two tunnels":                {`{cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: CrossSubnet}`, []string{"ipipMode: not beside vxlanMode"}},
		"IPIP for IPv6":              {`{cidr: "fd00::/48", ipipMode: Always}`, []string{"ipipMode: IPv4 alone"}},
		"a mode that is none":        {`{cidr: 10.0.0.0/16, vxlanMode: always}`, []string{"vxlanMode: Always"}},
		"a selector that is none":    {`{cidr: 10.0.0.0/16, nodeSelector: "a =="}`, []string{"nodeSelector: read selector"}},
		"a selector with global":     {`{cidr: 10.0.0.0/16, nodeSelector: global()}`, []string{"nodeSelector: global()"}},
		"a use that is none":         {`{cidr: 10.0.0.0/16, allowedUses: [Pods]}`, []string{"allowedUses[0]: Workload"}},
		"a use twice":                {`{cidr: 10.0.0.0/16, allowedUses: [Tunnel, Tunnel]}`, []string{"allowedUses[1]: Duplicate"}},
		"services":                   {`{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}`, nil},
		"services and pods":          {`{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Workload]}`, []string{"allowedUses: stands alone"}},
		"services in tunnels":        {`{cidr: "fd00::/48", allowedUses: [LoadBalancer], vxlanMode: Always, disableBGPExport: true, nodeSelector: has(a)}`, []string{"vxlanMode: Never", "disableBGPExport: told", "nodeSelector: all()"}},
		"namespaces and tunnels":     {`{cidr: 10.0.0.0/16, namespaceSelector: has(a)}`, []string{"namespaceSelector: tunnels"}},
		"namespaces":                 {`{cidr: 10.0.0.0/16, namespaceSelector: has(a), allowedUses: [Workload]}`, nil},
		"who gets them":              {`{cidr: 10.0.0.0/16, assignmentMode: Sometimes}`, []string{"assignmentMode: Automatic"}},
	} {
		t.Run(name, func(t *testing.T) {
			agree(t, judged(t, tt.pool, func(s *fabric.IPPoolSpec) field.ErrorList {
				s.Default()
				return s.Validate(nil)
			}), tt.want)
		})
	}
}

func TestNodes(t *testing.T) {
	for name, tt := range map[string]struct {
		node string
		want []string
	}{
		"nothing":            {`{}`, nil},
		"with bits":          {`{bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64"}}`, nil},
		"without bits":       {`{bgp: {ipv4Address: 10.0.0.1, ipv6Address: "fd00::1"}}`, nil},
		"the other family":   {`{bgp: {ipv4Address: "fd00::1/64", ipv6Address: 10.0.0.1}}`, []string{"bgp.ipv4Address: IPv4", "bgp.ipv6Address: IPv6"}},
		"IPv4 within IPv6":   {`{bgp: {ipv6Address: "::ffff:10.0.0.1"}}`, []string{"bgp.ipv6Address: IPv6"}},
		"a zone":             {`{bgp: {ipv6Address: "fe80::1%eth0"}}`, []string{"bgp.ipv6Address: IPv6"}},
		"no address":         {`{bgp: {ipv4Address: north, routeReflectorClusterID: "7"}}`, []string{"bgp.ipv4Address: IPv4", "bgp.routeReflectorClusterID: IPv4"}},
		"tunnels":            {`{ipv4VXLANTunnelAddr: "fd00::1", ipv6VXLANTunnelAddr: 10.0.0.1, vxlanTunnelMACAddr: x, vxlanTunnelMACAddrV6: "02:00:5e:10:00:00:00:01"}`, []string{"ipv4VXLANTunnelAddr: IPv4", "vxlanTunnelMACAddr: six bytes", "ipv6VXLANTunnelAddr: IPv6", "vxlanTunnelMACAddrV6: six bytes"}},
		"nobody calls it so": {`{orchRefs: [{nodeName: a, orchestrator: ""}]}`, []string{"orchRefs[0].orchestrator: say who"}},
		"WireGuard":          {`{wireguard: {interfaceIPv4Address: "fd00::1", interfaceIPv6Address: 10.0.0.1}}`, []string{"wireguard.interfaceIPv4Address: IPv4", "wireguard.interfaceIPv6Address: IPv6"}},
		"addresses":          {`{addresses: [{address: 10.0.0.1}, {address: "fd00::1/64", type: InternalIP}, {address: ""}, {address: x, type: y}]}`, []string{"addresses[2].address: want an address", "addresses[3].address: want an address", "addresses[3].type: CalicoNodeIP"}},
		"interfaces":         {`{interfaces: [{name: "", addresses: [10.0.0.1/24, y]}]}`, []string{"interfaces[0].name: name", "interfaces[0].addresses[1]: want an address"}},
	} {
		t.Run(name, func(t *testing.T) {
			agree(t, judged(t, tt.node, func(s *fabric.NodeSpec) field.ErrorList { return s.Validate(nil) }), tt.want)
		})
	}
	agree(t, judged(t, `{wireguardPublicKey: AAAA, wireguardPublicKeyV6: "!", podCIDRs: [10.0.0.0/24, "fd00::/64", x]}`,
		func(s *fabric.NodeStatus) field.ErrorList { return s.Validate(nil) }),
		[]string{"wireguardPublicKey: 32 bytes", "wireguardPublicKeyV6: 32 bytes", "podCIDRs[2]: want a CIDR"})
}

func TestASNumber(t *testing.T) {
	for in, want := range map[string]string{
		`64512`: `64512`, `"64512"`: `64512`, `"1.10"`: `65546`, `"65535.65535"`: `4294967295`, `4294967295`: `4294967295`, `0`: `0`,
		`4294967296`: "", `"65536.0"`: "", `"0.65536"`: "", `"1.2.3"`: "", `"."`: "", `""`: "", `-1`: "", `1.5`: "", `true`: "", `[]`: "", `"x"`: "",
	} {
		var a fabric.ASNumber
		err := json.Unmarshal([]byte(in), &a)
		got, _ := json.Marshal(a)
		if (err == nil) != (want != "") || err == nil && string(got) != want {
			t.Errorf("%s became %s (%v), want %q", in, got, err, want)
		}
	}
}
