package kubernetes

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	v3 "margay.dev/margay/api/v3"
)

func TestNamespaceIsAProfile(t *testing.T) {
	ns := read[corev1.Namespace](t, `{metadata: {name: shop, uid: 30316465-6365-4463-ad63-3564622d3638, labels: {env: prod, kubernetes.io/metadata.name: shop, projectcalico.org/name: forged}}}`)
	got := NamespaceProfile(ns)
	if got.Name != "kns.shop" || got.Namespace != "" || got.Kind != "Profile" || got.UID != "cfce9b9a-9c9a-4b9c-a29c-ca9b9dd2c9c7" {
		t.Errorf("it is %s %q of namespace %q, %s", got.Kind, got.Name, got.Namespace, got.UID)
	}
	want := map[string]string{"pcns.env": "prod", "pcns.kubernetes.io/metadata.name": "shop", "pcns.projectcalico.org/name": "shop"}
	if !maps.Equal(got.Spec.LabelsToApply, want) {
		t.Errorf("it lends %v, want %v", got.Spec.LabelsToApply, want)
	}
	compare(t, "rules", append(ruleTexts(got.Spec.Ingress), ruleTexts(got.Spec.Egress)...), []string{"Allow", "Allow"})
}

func TestServiceAccountIsAProfileWithoutRules(t *testing.T) {
	got := ServiceAccountProfile(read[corev1.ServiceAccount](t, `{metadata: {name: robot, namespace: shop, labels: {team: red}}}`))
	if got.Name != "ksa.shop.robot" || got.Namespace != "" || got.Kind != "Profile" {
		t.Errorf("it is %s %q of namespace %q", got.Kind, got.Name, got.Namespace)
	}
	if want := map[string]string{"pcsa.team": "red", "pcsa.projectcalico.org/name": "robot"}; !maps.Equal(got.Spec.LabelsToApply, want) {
		t.Errorf("it lends %v, want %v", got.Spec.LabelsToApply, want)
	}
	if got.Spec.Ingress != nil || got.Spec.Egress != nil {
		t.Errorf("it has rules %v and %v, want none", got.Spec.Ingress, got.Spec.Egress)
	}
}

func TestPodIsAWorkloadEndpoint(t *testing.T) {
	got, warnings, err := WorkloadEndpoint(read[corev1.Pod](t, `
metadata:
  name: web-1
  namespace: shop
  labels: {app: web}
  annotations:
    cni.projectcalico.org/containerID: abc
    cni.projectcalico.org/floatingIPs: '["192.0.2.7", "2001:db8::7"]'
    cni.projectcalico.org/allowedSourcePrefixes: '["10.9.1.1/16", "fd09::/16"]'
spec:
  nodeName: node-1.east
  serviceAccountName: robot
  containers:
  - name: one
    ports: [{name: web, containerPort: 80}, {containerPort: 81}, {containerPort: 82, hostPort: 8082, hostIP: 192.0.2.1}, {name: none, containerPort: 0}]
  initContainers:
  - name: two
    ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: sig, containerPort: 7, protocol: SCTP}]
status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], podIP: 10.0.0.1}
`))
	if err != nil || warnings != nil {
		t.Fatal(err, warnings)
	}
	s := got.Spec
	compare(t, "endpoint", []string{
		got.Namespace + "/" + got.Name, s.Orchestrator, s.Node, s.Pod, s.Endpoint, s.ContainerID, s.ServiceAccountName, s.InterfaceName,
		fmt.Sprint(s.Profiles), fmt.Sprint(s.IPNetworks), fmt.Sprint(s.IPNATs), fmt.Sprint(s.AllowSpoofedSourcePrefixes), fmt.Sprint(got.Labels), fmt.Sprint(s.Ports),
	}, []string{
		"shop/node--1.east-k8s-web--1-eth0", "k8s", "node-1.east", "web-1", "eth0", "abc", "robot", "cali751425ce827",
		"[kns.shop ksa.shop.robot]", "[10.0.0.1/32 fd00::1/128]", "[{10.0.0.1 192.0.2.7} {fd00::1 2001:db8::7}]", "[10.9.0.0/16 fd09::/16]",
		"map[app:web projectcalico.org/namespace:shop projectcalico.org/orchestrator:k8s projectcalico.org/serviceaccount:robot]",
		"[{web TCP 80 0 } { TCP 82 8082 192.0.2.1} {dns UDP 53 0 } {sig SCTP 7 0 }]",
	})
}

