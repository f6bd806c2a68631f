// Package why tells people what becomes of a packet, who decides it, and what
// would turn that: margayctl's words for an Explanation.
package why

import (
	"fmt"
	"io"
	"strings"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/pkt"
)

type explanation = dataplanev1.Explanation

// Write tells one explanation after the other. meanings are what an operator
// should read in the reasons of drops.
func Write(w io.Writer, l *dataplanev1.ExplanationList, meanings map[string]string) error {
	var out strings.Builder
	for i, e := range l.GetExplanations() {
		if i > 0 {
			out.WriteString("\n")
		}
		explain(&out, e, meanings[e.GetReason()])
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// explain tells one explanation: the outcome first, then what led to it.
func explain(out *strings.Builder, e *explanation, meaning string) {
	fmt.Fprintf(out, "%s\n%s\n\n", tupleOf(e), outcomeOf(e, meaning))
	line := func(word, text string) { fmt.Fprintf(out, "%-10s%s\n", word, text) }
	line("from", partyOf(e.GetTuple().GetSource(), e.GetSource(), "comes by"))
	line("to", partyOf(e.GetTuple().GetDestination(), e.GetDestination(), "behind"))
	line("route", wayOf(e.GetTuple().GetDestination(), e.GetThere()))
	judgementOf(out, "egress", e.GetSource().GetEndpoint(), e.GetEgress())
	judgementOf(out, "ingress", e.GetDestination().GetEndpoint(), e.GetIngress())
	if e.GetBack() != nil {
		text := "follow the connection, whatever policy says; " + wayOf(e.GetTuple().GetSource(), e.GetBack())
		line("replies", text)
	}
	flowsOf(out, e)
	changesOf(out, e)
}

func tupleOf(e *explanation) string {
	t := e.GetTuple()
	from, to := t.GetSource(), t.GetDestination()
	switch t.GetProtocol() {
	case pkt.ProtoTCP, pkt.ProtoUDP, pkt.ProtoSCTP:
		from, to = fmt.Sprintf("%s port %d", from, t.GetSourcePort()), fmt.Sprintf("%s port %d", to, t.GetDestinationPort())
	}
	return fmt.Sprintf("%s ► %s %s", from, to, protocolName(t.GetProtocol()))
}

func protocolName(n uint32) string {
	switch n {
	case pkt.ProtoTCP:
		return "TCP"
	case pkt.ProtoUDP:
		return "UDP"
	case pkt.ProtoSCTP:
		return "SCTP"
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		return "echo request"
	}
	return fmt.Sprintf("protocol %d", n)
}

// outcomeOf is the answer in a line.
func outcomeOf(e *explanation, meaning string) string {
	by := e.GetDestination().GetPort()
	switch e.GetOutcome() {
	case dataplanev1.Explanation_OUTCOME_FORWARDED:
		return "allowed: it leaves by port " + by
	case dataplanev1.Explanation_OUTCOME_HELD:
		return fmt.Sprintf("allowed: it leaves by port %s when the next hop's link-layer address is known, which is being asked for", by)
	case dataplanev1.Explanation_OUTCOME_TO_NODE:
		return "allowed: it is handed to the node itself"
	case dataplanev1.Explanation_OUTCOME_ANSWERED:
		return "answered: the address is the forwarder's own"
	case dataplanev1.Explanation_OUTCOME_DROPPED:
		return fmt.Sprintf("dropped (%s): %s", e.GetReason(), meaning)
	}
	return "neighbor discovery, which is for the forwarder itself"
}

// partyOf is who is at an end.
func partyOf(addr string, p *dataplanev1.Explanation_Party, where string) string {
	parts := []string{addr}
	switch {
	case p.GetEndpoint() != "":
		parts = append(parts, "endpoint "+p.GetEndpoint(), "policy "+policyOf(p.GetPolicy()))
	case p.GetNode():
		parts = append(parts, "the node itself")
	default:
		parts = append(parts, "no endpoint of this node")
	}
	if p.GetPort() != "" {
		parts = append(parts, fmt.Sprintf("%s port %s", where, p.GetPort()))
	}
	if p.GetHostDenied() {
		parts = append(parts, "may send nothing to its node")
	}
	var sets []string
	for _, s := range p.GetSets() {
		sets = append(sets, setOf(s))
	}
	if n := p.GetSetsUnlisted(); n > 0 {
		sets = append(sets, fmt.Sprintf("%d others", n))
	}
	if len(sets) > 0 {
		parts = append(parts, "in "+strings.Join(sets, " and "))
	}
	return strings.Join(parts, ", ")
}

// policyOf is the state of an endpoint's policy.
func policyOf(p dataplanev1.Explanation_Party_Policy) string {
	switch p {
	case dataplanev1.Explanation_Party_POLICY_OFF:
		return "off"
	case dataplanev1.Explanation_Party_POLICY_ENFORCED:
		return "enforced"
	}
	return "not known yet: it forwards nothing"
}

// setOf names a set: by its selector, else by who is in it.
func setOf(s *dataplanev1.Explanation_Set) string {
	switch {
	case s.GetName() != "":
		return fmt.Sprintf("[%s]", s.GetName())
	case len(s.GetMembers()) > 0:
		const shown = 3
		text := strings.Join(s.GetMembers()[:min(shown, len(s.GetMembers()))], ", ")
		if len(s.GetMembers()) > shown {
			text += " and more"
		}
		return fmt.Sprintf("[%s]", text)
	}
	return fmt.Sprintf("set %d", s.GetId())
}

// wayOf is what routing makes of a direction.
func wayOf(addr string, w *dataplanev1.Explanation_Way) string {
	if w.GetPrefix() == "" {
		return "none covers " + addr
	}
	text := w.GetPrefix()
	for i, a := range w.GetAdjacencies() {
		text += []string{": ", " or "}[min(i, 1)] + a.GetKind()
		if a.GetPort() != "" {
			text += " by " + a.GetPort()
		}
		if a.GetGateway() != "" {
			text += " via " + a.GetGateway()
		}
		if a.GetDown() {
			text += " (down)"
		}
	}
	if w.GetReason() != "" {
		text += "; dropped: " + w.GetReason()
	}
	return text
}
