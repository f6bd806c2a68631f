package v3

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"margay.dev/margay/api/domain"
	"margay.dev/margay/api/selector"
)

// What lists and texts may be at most.
const (
	MaxRules           = 1024      // of a direction of a policy or a profile
	MaxNets            = 256       // of an end of a rule
	MaxPorts           = 50        // of an end of a rule
	MaxHTTP            = 20        // methods, and paths, of a rule
	MaxAnnotationBytes = 256 << 10 // names and values of all annotations of an object
)

// Validate is as Object says.
func (p *NetworkPolicy) Validate() field.ErrorList {
	f := &faults{}
	f.meta(&p.ObjectMeta, true, policyName)
	f.policy(field.NewPath("spec"), &p.Spec, true)
	return f.all()
}

// Validate is as Object says.
func (p *GlobalNetworkPolicy) Validate() field.ErrorList {
	f := &faults{}
	f.meta(&p.ObjectMeta, false, policyName)
	f.global(field.NewPath("spec"), &p.Spec)
	return f.all()
}

// Validate is as Object says.
func (p *StagedNetworkPolicy) Validate() field.ErrorList {
	f, spec := &faults{}, field.NewPath("spec")
	f.meta(&p.ObjectMeta, true, policyName)
	bare := StagedNetworkPolicySpec{StagedAction: StagedActionDelete, NetworkPolicySpec: NetworkPolicySpec{Tier: p.Spec.Tier}}
	if f.staged(spec, p.Spec.StagedAction, equality.Semantic.DeepEqual(p.Spec, bare)) {
		f.policy(spec, &p.Spec.NetworkPolicySpec, true)
	}
	return f.all()
}

// Validate is as Object says.
func (p *StagedGlobalNetworkPolicy) Validate() field.ErrorList {
	f, spec := &faults{}, field.NewPath("spec")
	f.meta(&p.ObjectMeta, false, policyName)
	bare := StagedGlobalNetworkPolicySpec{StagedAction: StagedActionDelete}
	bare.Tier = p.Spec.Tier
	if f.staged(spec, p.Spec.StagedAction, equality.Semantic.DeepEqual(p.Spec, bare)) {
		f.global(spec, &p.Spec.GlobalNetworkPolicySpec)
	}
	return f.all()
}

// staged judges a staged action, bare being a spec with nothing but Delete and a
// tier; it reports whether there is a policy to judge.
func (f *faults) staged(p *field.Path, action StagedAction, bare bool) bool {
	oneOf(f, p.Child("stagedAction"), action, StagedActionSet, StagedActionDelete, StagedActionLearn, StagedActionIgnore)
	if action != StagedActionDelete {
		return true
	}
	if !bare {
		f.forbidden(p, "stagedAction Delete needs nothing but the tier: take the other fields out")
	}
	return false
}

// Validate is as Object says.
func (t *Tier) Validate() field.ErrorList {
	f, spec := &faults{}, field.NewPath("spec")
	f.meta(&t.ObjectMeta, false, validation.IsDNS1123Label)
	f.order(spec.Child("order"), t.Spec.Order)
	if t.Spec.DefaultAction != nil {
		oneOf(f, spec.Child("defaultAction"), *t.Spec.DefaultAction, Deny, Pass)
	}
	if order, action, ok := builtIn(t.Name); ok {
		if t.Spec.Order == nil || *t.Spec.Order != order {
			f.invalidf(spec.Child("order"), t.Spec.Order, "tier %s is built in: its order is %.0f", t.Name, order)
		}
		if t.Spec.DefaultAction == nil || *t.Spec.DefaultAction != action {
			f.invalidf(spec.Child("defaultAction"), t.Spec.DefaultAction, "tier %s is built in: its action is %s", t.Name, action)
		}
	}
	return f.all()
}

// Validate is as Object says.
func (s *NetworkSet) Validate() field.ErrorList {
	return networkSet(&s.ObjectMeta, true, s.Spec.Nets, s.Spec.AllowedEgressDomains)
}

// Validate is as Object says.
func (s *GlobalNetworkSet) Validate() field.ErrorList {
	return networkSet(&s.ObjectMeta, false, s.Spec.Nets, s.Spec.AllowedEgressDomains)
}

