package policies

import (
	"fmt"
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/policy"
	"margay.dev/margay/policy/kubernetes"
)

const (
	// NameLabel is a label that every pod of a lab has: its name in the lab, unless
	// the topology says otherwise.
	NameLabel = "pod"
	// account is whom the pods of a lab run as.
	account = "default"
)

// A Pod is one of the lab's.
type Pod struct {
	Endpoint        string // id of what stands for it in the contract
	Node            string
	Namespace, Name string
	Labels          map[string]string
	Addresses       []netip.Addr
}

// manifest is the pod as a cluster would tell of it.
func (p *Pod) manifest() (Manifest, error) {
	labels := map[string]string{NameLabel: p.Name}
	maps.Copy(labels, p.Labels)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: p.Node, ServiceAccountName: account},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, a := range p.Addresses {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	w, _, err := kubernetes.WorkloadEndpoint(pod)
	if err != nil {
		return Manifest{}, err
	}
	return given("Pod", p.Namespace, p.Name, w)
}

// Workload is the key of the workload endpoint that stands for the pod.
func (p *Pod) Workload() (policy.Key, error) {
	m, err := p.manifest()
	return m.key, err
}

// Objects are what a store has of pods: a workload endpoint each, and the profiles of
// their namespaces and accounts.
func Objects(pods []Pod) (out []metav1.Object, err error) {
	all, err := around(pods)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		m, err := pods[i].manifest()
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	for _, m := range all {
		out = append(out, m.Object)
	}
	return out, nil
}

// around are the namespaces of pods and their accounts, which are there wherever
// pods are.
func around(pods []Pod) (out []Manifest, err error) {
	seen := map[string]bool{}
	for _, p := range pods {
		if seen[p.Namespace] {
			continue
		}
		seen[p.Namespace] = true
		space := labelled(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.Namespace}})
		who := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: account}}
		for _, one := range []struct {
			kind, namespace, name string
			object                metav1.Object
		}{
			{"Namespace", "", p.Namespace, kubernetes.NamespaceProfile(space)},
			{"ServiceAccount", p.Namespace, account, kubernetes.ServiceAccountProfile(who)},
		} {
			m, err := given(one.kind, one.namespace, one.name, one.object)
			if err != nil {
				return nil, err
			}
			out = append(out, m)
		}
	}
	return out, nil
}

// given is an object that nobody wrote a manifest of.
func given(kind, namespace, name string, o metav1.Object) (Manifest, error) {
	m := Manifest{APIVersion: "v1", Kind: kind, Namespace: namespace, Name: name, Object: o}
	if err := m.identify(); err != nil {
		return m, fmt.Errorf("%s: %w", m.String(), err)
	}
	return m, nil
}
