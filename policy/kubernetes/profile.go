package kubernetes

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
)

// NameLabel is a label that profiles lend under the prefix of what they are of: its
// value is the name of the namespace or of the service account.
const NameLabel = "projectcalico.org/name"

// NamespaceProfile is the profile of a namespace: whom no policy governs may send
// and be sent everything, and the namespace's labels are lent to what is in it.
func NamespaceProfile(ns *corev1.Namespace) *v3.Profile {
	p := profile(v3.ProfileNamespacePrefix+ns.Name, selector.NamespacePrefix, &ns.ObjectMeta)
	p.Spec.Ingress = []v3.Rule{{Action: v3.Allow}}
	p.Spec.Egress = []v3.Rule{{Action: v3.Allow}}
	return p
}

// ServiceAccountProfile is the profile of a service account: no rules, and its
// labels for what runs under it.
func ServiceAccountProfile(sa *corev1.ServiceAccount) *v3.Profile {
	return profile(accountProfile(sa.Namespace, sa.Name), selector.ServiceAccountPrefix, &sa.ObjectMeta)
}

// accountProfile is the name of a service account's profile.
func accountProfile(namespace, name string) string {
	return v3.ProfileServiceAccountPrefix + namespace + "." + name
}

// profile lends what has the metadata's labels and name, under a prefix.
func profile(name, prefix string, of *metav1.ObjectMeta) *v3.Profile {
	labels := make(map[string]string, len(of.Labels)+1)
	for k, v := range of.Labels {
		labels[prefix+k] = v
	}
	labels[prefix+NameLabel] = of.Name
	out := &v3.Profile{
		TypeMeta:   metav1.TypeMeta{APIVersion: v3.GroupVersion().String(), Kind: v3.KindProfile},
		ObjectMeta: derivedMeta(of, name),
		Spec:       v3.ProfileSpec{LabelsToApply: labels},
	}
	out.Namespace = ""
	return out
}
