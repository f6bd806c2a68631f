package why

import (
	"fmt"
	"strings"
	"time"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/pkt"
	"margay.dev/margay/internal/render"
)

// judgementOf tells what each stage of one endpoint's policy does.
func judgementOf(out *strings.Builder, direction, endpoint string, j *dataplanev1.Explanation_Judgement) {
	if j.GetSaid() == dataplanev1.Explanation_Judgement_SAID_NOTHING {
		fmt.Fprintf(out, "%-10snot judged: %s\n", direction, j.GetExempt())
		return
	}
	if j.GetHost() != "" { // whose ingress is on the source's side
		direction, endpoint = other(direction), "host endpoint "+j.GetHost()
	}
	fmt.Fprintf(out, "%-10s%s by the policy of %s\n", direction, saidWord(j.GetSaid()), endpoint)
	for _, s := range j.GetStages() {
		fmt.Fprintf(out, "  %-20s%s\n", stageName(s.GetName()), stageDid(s))
		for _, r := range s.GetLogged() {
			fmt.Fprintf(out, "  %-20s  logged by %s\n", "", ruleOf(r))
		}
	}
	if j.GetEnd() {
		fmt.Fprintf(out, "  %-20s%s: nothing before decided\n", "end", saidWord(j.GetSaid()))
	}
}

// other is the other direction.
func other(direction string) string {
	if direction == "egress" {
		return "ingress"
	}
	return "egress"
}

func saidWord(s dataplanev1.Explanation_Judgement_Said) string {
	if s == dataplanev1.Explanation_Judgement_SAID_ALLOW {
		return "allowed"
	}
	return "denied"
}

func stageName(name string) string {
	if name == "" {
		return "profiles"
	}
	return "tier " + name
}

func stageDid(s *dataplanev1.Explanation_Stage) string {
	switch s.GetDid() {
	case dataplanev1.Explanation_Stage_DID_ALLOW:
		return "allowed by " + ruleOf(s.GetRule())
	case dataplanev1.Explanation_Stage_DID_DENY:
		return "denied by " + ruleOf(s.GetRule())
	case dataplanev1.Explanation_Stage_DID_PASS:
		return "passed on by " + ruleOf(s.GetRule())
	case dataplanev1.Explanation_Stage_DID_END_DENY:
		return "denied by its end: no rule of it matches"
	case dataplanev1.Explanation_Stage_DID_END_PASS:
		return "passed on by its end: no rule of it matches"
	}
	return "not asked"
}

// ruleOf names a rule, with what it says where that is known.
func ruleOf(r *dataplanev1.Explanation_Rule) string {
	if r.GetPolicy() == "" {
		if r.GetId() == 0 {
			return "a rule that stands in for one that cannot be understood"
		}
		return fmt.Sprintf("rule id %d", r.GetId())
	}
	direction := "ingress"
	if r.GetEgress() {
		direction = "egress"
	}
	text := fmt.Sprintf("%s %s rule %d", r.GetPolicy(), direction, r.GetIndex())
	if r.GetText() != "" {
		text += fmt.Sprintf(" (%s)", r.GetText())
	}
	return text
}

// flowsOf tells which connections are known, and how they go on.
func flowsOf(out *strings.Builder, e *explanation) {
	if len(e.GetFlows()) == 0 {
		fmt.Fprintf(out, "%-10snone known\n", "now")
		return
	}
	n := len(e.GetFlows()) + int(e.GetFlowsUnlisted())
	fmt.Fprintf(out, "%-10s%s known\n", "now", render.Plural(n, "connection"))
	for _, f := range e.GetFlows() {
		goesOn := "goes on"
		if f.GetEgress() == dataplanev1.Explanation_Judgement_SAID_DENY || f.GetIngress() == dataplanev1.Explanation_Judgement_SAID_DENY {
			goesOn = "is cut"
		}
		if !f.GetCurrent() {
			goesOn = "is looked at anew with its next packet, and " + goesOn
		}
		from := fmt.Sprintf("from port %d", f.GetSourcePort())
		if t := e.GetTuple().GetProtocol(); t == pkt.ProtoICMP || t == pkt.ProtoICMPv6 {
			from = fmt.Sprintf("with id %d", f.GetSourcePort())
		}
		if f.GetReply() {
			from += ", opened the other way: this packet would be a reply of it"
		}
		fmt.Fprintf(out, "  %s: %s, idle %s, %d packets there and %d back; %s\n", from, f.GetState(),
			render.Duration(time.Duration(f.GetIdleMs())*time.Millisecond), f.GetPacketsThere(), f.GetPacketsBack(), goesOn)
	}
}

