package verdicts

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/render"
)

type (
	policy = dataplanev1.EndpointPolicy
	tier   = dataplanev1.EndpointPolicy_Tier
	rule   = dataplanev1.EndpointPolicy_Rule
)

// states are the states of policy, shortly and as a sentence.
var states = map[dataplanev1.Endpoint_Policy][2]string{
	dataplanev1.Endpoint_POLICY_NONE:     {"unknown", "no policy state came yet, so it forwards nothing"},
	dataplanev1.Endpoint_POLICY_OFF:      {"off", "policy is off: it forwards everything"},
	dataplanev1.Endpoint_POLICY_ENFORCED: {"enforced", "policy is enforced"},
}

// closed is what is said where policy could not be put in force.
const closed = "its policy could not be put in force, so it forwards nothing (margayctl show status says why)"

// Endpoints writes a table of who is judged.
func Endpoints(w io.Writer, l *dataplanev1.PolicyList) error {
	if len(l.GetEndpoints()) == 0 {
		_, err := fmt.Fprintln(w, "no endpoints")
		return err
	}
	t := render.NewTable("ENDPOINT", "PORT", "POLICY", ">EGRESS TIERS", ">INGRESS TIERS", ">RULES", "STAGED", ">FLOWS")
	for _, e := range l.GetEndpoints() {
		state, staged := states[e.GetPolicy()][0], ""
		if e.GetClosed() {
			state = "closed"
		}
		if e.GetStaged() {
			staged = "yes"
		}
		t.Row(e.GetEndpoint(), e.GetPort(), state, fmt.Sprint(e.GetEgressTiers()), fmt.Sprint(e.GetIngressTiers()),
			render.Count(uint64(e.GetRules())), staged, render.Count(e.GetFlows()))
	}
	if err := t.Write(w); err != nil {
		return err
	}
	for _, e := range l.GetEndpoints() {
		if e.GetClosed() {
			fmt.Fprintf(w, "\n%s: %s\n", e.GetEndpoint(), closed)
		}
	}
	return nil
}

// Policy writes what judges an endpoint, in the order in which it is asked.
func Policy(w io.Writer, p *policy) error {
	state := states[p.GetPolicy()][1]
	if p.GetClosed() {
		state = closed
	}
	fmt.Fprintf(w, "Endpoint %s on port %s: %s; generation %d, %s\n", p.GetEndpoint(), p.GetPort(), state, p.GetGeneration(), render.Plural(int(p.GetFlows()), "flow"))
	for _, a := range p.GetAddresses() {
		fmt.Fprintf(w, "  %s: class %d, %s\n", a.GetPrefix(), a.GetClass(), sets(a))
	}
	if p.GetHostDenied() {
		fmt.Fprintln(w, "  what it sends to its own node is dropped")
	}
	if p.GetPolicy() != dataplanev1.Endpoint_POLICY_ENFORCED {
		return nil
	}
	if p.GetHost() {
		fmt.Fprintln(w, "  it is the node's own: it judges what the node forwards through the port")
	}
	for _, egress := range []bool{true, false} {
		if err := direction(w, p, egress); err != nil {
			return err
		}
	}
	return nil
}

// sets are those that an address is in.
func sets(a *dataplanev1.EndpointPolicy_Address) string {
	var names []string
	for _, s := range a.GetSets() {
		name := s.GetName()
		if name == "" {
			name = fmt.Sprintf("set %d", s.GetId())
		}
		names = append(names, name)
	}
	if n := a.GetSetsUnlisted(); n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	if len(names) == 0 {
		return "in no set that a rule names"
	}
	return "in " + strings.Join(names, "; ")
}