// networkSet judges a set of either kind.
func networkSet(m *metav1.ObjectMeta, namespaced bool, nets, domains []string) field.ErrorList {
	f := &faults{}
	f.meta(m, namespaced, validation.IsDNS1123Subdomain)
	if _, ok := m.Labels[selector.NamespaceLabel]; ok {
		f.forbidden(field.NewPath("metadata", "labels"), "the system sets label "+selector.NamespaceLabel+" where a set has a namespace: take it out")
	}
	f.nets(field.NewPath("spec", "nets"), nets)
	f.domains(field.NewPath("spec", "allowedEgressDomains"), domains)
	return f.all()
}

// Validate is as Object says.
func (p *Profile) Validate() field.ErrorList {
	f, spec := &faults{}, field.NewPath("spec")
	f.meta(&p.ObjectMeta, false, validation.IsDNS1123Subdomain)
	f.rules(spec.Child("ingress"), p.Spec.Ingress, PolicyTypeIngress, false)
	f.rules(spec.Child("egress"), p.Spec.Egress, PolicyTypeEgress, false)
	bare := make(map[string]string, len(p.Spec.LabelsToApply))
	for k, v := range p.Spec.LabelsToApply {
		k = strings.TrimPrefix(strings.TrimPrefix(k, selector.NamespacePrefix), selector.ServiceAccountPrefix)
		bare[k] = v
	}
	f.labels(spec.Child("labelsToApply"), bare)
	return f.all()
}

// policy judges what every policy says.
func (f *faults) policy(p *field.Path, s *NetworkPolicySpec, namespaced bool) {
	f.messages(p.Child("tier"), s.Tier, orNone(s.Tier, validation.IsDNS1123Label))
	f.order(p.Child("order"), s.Order)
	f.selector(p.Child("selector"), s.Selector)
	f.selector(p.Child("serviceAccountSelector"), s.ServiceAccountSelector)
	someOf(f, p.Child("types"), s.Types, PolicyTypeIngress, PolicyTypeEgress)
	someOf(f, p.Child("performanceHints"), s.PerformanceHints, PerfHintAssumeNeededOnEveryNode)
	f.rules(p.Child("ingress"), s.Ingress, PolicyTypeIngress, namespaced)
	f.rules(p.Child("egress"), s.Egress, PolicyTypeEgress, namespaced)
}

// global judges what a policy of no namespace says.
func (f *faults) global(p *field.Path, s *GlobalNetworkPolicySpec) {
	f.policy(p, &s.NetworkPolicySpec, false)
	f.selector(p.Child("namespaceSelector"), s.NamespaceSelector)
	if s.DoNotTrack && s.PreDNAT {
		f.forbidden(p.Child("preDNAT"), "not with doNotTrack: make two policies of it")
	}
	if s.DoNotTrack && !s.ApplyOnForward {
		f.invalid(p.Child("applyOnForward"), false, "doNotTrack needs it true")
	}
	if !s.PreDNAT {
		return
	}
	if !s.ApplyOnForward {
		f.invalid(p.Child("applyOnForward"), false, "preDNAT needs it true")
	}
	if len(s.Egress) > 0 {
		f.forbidden(p.Child("egress"), "preDNAT judges nothing but what arrives: take the rules out, or preDNAT")
	}
	if slices.Contains(s.Types, PolicyTypeEgress) {
		f.invalid(p.Child("types"), s.Types, "preDNAT judges nothing but what arrives: want Ingress alone")
	}
}

// policyName wants one label of DNS, or two with a dot between.
func policyName(name string) []string {
	for _, reserved := range []string{"knp.default.", "ossg.default."} {
		if strings.HasPrefix(name, reserved) {
			return []string{fmt.Sprintf("%q is reserved for names that are made of other resources' names: choose another", reserved)}
		}
	}
	if strings.Count(name, ".") > 1 {
		return []string{"want one label of DNS, or two with a dot between, as web or tier.web"}
	}
	var messages []string
	for label := range strings.SplitSeq(name, ".") {
		messages = append(messages, validation.IsDNS1123Label(label)...)
	}
	slices.Sort(messages)
	return slices.Compact(messages)
}

