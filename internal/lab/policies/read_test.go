package policies

import (
	"strings"
	"testing"

	v3 "margay.dev/margay/api/v3"
)

func TestManifestsOfBothAPIsAreRead(t *testing.T) {
	objects, err := Read([]byte(`
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {nodeName: north, containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: "fd01::1"}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: shop, name: web}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: one}
spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: two}
spec: {selector: all(), egress: [{action: Allow}]}
`))
	if err != nil || len(objects) != 5 {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	if w, ok := objects[1].Object.(*v3.WorkloadEndpoint); !ok || w.Spec.Node != "north" || len(w.Spec.IPNetworks) != 2 || len(w.Spec.Profiles) == 0 {
		t.Errorf("the pod is %+v", objects[1])
	}
	if p, ok := objects[4].Object.(*v3.GlobalNetworkPolicy); !ok || len(p.Spec.Types) != 1 || p.Spec.Types[0] != v3.PolicyTypeEgress {
		t.Errorf("the policy that says nothing of types is %+v", objects[4])
	}
}

func TestWhatIsWrongInAManifestIsToldAtOnce(t *testing.T) {
	tests := map[string]struct {
		manifest string
		want     []string
	}{
		"no YAML":                    {"{", []string{"yaml: line 1"}},
		"a kind of nobody's":         {"{apiVersion: v1, kind: Secret, metadata: {name: x}}", []string{"not of projectcalico.org/v3"}},
		"an unknown field":           {"{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: x}, spec: {odrer: 1}}", []string{"odrer"}},
		"an unknown field of theirs": {"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x, namespace: y}, spec: {podSelectr: {}}}", []string{"podSelectr"}},
		"a rule that says too much": {`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: x}, spec: {
			ingress: [{action: Alow}, {action: Allow, source: {nets: [ten]}}]}}`, []string{"Alow", "ten"}},
		"a rule that is left out": {`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x, namespace: y}, spec: {
			podSelector: {}, ingress: [{from: [{ipBlock: {cidr: ten}}]}]}}`, []string{"spec.ingress[0]", "left out"}},
		"a pod that is nobody's endpoint": {"{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: z}, spec: {}}", []string{"Pod x/z", "status.podIPs"}},
		"a namespace is missing":          {"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}, spec: {podSelector: {}}}", []string{"NetworkPolicy x", "namespace"}},
		"twice the same":                  {"{apiVersion: v1, kind: Namespace, metadata: {name: x}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: x}}", []string{"object 2", "there twice"}},
		"two objects":                     {"{apiVersion: v1, kind: A}\n---\n{apiVersion: v1, kind: B}", []string{"object 1 of the manifest", "object 2 of the manifest"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Read([]byte(tt.manifest))
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v, want %q in it", err, want)
				}
			}
		})
	}
}