// changesOf tells what would turn what policy says.
func changesOf(out *strings.Builder, e *explanation) {
	if len(e.GetChanges()) == 0 {
		return
	}
	fmt.Fprintf(out, "\nany of these alone turns it to %s:\n", saidWord(e.GetChanges()[0].GetThen()))
	for _, c := range e.GetChanges() {
		var parts []string
		for _, p := range c.GetParts() {
			parts = append(parts, partOf(p, c.GetThen()))
		}
		fmt.Fprintf(out, "  - %s%s\n", strings.Join(parts, ", and "), effectOf(c))
	}
}

// effectOf is what decides after a change, where the change does not say so itself.
func effectOf(c *dataplanev1.Explanation_Change) string {
	direction := "ingress"
	if c.GetEgress() {
		direction = "egress"
	}
	switch {
	case c.GetParts()[0].GetKind() == dataplanev1.Explanation_Change_KIND_RULE_ADDED:
		return ""
	case c.GetRule() != nil:
		return fmt.Sprintf(": then %s by %s", saidWord(c.GetThen()), ruleOf(c.GetRule()))
	case c.GetStage() == "":
		return fmt.Sprintf(": then the end of %s denies", direction)
	}
	return fmt.Sprintf(": then %s's end denies, of %s", stageName(c.GetStage()), direction)
}

// partOf is one thing to be changed.
func partOf(p *dataplanev1.Explanation_Change_Part, then dataplanev1.Explanation_Judgement_Said) string {
	switch p.GetKind() {
	case dataplanev1.Explanation_Change_KIND_PROTOCOL:
		return protocolName(p.GetNumber()) + " instead"
	case dataplanev1.Explanation_Change_KIND_SOURCE_PORT:
		return fmt.Sprintf("source port %d instead", p.GetNumber())
	case dataplanev1.Explanation_Change_KIND_DESTINATION_PORT:
		return fmt.Sprintf("destination port %d instead", p.GetNumber())
	case dataplanev1.Explanation_Change_KIND_SOURCE_PREFIX:
		return fmt.Sprintf("from another host, in %s (tried with %s)", p.GetPrefix(), p.GetAddress())
	case dataplanev1.Explanation_Change_KIND_DESTINATION_PREFIX:
		return fmt.Sprintf("to another host, in %s (tried with %s)", p.GetPrefix(), p.GetAddress())
	case dataplanev1.Explanation_Change_KIND_SOURCE_JOINS:
		return "the source in " + setOf(p.GetSet())
	case dataplanev1.Explanation_Change_KIND_DESTINATION_JOINS:
		return "the destination in " + setOf(p.GetSet())
	case dataplanev1.Explanation_Change_KIND_SOURCE_LEAVES:
		return "the source not in " + setOf(p.GetSet())
	case dataplanev1.Explanation_Change_KIND_DESTINATION_LEAVES:
		return "the destination not in " + setOf(p.GetSet())
	case dataplanev1.Explanation_Change_KIND_RULE_REMOVED:
		return "without " + ruleOf(p.GetRule())
	case dataplanev1.Explanation_Change_KIND_RULE_ADDED:
		return addedRule(p, then)
	}
	return "something that this margayctl does not know: use the one that came with the forwarder"
}

// addedRule is where to put a rule that decides otherwise.
func addedRule(p *dataplanev1.Explanation_Change_Part, then dataplanev1.Explanation_Judgement_Said) string {
	action, direction, into := "an Allow", "ingress", "a profile of "+p.GetEndpoint()
	if then == dataplanev1.Explanation_Judgement_SAID_DENY {
		action = "a Deny"
	}
	if p.GetEgress() {
		direction = "egress"
	}
	if p.GetStage() != "" {
		into = fmt.Sprintf("a policy of tier %s that selects %s", p.GetStage(), p.GetEndpoint())
	}
	before := "before its end"
	if p.GetRule() != nil {
		before = "before " + ruleOf(p.GetRule())
	}
	return fmt.Sprintf("%s rule for it in the %s of %s, %s", action, direction, into, before)
}
