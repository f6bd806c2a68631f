package resources

import (
	"fmt"

	v3 "margay.dev/margay/api/v3"
)

// caveats are what of a valid object has another effect here than its author may
// think.
func caveats(o v3.Object) (all []string) {
	for _, side := range []struct {
		name  string
		rules []v3.Rule
	}{{"ingress", rulesOf(o, v3.PolicyTypeIngress)}, {"egress", rulesOf(o, v3.PolicyTypeEgress)}} {
		for i, r := range side.rules {
			at := fmt.Sprintf("spec.%s[%d]", side.name, i)
			if r.HTTP != nil {
				all = append(all, at+".http is for a proxy: packets are judged as if it were not there, so that the rule allows more")
			}
			if r.Source.Services != nil || r.Destination.Services != nil {
				all = append(all, at+" asks for a service: without Kubernetes nobody knows any, and the rule matches nothing")
			}
		}
	}
	return all
}

// rulesOf are the rules of a policy or profile in one direction; others have none.
func rulesOf(o v3.Object, d v3.PolicyType) []v3.Rule {
	var ingress, egress []v3.Rule
	switch o := o.(type) {
	case *v3.Profile:
		ingress, egress = o.Spec.Ingress, o.Spec.Egress
	case *v3.NetworkPolicy, *v3.GlobalNetworkPolicy, *v3.StagedNetworkPolicy, *v3.StagedGlobalNetworkPolicy:
		ingress, egress = policyOf(o).Ingress, policyOf(o).Egress
	}
	if d == v3.PolicyTypeIngress {
		return ingress
	}
	return egress
}
