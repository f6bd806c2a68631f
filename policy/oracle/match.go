package oracle

import (
	"net/netip"
	"slices"
	"strconv"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
)

func number(i int) string { return strconv.Itoa(i) }

// thing is what selectors of rules can pick.
type thing struct {
	labels map[string]string
	nets   []netip.Prefix
	ports  []v3.EndpointPort
	named  []netip.Addr // of names of hosts
}

func (w *World) things() []thing {
	var out []thing
	for _, e := range w.Workloads {
		t := thing{labels: w.inherit(workloadLabels(e), e.Spec.Profiles), nets: prefixes(e.Spec.IPNetworks)}
		for _, p := range e.Spec.Ports {
			t.ports = append(t.ports, v3.EndpointPort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
		}
		out = append(out, t)
	}
	for _, e := range w.Hosts {
		out = append(out, thing{labels: w.inherit(e.Labels, e.Spec.Profiles), nets: prefixes(e.Spec.ExpectedIPs), ports: e.Spec.Ports})
	}
	for _, s := range w.Sets {
		labels := w.inherit(with(s.Labels, "projectcalico.org/namespace", s.Namespace), []string{"kns." + s.Namespace})
		out = append(out, thing{labels: labels, nets: prefixes(s.Spec.Nets), named: w.resolve(s.Spec.AllowedEgressDomains)})
	}
	for _, s := range w.Global {
		out = append(out, thing{labels: s.Labels, nets: prefixes(s.Spec.Nets), named: w.resolve(s.Spec.AllowedEgressDomains)})
	}
	return out
}

func (w *World) resolve(domains []string) (out []netip.Addr) {
	for _, d := range domains {
		out = append(out, w.Domains[d]...)
	}
	return out
}

func workloadLabels(e *v3.WorkloadEndpoint) map[string]string {
	labels := with(e.Labels, "projectcalico.org/namespace", e.Namespace)
	if name := e.Spec.ServiceAccountName; name != "" && len(name) < 63 {
		labels["projectcalico.org/serviceaccount"] = name
	}
	if e.Spec.Orchestrator != "" {
		labels["projectcalico.org/orchestrator"] = e.Spec.Orchestrator
	}
	return labels
}

func with(labels map[string]string, name, value string) map[string]string {
	out := map[string]string{}
	for n, v := range labels {
		out[n] = v
	}
	out[name] = value
	return out
}

// inherit adds the labels of profiles that own does not have, the first profile
// first.
func (w *World) inherit(own map[string]string, profiles []string) map[string]string {
	out := map[string]string{}
	for n, v := range own {
		out[n] = v
	}
	for _, name := range profiles {
		for _, p := range w.Profiles {
			if p.Name != name {
				continue
			}
			for n, v := range p.Spec.LabelsToApply {
				if _, has := out[n]; !has {
					out[n] = v
				}
			}
		}
	}
	return out
}

func (w *World) endpoint(who Endpoint) (labels map[string]string, profiles []string, known bool) {
	for _, e := range w.Workloads {
		if !who.Host && e.Namespace == who.Namespace && e.Name == who.Name {
			return w.inherit(workloadLabels(e), e.Spec.Profiles), e.Spec.Profiles, true
		}
	}
	for _, e := range w.Hosts {
		if who.Host && e.Name == who.Name {
			return w.inherit(e.Labels, e.Spec.Profiles), e.Spec.Profiles, true
		}
	}
	return nil, nil, false
}

// allInterfaces reports whether the endpoint is a host's for all interfaces.
func (w *World) allInterfaces(who Endpoint) bool {
	return slices.ContainsFunc(w.Hosts, func(e *v3.HostEndpoint) bool {
		return who.Host && e.Name == who.Name && e.Spec.InterfaceName == "*"
	})
}

// selects reports whether a policy is for an endpoint with these labels.
func (w *World) selects(p Policy, labels map[string]string) bool {
	if p.Namespace != "" && labels["projectcalico.org/namespace"] != p.Namespace {
		return false
	}
	return (p.Spec.Selector == "" || picks(read(p.Spec.Selector), labels)) &&
		(p.Spec.NamespaceSelector == "" || picks(read(p.Spec.NamespaceSelector).ForNamespaces(), labels)) &&
		(p.Spec.ServiceAccountSelector == "" || picks(read(p.Spec.ServiceAccountSelector).ForServiceAccounts(), labels))
}

func read(text string) *selector.Selector {
	s, err := selector.Parse(text)
	if err != nil {
		panic(err) // the caller's fault: validation refuses it
	}
	return s
}

func picks(s *selector.Selector, labels map[string]string) bool {
	return s.Evaluate(selector.Map(labels))
}

func prefixes(texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a := netip.MustParseAddr(text)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out
}

func within(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

func (w *World) matches(r *v3.Rule, namespace string, d v3.PolicyType, p Packet) bool {
	version := 6
	if p.Source.Is4() {
		version = 4
	}
	if r.IPVersion != nil && *r.IPVersion != version {
		return false
	}
	if r.Protocol != nil {
		n, _ := r.Protocol.IP()
		if n != p.Protocol || n == 1 && version == 6 || n == 58 && version == 4 {
			return false
		}
	}
	if r.NotProtocol != nil {
		if n, _ := r.NotProtocol.IP(); n == p.Protocol {
			return false
		}
	}
	if r.ICMP != nil && !isMessage(r.ICMP, p) || r.NotICMP != nil && isMessage(r.NotICMP, p) {
		return false
	}
	for _, e := range []*v3.EntityRule{&r.Source, &r.Destination} {
		for _, nets := range [][]string{e.Nets, e.NotNets} {
			if len(nets) > 0 && !slices.ContainsFunc(prefixes(nets), func(n netip.Prefix) bool { return n.Addr().Is4() == (version == 4) }) {
				return false // the rule is absent for the family
			}
		}
	}
	egress := d == v3.PolicyTypeEgress
	return w.isEntity(&r.Source, namespace, p.Source, p.Protocol, p.SourcePort, false, false) &&
		w.isEntity(&r.Destination, namespace, p.Destination, p.Protocol, p.DestinationPort, egress, egress && r.Action == v3.Allow)
}

func isMessage(f *v3.ICMPFields, p Packet) bool {
	return (f.Type == nil || *f.Type == int(p.Type)) && (f.Code == nil || *f.Code == int(p.Code))
}

// isEntity reports whether an address, with a protocol and port, is what a rule
// asks for. withPort says that a service is meant with its ports, byName that an
// address may be that of a name.
func (w *World) isEntity(e *v3.EntityRule, namespace string, a netip.Addr, protocol uint8, port uint16, withPort, byName bool) bool {
	if len(e.Nets) > 0 && !within(prefixes(e.Nets), a) || within(prefixes(e.NotNets), a) {
		return false
	}
	if s := e.Services; s != nil {
		key := s.Namespace + "/" + s.Name
		if s.Namespace == "" {
			key = namespace + "/" + s.Name
		}
		if !slices.ContainsFunc(w.Services[key], func(b Backend) bool {
			return b.Address == a && (!withPort || b.Protocol == protocol && b.Port == port)
		}) {
			return false
		}
	}
	accounts := e.ServiceAccounts != nil && (namespace != "" || len(e.ServiceAccounts.Names) > 0 || e.ServiceAccounts.Selector != "")
	positive := e.Selector != "" || e.NamespaceSelector != "" || accounts || namespace != "" && e.NotSelector != ""
	here, someone, excluded := w.things(), false, false
	for _, t := range here {
		someone = someone || byName && slices.Contains(t.named, a) && isWanted(e, namespace, t.labels)
		if within(t.nets, a) {
			someone = someone || isWanted(e, namespace, t.labels)
			excluded = excluded || e.NotSelector != "" && picks(read(e.NotSelector), t.labels)
		}
	}
	if positive && !someone || !positive && excluded {
		return false
	}
	hasPort := func(ports []v3.Port) bool {
		return slices.ContainsFunc(ports, func(q v3.Port) bool {
			if q.PortName == "" {
				return q.MinPort <= port && port <= q.MaxPort
			}
			return slices.ContainsFunc(here, func(t thing) bool {
				return within(t.nets, a) && (!positive || isWanted(e, namespace, t.labels)) && declares(t, q.PortName, protocol, port)
			})
		})
	}
	return (len(e.Ports) == 0 || hasPort(e.Ports)) && !hasPort(e.NotPorts)
}

// isWanted reports whether labels are those that a rule's end asks for, where it
// asks for any.
func isWanted(e *v3.EntityRule, namespace string, labels map[string]string) bool {
	if e.NamespaceSelector != "" {
		if !picks(read(e.NamespaceSelector).ForNamespaces(), labels) {
			return false
		}
	} else if namespace != "" && labels["projectcalico.org/namespace"] != namespace {
		return false
	}
	if e.Selector != "" && !picks(read(e.Selector), labels) || e.NotSelector != "" && picks(read(e.NotSelector), labels) {
		return false
	}
	accounts := e.ServiceAccounts
	if accounts == nil {
		return true
	}
	name, has := labels["projectcalico.org/serviceaccount"]
	if len(accounts.Names) > 0 && (!has || !slices.Contains(accounts.Names, name)) {
		return false
	}
	return accounts.Selector == "" || picks(read(accounts.Selector).ForServiceAccounts(), labels)
}

func declares(t thing, name string, protocol uint8, port uint16) bool {
	return slices.ContainsFunc(t.ports, func(p v3.EndpointPort) bool {
		n, _ := p.Protocol.IP()
		return p.Name == name && n == protocol && p.Port == port
	})
}
