package policies

import (
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/policy/kubernetes"
)

// Read reads a manifest of resources of projectcalico.org/v3, of Kubernetes
// Namespaces, ServiceAccounts, Pods and NetworkPolicies, and of
// ClusterNetworkPolicies, which it converts. It reports everything that is wrong
// in any of them; what a conversion leaves out is wrong, too.
func Read(manifest []byte) ([]metav1.Object, error) {
	parts, err := v3.Split(manifest)
	if err != nil {
		return nil, err
	}
	var objects []metav1.Object
	var faults []error
	for i, part := range parts {
		o, err := object(part)
		if err != nil {
			faults = append(faults, fmt.Errorf("object %d of the manifest: %w", i+1, err))
		} else if o != nil {
			objects = append(objects, o)
		}
	}
	return objects, errors.Join(faults...)
}

// object is one object, as policy is calculated from it; nil where nothing follows
// from it.
func object(text []byte) (metav1.Object, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(text, &kind); err != nil {
		return nil, err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Namespace":
		return convert(text, func(o *corev1.Namespace) (metav1.Object, []kubernetes.Warning, error) {
			return kubernetes.NamespaceProfile(o), nil, nil
		})
	case "v1 ServiceAccount":
		return convert(text, func(o *corev1.ServiceAccount) (metav1.Object, []kubernetes.Warning, error) {
			return kubernetes.ServiceAccountProfile(o), nil, nil
		})
	case "v1 Pod":
		return convert(text, func(o *corev1.Pod) (metav1.Object, []kubernetes.Warning, error) {
			w, warnings, err := kubernetes.WorkloadEndpoint(o)
			if w == nil {
				return nil, warnings, err
			}
			return w, warnings, err
		})
	case "networking.k8s.io/v1 NetworkPolicy":
		return convert(text, func(o *networkingv1.NetworkPolicy) (metav1.Object, []kubernetes.Warning, error) {
			return kubernetes.NetworkPolicy(o)
		})
	case clusterv1alpha2.GroupVersion.String() + " ClusterNetworkPolicy":
		return convert(text, func(o *clusterv1alpha2.ClusterNetworkPolicy) (metav1.Object, []kubernetes.Warning, error) {
			return kubernetes.ClusterNetworkPolicy(o)
		})
	}
	o, err := v3.Decode(text)
	if err != nil {
		return nil, err
	}
	o.Default(v3.ByPresence)
	if faults := o.Validate(); len(faults) > 0 {
		return nil, fmt.Errorf("%s: %w", o.GetName(), faults.ToAggregate())
	}
	return o, nil
}

// convert reads an object of Kubernetes strictly.
func convert[T any](text []byte, to func(*T) (metav1.Object, []kubernetes.Warning, error)) (metav1.Object, error) {
	var o T
	if err := yaml.UnmarshalStrict(text, &o); err != nil {
		return nil, err
	}
	out, warnings, err := to(&o)
	errs := []error{err}
	for _, w := range warnings {
		errs = append(errs, w)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// PodLabel is the label by which manifests for a lab pick its pods: the pod's name.
const PodLabel = "pod"

// Pods are a lab's own pods as workload endpoints of the namespace "default".
func Pods(l *lab.Lab) (out []metav1.Object) {
	for _, p := range l.Topology().Pods {
		w := v3.New(v3.KindWorkloadEndpoint).(*v3.WorkloadEndpoint)
		w.Namespace, w.Name, w.Labels = "default", p.Name, map[string]string{PodLabel: p.Name}
		w.Spec = v3.WorkloadEndpointSpec{Orchestrator: "lab", Node: p.Node, Pod: p.Name, Endpoint: "eth0"}
		for _, a := range p.Addresses {
			w.Spec.IPNetworks = append(w.Spec.IPNetworks, netip.PrefixFrom(a.Addr, a.BitLen()).String())
		}
		out = append(out, w)
	}
	return out
}
