package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ask is what a term asks a packet. All but askNet and askFragment ask whether a
// number lies between lo and hi.
type ask uint8

const (
	askNet      ask = iota // an address, by side, lies in prefix
	askPort                // a port, by side
	askProto               // the IP protocol
	askICMP                // icmpValue
	askEther               // the EtherType
	askVLAN                // the VLAN id
	askOn                  // the port it came in by
	askTo                  // the port it leaves by
	askFragment            // it is one
	askLength              // its bytes
)

// side is which of a packet's two ends a term asks about.
type side uint8

const (
	eitherSide side = iota
	srcSide
	dstSide
)

// String is the word for the side with a blank behind it.
func (s side) String() string {
	return [...]string{eitherSide: "", srcSide: "src ", dstSide: "dst "}[s]
}

// term is one question to a packet.
type term struct {
	ask    ask
	side   side
	lo, hi uint32
	prefix netip.Prefix
}

// icmpValue is an ICMP header as one number, so that a type with any code is a
// range.
//
//fastpath:hot
func icmpValue(proto, kind, code uint8) uint32 {
	return uint32(proto)<<16 | uint32(kind)<<8 | uint32(code)
}

// holds is the packet's answer.
//
//fastpath:hot
func (t *term) holds(k *Key) bool {
	switch t.ask {
	case askNet:
		return t.side != dstSide && t.prefix.Contains(k.Src) || t.side != srcSide && t.prefix.Contains(k.Dst)
	case askPort:
		return k.HasPorts && (t.side != dstSide && t.spans(uint32(k.SrcPort)) || t.side != srcSide && t.spans(uint32(k.DstPort)))
	case askProto:
		return t.spans(uint32(k.Proto))
	case askICMP:
		return k.HasICMP && t.spans(icmpValue(k.Proto, k.ICMPType, k.ICMPCode))
	case askEther:
		return t.spans(uint32(k.EtherType))
	case askVLAN:
		return t.spans(uint32(k.VLAN))
	case askOn:
		return t.spans(uint32(k.InPort))
	case askTo:
		return t.spans(uint32(k.OutPort))
	case askFragment:
		return k.Fragment
	}
	return t.spans(k.Length)
}

//fastpath:hot
func (t *term) spans(v uint32) bool { return t.lo <= v && v <= t.hi }

// instr is one step of a program: a question, and where to go on by its answer.
type instr struct {
	term
	yes, no uint16
}

// Where a program ends. Every step leads to a lower index than its own.
const (
	reject = iota
	accept
	firstStep
)

// Bound is a filter with its port names resolved. It does not change, and any
// number of workers may ask it; the zero Bound matches no packet.
type Bound struct {
	prog  []instr // none at reject and accept
	start uint16
}

// Match reports whether the filter matches a packet with the key k, in at most
// MaxTerms steps.
//
//fastpath:hot
func (b *Bound) Match(k *Key) bool {
	at := b.start
	for at > accept {
		step := &b.prog[at]
		if step.holds(k) {
			at = step.yes
		} else {
			at = step.no
		}
	}
	return at == accept
}

// Bind resolves port names to the indexes that Key.InPort and Key.OutPort hold.
// An unknown name is an error that lists near ones, which it finds by asking
// resolve for a few thousand names that differ by one sign.
func (f *Filter) Bind(resolve func(name string) (index uint16, ok bool)) (*Bound, error) {
	c := &compiler{prog: make([]instr, firstStep), ports: map[string]uint16{}}
	var errs []error
	for _, name := range f.Ports() {
		index, ok := resolve(name)
		if !ok {
			errs = append(errs, unknownPort(name, resolve))
		}
		c.ports[name] = index
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if f.root == nil {
		return &Bound{start: accept}, nil
	}
	start := c.emit(f.root, accept, reject)
	return &Bound{prog: c.prog, start: start}, nil
}

// compiler lays a tree out from its end to its beginning, so that where a step
// goes on is known when it is laid.
type compiler struct {
	prog  []instr
	ports map[string]uint16
}

// emit lays out n, which goes on at yes or at no, and returns where it begins.
func (c *compiler) emit(n *node, yes, no uint16) uint16 {
	switch n.op {
	case opNot:
		return c.emit(n.kids[0], no, yes)
	case opAnd:
		for _, kid := range slices.Backward(n.kids) {
			yes = c.emit(kid, yes, no)
		}
		return yes
	case opOr:
		for _, kid := range slices.Backward(n.kids) {
			no = c.emit(kid, yes, no)
		}
		return no
	}
	t := n.term
	if n.asksPortName() {
		t.lo = uint32(c.ports[n.name])
		t.hi = t.lo
	}
	c.prog = append(c.prog, instr{t, yes, no})
	return uint16(len(c.prog) - 1)
}

// unknownPort is the error for a name that no port has.
func unknownPort(name string, resolve func(string) (uint16, bool)) error {
	found := near(name, resolve)
	if len(found) == 0 {
		return fmt.Errorf("bind filter: no port is called %q, nor nearly so: see margayctl show ports", name)
	}
	for i, s := range found {
		found[i] = strconv.Quote(s)
	}
	return fmt.Errorf("bind filter: no port is called %q; near it is %s", name, strings.Join(found, ", "))
}

// maxNear is how many near names an error lists.
const maxNear = 4

// near lists names that resolve knows and that differ from name by one sign: one
// too many, two swapped, one wrong, one missing.
func near(name string, resolve func(string) (uint16, bool)) []string {
	const signs = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._"
	var found []string
	try := func(s string) {
		if _, ok := resolve(s); ok && len(found) < maxNear && !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	for i := range len(name) {
		try(name[:i] + name[i+1:])
		if i > 0 {
			try(name[:i-1] + name[i:i+1] + name[i-1:i] + name[i+1:])
		}
	}
	for i := range len(name) + 1 {
		for j := range len(signs) {
			if i < len(name) {
				try(name[:i] + signs[j:j+1] + name[i+1:])
			}
			try(name[:i] + signs[j:j+1] + name[i:])
		}
	}
	slices.Sort(found)
	return found
}
