package kubernetes

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
)

// hostileTexts are what fields may hold, of which some mean something somewhere.
var hostileTexts = []string{
	"", "a", "app", "web", "80", "65536", "-1", "80:90", "a b", `"`, "'", `'"`, "\x00", "\xff", "é", "a\nb", "all()", "pcns.env", "projectcalico.org/namespace",
	"In", "NotIn", "Exists", "DoesNotExist", "TCP", "UDP", "SCTP", "tcp", "ICMP", "Ingress", "Egress", "Admin", "Baseline", "Accept", "Deny", "Pass", "Allow",
	"10.0.0.0/8", "10.0.0.0/33", "10.0.0.1", "::/0", "0.0.0.0/0", "fd00::/129", "::ffff:10.0.0.0/104", "::ffff:10.0.0.0/95", "fe80::1%eth0/64", "010.0.0.0/8",
	"fd00::1", "10.0.0.1/32", `["10.0.0.1"]`, `["10.0.0.0/8"]`, `[null]`, `{}`, "Succeeded", "Running",
}

var hostileNumbers = []int64{0, 1, -1, 79, 80, 81, 65534, 65535, 65536, 65616, math.MaxInt32, math.MinInt32}

// fill makes anything of whatever type v has: nil or not, empty or not.
func (d dice) fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if depth > 0 && d.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			d.fill(v.Elem(), depth-1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				d.fill(v.Field(i), depth)
			}
		}
	case reflect.Slice:
		if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), d.IntN(4), 4))
			for i := range v.Len() {
				d.fill(v.Index(i), depth-1)
			}
		}
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range d.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			d.fill(key, depth-1)
			d.fill(value, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(one(d, hostileTexts...))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(one(d, hostileNumbers...))
	case reflect.Bool:
		v.SetBool(d.IntN(2) == 0)
	}
}

// hostile fills what pointers lead to.
func (d dice) hostile(fields ...any) {
	for _, f := range fields {
		d.fill(reflect.ValueOf(f).Elem(), 12)
	}
}

