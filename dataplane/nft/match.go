package nft

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"margay.dev/margay/classifier"
	"margay.dev/margay/dataplane/nft/cover"
)

// Codes of netfilter's verdicts.
const (
	codeReturn = int32(expr.VerdictReturn)
	codeDrop   = int32(expr.VerdictDrop)
	codeAccept = int32(expr.VerdictAccept)
	codeGoto   = int32(expr.VerdictGoto)
	codeJump   = int32(expr.VerdictJump)
)

// writer makes rules for one side of a table: names of its sets begin with the
// side's, and what a rule gives literally goes to literals.
type writer struct {
	side     string
	literals map[string]*literal
	passed   uint32 // the bit that a rule sets which passes; 0: none
	err      error  // the first expression that has no form; none that we make should
}

// line is a rule in the making. The zero line matches every packet.
type line struct {
	w *writer
	r rule
}

func (w *writer) line(comment string) *line { return &line{w: w, r: rule{comment: comment}} }

func (l *line) add(expressions ...expr.Any) *line {
	for _, e := range expressions {
		data, err := expr.Marshal(inet, e)
		if err != nil {
			if l.w.err == nil {
				l.w.err = fmt.Errorf("write a rule (%s): %w", l.r.comment, err)
			}
			return l
		}
		l.r.expressions = appendAttr(l.r.expressions, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data)
	}
	return l
}

// The one register that we load into.
const register = unix.NFT_REG_1

func load(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: register} }

func equal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

// verdict ends the rule.
func (l *line) verdict(code int32, chain string) rule {
	return l.add(&expr.Verdict{Kind: expr.VerdictKind(code), Chain: chain}).r
}

// family wants packets of IPv4 or IPv6.
func (l *line) family(family int) *line {
	proto := byte(unix.NFPROTO_IPV4)
	if family == 6 {
		proto = unix.NFPROTO_IPV6
	}
	return l.add(load(expr.MetaKeyNFPROTO), equal(proto))
}

// protocol wants one IP protocol.
func (l *line) protocol(p uint8) *line { return l.add(load(expr.MetaKeyL4PROTO), equal(p)) }

// state wants packets of which connection tracking says one of some things.
func (l *line) state(bits uint32) *line {
	return l.add(&expr.Ct{Key: expr.CtKeySTATE, Register: register}).masked(bits)
}

// masked wants one of some bits of the number in the register.
func (l *line) masked(bits uint32) *line {
	return l.add(
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(bits), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: native(0)},
	)
}

// marked wants packets that have the bit.
func (l *line) marked(bit uint32) *line { return l.add(load(expr.MetaKeyMARK)).masked(bit) }

// mark gives packets the bit, or takes it away.
func (l *line) mark(bit uint32, on bool) *line {
	set := bit
	if !on {
		set = 0
	}
	return l.add(
		load(expr.MetaKeyMARK),
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(^bit), Xor: native(set)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register, SourceRegister: true},
	)
}

// lookup asks the set of a name for what the register holds.
func lookup(set string, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: register, SetName: set, Invert: invert}
}

// among wants what the register holds to be in joined ranges of numbers of so many
// bytes.
func (l *line) among(ranges []classifier.Range, k kind) *line {
	width := int(k.datatype.Bytes)
	if len(ranges) != 1 {
		return l.add(lookup(l.w.literal(&literal{k, spread(ranges, width)}), false))
	}
	first, last := bigEndian(ranges[0].First, width), bigEndian(ranges[0].Last, width)
	if ranges[0].First == ranges[0].Last {
		return l.add(equal(first...))
	}
	return l.add(&expr.Range{Op: expr.CmpOpEq, Register: register, FromData: first, ToData: last})
}

// literal keeps a literal, and gives its name.
func (w *writer) literal(l *literal) string {
	name := w.side + l.name()
	w.literals[name] = l
	return name
}

// port wants a port, or what stands in its place, at an offset behind the IP
// header.
func (l *line) port(offset uint32, ranges []classifier.Range) *line {
	if cover.Everything(ranges, 65535) {
		return l
	}
	return l.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}).
		among(ranges, kindPorts())
}