// Which pods are endpoints, and at which addresses.
func TestPodAddresses(t *testing.T) {
	tests := map[string]struct{ pod, want string }{
		"from its status":                 {`{spec: {nodeName: n}, status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], podIP: 10.0.0.1}}`, "[10.0.0.1/32 fd00::1/128]"},
		"from the one field":              {`{spec: {nodeName: n}, status: {podIP: 'fd00::1'}}`, "[fd00::1/128]"},
		"annotations beat the status":     {`{metadata: {annotations: {cni.projectcalico.org/podIP: 10.0.0.2/32}}, spec: {nodeName: n}, status: {podIP: 10.0.0.1}}`, "[10.0.0.2/32]"},
		"of many beats of one":            {`{metadata: {annotations: {cni.projectcalico.org/podIPs: '10.0.0.2/32, fd00::2/128,10.0.0.2', cni.projectcalico.org/podIP: 10.0.0.3}}, spec: {nodeName: n}}`, "[10.0.0.2/32 fd00::2/128]"},
		"a mapped address is of IPv4":     {`{spec: {nodeName: n}, status: {podIP: '::ffff:10.0.0.1'}}`, "[10.0.0.1/32]"},
		"none yet":                        {`{spec: {nodeName: n}}`, ""},
		"not scheduled":                   {`{status: {podIP: 10.0.0.1}}`, ""},
		"of the host's network":           {`{spec: {nodeName: n, hostNetwork: true}, status: {podIP: 10.0.0.1}}`, ""},
		"succeeded":                       {`{spec: {nodeName: n}, status: {phase: Succeeded, podIP: 10.0.0.1}}`, ""},
		"failed":                          {`{spec: {nodeName: n}, status: {phase: Failed, podIP: 10.0.0.1}}`, ""},
		"completed":                       {`{spec: {nodeName: n}, status: {phase: Completed, podIP: 10.0.0.1}}`, ""},
		"terminating, with its addresses": {`{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', annotations: {cni.projectcalico.org/podIP: 10.0.0.2}}, spec: {nodeName: n}}`, "[10.0.0.2/32]"},
		"terminating, nothing said":       {`{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}, spec: {nodeName: n}, status: {podIP: 'fd00::1'}}`, "[fd00::1/128]"},
		"terminating, addresses returned": {`{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: n}, status: {podIP: 10.0.0.1}}`, ""},
		"not terminating, annotated ''":   {`{metadata: {annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: n}, status: {podIP: 10.0.0.1}}`, "[10.0.0.1/32]"},
	}
	for name, tt := range tests {
		got, _, err := WorkloadEndpoint(read[corev1.Pod](t, tt.pod))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text := ""
		if got != nil {
			text = fmt.Sprint(got.Spec.IPNetworks)
		}
		if text != tt.want {
			t.Errorf("%s: it is at %q, want %q", name, text, tt.want)
		}
	}
	for _, ip := range []string{"10.0.0", "10.0.0.1/24", "fd00::1/64", "fe80::1%eth0", "10.0.0.1/032", "::ffff:10.0.0.1/32", "x"} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{PodIP: ip}}
		if got, _, err := WorkloadEndpoint(pod); err == nil || got != nil || !strings.Contains(err.Error(), ip) {
			t.Errorf("a pod at %q is %v, %v, want an error that says it", ip, got, err)
		}
	}
}

