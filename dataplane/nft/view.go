package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"margay.dev/margay/classifier"
	"margay.dev/margay/dataplane/nft/cover"
)

// view is chains for one Desired, under names that begin with the side's. It does
// not change once it is made; the next one shares what is the same.
type view struct {
	side    string
	options *Options
	desired *Desired

	judgements []judged
	listAt     map[listKey]*list
	slots      map[slot]listKey
	pieces     uint64 // names of pieces that were given
	image      *image
	err        error
}

// judged is one judgement at its place.
type judged struct {
	name      string // of its chain, without the side's
	place     *place
	mode      mode
	judgement *Judgement
}

// chain is where the judgement's lists are asked, for one family.
func (j *judged) chain(family int) string { return fmt.Sprintf("%s.%d", j.name, family) }

// newView writes what is desired, with what it has in common with from.
func newView(side string, d *Desired, from *view, o *Options) (*view, error) {
	v := &view{
		side: side, options: o, desired: d, pieces: from.pieces,
		listAt: map[listKey]*list{}, slots: map[slot]listKey{}, image: newImage(),
	}
	all := places()
	for i := range all {
		v.judge(&all[i])
	}
	v.lists(from)
	if from.desired != nil && !from.desired.Settings.writesAlike(&d.Settings) {
		for _, l := range v.listAt {
			l.forget()
		}
	}
	for _, l := range v.listAt {
		l.write(v)
	}
	v.failsafes()
	for i := range v.judgements {
		v.writeJudgement(&v.judgements[i])
	}
	for i := range all {
		v.root(&all[i])
	}
	for _, c := range v.image.chains {
		maps.Copy(v.image.literals, c.literals)
	}
	return v, v.err
}

// writesAlike reports whether rules of lists come out the same.
func (s *Settings) writesAlike(t *Settings) bool {
	return s.mask() == t.mask() && s.LogRate == t.LogRate && s.LogBurst == t.LogBurst &&
		s.LogPer == t.LogPer && s.LogPrefix == t.LogPrefix
}

// judged is the bit of packets that some stage has decided, so that another one
// need not; passed that of those that leave a list in its midst.
func (s *Settings) judged() uint32 { return s.mask() & -s.mask() }

func (s *Settings) passed() uint32 {
	rest := s.mask() &^ s.judged()
	return rest & -rest
}

func (s *Settings) mask() uint32 {
	if s.Mark == 0 {
		return DefaultMark
	}
	return s.Mark
}

// forget has all pieces written anew.
func (l *list) forget() {
	for i := range l.pieces {
		l.pieces[i].chain = nil
	}
}

func (v *view) writer() *writer { return &writer{side: v.side, literals: map[string]*literal{}} }

// chain is rules that w has written.
func (v *view) chain(w *writer, rules []rule) *chain {
	if w.err != nil && v.err == nil {
		v.err = w.err
	}
	return &chain{rules: rules, literals: w.literals}
}

func (v *view) put(name string, w *writer, rules []rule) {
	v.image.chains[v.side+name] = v.chain(w, rules)
}

// judge notes the judgements of one place.
func (v *view) judge(p *place) {
	m := p.mode
	if v.desired.Settings.Reject && p.rejects() {
		m = rejecting
	}
	for i := range v.desired.Endpoints {
		e := &v.desired.Endpoints[i]
		if j := p.judgement(e); j != nil {
			v.judgements = append(v.judgements, judged{e.chain(p), p, m, j})
		}
	}
}

// chain is the name of the endpoint's chain at a place.
func (e *Endpoint) chain(p *place) string {
	if e.Interface == AllInterfaces {
		return "others." + p.name
	}
	return "if." + plain(e.Interface) + "." + p.name
}

// plain is the name of an interface in letters that nft reads as a name; other
// bytes are given as numbers.
func plain(name string) string {
	var out strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "/%02x", c)
		}
	}
	return out.String()
}

// writeJudgement writes a judgement's chains: what comes before its lists, and the
// lists, for each family.
func (v *view) writeJudgement(j *judged) {
	s := &v.desired.Settings
	w := v.writer()
	var rules []rule
	if j.place.tracked {
		rules = append(rules, w.line("known connections").state(stateEstablished|stateRelated).verdict(codeAccept, ""))
		if !s.KeepInvalid {
			rules = append(rules, w.line("of no connection").state(stateInvalid).verdict(codeDrop, ""))
		}
	}
	if j.place.own {
		rules = append(rules, w.discovery().verdict(codeAccept, ""))
		if name := failsafeName(j.place); v.image.chains[v.side+name] != nil {
			rules = append(rules, w.line("").verdict(codeJump, v.side+name))
		}
	}
	for _, family := range [...]int{4, 6} {
		rules = append(rules, w.line("").family(family).verdict(codeGoto, v.side+j.chain(family)))
		v.writeTiers(j, family)
	}
	v.put(j.name, w, rules)
}

// Bits of what connection tracking says.
const (
	stateInvalid     = 1
	stateEstablished = 2
	stateRelated     = 4
)

// discovery wants the ICMPv6 messages by which neighbours, routers and listeners
// are found. Nothing of IPv6 works without them, not even a failsafe port; ARP,
// which does the same for IPv4, is never judged.
func (w *writer) discovery() *line {
	const listenerQuery, neighbourAdvertisement, listenerReport2 = 130, 136, 143
	types := []classifier.Range{
		{First: listenerQuery << 8, Last: neighbourAdvertisement<<8 | 0xff},
		{First: listenerReport2 << 8, Last: listenerReport2<<8 | 0xff},
	}
	return w.line("neighbours and listeners").family(6).protocol(protocolICMPv6).port(icmpTypeCode, types)
}

