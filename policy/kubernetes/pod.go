package kubernetes

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
)

// Annotations of pods, and who writes them. The CNI plugin is before the kubelet in
// saying what addresses a pod has, and says by an empty PodIPAnnotation that it has
// them no more.
const (
	PodIPAnnotation          = "cni.projectcalico.org/podIP"                 // CNI plugin: an address
	PodIPsAnnotation         = "cni.projectcalico.org/podIPs"                // CNI plugin: addresses, with commas
	ContainerIDAnnotation    = "cni.projectcalico.org/containerID"           // CNI plugin: the sandbox
	FloatingIPsAnnotation    = "cni.projectcalico.org/floatingIPs"           // users: addresses, a JSON list
	SourcePrefixesAnnotation = "cni.projectcalico.org/allowedSourcePrefixes" // users: CIDRs, a JSON list
)

// MaxAccountLabel is the longest name of a service account, in bytes, that is a
// label too.
const MaxAccountLabel = 62

// interfaceOf is the name that a pod's interface has within the pod.
const interfaceOf = "eth0"

// WorkloadEndpoint converts a pod. It gives none for a pod that has no interface of
// its own, or not yet, or no more: of the host's network, not scheduled, without
// addresses, or finished. It refuses a pod with an address that is none; another
// annotation that cannot be read is left out.
func WorkloadEndpoint(pod *corev1.Pod) (*v3.WorkloadEndpoint, []Warning, error) {
	if pod.Spec.HostNetwork || pod.Spec.NodeName == "" || finished(pod) {
		return nil, nil, nil
	}
	addrs, err := podAddresses(pod)
	if err != nil {
		return nil, nil, fmt.Errorf("convert Pod %q of namespace %q: %w", pod.Name, pod.Namespace, err)
	}
	if len(addrs) == 0 {
		return nil, nil, nil
	}
	account := pod.Spec.ServiceAccountName
	profiles := []string{v3.ProfileNamespacePrefix + pod.Namespace}
	if account != "" {
		profiles = append(profiles, accountProfile(pod.Namespace, account))
	}
	out := &v3.WorkloadEndpoint{
		TypeMeta:   metav1.TypeMeta{APIVersion: v3.GroupVersion().String(), Kind: v3.KindWorkloadEndpoint},
		ObjectMeta: derivedMeta(&pod.ObjectMeta, endpointName(pod.Spec.NodeName, Orchestrator, pod.Name, interfaceOf)),
		Spec: v3.WorkloadEndpointSpec{
			Orchestrator:       Orchestrator,
			Node:               pod.Spec.NodeName,
			ContainerID:        pod.Annotations[ContainerIDAnnotation],
			Pod:                pod.Name,
			Endpoint:           interfaceOf,
			ServiceAccountName: account,
			Profiles:           profiles,
			InterfaceName:      interfaceName(pod.Namespace, pod.Name),
		},
	}
	out.Labels = podLabels(pod)
	for _, a := range addrs {
		out.Spec.IPNetworks = append(out.Spec.IPNetworks, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return out, addDetails(&out.Spec, pod, addrs), nil
}

// addDetails adds what may be wrong without harm to the rest.
func addDetails(spec *v3.WorkloadEndpointSpec, pod *corev1.Pod, addrs []netip.Addr) []Warning {
	external, w1 := annotated(pod, FloatingIPsAnnotation, parseAddress)
	prefixes, w2 := annotated(pod, SourcePrefixesAnnotation, parseCIDR)
	ports, w3 := namedPorts("spec.containers", pod.Spec.Containers)
	more, w4 := namedPorts("spec.initContainers", pod.Spec.InitContainers)
	spec.IPNATs = floating(external, addrs)
	for _, p := range prefixes {
		spec.AllowSpoofedSourcePrefixes = append(spec.AllowSpoofedSourcePrefixes, p.String())
	}
	spec.Ports = append(ports, more...)
	return slices.Concat(w1, w2, w3, w4)
}

// finished reports whether a pod has given its addresses back: all its containers
// have ended, or it is being deleted and the CNI plugin says so. Until then it is
// an endpoint, also while it terminates.
func finished(pod *corev1.Pod) bool {
	switch pod.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, "Completed":
		return true
	}
	ip, said := pod.Annotations[PodIPAnnotation]
	return pod.DeletionTimestamp != nil && said && ip == ""
}

// podAddresses are a pod's addresses, each once, from whoever is the first to tell.
func podAddresses(pod *corev1.Pod) ([]netip.Addr, error) {
	var texts []string
	switch {
	case pod.Annotations[PodIPsAnnotation] != "":
		texts = strings.Split(pod.Annotations[PodIPsAnnotation], ",")
	case pod.Annotations[PodIPAnnotation] != "":
		texts = []string{pod.Annotations[PodIPAnnotation]}
	case len(pod.Status.PodIPs) > 0:
		for _, ip := range pod.Status.PodIPs {
			texts = append(texts, ip.IP)
		}
	case pod.Status.PodIP != "":
		texts = []string{pod.Status.PodIP}
	}
	var out []netip.Addr
	for _, text := range texts {
		a, err := parseAddress(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// parseAddress reads an address, behind which the length of all its bits may stand.
func parseAddress(text string) (netip.Addr, error) {
	bare, length, prefixed := strings.Cut(text, "/")
	a, err := netip.ParseAddr(bare)
	if err != nil || a.Zone() != "" || prefixed && length != fmt.Sprint(a.BitLen()) {
		return netip.Addr{}, fmt.Errorf("address is %.60q, want one as 10.0.0.1 or fd00::1", text)
	}
	return a.Unmap(), nil
}

// podLabels are a pod's labels as those of an endpoint. What the system says of it,
// and what it inherits, a pod cannot say of itself: who may label pods may not
// thereby move them to another namespace.
func podLabels(pod *corev1.Pod) map[string]string {
	out := make(map[string]string, len(pod.Labels)+3)
	for k, v := range pod.Labels {
		inherited := strings.HasPrefix(k, selector.NamespacePrefix) || strings.HasPrefix(k, selector.ServiceAccountPrefix)
		if !inherited && k != selector.ServiceAccountLabel {
			out[k] = v
		}
	}
	out[selector.NamespaceLabel] = pod.Namespace
	out[OrchestratorLabel] = Orchestrator
	if n := len(pod.Spec.ServiceAccountName); 0 < n && n <= MaxAccountLabel {
		out[selector.ServiceAccountLabel] = pod.Spec.ServiceAccountName
	}
	return out
}

// endpointName joins the parts of an endpoint's name, in which dashes are doubled.
func endpointName(parts ...string) string {
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, "-", "--")
	}
	return strings.Join(parts, "-")
}

// interfaceName is what the host calls its side of a pod's interface.
func interfaceName(namespace, pod string) string {
	sum := sha1.Sum([]byte(namespace + "." + pod))
	return "cali" + hex.EncodeToString(sum[:])[:11]
}

// namedPorts are the ports that containers name or give to the host.
func namedPorts(path string, containers []corev1.Container) (out []v3.WorkloadEndpointPort, warnings []Warning) {
	for i, c := range containers {
		for j, p := range c.Ports {
			if p.ContainerPort == 0 || p.HostPort == 0 && p.Name == "" {
				continue
			}
			port, err := containerPort(p)
			if err != nil {
				warnings = append(warnings, Warning{fmt.Sprintf("%s[%d].ports[%d]", path, i, j), leftOut, err})
				continue
			}
			out = append(out, port)
		}
	}
	return out, warnings
}

// containerPort converts a port; one of no protocol is of TCP.
func containerPort(p corev1.ContainerPort) (out v3.WorkloadEndpointPort, err error) {
	protocol := p.Protocol
	if protocol == "" {
		protocol = corev1.ProtocolTCP
	}
	out.Protocol = v3.ProtocolNamed(string(protocol))
	if !out.Protocol.HasPorts() {
		return out, fmt.Errorf("protocol is %.40q, want TCP, UDP or SCTP", protocol)
	}
	port, err := numberedPorts(p.ContainerPort, p.ContainerPort)
	if err != nil {
		return out, err
	}
	if p.HostPort != 0 {
		host, err := numberedPorts(p.HostPort, p.HostPort)
		if err != nil {
			return out, fmt.Errorf("hostPort: %w", err)
		}
		out.HostPort, out.HostIP = host.MinPort, p.HostIP
	}
	out.Name, out.Port = p.Name, port.MinPort
	return out, nil
}

// annotated is a list that users annotate a pod with, nothing of it if one entry is
// none.
func annotated[T any](pod *corev1.Pod, annotation string, read func(string) (T, error)) ([]T, []Warning) {
	text := pod.Annotations[annotation]
	if text == "" {
		return nil, nil
	}
	var entries []string
	err := json.Unmarshal([]byte(text), &entries)
	out := make([]T, len(entries))
	for i, entry := range entries {
		if err == nil {
			out[i], err = read(entry)
		}
	}
	if err != nil {
		return nil, []Warning{{"metadata.annotations[" + annotation + "]", leftOut, err}}
	}
	return out, nil
}

// floating are addresses that lead to the pod's first one of their family, where it
// has one.
func floating(external, own []netip.Addr) (out []v3.IPNAT) {
	for _, e := range external {
		i := slices.IndexFunc(own, func(a netip.Addr) bool { return a.Is4() == e.Is4() })
		if i >= 0 {
			out = append(out, v3.IPNAT{InternalIP: own[i].String(), ExternalIP: e.String()})
		}
	}
	return out
}