// A pod's labels say nothing of what the system knows better.
func TestPodLabels(t *testing.T) {
	const system = " projectcalico.org/namespace:shop projectcalico.org/orchestrator:k8s"
	tests := map[string]struct{ pod, want string }{
		"none":                             {`{metadata: {namespace: shop}}`, "map[" + system[1:] + "]"},
		"its own":                          {`{metadata: {namespace: shop, labels: {app: web}}}`, "map[app:web" + system + "]"},
		"another namespace":                {`{metadata: {namespace: shop, labels: {projectcalico.org/namespace: bank, projectcalico.org/orchestrator: x}}}`, "map[" + system[1:] + "]"},
		"labels of another namespace":      {`{metadata: {namespace: shop, labels: {pcns.env: prod}}}`, "map[" + system[1:] + "]"},
		"another account and its labels":   {`{metadata: {namespace: shop, labels: {projectcalico.org/serviceaccount: root, pcsa.team: red}}}`, "map[" + system[1:] + "]"},
		"an account of 62 bytes is said":   {`{metadata: {namespace: shop}, spec: {serviceAccountName: ` + strings.Repeat("a", 62) + `}}`, "map[" + system[1:] + " projectcalico.org/serviceaccount:" + strings.Repeat("a", 62) + "]"},
		"an account of 63 bytes is not":    {`{metadata: {namespace: shop}, spec: {serviceAccountName: ` + strings.Repeat("a", 63) + `}}`, "map[" + system[1:] + "]"},
		"what only resembles the system's": {`{metadata: {namespace: shop, labels: {pcns: x, pcsa: z}}}`, "map[pcns:x pcsa:z" + system + "]"},
	}
	for name, tt := range tests {
		if got := fmt.Sprint(podLabels(read[corev1.Pod](t, tt.pod))); got != tt.want {
			t.Errorf("%s: labels are %s, want %s", name, got, tt.want)
		}
	}
}

// What is wrong with a pod's details is left out, and the endpoint stays.
func TestPodDetailsLeftOut(t *testing.T) {
	tests := map[string]struct{ pod, warning string }{
		"floating addresses are no list":           {`{metadata: {annotations: {cni.projectcalico.org/floatingIPs: 192.0.2.7}}}`, "metadata.annotations[cni.projectcalico.org/floatingIPs] is left out"},
		"one floating address is none":             {`{metadata: {annotations: {cni.projectcalico.org/floatingIPs: '["192.0.2.7", "x"]'}}}`, `address is "x"`},
		"floating addresses are of another family": {`{metadata: {annotations: {cni.projectcalico.org/floatingIPs: '["2001:db8::7"]'}}}`, ""},
		"one source prefix is none":                {`{metadata: {annotations: {cni.projectcalico.org/allowedSourcePrefixes: '["10.9.0.0/16", "fd00::1"]'}}}`, `it is "fd00::1"`},
		"a source prefix is a number":              {`{metadata: {annotations: {cni.projectcalico.org/allowedSourcePrefixes: '[7]'}}}`, "allowedSourcePrefixes] is left out"},
		"a port beyond":                            {`{spec: {containers: [{name: a}, {name: b, ports: [{name: a, containerPort: 65616}]}]}}`, "spec.containers[1].ports[0] is left out: port is 65616"},
		"a port of the host beyond":                {`{spec: {initContainers: [{name: a, ports: [{containerPort: 80, hostPort: -1}]}]}}`, "spec.initContainers[0].ports[0] is left out: hostPort: port is -1"},
		"a port of a protocol that has none":       {`{spec: {containers: [{name: a, ports: [{name: a, containerPort: 80, protocol: ICMP}]}]}}`, `protocol is "ICMP"`},
	}
	for name, tt := range tests {
		pod := read[corev1.Pod](t, tt.pod)
		pod.Spec.NodeName, pod.Status.PodIP = "n", "10.0.0.1"
		got, warnings, err := WorkloadEndpoint(pod)
		if err != nil || got == nil {
			t.Fatalf("%s: got %v and %v, want an endpoint", name, got, err)
		}
		var want []string
		if tt.warning != "" {
			want = []string{tt.warning}
		}
		checkWarnings(t, warnings, want)
		if s := got.Spec; s.IPNATs != nil || s.AllowSpoofedSourcePrefixes != nil || s.Ports != nil {
			t.Errorf("%s: got %v, %v and %v, want none of it", name, s.IPNATs, s.AllowSpoofedSourcePrefixes, s.Ports)
		}
	}
}

// The labels that a pod has and inherits are apart, whatever its labels are.
func TestPodInheritsByPrefix(t *testing.T) {
	ns := NamespaceProfile(read[corev1.Namespace](t, `{metadata: {name: shop, labels: {app: db}}}`))
	labels := podLabels(read[corev1.Pod](t, `{metadata: {namespace: shop, labels: {app: web, pcns.app: web}}}`))
	for k, v := range ns.Spec.LabelsToApply {
		if own, both := labels[k]; both {
			t.Errorf("the pod says itself %s=%s, which the namespace says is %s", k, own, v)
		}
	}
	if got := v3.ProfileNamespacePrefix + "shop"; got != ns.Name {
		t.Errorf("the profile is %s, want %s", ns.Name, got)
	}
}
