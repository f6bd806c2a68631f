package kubernetes

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy/oracle"
)

// everywhere is what is there in each scene: pods of two namespaces, all at
// 10.0.N.P and fd00::N:P.
const everywhere = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {env: live}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: bank}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: shop, labels: {team: red}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {nodeName: n, serviceAccountName: robot, containers: [{name: c, ports: [{name: web, containerPort: 80}]}]}, status: {podIPs: [{ip: 10.0.1.1}, {ip: 'fd00::1:1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {nodeName: n, serviceAccountName: robot, containers: [{name: c, ports: [{name: web, containerPort: 81}]}]}, status: {podIPs: [{ip: 10.0.1.2}, {ip: 'fd00::1:2'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: bank, labels: {app: web}}, spec: {nodeName: n}, status: {podIPs: [{ip: 10.0.2.1}, {ip: 'fd00::2:1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: bank, labels: {app: db}}, spec: {nodeName: n}, status: {podIPs: [{ip: 10.0.2.2}, {ip: 'fd00::2:2'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: forger, namespace: bank, labels: {app: web, pcns.env: live, projectcalico.org/namespace: shop}}, spec: {nodeName: n}, status: {podIPs: [{ip: 10.0.2.3}, {ip: 'fd00::2:3'}]}}
`

// outside are addresses that no pod has, in both families.
var outside = map[string][2]string{
	"node": {"192.0.2.1", "2001:db8::1"}, "partner": {"203.0.113.5", "2001:db8:1::5"}, "world": {"198.51.100.7", "2001:db8:2::7"},
}

// scene is one of testdata/scenes.yaml, which says what its fields are.
type scene struct {
	Name    string   `json:"name"`
	Objects string   `json:"objects"`
	Asks    []string `json:"asks"`
}

// TestScenes asks package policy about clusters that have Kubernetes' policies
// beside Calico's.
func TestScenes(t *testing.T) {
	text, err := os.ReadFile("testdata/scenes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range *read[[]scene](t, string(text)) {
		t.Run(s.Name, func(t *testing.T) {
			e := newEngine(t)
			for _, doc := range strings.Split(everywhere+"---\n"+s.Objects, "---\n") {
				if strings.TrimSpace(doc) != "" {
					e.add(decode(t, doc))
				}
			}
			for _, line := range s.Asks {
				question, want, ok := strings.Cut(line, " = ")
				f := strings.Fields(question)
				if !ok || len(f) != 5 {
					t.Fatalf("%q is no question", line)
				}
				port, err := strconv.ParseUint(f[4], 10, 16)
				if err != nil {
					t.Fatal(err)
				}
				for family := range 2 {
					p := oracle.Packet{Source: e.address(f[0], family), Destination: e.address(f[2], family)}
					p.Protocol, p.DestinationPort = map[string]uint8{"tcp": 6, "udp": 17}[f[3]], uint16(port)
					v := e.judge(p)
					want := strings.ReplaceAll(want, "{0,1}", strconv.Itoa(family))
					if got := string(v.Action) + " " + v.By; got != want {
						t.Errorf("%s from %v to %v: %s, want %s", question, p.Source, p.Destination, got, want)
					}
				}
			}
		})
	}
}

// decode reads an object of a kind that scenes may have.
func decode(t *testing.T, doc string) any {
	t.Helper()
	switch m := *read[map[string]any](t, doc); m["apiVersion"].(string) + " " + m["kind"].(string) {
	case "v1 Namespace":
		return read[corev1.Namespace](t, doc)
	case "v1 ServiceAccount":
		return read[corev1.ServiceAccount](t, doc)
	case "v1 Pod":
		return read[corev1.Pod](t, doc)
	case "networking.k8s.io/v1 NetworkPolicy":
		return read[networkingv1.NetworkPolicy](t, doc)
	case "policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy":
		return read[clusterv1alpha2.ClusterNetworkPolicy](t, doc)
	case "projectcalico.org/v3 StagedKubernetesNetworkPolicy":
		return read[v3.StagedKubernetesNetworkPolicy](t, doc)
	case "projectcalico.org/v3 NetworkPolicy":
		return read[v3.NetworkPolicy](t, doc)
	case "projectcalico.org/v3 GlobalNetworkPolicy":
		return read[v3.GlobalNetworkPolicy](t, doc)
	case "projectcalico.org/v3 NetworkSet":
		return read[v3.NetworkSet](t, doc)
	case "projectcalico.org/v3 GlobalNetworkSet":
		return read[v3.GlobalNetworkSet](t, doc)
	case "projectcalico.org/v3 HostEndpoint":
		return read[v3.HostEndpoint](t, doc)
	}
	t.Fatalf("nobody knows what %s is", doc)
	return nil
}

// address is that of a pod or of something outside.
func (e *engine) address(name string, family int) netip.Addr {
	e.t.Helper()
	if both, ok := outside[name]; ok {
		return netip.MustParseAddr(both[family])
	}
	for _, wep := range e.world.Workloads {
		if wep.Namespace+"/"+wep.Spec.Pod == name {
			return netip.MustParsePrefix(wep.Spec.IPNetworks[family]).Addr()
		}
	}
	e.t.Fatalf("nobody knows who %s is", name)
	return netip.Addr{}
}
