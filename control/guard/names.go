package guard

import (
	"fmt"
	"net/netip"
	"strings"

	v1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/policy"
)

// rename tells anew what rules are that the dataplane knows and that have moved.
func (g *Guard) rename(u *Update, moved []uint32) {
	told := make(map[uint32]bool, len(u.Delta.Set.Rules))
	for _, r := range u.Delta.Set.Rules {
		told[r.GetId()] = true
	}
	for _, id := range moved {
		if g.rules[id] > 0 && !told[id] {
			u.Delta.Set.Rules = append(u.Delta.Set.Rules, g.ruleName(id))
		}
	}
}

// netsName is what a literal list of prefixes is called. Of a long one the first
// few are enough to know it by.
func netsName(nets []netip.Prefix) string {
	const most = 8
	var texts []string
	for _, n := range nets[:min(most, len(nets))] {
		texts = append(texts, n.String())
	}
	name := "nets " + strings.Join(texts, ", ")
	if more := len(nets) - most; more > 0 {
		name += fmt.Sprintf(" and %d more", more)
	}
	return name
}

// ruleText says in one line what a rule says, in the words of its object:
//
//	allow TCP from role == 'client' in namespace default to ports 80,8000:8080
func ruleText(r policy.RuleRef) string {
	switch {
	case r.Index < 0 && r.Object.Kind == v3.KindProfile:
		return "deny everything: the profile is missing"
	case r.Index < 0:
		return "deny everything: whom the policy is for cannot be understood"
	case r.StandsIn:
		return "deny everything: the rule cannot be understood"
	}
	words := []string{strings.ToLower(string(r.Rule.Action))}
	words = append(words, protocolWords(&r.Rule)...)
	from, to := endText(&r.Rule.Source, r.Object.Namespace), endText(&r.Rule.Destination, r.Object.Namespace)
	if from != "" {
		words = append(words, "from", from)
	}
	if to != "" {
		words = append(words, "to", to)
	}
	if len(words) == 1 {
		words = append(words, "everything")
	}
	return v1.Line(strings.Join(words, " "))
}

// protocolWords are what a rule asks of family and protocol.
func protocolWords(r *v3.Rule) (words []string) {
	if r.IPVersion != nil {
		words = append(words, fmt.Sprintf("IPv%d", *r.IPVersion))
	}
	if r.Protocol != nil {
		words = append(words, protocolName(r.Protocol))
	}
	if r.NotProtocol != nil {
		words = append(words, "not "+protocolName(r.NotProtocol))
	}
	if r.ICMP != nil {
		words = append(words, icmpText(r.ICMP))
	}
	if r.NotICMP != nil {
		words = append(words, "not "+icmpText(r.NotICMP))
	}
	return words
}

func protocolName(p *v3.Protocol) string {
	if p.Name == "" {
		return "protocol " + p.String()
	}
	return p.Name
}

func icmpText(f *v3.ICMPFields) string {
	switch {
	case f.Type == nil:
		return "any type"
	case f.Code == nil:
		return fmt.Sprintf("type %d", *f.Type)
	}
	return fmt.Sprintf("type %d code %d", *f.Type, *f.Code)
}

// endText is what a rule asks of one end, empty where it asks nothing. namespace is
// the policy's own, which selectors are bound to that say none.
func endText(e *v3.EntityRule, namespace string) string {
	var parts []string
	add := func(format string, list []string) {
		if len(list) > 0 {
			parts = append(parts, fmt.Sprintf(format, strings.Join(list, ",")))
		}
	}
	if whom := whomText(e, namespace); whom != "" {
		parts = append(parts, whom)
	}
	add("%s", e.Nets)
	add("not %s", e.NotNets)
	if s := e.Services; s != nil {
		at := s.Namespace
		if at == "" {
			at = namespace
		}
		parts = append(parts, "service "+at+"/"+s.Name)
	}
	add("ports %s", portTexts(e.Ports))
	add("not ports %s", portTexts(e.NotPorts))
	return strings.Join(parts, " and ")
}

func portTexts(ports []v3.Port) (texts []string) {
	for _, p := range ports {
		texts = append(texts, p.String())
	}
	return texts
}

// whomText is what a rule asks of labels, empty where it asks nothing.
func whomText(e *v3.EntityRule, namespace string) string {
	var parts []string
	if e.Selector != "" {
		parts = append(parts, e.Selector)
	}
	if e.NotSelector != "" {
		parts = append(parts, "not ("+e.NotSelector+")")
	}
	if a := e.ServiceAccounts; a != nil && len(a.Names) > 0 {
		parts = append(parts, "service account "+strings.Join(a.Names, "|"))
	}
	if a := e.ServiceAccounts; a != nil && a.Selector != "" {
		parts = append(parts, "service accounts with "+a.Selector)
	}
	if len(parts) > 1 && e.Selector != "" {
		parts[0] = "(" + e.Selector + ")"
	}
	where := ""
	switch {
	case e.NamespaceSelector == "global()":
		where = "in no namespace"
	case e.NamespaceSelector == "all()":
		where = "in any namespace"
	case e.NamespaceSelector != "":
		where = "in namespaces with " + e.NamespaceSelector
	case namespace != "" && len(parts) > 0:
		where = "in namespace " + namespace
	}
	if where != "" && len(parts) == 0 {
		where = "all " + where
	}
	text := strings.Join(parts, " and ")
	return strings.TrimSpace(text + " " + where)
}
