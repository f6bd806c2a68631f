package policy

import (
	"errors"
	"fmt"
	"net/netip"

	"margay.dev/margay/api/selector"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
)

// rule is a rule that was read, before it is known what its selectors pick.
type rule struct {
	source    *v3.Rule
	index     int // in the object's list; -1: it stands for the object itself
	id        uint32
	standsIn  bool // for what is missing or cannot be understood
	action    classifier.Action
	family    int   // 4 or 6; 0: both
	protocols spans // none: it matches nothing
	icmp      spans // types and codes; anyPort without
	from, to  peer
}

// peer is what a rule asks of one end.
type peer struct {
	nets, notNets   []netip.Prefix
	set, notSet     question
	domains         question   // names of hosts that set's selector picks
	ports, notPorts spans      // numbers
	named, notNamed []question // names
	service         *question
	anyPort         bool // neither ports nor named are asked for
}

// question is what one of the gatherings answers.
type question struct {
	key      gatheringKey
	selector *selector.Selector // nil: it is about a service, or is not asked
	answer   *gathering         // while the rule is in use
}

// asked reports whether there is such a question.
func (q *question) asked() bool { return q.key != gatheringKey{} }

// questions calls f with all that the rule asks.
func (r *rule) questions(f func(*question)) {
	for _, p := range [...]*peer{&r.from, &r.to} {
		for _, q := range [...]*question{&p.set, &p.notSet, &p.domains, p.service} {
			if q != nil && q.asked() {
				f(q)
			}
		}
		for _, named := range [...][]question{p.named, p.notNamed} {
			for i := range named {
				f(&named[i])
			}
		}
	}
}

// denyAll stands for what is missing or cannot be understood.
func denyAll(source *v3.Rule, index int) *rule {
	return &rule{
		source: source, index: index, standsIn: true, action: classifier.Deny, protocols: anyProtocol, icmp: anyPort,
		from: peer{anyPort: true}, to: peer{anyPort: true},
	}
}

// readRules reads an object's rules of one direction. What cannot be understood is
// told, and denies everything, or is left out where it would allow or log.
func readRules(rules []v3.Rule, d Direction, namespace string, tell func(string)) []*rule {
	out := make([]*rule, 0, len(rules))
	for i := range rules {
		r, err := readRule(&rules[i], d, namespace)
		if err == nil {
			r.index = i
			out = append(out, r)
			continue
		}
		stands := "it denies everything"
		if a := rules[i].Action; a == v3.Allow || a == v3.Log {
			stands = "it is left out"
		} else {
			out = append(out, denyAll(&rules[i], i))
		}
		tell(fmt.Sprintf("rule %d of %v: %v; until that is mended %s", i, d, err, stands))
	}
	return out
}

func readRule(src *v3.Rule, d Direction, namespace string) (*rule, error) {
	r := &rule{source: src, protocols: anyProtocol, icmp: anyPort}
	var err error
	if r.action, err = readAction(src.Action); err != nil {
		return nil, err
	}
	if v := src.IPVersion; v != nil {
		if r.family = *v; r.family != 4 && r.family != 6 {
			return nil, fmt.Errorf("ipVersion is %d, want 4 or 6", r.family)
		}
	}
	if err := r.readProtocols(); err != nil {
		return nil, err
	}
	hasPorts := src.Protocol != nil && src.Protocol.HasPorts()
	if r.from, err = readPeer(&src.Source, namespace, hasPorts, d == Ingress, false); err != nil {
		return nil, fmt.Errorf("source.%w", err)
	}
	if r.to, err = readPeer(&src.Destination, namespace, hasPorts, d == Egress, true); err != nil {
		return nil, fmt.Errorf("destination.%w", err)
	}
	if d == Egress && r.action == classifier.Allow && r.to.set.asked() {
		r.to.domains = r.to.set
		r.to.domains.key.domains = true
	}
	return r, nil
}

func readAction(a v3.Action) (classifier.Action, error) {
	switch a {
	case v3.Allow:
		return classifier.Allow, nil
	case v3.Deny:
		return classifier.Deny, nil
	case v3.Pass:
		return classifier.Pass, nil
	case v3.Log:
		return classifier.Log, nil
	}
	return 0, fmt.Errorf("action is %.32q, want Allow, Deny, Pass or Log", string(a))
}

// Numbers of protocols that are of one family.
const (
	protocolICMP   = 1
	protocolICMPv6 = 58
)

// readProtocols reads protocol, notProtocol, icmp and notICMP.
func (r *rule) readProtocols() error {
	src := r.source
	only := -1
	if src.Protocol != nil {
		n, known := src.Protocol.IP()
		if !known {
			return fmt.Errorf("protocol is %.32q, want a name as TCP or a number from 1 to 255", src.Protocol.Name)
		}
		only, r.protocols = int(n), one(uint16(n))
	}
	if src.NotProtocol != nil {
		n, known := src.NotProtocol.IP()
		if !known {
			return fmt.Errorf("notProtocol is %.32q, want a name as TCP or a number from 1 to 255", src.NotProtocol.Name)
		}
		r.protocols = r.protocols.without(one(uint16(n)))
	}
	if err := r.bindFamily(only); err != nil {
		return err
	}
	if src.ICMP == nil && src.NotICMP == nil {
		return nil
	}
	if only != protocolICMP && only != protocolICMPv6 {
		return errors.New("icmp and notICMP need protocol ICMP or ICMPv6: say which")
	}
	for _, f := range [...]struct {
		fields *v3.ICMPFields
		not    bool
	}{{src.ICMP, false}, {src.NotICMP, true}} {
		match, err := readICMP(f.fields)
		switch {
		case err != nil:
			return err
		case f.fields == nil:
		case f.not:
			r.icmp = r.icmp.without(match)
		default:
			r.icmp = r.icmp.and(match)
		}
	}
	return nil
}