// Where ports lie; an ICMP message has its type and code in the place of the first.
const (
	sourcePort      = 0
	destinationPort = 2
	icmpTypeCode    = 0
)

// protocols wants one of some IP protocols.
func (l *line) protocols(ranges []classifier.Range) *line {
	if cover.Everything(ranges, 255) {
		return l
	}
	return l.add(load(expr.MetaKeyL4PROTO)).among(ranges, kindProtocols())
}

// end is one end of a packet.
type end uint8

const (
	source end = iota
	destination
)

// address loads an address of a packet of the family.
func address(family int, e end) *expr.Payload {
	p := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12 + 4*uint32(e), Len: 4}
	if family == 6 {
		p.Offset, p.Len = 8+16*uint32(e), 16
	}
	return p
}

// within wants an address to be in one of some prefixes, or in none.
func (l *line) within(family int, e end, nets []netip.Prefix, not bool) *line {
	nets = cover.Outermost(nets)
	if len(nets) != 1 {
		return l.add(address(family, e), lookup(l.w.literal(&literal{kindAddresses(family), intervals(nets)}), not))
	}
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	first, bits := nets[0].Addr().AsSlice(), nets[0].Bits()
	l.add(address(family, e))
	if bits < 8*len(first) {
		mask := make([]byte, len(first))
		for i := range bits {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		l.add(&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(first)), Mask: mask, Xor: make([]byte, len(first))})
	}
	return l.add(&expr.Cmp{Op: op, Register: register, Data: first})
}

// member wants an address to be in a set, or not.
func (l *line) member(family int, e end, id classifier.SetID, not bool) *line {
	return l.add(address(family, e), lookup(l.w.side+setName(id, family), not))
}

// setName is what the set of one family is called, behind its side.
func setName(id classifier.SetID, family int) string { return fmt.Sprintf("set%d.%d", id, family) }

// local wants an address to be one of the host's own.
func (l *line) local(e end) *line {
	return l.add(
		&expr.Fib{Register: register, ResultADDRTYPE: true, FlagSADDR: e == source, FlagDADDR: e == destination},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: native(unix.RTN_LOCAL)},
	)
}

// on wants packets of an interface; a name that ends in "*" stands for all that
// begin as it does.
func (l *line) on(key expr.MetaKey, name string) *line {
	if n := len(name) - 1; n >= 0 && name[n] == '*' {
		if n == 0 {
			return l
		}
		return l.add(load(key), equal([]byte(name[:n])...))
	}
	return l.add(load(key), equal(interfaceKey(name)...))
}

// interfaceKey is the name of an interface as the kernel compares it.
func interfaceKey(name string) []byte {
	key := make([]byte, unix.IFNAMSIZ)
	copy(key, name)
	return key
}

// limit wants no more packets than a rate, with a burst beyond it.
func (l *line) limit(s *Settings) *line {
	if s.LogRate == 0 {
		return l
	}
	unit := expr.LimitTime(max(s.LogPer, time.Second) / time.Second)
	return l.add(&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(s.LogRate), Unit: unit, Burst: s.LogBurst})
}

// log writes a line to the kernel's log, with so many bytes of a prefix at most.
func (l *line) log(prefix string) rule {
	const longest = 126
	return l.add(&expr.Log{Key: 1 << unix.NFTA_LOG_PREFIX, Data: []byte(prefix[:min(len(prefix), longest)])}).r
}

// dispatch goes on with the verdict of an interface, if it has one.
func (l *line) dispatch(key expr.MetaKey, elements []element) rule {
	name := l.w.literal(&literal{kindInterfaces(), elements})
	return l.add(load(key), &expr.Lookup{SourceRegister: register, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: name}).r
}

// untrack keeps connection tracking from the packet.
func untrack() expr.Any { return &expr.Notrack{} }

// reject answers with "port unreachable" of the packet's family.
func reject() expr.Any {
	return &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}
}