// writeTiers asks a judgement's lists one after the other.
func (v *view) writeTiers(j *judged, family int) {
	w := v.writer()
	var rules []rule
	for _, t := range j.judgement.Tiers {
		list := t.V4
		if family == 6 {
			list = t.V6
		}
		switch {
		case len(list) > 0:
			rules = append(rules, w.line(t.Name).verdict(codeJump, v.side+v.listAt[keyOf(list, how{family, j.mode, t.End})].name()))
		case t.End == classifier.Deny:
			rules = append(rules, w.line("end of "+t.Name).deny(j.mode))
		}
	}
	switch j.judgement.End {
	case classifier.Deny:
		rules = append(rules, w.line("end").deny(j.mode))
	case classifier.Allow:
		rules = append(rules, w.line("end").verdict(codeAccept, ""))
	}
	v.put(j.chain(family), w, rules)
}

func failsafeName(p *place) string { return "failsafe." + p.name }

// failsafes writes what passes before policy, for each place.
func (v *view) failsafes() {
	s := &v.desired.Settings
	for _, p := range places() {
		if !p.own {
			continue
		}
		w := v.writer()
		remote := source
		if p.direction == Egress {
			remote = destination
		}
		var rules []rule
		for _, f := range s.Failsafe[p.direction] {
			rules = append(rules, w.failsafe(&f, remote, destinationPort))
		}
		if !p.tracked { // replies are not known by their connection here
			for _, f := range s.Failsafe[1-p.direction] {
				rules = append(rules, w.failsafe(&f, remote, sourcePort))
			}
		}
		if len(rules) > 0 {
			v.put(failsafeName(&p), w, rules)
		}
	}
}

func (w *writer) failsafe(f *Failsafe, remote end, port uint32) rule {
	l := w.line("failsafe")
	if f.Net.IsValid() && f.Net.Bits() > 0 {
		family := cover.Family(f.Net)
		l.family(family).within(family, remote, []netip.Prefix{f.Net}, false)
	} else if f.Net.IsValid() {
		l.family(cover.Family(f.Net))
	}
	return l.protocol(f.Protocol).port(port, cover.Singles([]uint16{f.Port})).verdict(codeAccept, "")
}

// root writes where packets of a place come in: they go to the chain of their
// interface.
func (v *view) root(p *place) {
	var elements []element
	var others *rule
	w := v.writer()
	asked := false
	for i := range v.desired.Endpoints {
		e := &v.desired.Endpoints[i]
		judges := p.judgement(e) != nil
		asked = asked || judges
		switch {
		case e.Interface == AllInterfaces && judges:
			r := w.line(e.Name).verdict(codeGoto, v.side+e.chain(p))
			others = &r
		case e.Interface == AllInterfaces:
		case judges:
			elements = append(elements, element{key: interfaceKey(e.Interface), verdict: &verdict{codeGoto, v.side + e.chain(p)}})
		default: // it is not one of all others
			elements = append(elements, element{key: interfaceKey(e.Interface), verdict: &verdict{codeReturn, ""}})
		}
	}
	idle := len(v.desired.Endpoints) == 0 && v.desired.Settings.Tunnels.none()
	if idle || p.idle && !asked {
		return
	}
	rules := p.begin(w, &v.desired.Settings)
	if asked && len(elements) > 0 {
		slices.SortFunc(elements, func(a, b element) int { return strings.Compare(string(a.key), string(b.key)) })
		rules = append(rules, w.line("").dispatch(p.by, elements))
	}
	if others != nil {
		for _, name := range v.desired.Settings.Workloads {
			rules = append(rules, w.line("of a workload").on(p.by, name).verdict(codeReturn, ""))
		}
		rules = append(rules, *others)
	}
	v.put(p.name, w, rules)
}

func (t *Tunnels) none() bool { return !t.IPIP && len(t.VXLAN) == 0 && len(t.WireGuard) == 0 }

// base is where packets come in, whichever views there are: while trial is there
// and has not ended, in trial's, and otherwise in v's. Either may be nil.
func base(v, trial *view, gate string) (*image, error) {
	out := newImage()
	w := &writer{literals: map[string]*literal{}}
	for _, p := range places() {
		var rules []rule
		in := func(v *view) bool { return v != nil && v.image.chains[v.side+p.name] != nil }
		if !in(v) && !in(trial) {
			continue
		}
		if trial != nil {
			l := w.line("while it is not confirmed").add(load(expr.MetaKeyNFPROTO), lookup(gate, false))
			if in(trial) {
				rules = append(rules, l.verdict(codeGoto, trial.side+p.name))
			} else {
				rules = append(rules, l.verdict(codeAccept, ""))
			}
		}
		if in(v) {
			rules = append(rules, w.line("").verdict(codeGoto, v.side+p.name))
		}
		h := p.hook
		out.chains[p.name] = &chain{hook: &h, rules: rules}
	}
	return out, w.err
}

// merged is several images as one; they have no names in common.
func merged(images ...*image) *image {
	out := newImage()
	for _, i := range images {
		maps.Copy(out.chains, i.chains)
		maps.Copy(out.literals, i.literals)
	}
	return out
}
