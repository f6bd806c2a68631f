package policies

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy/kubernetes"
)

// object is one object, as policy is calculated from it.
func object(kind metav1.TypeMeta, text []byte) (metav1.Object, error) {
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Namespace":
		return convert(text, func(o *corev1.Namespace) (metav1.Object, []kubernetes.Warning, error) {
			return kubernetes.NamespaceProfile(labelled(o)), nil, nil
		})
	case "v1 ServiceAccount":
		return convert(text, func(o *corev1.ServiceAccount) (metav1.Object, []kubernetes.Warning, error) {
			return kubernetes.ServiceAccountProfile(o), nil, nil
		})
	case "v1 Pod":
		return convert(text, func(o *corev1.Pod) (metav1.Object, []kubernetes.Warning, error) {
			w, warnings, err := kubernetes.WorkloadEndpoint(o)
			if w == nil && err == nil {
				err = errors.New("it has no address of its own in status.podIPs, no spec.nodeName, or has ended, so that it is nobody's endpoint: give labels to a pod of the lab in the topology")
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
	var errs []error
	for _, fault := range o.Validate() {
		errs = append(errs, fault)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if staged, ok := o.(*v3.StagedKubernetesNetworkPolicy); ok {
		return told(kubernetes.StagedNetworkPolicy(staged))
	}
	return o, nil
}

// convert reads an object of Kubernetes strictly.
func convert[T any](text []byte, to func(*T) (metav1.Object, []kubernetes.Warning, error)) (metav1.Object, error) {
	var o T
	if err := yaml.UnmarshalStrict(text, &o); err != nil {
		return nil, err
	}
	return told(to(&o))
}

// told makes errors of warnings.
func told(o metav1.Object, warnings []kubernetes.Warning, err error) (metav1.Object, error) {
	errs := []error{err}
	for _, w := range warnings {
		errs = append(errs, w)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return o, nil
}

// labelled is a namespace with the label that a cluster gives to each.
func labelled(space *corev1.Namespace) *corev1.Namespace {
	if space.Labels == nil {
		space.Labels = map[string]string{}
	}
	space.Labels[corev1.LabelMetadataName] = space.Name
	return space
}
