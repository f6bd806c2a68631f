package lab

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/dataplane"
)

func TestDemoTopology(t *testing.T) {
	topo, err := Demo()
	if err != nil {
		t.Fatal(err)
	}
	tun := 0
	for _, p := range topo.Pods {
		if p.Port == TUN {
			tun++
		}
		if p.Queues != 2 || p.MTU != 1500 {
			t.Errorf("pod %s has %d queues and MTU %d, want the defaults 2 and 1500", p.Name, p.Queues, p.MTU)
		}
	}
	if len(topo.Nodes) != 2 || len(topo.Pods) != 4 || tun != 3 || topo.Links[0].Queues != 2 || topo.Links[0].Ends[0].Device != "l-uplink" {
		t.Errorf("the demo's topology is %+v", topo)
	}
	b, err := json.Marshal(topo) // as the state file keeps it
	var back Topology
	if err != nil || json.Unmarshal(b, &back) != nil || back.Validate() != nil || len(back.namespaces()) != 6 {
		t.Errorf("did not survive its way through the state file: %s", b)
	}
}

func TestEveryFaultOfATopologyIsTold(t *testing.T) {
	_, err := Parse([]byte(`
name: a-name-that-is-too-long
pools: [10.0.0.1/8, nonsense]
nodes:
  - {name: n1, workers: -1, addresses: [10.0.0.1, 10.0.0.2, 192.168.0.1]}
  - {name: n1}
links:
  - {name: up, mtu: 10, ends: [{node: n1, addresses: [172.16.0.1/24]}, {node: gone, device: lo, addresses: [172.17.0.2/24, x]}]}
  - {name: one, ends: [{node: n1, addresses: []}]}
  - {name: loop, impairment: {jitter: 5ms}, ends: [{node: n1, addresses: []}, {node: n1, device: other, addresses: [10.0.0.9/24]}]}
pods:
  - {name: Pod, node: n1, port: cable, addresses: [10.0.0.1, "ff02::1", not-an-address]}
  - {name: q, node: nowhere, addresses: [], namespace: Not-One, labels: {"a b": c, d: "e f"}}
policies: [/nonexistent/policy.yaml, {apiVersion: v1, kind: Secret, metadata: {name: x}}]
`))
	for _, want := range []string{
		`name is "a-name-that-is-too-long"`, `pools[0] is "10.0.0.1/8"`, `pools[1] is "nonsense"`,
		"nodes[0].workers is -1", "nodes[0].addresses[1] is 10.0.0.2, want one address per family",
		"nodes[0].addresses[2] is 192.168.0.1, which no pool holds", `nodes[1].name is "n1", which nodes[0] has`,
		"links[0].mtu is 10", `links[0].ends[1].node is "gone"`, `links[0].ends[1].device is "lo"`,
		"links[0].ends[0].addresses[0] is 172.16.0.1/24, want an address at the other end", `links[0].ends[1].addresses[1] is "x"`,
		"links[1].ends are 1, want two", "links[2].impairment: jitter", `links[2].ends are both at "n1"`, "links[2].ends[1].addresses[0] is 10.0.0.9/24, which lies in a pool",
		`pods[0].name is "Pod"`, `pods[0].port is "cable"`, "pods[0].addresses[0] is 10.0.0.1, which nodes[0] has",
		`pods[0].addresses[1] is "ff02::1"`, `pods[0].addresses[2] is "not-an-address"`,
		`pods[1].node is "nowhere"`, "pods[1].addresses is empty", `pods[1].namespace is "Not-One"`, "pods[1].labels: a b", `"e f"`,
		"policies[0]: ", "/nonexistent/policy.yaml", "policies[1]: object 1 of the manifest, Secret x",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("does not tell that %s", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestTopologyFilesAreStrict(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown key":         "name: a\nnodes: [{name: w}]\ncolour: red\n",
		"a key given twice":      "name: a\nname: b\nnodes: [{name: w}]\n",
		"a word for a number":    "name: a\nnodes: [{name: w, workers: many}]\n",
		"no node":                "name: a\n",
		"a loss of 200%":         "name: a\nnodes: [{name: w}, {name: m}]\nlinks: [{name: l, impairment: {loss: 200%}, ends: [{node: w}, {node: m}]}]\n",
		"a link without IPv6":    strings.ReplaceAll(DemoText(), `, "fd31:77::1/64"`, ""),
		"a label that is true":   strings.ReplaceAll(DemoText(), "role: client", "role: yes"),
		"a policy for a host":    DemoText() + "policies: [{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: x}, spec: {node: north, interfaceName: eth0}}]\n",
		"a pod outside of pools": strings.ReplaceAll(DemoText(), "10.77.1.10", "10.78.1.10"),
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// named is a topology of one lab, node, link and pod name each.
const named = `
name: %[1]s
pools: [10.5.0.0/16, "fd05::/32"]
nodes: [{name: %[2]s}, {name: other}]
links: [{name: %[3]s, ends: [
  {node: %[2]s, device: %[5]s, addresses: [172.31.1.1/24, "fd31:1::1/64"]}, {node: other, addresses: [172.31.1.2/24, "fd31:1::2/64"]}]}]
pods: [{name: %[4]s, node: %[2]s, addresses: [10.5.1.1, "fd05::1:1"]}]
`

// TestNamesAreWhatTheFileSays wants each name taken as it stands in the file, or
// refused with what to do about it.
func TestNamesAreWhatTheFileSays(t *testing.T) {
	const quotes, label, device = "put it in quotes", "want up to 12 of a-z", "want up to 15 of a-z"
	tests := []struct{ lab, node, link, pod, device, refused string }{
		{"a", "b", "c", "d", "e", ""},
		{`"n"`, `"y"`, `"no"`, `"on"`, `"off"`, ""},
		{`"1"`, `"010"`, `"1e3"`, `"0x1f"`, `"1.5"`, ""},
		{"a1", "1b", "c-1", "2026-01-01", "eth0.100", ""},
		{"twelve-chars", "twelve-nodes", "twelve-links", "twelve-pods1", "fifteen-chars15", ""},
		{"n", "b", "c", "d", "e", "name is false to YAML"},
		{"a", "yes", "c", "d", "e", "nodes[0].name is true to YAML"},
		{"a", "n", "c", "d", "e", "pods[0].node is false to YAML"},
		{"a", "y", "c", "d", "e", "links[0].ends[0].node is true to YAML"},
		{"a", "b", "off", "d", "e", "links[0].name is false to YAML"},
		{"a", "b", "c", "on", "e", "pods[0].name is true to YAML"},
		{"a", "b", "c", "d", "no", "links[0].ends[0].device is false to YAML"},
		{"a", "1", "c", "d", "e", quotes}, {"a", "010", "c", "d", "e", quotes}, {"a", "1e3", "c", "d", "e", quotes},
		{"a", "0x1f", "c", "d", "e", quotes}, {"a", "1_0", "c", "d", "e", quotes},
		{"a", "~", "c", "d", "e", label}, {"a", `""`, "c", "d", "e", label}, {"a", "b.c", "c", "d", "e", label},
		{"a", "-b", "c", "d", "e", label}, {"a", "b-", "c", "d", "e", label}, {"a", "B", "c", "d", "e", label},
		{"a", "b/c", "c", "d", "e", label}, {"a", "..", "c", "d", "e", label}, {"a", "é", "c", "d", "e", label},
		{"a", "b", "thirteen-link", "d", "e", label}, {"a", "b", "c", "thirteen-pods", "e", label}, {"thirteen-labs", "b", "c", "d", "e", label},
		{"a", "b", "c", "d", ".", device}, {"a", "b", "c", "d", "..", device}, {"a", "b", "c", "d", `"-e"`, device},
		{"a", "b", "c", "d", "all", device}, {"a", "b", "c", "d", "default", device}, {"a", "b", "c", "d", "margay0", device},
		{"a", "b", "c", "d", "e/f", device}, {"a", "b", "c", "d", "sixteen-chars-16", device},
	}
	for _, tt := range tests {
		topo, err := Parse(fmt.Appendf(nil, named, tt.lab, tt.node, tt.link, tt.pod, tt.device))
		if tt.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("%v: got %v, want it refused with %q", tt, err, tt.refused)
			}
			continue
		}
		bare := func(s string) string { return strings.Trim(s, `"`) }
		l := topo.Link(bare(tt.link))
		if err != nil || topo.Name != bare(tt.lab) || topo.Node(bare(tt.node)) == nil || topo.Pod(bare(tt.pod)) == nil || l == nil || l.Ends[0].Device != bare(tt.device) {
			t.Errorf("%v became %+v, %v", tt, topo, err)
		}
	}
}

// chain is three nodes in a row; pods at its ends, of one family each at one of them.
const chain = `
name: chain
pools: [10.5.0.0/16, "fd05::/32"]
nodes: [{name: w}, {name: m, addresses: [10.5.2.1]}, {name: e}]
links:
  - {name: wm, ends: [{node: w, addresses: [172.31.1.1/24, "fd31:1::1/64"]}, {node: m, addresses: [172.31.1.2/24, "fd31:1::2/64"]}]}
  - {name: me, ends: [{node: m, addresses: [172.31.2.1/24, "fd31:2::1/64"]}, {node: e, addresses: [172.31.2.2/24, "fd31:2::2/64"]}]}
pods:
  - {name: a, node: w, addresses: [10.5.1.1, "fd05::1:1"]}
  - {name: b, node: e, addresses: [10.5.3.1, "fd05::3:1"], port: xsk}
`

func TestRoutesLeadAlongTheShortestPath(t *testing.T) {
	topo, err := Parse([]byte(chain))
	if err != nil {
		t.Fatal(err)
	}
	if got := topo.Path("w", "e"); !reflect.DeepEqual(got, []string{"w", "m", "e"}) {
		t.Errorf("the path is %v", got)
	}
	none := func(string) string { return "/run/netns/x" }
	tests := []struct{ node, to, port, gateway string }{
		{"w", "10.5.3.1/32", "link-wm", "172.31.1.2"}, {"w", "fd05::3:1/128", "link-wm", "fd31:1::2"},
		{"m", "10.5.3.1/32", "link-me", "172.31.2.2"}, {"m", "10.5.1.1/32", "link-wm", "172.31.1.1"},
		{"e", "10.5.1.1/32", "link-me", "172.31.2.1"}, {"e", "10.5.2.1/32", "link-me", "172.31.2.1"},
		{"w", "172.31.1.2/32", "link-wm", "172.31.1.2"},
	}
	for _, tt := range tests {
		s := topo.DesiredState(tt.node, none, nil)
		m := route(s, tt.to)
		if m == nil || m.GetPort() != tt.port || m.GetGateway() != tt.gateway {
			t.Errorf("%s routes %s by %v, want %s at %s", tt.node, tt.to, m, tt.gateway, tt.port)
		}
	}
}

// route is the one member of the next hop that a prefix is routed by.
func route(s dataplane.State, prefix string) *v1.NextHop_Member {
	for _, r := range s.Routes {
		for _, h := range s.NextHops {
			if r.Prefix.String() == prefix && r.NextHop == h.GetId() && len(h.GetMembers()) == 1 {
				return h.GetMembers()[0]
			}
		}
	}
	return nil
}

func TestDesiredStateOfANode(t *testing.T) {
	topo, err := Demo()
	if err != nil {
		t.Fatal(err)
	}
	s := topo.DesiredState("south", func(pod string) string { return "/run/netns/" + pod }, map[string][]byte{"dave": {2, 0, 0, 0, 0, 9}})
	ports := map[string]*v1.Port{}
	for _, p := range s.Ports {
		ports[p.GetName()] = p
	}
	cleo, dave, uplink := ports["pod-cleo"], ports["pod-dave"], ports["link-uplink"]
	if len(ports) != 3 || cleo.GetTun() == nil || !cleo.GetTun().GetKeep() || cleo.GetNetns() != "/run/netns/cleo" || cleo.GetDevice() != "eth0" ||
		!reflect.DeepEqual(cleo.GetTun().GetRoutes(), []string{"0.0.0.0/0", "::/0"}) {
		t.Errorf("cleo's port is %v of %d", cleo, len(ports))
	}
	if !dave.GetXsk().GetTakeover() || dave.GetDevice() != "p-dave" || dave.GetNetns() != "" {
		t.Errorf("dave's port is %v, want all of p-dave", dave)
	}
	if uplink.GetXsk() == nil || uplink.GetXsk().GetTakeover() {
		t.Errorf("the uplink is %v, want it shared with the kernel", uplink)
	}
	for _, e := range s.Endpoints {
		if e.GetPolicy() != v1.Endpoint_POLICY_NONE || (e.GetId() == "pod/dave") != (len(e.GetMac()) == 6) {
			t.Errorf("endpoint is %v", e)
		}
	}
	pools := []string{"10.77.0.0/16", "fd77::/48"}
	if !reflect.DeepEqual(s.HostPort.GetGuarded(), pools) || !reflect.DeepEqual(s.HostPort.GetRoutes(), pools) || !reflect.DeepEqual(s.Steering.GetPrefixes(), pools) {
		t.Errorf("host port %v, steering %v: want both to name the pools", s.HostPort, s.Steering)
	}
}
