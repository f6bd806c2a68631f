package nft

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"margay.dev/margay/dataplane/nft/cover"
)

// place is where in the kernel packets are judged.
type place struct {
	name      string
	hook      hook
	by        expr.MetaKey // which interface says who judges
	direction Direction
	judgement func(*Endpoint) *Judgement
	mode      mode
	tracked   bool // what connection tracking knows goes on unjudged
	own       bool // it is, or may be, traffic of the host's own: failsafe ports and neighbour discovery pass
	idle      bool // it has nothing to do where no endpoint has a judgement
	begin     func(w *writer, s *Settings) []rule
}

// Priorities among the chains of a hook: before tracking, before translation of
// destinations and of sources, and where filters are.
const (
	beforeTracking    = -300
	beforeTranslation = -150
	filters           = 0
)

// places are all of them, in the order in which packets meet them.
func places() []place {
	return []place{
		{
			name: "untracked-in", hook: hook{unix.NF_INET_PRE_ROUTING, beforeTracking}, by: expr.MetaKeyIIFNAME, direction: Ingress,
			judgement: func(e *Endpoint) *Judgement { return e.Untracked[Ingress] }, mode: untracking, own: true, begin: beginUntracked,
		},
		{
			name: "prednat-in", hook: hook{unix.NF_INET_PRE_ROUTING, beforeTranslation}, by: expr.MetaKeyIIFNAME, direction: Ingress,
			judgement: func(e *Endpoint) *Judgement { return e.PreDNAT }, mode: marking, tracked: true, own: true, idle: true, begin: beginSkip,
		},
		{
			name: "forward-in", hook: hook{unix.NF_INET_FORWARD, filters}, by: expr.MetaKeyIIFNAME, direction: Ingress,
			judgement: func(e *Endpoint) *Judgement { return e.Forward[Ingress] }, tracked: true, idle: true, begin: beginSkip,
		},
		{
			name: "forward-out", hook: hook{unix.NF_INET_FORWARD, filters + 1}, by: expr.MetaKeyOIFNAME, direction: Egress,
			judgement: func(e *Endpoint) *Judgement { return e.Forward[Egress] }, tracked: true, begin: beginForwardOut,
		},
		{
			name: "input", hook: hook{unix.NF_INET_LOCAL_IN, filters}, by: expr.MetaKeyIIFNAME, direction: Ingress,
			judgement: func(e *Endpoint) *Judgement { return e.Normal[Ingress] }, tracked: true, own: true, begin: beginInput,
		},
		{
			name: "untracked-out", hook: hook{unix.NF_INET_LOCAL_OUT, beforeTracking}, by: expr.MetaKeyOIFNAME, direction: Egress,
			judgement: func(e *Endpoint) *Judgement { return e.Untracked[Egress] }, mode: untracking, own: true, begin: beginUntracked,
		},
		{
			// Not in the hook of output: where a destination was translated there, the
			// interface is still that of before.
			name: "output", hook: hook{unix.NF_INET_POST_ROUTING, beforeTranslation}, by: expr.MetaKeyOIFNAME, direction: Egress,
			judgement: func(e *Endpoint) *Judgement { return e.Normal[Egress] }, tracked: true, own: true, begin: beginOutput,
		},
	}
}

// rejects reports whether the kernel lets rules answer at the place.
func (p *place) rejects() bool {
	return p.mode == filtering && p.hook.number != unix.NF_INET_POST_ROUTING
}

// beginUntracked takes our bits from packets, which somebody else may have set, and
// keeps what is sealed in a tunnel from being tracked twice.
func beginUntracked(w *writer, s *Settings) []rule {
	out := []rule{w.line("nobody has judged it yet").mark(s.judged()|s.passed(), false).r}
	if len(s.Tunnels.VXLAN) > 0 {
		out = append(out, w.line("VXLAN").protocol(protocolUDP).port(destinationPort, cover.Singles(s.Tunnels.VXLAN)).add(untrack()).r)
	}
	return out
}

// beginSkip passes over what an earlier place has allowed.
func beginSkip(w *writer, s *Settings) []rule {
	return []rule{w.line("allowed before").marked(s.judged()).verdict(codeAccept, "")}
}

// beginForwardOut says that the packet is not the host's own: where it leaves, only
// the host's are judged.
func beginForwardOut(w *writer, s *Settings) []rule {
	return []rule{w.line("forwarded").mark(s.judged(), true).r}
}

func beginInput(w *writer, s *Settings) []rule {
	t := &s.Tunnels
	var out []rule
	if t.IPIP {
		if hosts := cover.OfFamily(t.Hosts, 4); len(hosts) > 0 {
			out = append(out, w.line("IPIP of a node").family(4).protocol(protocolIPIP).within(4, source, hosts, false).local(destination).verdict(codeAccept, ""))
		}
		out = append(out, w.line("IPIP of nobody known").family(4).protocol(protocolIPIP).verdict(codeDrop, ""))
	}
	if len(t.VXLAN) > 0 {
		for _, family := range [...]int{4, 6} {
			if hosts := cover.OfFamily(t.Hosts, family); len(hosts) > 0 {
				out = append(out, w.line("VXLAN of a node").family(family).protocol(protocolUDP).port(destinationPort, cover.Singles(t.VXLAN)).
					within(family, source, hosts, false).local(destination).verdict(codeAccept, ""))
			}
		}
		out = append(out, w.line("VXLAN of nobody known").protocol(protocolUDP).port(destinationPort, cover.Singles(t.VXLAN)).
			local(destination).verdict(codeDrop, ""))
	}
	if len(t.WireGuard) > 0 {
		out = append(out, w.line("WireGuard").protocol(protocolUDP).port(destinationPort, cover.Singles(t.WireGuard)).local(destination).verdict(codeAccept, ""))
	}
	return append(out, w.line("allowed before").marked(s.judged()).mark(s.judged(), false).verdict(codeAccept, ""))
}

func beginOutput(w *writer, s *Settings) []rule {
	t := &s.Tunnels
	out := []rule{w.line("forwarded, or allowed before").marked(s.judged()).mark(s.judged(), false).verdict(codeAccept, "")}
	if hosts := cover.OfFamily(t.Hosts, 4); t.IPIP && len(hosts) > 0 {
		out = append(out, w.line("IPIP to a node").family(4).protocol(protocolIPIP).within(4, destination, hosts, false).local(source).verdict(codeAccept, ""))
	}
	for _, family := range [...]int{4, 6} {
		if hosts := cover.OfFamily(t.Hosts, family); len(t.VXLAN) > 0 && len(hosts) > 0 {
			out = append(out, w.line("VXLAN to a node").family(family).protocol(protocolUDP).port(destinationPort, cover.Singles(t.VXLAN)).
				within(family, destination, hosts, false).local(source).verdict(codeAccept, ""))
		}
	}
	if len(t.WireGuard) > 0 {
		out = append(out, w.line("WireGuard").protocol(protocolUDP).port(destinationPort, cover.Singles(t.WireGuard)).local(source).verdict(codeAccept, ""))
	}
	return out
}