// meta judges an object's metadata.
func (f *faults) meta(m *metav1.ObjectMeta, namespaced bool, nameFaults func(string) []string) {
	p := field.NewPath("metadata")
	switch {
	case m.Name != "":
		f.messages(p.Child("name"), m.Name, nameFaults(m.Name))
	case m.GenerateName == "":
		f.required(p.Child("name"), "give the object a name")
	}
	switch {
	case !namespaced && m.Namespace != "":
		f.forbidden(p.Child("namespace"), "the kind belongs to no namespace: take it out")
	case namespaced && m.Namespace == "":
		f.required(p.Child("namespace"), "say which namespace it is for")
	case namespaced:
		f.messages(p.Child("namespace"), m.Namespace, validation.IsDNS1123Label(m.Namespace))
	}
	f.labels(p.Child("labels"), m.Labels)
	f.annotations(p.Child("annotations"), m.Annotations)
}

// labels wants what Kubernetes wants of labels.
func (f *faults) labels(p *field.Path, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		f.messages(p, k, validation.IsQualifiedName(k))
		f.messages(p, labels[k], validation.IsValidLabelValue(labels[k]))
	}
}

// annotations wants what Kubernetes wants of annotations: names may have
// capitals, and all of them have MaxAnnotationBytes.
func (f *faults) annotations(p *field.Path, annotations map[string]string) {
	size := 0
	for _, k := range slices.Sorted(maps.Keys(annotations)) {
		f.messages(p, k, validation.IsQualifiedName(strings.ToLower(k)))
		size += len(k) + len(annotations[k])
	}
	if size > MaxAnnotationBytes {
		f.add(field.TooLong(p, "", MaxAnnotationBytes))
	}
}

// order refuses what cannot be compared, or written in JSON.
func (f *faults) order(p *field.Path, order *float64) {
	if order != nil && (math.IsNaN(*order) || math.IsInf(*order, 0)) {
		f.invalid(p, fmt.Sprint(*order), "want a number, or leave it out to come last")
	}
}

// orNone is a check of what may be empty.
func orNone(value string, check func(string) []string) []string {
	if value == "" {
		return nil
	}
	return check(value)
}

// oneOf wants one of some values.
func oneOf[T ~string](f *faults, p *field.Path, got T, want ...T) {
	if !slices.Contains(want, got) {
		f.add(field.NotSupported(p, cut(string(got)), want))
	}
}

// someOf wants some of some values, each once at most.
func someOf[T ~string](f *faults, p *field.Path, got []T, want ...T) {
	seen := make(map[T]bool, len(want))
	for i, g := range got {
		switch {
		case f.full():
			return
		case seen[g]:
			f.add(field.Duplicate(p.Index(i), cut(string(g))))
		default:
			oneOf(f, p.Index(i), g, want...)
			seen[g] = slices.Contains(want, g)
		}
	}
}

// selector judges a selector that speaks of labels.
func (f *faults) selector(p *field.Path, text string) {
	if s := f.parsed(p, text); s != nil && s.AsksGlobal() {
		f.invalid(p, text, "global() stands in a rule's namespaceSelector only: take it out")
	}
}

// ruleNamespaces judges the namespaceSelector of a rule, which alone may have
// global(), and then nothing else.
func (f *faults) ruleNamespaces(p *field.Path, text string) {
	if s := f.parsed(p, text); s != nil && s.AsksGlobal() && s.String() != "global()" {
		f.invalid(p, text, "global() stands alone, or not at all: make two rules of it")
	}
}

// parsed reads a selector, nil for one that is wrong.
func (f *faults) parsed(p *field.Path, text string) *selector.Selector {
	s, err := selector.ParseField(text)
	if err != nil {
		f.invalid(p, text, err.Error())
		return nil
	}
	return s
}

// nets wants addresses and CIDRs.
func (f *faults) nets(p *field.Path, nets []string) {
	for i, n := range nets {
		if f.full() {
			return
		}
		if _, err := ParseNet(n); err != nil {
			f.invalid(p.Index(i), n, err.Error())
		}
	}
}

// domains wants names of hosts, and patterns of them.
func (f *faults) domains(p *field.Path, domains []string) {
	for i, d := range domains {
		if f.full() {
			return
		}
		if _, err := domain.Parse(d); err != nil {
			f.invalid(p.Index(i), d, err.Error())
		}
	}
}