// bindFamily makes the rule one of the family that its protocol is of.
func (r *rule) bindFamily(protocol int) error {
	family := 0
	switch protocol {
	case protocolICMP:
		family = 4
	case protocolICMPv6:
		family = 6
	default:
		return nil
	}
	if r.family != 0 && r.family != family {
		r.protocols = nil // no packet of the one family has the protocol of the other
	}
	r.family = family
	return nil
}

// readICMP gives the classifier's port numbers of types and codes.
func readICMP(f *v3.ICMPFields) (spans, error) {
	switch {
	case f == nil:
		return nil, nil
	case f.Type == nil && f.Code != nil:
		return nil, errors.New("an ICMP code has no type: say which type it is a code of")
	case f.Type == nil:
		return anyPort, nil
	case *f.Type < 0 || *f.Type > 255 || f.Code != nil && (*f.Code < 0 || *f.Code > 255):
		return nil, errors.New("an ICMP type or code is out of range, want 0 to 254 and 0 to 255")
	}
	first := uint16(*f.Type) << 8
	if f.Code != nil {
		return one(first | uint16(*f.Code)), nil
	}
	return spans{{First: first, Last: first | 0xff}}, nil
}

// readPeer reads one end of a rule. serves says whether a service may stand here,
// and withPorts whether its ports are meant too.
func readPeer(e *v3.EntityRule, namespace string, hasPorts, serves, withPorts bool) (peer, error) {
	p := peer{anyPort: len(e.Ports) == 0}
	var err error
	if p.nets, err = readNets(e.Nets); err != nil {
		return p, fmt.Errorf("nets: %w", err)
	}
	if p.notNets, err = readNets(e.NotNets); err != nil {
		return p, fmt.Errorf("notNets: %w", err)
	}
	positive, negative, err := readSelectors(e, namespace)
	if err != nil {
		return p, err
	}
	if positive != nil {
		p.set = question{key: gatheringKey{selector: positive.String()}, selector: positive}
	}
	if negative != nil {
		p.notSet = question{key: gatheringKey{selector: negative.String()}, selector: negative}
	}
	if positive == nil {
		positive = selector.All()
	}
	if p.ports, p.named, err = readPorts(e.Ports, positive, hasPorts); err != nil {
		return p, fmt.Errorf("ports: %w", err)
	}
	if p.notPorts, p.notNamed, err = readPorts(e.NotPorts, positive, hasPorts); err != nil {
		return p, fmt.Errorf("notPorts: %w", err)
	}
	if e.Services != nil {
		if p.service, err = readService(e, namespace, serves, withPorts); err != nil {
			return p, fmt.Errorf("services: %w", err)
		}
	}
	return p, nil
}

func readNets(texts []string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, text := range texts {
		p, err := parsePrefix(text)
		if err != nil {
			return nil, err
		}
		nets = append(nets, p)
	}
	return nets, nil
}

// readPorts reads numbers and names of ports of what a selector picks.
func readPorts(ports []v3.Port, of *selector.Selector, hasPorts bool) (numbers spans, named []question, err error) {
	var ranges []span
	for _, port := range ports {
		switch {
		case port.PortName != "" && !portName(port.PortName):
			return nil, nil, fmt.Errorf("%.64q is no port: want a number, first:last, or a name of A-Z, a-z, 0-9, _ . -", port.PortName)
		case port.PortName != "":
			named = append(named, question{key: gatheringKey{selector: of.String(), port: port.PortName}, selector: of})
		case !hasPorts:
			return nil, nil, fmt.Errorf("%v is a number, which needs protocol TCP, UDP or SCTP: say which", port)
		case port.MinPort > port.MaxPort:
			return nil, nil, fmt.Errorf("%v is upside down, want the lower number first", port)
		default:
			ranges = append(ranges, span{First: port.MinPort, Last: port.MaxPort})
		}
	}
	return join(ranges...), named, nil
}

// portName reports whether endpoints may give a port this name.
func portName(name string) bool {
	if len(name) > 128 {
		return false
	}
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

func readService(e *v3.EntityRule, namespace string, serves, withPorts bool) (*question, error) {
	s := e.Services
	key := Key{Namespace: s.Namespace, Name: s.Name}
	if key.Namespace == "" {
		key.Namespace = namespace
	}
	switch {
	case !serves:
		return nil, errors.New("they can be the destination of egress or the source of ingress alone")
	case s.Name == "":
		return nil, errors.New("name is empty: say which service")
	case key.Namespace == "":
		return nil, errors.New("namespace is empty: a global policy has none of its own, so say which")
	}
	return &question{key: gatheringKey{service: key, addresses: !withPorts}}, nil
}
