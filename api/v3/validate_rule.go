package v3

import (
	"net/netip"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	portName   = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
	digits     = regexp.MustCompile(`^[0-9]+$`)
	httpMethod = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$") // a token of RFC 9110
)

// rules judges the rules of a direction.
func (f *faults) rules(p *field.Path, rules []Rule, direction PolicyType, namespaced bool) {
	if !f.atMost(p, len(rules), MaxRules) {
		return
	}
	for i := range rules {
		if f.full() {
			return
		}
		f.rule(p.Index(i), &rules[i], direction, namespaced)
	}
}

// rule judges one.
func (f *faults) rule(p *field.Path, r *Rule, direction PolicyType, namespaced bool) {
	if r.Action == "" {
		f.required(p.Child("action"), "say Allow, Deny, Log or Pass")
	} else {
		oneOf(f, p.Child("action"), r.Action, Allow, Deny, Log, Pass)
	}
	if v := r.IPVersion; v != nil && *v != 4 && *v != 6 {
		f.invalid(p.Child("ipVersion"), *v, "want 4 or 6, or leave it out for both")
	}
	f.protocol(p.Child("protocol"), r.Protocol)
	f.protocol(p.Child("notProtocol"), r.NotProtocol)
	f.icmp(p.Child("icmp"), r.ICMP, r.Protocol)
	f.icmp(p.Child("notICMP"), r.NotICMP, r.Protocol)
	source, destination := p.Child("source"), p.Child("destination")
	f.entity(source, &r.Source, r.Protocol)
	f.entity(destination, &r.Destination, r.Protocol)
	f.families(p, r)
	f.services(source, &r.Source, direction == PolicyTypeIngress, namespaced)
	f.services(destination, &r.Destination, direction == PolicyTypeEgress, namespaced)
	if r.Destination.Services != nil && len(r.Destination.Ports)+len(r.Destination.NotPorts) > 0 {
		f.forbidden(destination.Child("services"), "a service has ports of its own: take ports and notPorts out, or services")
	}
	if r.HTTP != nil {
		f.http(p.Child("http"), r, direction)
	}
	if r.Metadata != nil {
		f.annotations(p.Child("metadata", "annotations"), r.Metadata.Annotations)
	}
}

// protocol wants one that rules may name; none is any.
func (f *faults) protocol(p *field.Path, protocol *Protocol) {
	if protocol == nil {
		return
	}
	if n, known := protocol.IP(); !known || n == 0 {
		f.invalid(p, protocol.String(), "want TCP, UDP, ICMP, ICMPv6, SCTP or UDPLite, in these letters, or a number from 1 to 255")
	}
}

// icmp judges icmp or notICMP, of a rule with the protocol.
func (f *faults) icmp(p *field.Path, fields *ICMPFields, protocol *Protocol) {
	if fields == nil {
		return
	}
	n := uint8(0)
	if protocol != nil {
		n, _ = protocol.IP()
	}
	if n != 1 && n != 58 {
		f.forbidden(p, "it needs protocol ICMP or ICMPv6: set that, or take it out")
	}
	if t := fields.Type; t != nil && (*t < 0 || *t > 254) {
		f.invalid(p.Child("type"), *t, "want 0 to 254")
	}
	if c := fields.Code; c != nil && (*c < 0 || *c > 255) {
		f.invalid(p.Child("code"), *c, "want 0 to 255")
	}
	if fields.Code != nil && fields.Type == nil {
		f.required(p.Child("type"), "say which type the code is one of")
	}
}

// entity judges one end of a rule with the protocol.
func (f *faults) entity(p *field.Path, e *EntityRule, protocol *Protocol) {
	if f.atMost(p.Child("nets"), len(e.Nets), MaxNets) {
		f.nets(p.Child("nets"), e.Nets)
	}
	if f.atMost(p.Child("notNets"), len(e.NotNets), MaxNets) {
		f.nets(p.Child("notNets"), e.NotNets)
		for i, text := range e.NotNets {
			if n, err := ParseNet(text); err == nil && n.Bits() == 0 {
				f.invalid(p.Child("notNets").Index(i), text, "it is every address, so that nothing would match: take the rule out instead")
			}
		}
	}
	f.selector(p.Child("selector"), e.Selector)
	f.selector(p.Child("notSelector"), e.NotSelector)
	f.ruleNamespaces(p.Child("namespaceSelector"), e.NamespaceSelector)
	f.ports(p.Child("ports"), e.Ports, protocol)
	f.ports(p.Child("notPorts"), e.NotPorts, protocol)
	if a := e.ServiceAccounts; a != nil {
		accounts := p.Child("serviceAccounts")
		f.selector(accounts.Child("selector"), a.Selector)
		for i, name := range a.Names {
			f.messages(accounts.Child("names").Index(i), name, validation.IsDNS1123Subdomain(name))
		}
	}
}

