package guard

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/policy"
	"margay.dev/margay/policy/kubernetes"
)

// manuals are manifests with the shapes of Calico's documentation, which the tool
// applies as they are.
const manuals = "../../cmd/margayctl/resources/testdata/calico"

// readManuals gives what of them policy is made of, as a store would.
func readManuals(t *testing.T) (objects []v3.Object) {
	t.Helper()
	err := filepath.WalkDir(manuals, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		all, err := v3.DecodeAll(text)
		if err != nil {
			return err
		}
		for _, o := range all {
			if o, err = datastore.Admit(o); err != nil {
				return err
			}
			switch o := o.(type) {
			case *v3.Node, *v3.IPPool, *v3.FelixConfiguration, *v3.ClusterInformation: // none of policy
			case *v3.StagedKubernetesNetworkPolicy:
				converted, warnings, err := kubernetes.StagedNetworkPolicy(o)
				if err != nil || len(warnings) > 0 {
					t.Errorf("converted with %v, %v", warnings, err)
				}
				objects = append(objects, converted)
			default:
				objects = append(objects, o)
			}
		}
		return nil
	})
	if err != nil || len(objects) == 0 {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	return objects
}

// What the documentation shows comes into force on each of its nodes. The manifests
// themselves name two profiles that they leave out: that is told, of the endpoint that
// is of the node.
func TestManualsComeIntoForce(t *testing.T) {
	open := &v3.Profile{}
	open.Name = v3.ProfileDefaultAllow
	open.Spec.Ingress, open.Spec.Egress = []v3.Rule{{Action: v3.Allow}}, []v3.Rule{{Action: v3.Allow}}
	objects := append(readManuals(t), open)
	for node, tt := range map[string]struct {
		endpoints []string
		faults    string // the beginning of the one
	}{
		"my-host":   {[]string{"webserver-eth0", "my-host-all"}, `webserver-eth0: profile "profile2" is missing`},
		"jasper":    {[]string{"jasper-dos"}, ""},
		"router":    {[]string{"router-outside"}, ""},
		"node1":     {[]string{"node1-auto-hep", "node1-openstack-vm1-port1"}, `node1-openstack-vm1-port1: profile "openstack-region-a" is missing`},
		"elsewhere": {nil, ""},
	} {
		g, p := New(node), newPlane(t)
		for _, o := range objects {
			if err := g.Upsert(o); err != nil {
				t.Fatal(err)
			}
		}
		u := g.Flush()
		p.apply(u)
		faults := ""
		for _, c := range u.Conditions {
			for _, fault := range c.Faults {
				faults += c.Object.Name + ": " + fault + "\n"
			}
		}
		if strings.Count(faults, "\n") > 1 || !strings.HasPrefix(faults, tt.faults) || tt.faults == "" && faults != "" {
			t.Errorf("on %s the faults are %q, want %q", node, faults, tt.faults)
		}
		for _, name := range tt.endpoints {
			if !judged(u, name) {
				t.Errorf("on %s nobody judges %s", node, name)
			}
		}
		if len(tt.endpoints) == 0 && len(u.Stages) > 0 {
			t.Errorf("on %s %d endpoints are judged", node, len(u.Stages))
		}
	}
}

// judged reports whether a dataplane is told what judges an endpoint.
func judged(u *Update, name string) bool {
	for _, e := range u.Calculated.Endpoints {
		if e.Key.Name == name && e.Normal[policy.Ingress] != nil {
			return true
		}
	}
	return false
}
