package v3

import (
	"net"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxInterface is the longest name that Linux gives to an interface, in bytes.
const maxInterface = 15

// Validate is as Object says.
func (h *HostEndpoint) Validate() field.ErrorList {
	f, spec := &faults{}, field.NewPath("spec")
	f.meta(&h.ObjectMeta, false, validation.IsDNS1123Subdomain)
	s := &h.Spec
	if s.Node == "" {
		f.required(spec.Child("node"), "say which node the interface is on")
	} else {
		f.messages(spec.Child("node"), s.Node, validation.IsDNS1123Subdomain(s.Node))
	}
	if s.InterfaceName == "" && len(s.ExpectedIPs) == 0 {
		f.required(spec.Child("interfaceName"), `say which interface is meant: a name, "*" for all, or expectedIPs`)
	}
	if s.InterfaceName != "*" {
		f.interfaceName(spec.Child("interfaceName"), s.InterfaceName)
	}
	for i, ip := range s.ExpectedIPs {
		f.address(spec.Child("expectedIPs").Index(i), ip)
	}
	f.profiles(spec.Child("profiles"), s.Profiles)
	for i, port := range s.Ports {
		p := spec.Child("ports").Index(i)
		f.endpointPort(p, port.Name, port.Protocol, port.Port)
	}
	return f.all()
}

// Validate is as Object says.
func (w *WorkloadEndpoint) Validate() field.ErrorList {
	f, spec := &faults{}, field.NewPath("spec")
	f.meta(&w.ObjectMeta, true, validation.IsDNS1123Subdomain)
	s := &w.Spec
	for i, text := range s.IPNetworks {
		if n, err := ParseNet(text); err != nil {
			f.invalid(spec.Child("ipNetworks").Index(i), text, err.Error())
		} else if !n.IsSingleIP() {
			f.invalid(spec.Child("ipNetworks").Index(i), text, "want a single address: /32 for IPv4, /128 for IPv6")
		}
	}
	f.nats(spec.Child("ipNATs"), s.IPNATs)
	f.gateway(spec.Child("ipv4Gateway"), s.IPv4Gateway, "IPv4", netip.Addr.Is4)
	f.gateway(spec.Child("ipv6Gateway"), s.IPv6Gateway, "IPv6", netip.Addr.Is6)
	f.profiles(spec.Child("profiles"), s.Profiles)
	f.interfaceName(spec.Child("interfaceName"), s.InterfaceName)
	if _, err := net.ParseMAC(s.MAC); s.MAC != "" && (err != nil || len(s.MAC) != 17) {
		f.invalid(spec.Child("mac"), s.MAC, "want six bytes, as ee:ee:ee:ee:ee:ee")
	}
	for i, port := range s.Ports {
		f.workloadPort(spec.Child("ports").Index(i), port)
	}
	f.nets(spec.Child("allowSpoofedSourcePrefixes"), s.AllowSpoofedSourcePrefixes)
	if s.QoSControls != nil {
		f.add(s.QoSControls.Validate(spec.Child("qosControls"))...)
	}
	return f.all()
}

// nats wants pairs of addresses of one family.
func (f *faults) nats(p *field.Path, nats []IPNAT) {
	for i, n := range nats {
		in, inOK := f.address(p.Index(i).Child("internalIP"), n.InternalIP)
		out, outOK := f.address(p.Index(i).Child("externalIP"), n.ExternalIP)
		if inOK && outOK && in.Is4() != out.Is4() {
			f.invalid(p.Index(i).Child("externalIP"), n.ExternalIP, "want an address of the family of internalIP")
		}
	}
}

// gateway wants an address of a family, or none.
func (f *faults) gateway(p *field.Path, text, family string, is func(netip.Addr) bool) {
	if text == "" {
		return
	}
	if a, ok := f.address(p, text); ok && !is(a) {
		f.invalidf(p, text, "want an %s address", family)
	}
}

// address wants an address.
func (f *faults) address(p *field.Path, text string) (a netip.Addr, ok bool) {
	a, err := ParseIP(text)
	if err != nil {
		f.invalid(p, text, err.Error())
	}
	return a, err == nil
}

// profiles wants names.
func (f *faults) profiles(p *field.Path, profiles []string) {
	for i, name := range profiles {
		f.messages(p.Index(i), name, validation.IsDNS1123Subdomain(name))
	}
}

// interfaceName wants what Linux takes for a name, or none.
func (f *faults) interfaceName(p *field.Path, name string) {
	if len(name) > maxInterface || name == "." || name == ".." || name == "*" || strings.ContainsFunc(name, notInName) {
		f.invalidf(p, name, "want the name of an interface: 1 to %d letters, digits and signs, without / and :", maxInterface)
	}
}

func notInName(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }

// workloadPort judges a port that a workload tells of.
func (f *faults) workloadPort(p *field.Path, port WorkloadEndpointPort) {
	if port.Name == "" && port.HostPort == 0 {
		f.required(p.Child("name"), "name the port, or give a hostPort")
	}
	name := port.Name
	if name == "" {
		name = "unnamed"
	}
	f.endpointPort(p, name, port.Protocol, port.Port)
	if port.HostIP != "" {
		f.address(p.Child("hostIP"), port.HostIP)
	}
}

// endpointPort judges what is common to ports of workloads and hosts.
func (f *faults) endpointPort(p *field.Path, name string, protocol Protocol, port uint16) {
	if !goodPortName(name) {
		f.invalid(p.Child("name"), name, "want 1 to 128 of A-Z, a-z, 0-9, _ . -, not digits alone")
	}
	if !protocol.HasPorts() {
		f.invalid(p.Child("protocol"), protocol.String(), "want TCP, UDP or SCTP")
	}
	if port == 0 {
		f.required(p.Child("port"), "want 1 to 65535")
	}
}