// checkHostile converts objects of anything, and looks at what comes out.
func checkHostile(t *testing.T, seed uint64) {
	d := dice{rand.New(rand.NewPCG(seed, 1))}
	meta := func(m *metav1.ObjectMeta) {
		m.Namespace = "shop"
		d.hostile(&m.Name, &m.Labels, &m.Annotations)
	}

	var np networkingv1.NetworkPolicy
	meta(&np.ObjectMeta)
	d.hostile(&np.Spec)
	if d.IntN(4) > 0 { // else most are refused, and no rule is looked at
		np.Spec.PodSelector = metav1.LabelSelector{}
	}
	policy, warnings := convertTwice(t, &np, NetworkPolicy)
	if policy != nil {
		checkSpec(t, &policy.Spec, warnings, len(np.Spec.Ingress)+len(np.Spec.Egress)+len(np.Spec.PolicyTypes))
	}

	var snp v3.StagedKubernetesNetworkPolicy
	meta(&snp.ObjectMeta)
	d.hostile(&snp.Spec)
	snp.Spec.PodSelector = metav1.LabelSelector{}
	staged, warnings := convertTwice(t, &snp, StagedNetworkPolicy)
	if staged != nil {
		checkSpec(t, &staged.Spec.NetworkPolicySpec, warnings, len(snp.Spec.Ingress)+len(snp.Spec.Egress)+len(snp.Spec.PolicyTypes))
	}

	var cnp clusterv1alpha2.ClusterNetworkPolicy
	meta(&cnp.ObjectMeta)
	d.hostile(&cnp.Spec)
	if d.IntN(4) > 0 {
		cnp.Spec.Tier, cnp.Spec.Subject = clusterv1alpha2.AdminTier, clusterv1alpha2.ClusterNetworkPolicySubject{Namespaces: &metav1.LabelSelector{}}
	}
	global, warnings := convertTwice(t, &cnp, ClusterNetworkPolicy)
	if global != nil {
		checkSelector(t, global.Spec.NamespaceSelector)
		checkSpec(t, &global.Spec.NetworkPolicySpec, warnings, len(cnp.Spec.Ingress)+len(cnp.Spec.Egress))
	}

	var pod corev1.Pod
	meta(&pod.ObjectMeta)
	d.hostile(&pod.Spec.NodeName, &pod.Spec.HostNetwork, &pod.Spec.ServiceAccountName, &pod.Status.PodIP, &pod.Status.PodIPs, &pod.Status.Phase)
	for range d.IntN(3) {
		var c corev1.Container
		d.hostile(&c.Ports)
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	for _, annotation := range []string{PodIPAnnotation, PodIPsAnnotation, FloatingIPsAnnotation, SourcePrefixesAnnotation} {
		if d.IntN(4) == 0 {
			metav1.SetMetaDataAnnotation(&pod.ObjectMeta, annotation, one(d, hostileTexts...))
		}
	}
	if wep, _ := convertTwice(t, &pod, WorkloadEndpoint); wep != nil {
		checkEndpoint(t, wep)
	}
}

// convertTwice converts an object, and wants the same again of one that the first
// time has not changed.
func convertTwice[In, Out any](t *testing.T, in *In, convert func(*In) (*Out, []Warning, error)) (*Out, []Warning) {
	t.Helper()
	before := clone(reflect.ValueOf(in)).Interface()
	out, warnings, err := convert(in)
	if !reflect.DeepEqual(before, in) {
		t.Fatalf("conversion changed %+v to %+v", before, in)
	}
	again, warnedAgain, errAgain := convert(in)
	if !reflect.DeepEqual(out, again) || !reflect.DeepEqual(warnings, warnedAgain) || !reflect.DeepEqual(err, errAgain) {
		t.Fatalf("conversion of %+v gave once %+v %v %v, and then %+v %v %v", in, out, warnings, err, again, warnedAgain, errAgain)
	}
	if err != nil && out != nil {
		t.Fatalf("conversion of %+v gave %+v and %v", in, out, err)
	}
	return out, warnings
}

// clone asks an object's own method.
func clone(v reflect.Value) reflect.Value { return v.MethodByName("DeepCopy").Call(nil)[0] }

func checkSelector(t *testing.T, text string) {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil || text != "" && s.String() != text {
		t.Fatalf("selector %q is %q and %v, want its own canonical form", text, s, err)
	}
}

// checkSpec looks at the form of a policy of at most so many parts that can be wrong.
func checkSpec(t *testing.T, s *v3.NetworkPolicySpec, warnings []Warning, parts int) {
	t.Helper()
	if s.Selector == "" || s.Order == nil || s.Tier == "" || len(warnings) > parts {
		t.Fatalf("got %+v and %d warnings of %d parts", s, len(warnings), parts)
	}
	checkSelector(t, s.Selector)
	for _, w := range warnings {
		if w.Path == "" || w.Cause == nil || (w.Instead != leftOut && w.Instead != deniesAll) || len(w.Error()) > 1_000 {
			t.Fatalf("got warning %+v of %d bytes", w, len(w.Error()))
		}
	}
	for _, r := range append(append([]v3.Rule{}, s.Ingress...), s.Egress...) {
		if r.Protocol != nil && !r.Protocol.HasPorts() {
			t.Fatalf("a rule is of protocol %v", r.Protocol)
		}
		for _, e := range []v3.EntityRule{r.Source, r.Destination} {
			checkSelector(t, e.Selector)
			checkSelector(t, e.NamespaceSelector)
			checkPorts(t, e.Ports)
			for _, text := range append(append([]string{}, e.Nets...), e.NotNets...) {
				if n, err := netip.ParsePrefix(text); err != nil || n != n.Masked() || n.String() != text {
					t.Fatalf("a rule has net %q: %v", text, err)
				}
			}
		}
	}
}

// checkPorts wants ranges that ascend with gaps between them, and then names.
func checkPorts(t *testing.T, ports []v3.Port) {
	t.Helper()
	next, name := 1, ""
	for _, p := range ports {
		switch {
		case p.PortName != "" && p.PortName > name:
			name = p.PortName
		case p.PortName == "" && name == "" && int(p.MinPort) >= next && p.MinPort <= p.MaxPort:
			next = int(p.MaxPort) + 2
		default:
			t.Fatalf("ports are %v", ports)
		}
	}
}

func checkEndpoint(t *testing.T, wep *v3.WorkloadEndpoint) {
	t.Helper()
	for _, text := range wep.Spec.IPNetworks {
		if n, err := netip.ParsePrefix(text); err != nil || !n.IsSingleIP() || n.Addr().Is4In6() {
			t.Fatalf("an endpoint is at %q: %v", text, err)
		}
	}
	if len(wep.Spec.IPNetworks) == 0 || wep.Labels[selector.NamespaceLabel] != "shop" || wep.Labels["pcns.env"] != "" {
		t.Fatalf("an endpoint is %+v", wep)
	}
}

func TestHostileObjects(t *testing.T) {
	for seed := range uint64(1_000) {
		checkHostile(t, seed)
	}
}

func FuzzHostileObjects(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(checkHostile)
}