// families refuses a rule with nets of both IPv4 and IPv6.
func (f *faults) families(p *field.Path, r *Rule) {
	var four, six bool
	for _, nets := range [][]string{r.Source.Nets, r.Source.NotNets, r.Destination.Nets, r.Destination.NotNets} {
		for _, text := range nets[:min(len(nets), MaxNets)] {
			if n, err := ParseNet(text); err == nil {
				four, six = four || isFour(n), six || !isFour(n)
			}
		}
	}
	if four && six {
		f.forbidden(p, "nets and notNets are of both IPv4 and IPv6: make a rule for each")
	}
}

func isFour(p netip.Prefix) bool { return p.Addr().Is4() }

// ports judges ports or notPorts, of a rule with the protocol.
func (f *faults) ports(p *field.Path, ports []Port, protocol *Protocol) {
	if !f.atMost(p, len(ports), MaxPorts) {
		return
	}
	for i, port := range ports {
		switch {
		case port.PortName == "" && port.MinPort > port.MaxPort:
			f.invalid(p.Index(i), port.String(), "want the lower port first")
		case port.PortName == "" && (protocol == nil || !protocol.HasPorts()):
			f.invalid(p.Index(i), port.String(), "a number needs protocol TCP, UDP or SCTP: set it, or name the port")
		case port.PortName != "" && !goodPortName(port.PortName):
			f.invalid(p.Index(i), port.String(), "want a number from 0 to 65535, a range as 80:90, the lower first, or a name of 1 to 128 of A-Z, a-z, 0-9, _ . -")
		}
	}
}

// goodPortName reports whether an endpoint may call a port so; what is all digits
// was meant as a number.
func goodPortName(name string) bool { return portName.MatchString(name) && !digits.MatchString(name) }

// services judges the service of an end of a rule, the far end or not.
func (f *faults) services(p *field.Path, e *EntityRule, far, namespaced bool) {
	s := e.Services
	if s == nil {
		return
	}
	p = p.Child("services")
	if !far {
		f.forbidden(p, "a service is the source of ingress rules and the destination of egress rules: move it there, or take it out")
	}
	if e.Selector != "" || e.NotSelector != "" || e.NamespaceSelector != "" || e.ServiceAccounts != nil || len(e.Nets)+len(e.NotNets) > 0 {
		f.forbidden(p, "a service has addresses of its own: take selector, notSelector, namespaceSelector, serviceAccounts, nets and notNets out, or services")
	}
	if s.Name == "" {
		f.required(p.Child("name"), "say which service")
	} else {
		f.messages(p.Child("name"), s.Name, validation.IsDNS1123Label(s.Name))
	}
	if s.Namespace == "" && !namespaced {
		f.required(p.Child("namespace"), "say which namespace the service is in: the policy is in none")
	}
	f.messages(p.Child("namespace"), s.Namespace, orNone(s.Namespace, validation.IsDNS1123Label))
}

// http judges the http part of a rule.
func (f *faults) http(p *field.Path, r *Rule, direction PolicyType) {
	if r.Action != Allow {
		f.forbidden(p, "it works with action Allow alone: change the action, or take it out")
	}
	if direction != PolicyTypeIngress {
		f.forbidden(p, "it works in ingress rules alone: take it out")
	}
	if n, _ := protocolOf(r).IP(); n != 6 {
		f.forbidden(p, "it works with protocol TCP alone: set that, or take it out")
	}
	if f.atMost(p.Child("methods"), len(r.HTTP.Methods), MaxHTTP) {
		for i, m := range r.HTTP.Methods {
			if !httpMethod.MatchString(m) {
				f.invalid(p.Child("methods").Index(i), m, "want the name of a method, as GET")
			}
		}
	}
	if f.atMost(p.Child("paths"), len(r.HTTP.Paths), MaxHTTP) {
		for i, path := range r.HTTP.Paths {
			f.httpPath(p.Child("paths").Index(i), path)
		}
	}
}

// protocolOf is a rule's protocol, TCP where it has none.
func protocolOf(r *Rule) Protocol {
	if r.Protocol == nil {
		return ProtocolNamed(TCP)
	}
	return *r.Protocol
}

// httpPath wants a path of either kind.
func (f *faults) httpPath(p *field.Path, path HTTPPath) {
	if (path.Exact == "") == (path.Prefix == "") {
		f.forbidden(p, "want one of exact and prefix, not both and not none")
	}
	for _, part := range []struct{ name, text string }{{"exact", path.Exact}, {"prefix", path.Prefix}} {
		if part.text != "" && (part.text[0] != '/' || strings.ContainsAny(part.text, "?# ")) {
			f.invalid(p.Child(part.name), part.text, "want a path that begins with / and has no ?, # or space")
		}
	}
}
