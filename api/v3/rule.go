package v3

// Action is what a rule does with a packet that it matches.
type Action string

// The actions.
const (
	Allow Action = "Allow" // accepted, and no other policy of the endpoint is asked
	Deny  Action = "Deny"  // dropped
	Log   Action = "Log"   // recorded; the next rule is asked
	Pass  Action = "Pass"  // the next tier is asked; in a profile, the next profile
)

// Rule is one line of a policy or a profile. It matches a packet that all of its
// parts match; a part that is left out matches everything.
//
// +kubebuilder:validation:XValidation:rule="!has(self.http) || self.action == 'Allow'",message="http works with action Allow alone: change the action, or take http out"
// +kubebuilder:validation:XValidation:rule="!has(self.http) || !has(self.protocol) || self.protocol == 'TCP' || self.protocol == 6",message="http works with protocol TCP alone: set that, or take http out"
// +kubebuilder:validation:XValidation:rule="!has(self.icmp) || has(self.protocol) && (self.protocol == 'ICMP' || self.protocol == 'ICMPv6' || self.protocol == 1 || self.protocol == 58)",message="icmp needs protocol ICMP or ICMPv6: set that, or take it out"
// +kubebuilder:validation:XValidation:rule="!has(self.notICMP) || has(self.protocol) && (self.protocol == 'ICMP' || self.protocol == 'ICMPv6' || self.protocol == 1 || self.protocol == 58)",message="notICMP needs protocol ICMP or ICMPv6: set that, or take it out"
// +kubebuilder:validation:XValidation:rule="!has(self.destination) || !has(self.destination.services) || (!has(self.destination.ports) || size(self.destination.ports) == 0) && (!has(self.destination.notPorts) || size(self.destination.notPorts) == 0)",message="a service has ports of its own: take ports and notPorts out, or services"
type Rule struct {
	// Action is what is done with the packet.
	// +kubebuilder:validation:Enum=Allow;Deny;Log;Pass
	Action Action `json:"action"`

	// IPVersion is 4 or 6; left out: both.
	// +optional
	// +kubebuilder:validation:Enum=4;6
	IPVersion *int `json:"ipVersion,omitempty"`

	// Protocol is the one that matches.
	// +optional
	Protocol *Protocol `json:"protocol,omitempty"`

	// ICMP narrows Protocol, which must be ICMP or ICMPv6.
	// +optional
	ICMP *ICMPFields `json:"icmp,omitempty"`

	// NotProtocol is the one that does not match.
	// +optional
	NotProtocol *Protocol `json:"notProtocol,omitempty"`

	// NotICMP is the part of Protocol, which must be ICMP or ICMPv6, that does not
	// match.
	// +optional
	NotICMP *ICMPFields `json:"notICMP,omitempty"`

	// Source is whom the packet is from.
	// +optional
	Source EntityRule `json:"source,omitzero"`

	// Destination is whom the packet is for, after translation of service
	// addresses.
	// +optional
	Destination EntityRule `json:"destination,omitzero"`

	// HTTP narrows an allowing ingress rule to some requests, where a proxy that
	// understands HTTP judges them; packets are judged as if it were not there.
	// +optional
	HTTP *HTTPMatch `json:"http,omitempty"`

	// Metadata is for people.
	// +optional
	Metadata *RuleMetadata `json:"metadata,omitempty"`
}

// ICMPFields are what an ICMP or ICMPv6 message says that it is.
//
// +kubebuilder:validation:XValidation:rule="!has(self.code) || has(self.type)",message="code needs type: say which type it is a code of"
type ICMPFields struct {
	// Type is 0 to 254; left out: any.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=254
	Type *int `json:"type,omitempty"`

	// Code is 0 to 255, of the Type, which is then needed; left out: any.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	Code *int `json:"code,omitempty"`
}

// EntityRule is one end of a packet's way. All its parts must match; of a list's
// entries one.
//
// +kubebuilder:validation:XValidation:rule="!has(self.services) || (!has(self.selector) || size(self.selector) == 0) && (!has(self.notSelector) || size(self.notSelector) == 0) && (!has(self.namespaceSelector) || size(self.namespaceSelector) == 0) && (!has(self.nets) || size(self.nets) == 0) && (!has(self.notNets) || size(self.notNets) == 0) && !has(self.serviceAccounts)",message="a service has addresses of its own: take selector, notSelector, namespaceSelector, serviceAccounts, nets and notNets out, or services"
// +kubebuilder:validation:XValidation:rule="!has(self.notNets) || self.notNets.all(n, !n.endsWith('/0'))",message="notNets has every address, so that nothing would match: take the rule out instead"
type EntityRule struct {
	// Nets are addresses in CIDR form, or single ones.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=49
	Nets []string `json:"nets,omitempty"`

	// Selector picks endpoints and network sets by their labels. Empty is any
	// address of the world; all() is any that an endpoint or a set has.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`

	// NamespaceSelector picks the namespaces that the other selectors look in, by
	// the namespaces' labels; global(), alone, picks what is in none. Empty: in a
	// namespaced policy its own, otherwise all and none.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NamespaceSelector string `json:"namespaceSelector,omitempty"`

	// Services is a service whose endpoints match: by address and port as
	// destination of an egress rule, by address as source of an ingress rule.
	// +optional
	Services *ServiceMatch `json:"services,omitempty"`

	// Ports match the packet's; TCP, UDP and SCTP have them.
	// +optional
	// +kubebuilder:validation:MaxItems=50
	Ports []Port `json:"ports,omitempty"`

	// NotNets are addresses, in CIDR form, that do not match.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=49
	NotNets []string `json:"notNets,omitempty"`

	// NotSelector picks, as Selector does, what does not match.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NotSelector string `json:"notSelector,omitempty"`

	// NotPorts are ports that do not match.
	// +optional
	// +kubebuilder:validation:MaxItems=50
	NotPorts []Port `json:"notPorts,omitempty"`

	// ServiceAccounts narrows the match to endpoints that run under them.
	// +optional
	ServiceAccounts *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
}

// ServiceMatch names a Kubernetes service.
type ServiceMatch struct {
	// Name is the service's.
	Name string `json:"name"`

	// Namespace is the service's; empty: that of the policy, if it has one.
	// +optional
	Namespace string `json:"namespace,omitempty"`
}

// ServiceAccountMatch picks service accounts that have one of the names, if there
// are any, and the labels.
type ServiceAccountMatch struct {
	// Names of service accounts; none: any.
	// +optional
	Names []string `json:"names,omitempty"`

	// Selector speaks of the service accounts' labels; empty: any.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`
}

// HTTPMatch picks requests that have one of the methods and one of the paths.
type HTTPMatch struct {
	// Methods, such as GET; none: any.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	Methods []string `json:"methods,omitempty"`

	// Paths; none: any.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	Paths []HTTPPath `json:"paths,omitempty"`
}

// HTTPPath is either one path, or all below one.
//
// +kubebuilder:validation:XValidation:rule="has(self.exact) != has(self.prefix)",message="give exact or prefix, one of them"
type HTTPPath struct {
	// Exact is the whole path.
	// +optional
	Exact string `json:"exact,omitempty"`

	// Prefix is the first segments of the path.
	// +optional
	Prefix string `json:"prefix,omitempty"`
}

// RuleMetadata is what people keep with a rule; it changes no verdict.
type RuleMetadata struct {
	// Annotations are names and values of the writer's choice.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}