// direction writes one direction: what is in force, and what is staged beside it.
func direction(w io.Writer, p *policy, egress bool) error {
	head := "Ingress: of what it is sent"
	switch {
	case p.GetHost() && egress:
		head = "Egress: of what leaves by the port"
	case p.GetHost():
		head = "Ingress: of what comes in by the port"
	case egress:
		head = "Egress: of what it sends"
	}
	of := &dataplanev1.EndpointPolicy_Direction{}
	for _, d := range p.GetDirections() {
		if d.GetEgress() == egress {
			of = d
		}
	}
	fmt.Fprintf(w, "\n%s\n", head)
	if err := tiers(w, p, egress, false, of.GetDenied()); err != nil || !of.GetStaged() {
		return err
	}
	word, _, _ := strings.Cut(head, ":")
	fmt.Fprintf(w, "\n%s, if what is staged were in force: would deny %s that passed, and let pass %s of those denied\n", word,
		render.Plural(int(of.GetWouldDeny().GetPackets()), "packet"), render.Plural(int(of.GetWouldPermit().GetPackets()), "packet"))
	return tiers(w, p, egress, true, nil)
}

// tiers writes the tiers of one direction, and what becomes of the rest.
func tiers(w io.Writer, p *policy, egress, staged bool, rest *dataplanev1.PacketCount) error {
	t := render.NewTable("TIER", "POLICY", ">RULE", "SAYS", "IP", ">PACKETS", ">BYTES")
	for _, one := range p.GetTiers() {
		if one.GetEgress() == egress && one.GetStaged() == staged {
			tierRows(t, one)
		}
	}
	end := "deny"
	if p.GetHost() {
		end = "allow"
	}
	packets, bytes := count(rest)
	t.Continue("end", "", "", end+" what nothing above decides", "", packets, bytes)
	return t.Write(w)
}

// tierRows adds a tier: its name at the first row alone, and that of a policy at its
// first rule.
func tierRows(t *render.Table, one *tier) {
	name := one.GetName()
	if name == "" {
		name = "profiles"
	}
	last := ""
	for _, r := range one.GetRules() {
		cells := ruleCells(r)
		if cells[1] == last {
			cells[1] = ""
		} else {
			last = cells[1]
		}
		cells[0], name = name, ""
		t.Continue(cells...)
	}
	packets, bytes := count(one.GetDenied())
	switch {
	case !one.GetPasses():
		t.Continue(name, "(end of tier)", "", "deny what no rule of it decides", "", packets, bytes)
	case one.GetName() != "":
		t.Continue(name, "(end of tier)", "", "pass what no rule of it decides")
	case name != "":
		t.Continue(name, "(no rules)")
	}
}

// ruleCells are a rule's, but for its tier.
func ruleCells(r *rule) []string {
	n := r.GetName()
	cells := []string{"", n.GetPolicy(), strconv.FormatUint(uint64(n.GetIndex()), 10), n.GetText(), families(r), "", ""}
	if n.GetPolicy() == "" {
		cells[1], cells[2] = "(no name)", fmt.Sprintf("id %d", n.GetId())
	}
	if cells[3] == "" {
		cells[3] = r.GetAction()
	}
	if a := r.GetAction(); a == "allow" || a == "deny" {
		cells[5], cells[6] = count(r.GetDecided())
	}
	return cells
}

func families(r *rule) string {
	switch {
	case r.GetIpv4() && r.GetIpv6():
		return "4+6"
	case r.GetIpv6():
		return "6"
	}
	return "4"
}

// count is what was counted; empty where nobody does.
func count(c *dataplanev1.PacketCount) (packets, bytes string) {
	if c == nil {
		return "", ""
	}
	return render.Count(c.GetPackets()), render.Bytes(c.GetBytes())
}

// Join puts the chunks of an answer together.
func Join(all, chunk *policy) *policy {
	if all == nil {
		return chunk
	}
	for _, t := range chunk.GetTiers() {
		if n := len(all.Tiers); t.GetContinued() && n > 0 {
			all.Tiers[n-1].Rules = append(all.Tiers[n-1].Rules, t.GetRules()...)
		} else {
			all.Tiers = append(all.Tiers, t)
		}
	}
	return all
}
