// Package verdicts writes for people what policy has decided: which connections
// there are, and what judges an endpoint.
package verdicts

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/pkt"
	"margay.dev/margay/internal/render"
)

type (
	flow   = dataplanev1.FlowList_Flow
	ruling = dataplanev1.Ruling
)

// protocols are the names that people know.
var protocols = map[uint32]string{
	pkt.ProtoTCP: "tcp", pkt.ProtoUDP: "udp", pkt.ProtoICMP: "icmp", pkt.ProtoICMPv6: "icmp6", pkt.ProtoSCTP: "sctp",
}

// Protocol reads a protocol's name, or its number from 1 to 255.
func Protocol(word string) (uint32, error) {
	for number, name := range protocols {
		if strings.EqualFold(word, name) {
			return number, nil
		}
	}
	if strings.EqualFold(word, "icmpv6") {
		return pkt.ProtoICMPv6, nil
	}
	if n, err := strconv.ParseUint(word, 10, 8); err == nil && n > 0 {
		return uint32(n), nil
	}
	return 0, fmt.Errorf("protocol is %q, want tcp, udp, sctp, icmp, icmp6 or a number from 1 to 255", word)
}

// ProtocolName is what people call an IP protocol: its name in small letters, or its
// number.
func ProtocolName(n uint32) string {
	if name, ok := protocols[n]; ok {
		return name
	}
	return strconv.FormatUint(uint64(n), 10)
}

// Flows writes a table of connections; wide says more of each.
func Flows(w io.Writer, l *dataplanev1.FlowList, wide bool) error {
	if len(l.GetFlows()) == 0 {
		_, err := fmt.Fprintln(w, "no flows")
		return err
	}
	heads := []string{"PROTO", "SOURCE", "DESTINATION", "STATE", "VERDICT", "RULE", ">AGE", ">IDLE", ">PACKETS", ">BYTES"}
	if wide {
		heads = append(heads, "FROM", "TO", "THERE BY", "BACK BY", "SAYS")
	}
	t := render.NewTable(heads...)
	outdated := false
	for _, f := range l.GetFlows() {
		outdated = outdated || f.GetOutdated()
		t.Row(row(f, wide)...)
	}
	if err := t.Write(w); err != nil {
		return err
	}
	if outdated {
		fmt.Fprintf(w, "\n* decided before the tables changed: its next packet has it decided anew\n")
	}
	if !l.GetMore() {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nthere are more: narrow what is listed, or raise --limit (0 for all)\n")
	return err
}

func row(f *flow, wide bool) []string {
	o, r := f.GetOriginal(), f.GetReply()
	source, destination := ends(f)
	verdict := "allow"
	if !f.GetEgress().GetAllowed() || !f.GetIngress().GetAllowed() {
		verdict = "deny"
	}
	if f.GetOutdated() {
		verdict += "*"
	}
	cells := []string{
		ProtocolName(f.GetProtocol()), source, destination, f.GetState(), verdict, rules(f),
		render.Duration(time.Duration(f.GetAgeMs()) * time.Millisecond), render.Duration(time.Duration(f.GetIdleMs()) * time.Millisecond),
		render.Count(o.GetPackets()) + "/" + render.Count(r.GetPackets()), render.Bytes(o.GetBytes()) + "/" + render.Bytes(r.GetBytes()),
	}
	if wide {
		cells = append(cells, f.GetEgress().GetEndpoint(), f.GetIngress().GetEndpoint(), by(o), by(r), says(f))
	}
	return cells
}

// ends are the two ends of a flow, as its originator sees them.
func ends(f *flow) (source, destination string) {
	o := f.GetOriginal()
	switch f.GetProtocol() {
	case pkt.ProtoTCP, pkt.ProtoUDP, pkt.ProtoSCTP:
		return at(o.GetSource(), o.GetSourcePort()), at(o.GetDestination(), o.GetDestinationPort())
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		return fmt.Sprintf("%s id %d", o.GetSource(), o.GetSourcePort()), fmt.Sprintf("%s type %d", o.GetDestination(), o.GetDestinationPort()>>8)
	}
	return o.GetSource(), o.GetDestination()
}

// at is an address and a port as people write them.
func at(address string, port uint32) string {
	if a, err := netip.ParseAddr(address); err == nil && a.Is6() {
		return fmt.Sprintf("[%s]:%d", address, port)
	}
	return fmt.Sprintf("%s:%d", address, port)
}

// by is where packets of one way leave.
func by(d *dataplanev1.FlowList_Direction) string {
	var ways []string
	for _, a := range d.GetAdjacencies() {
		way := cmp.Or(a.GetPort(), a.GetKind())
		if a.GetGateway() != "" {
			way += " via " + a.GetGateway()
		}
		ways = append(ways, way)
	}
	return strings.Join(ways, ", ")
}

// deciding are the ends that have decided: of a flow that is denied, those that deny
// it.
func deciding(f *flow, each func(direction string, r *ruling)) {
	denied := !f.GetEgress().GetAllowed() || !f.GetIngress().GetAllowed()
	for _, end := range []struct {
		direction string
		ruling    *ruling
	}{{"egress", f.GetEgress()}, {"ingress", f.GetIngress()}} {
		if r := end.ruling; r.GetBy() != dataplanev1.Ruling_BY_NOBODY && (!denied || !r.GetAllowed()) {
			each(end.direction, r)
		}
	}
}

// rules names what has decided, shortly.
func rules(f *flow) string {
	var parts []string
	deciding(f, func(direction string, r *ruling) { parts = append(parts, direction+" "+short(r)) })
	if len(parts) == 0 {
		return "no policy"
	}
	return strings.Join(parts, ", ")
}

func short(r *ruling) string {
	switch r.GetBy() {
	case dataplanev1.Ruling_BY_TIER:
		return strings.TrimSpace("end of tier " + r.GetTier())
	case dataplanev1.Ruling_BY_END:
		return "nothing allows it"
	}
	rule := r.GetRule()
	if rule.GetPolicy() == "" {
		return fmt.Sprintf("rule %d", rule.GetId())
	}
	_, name, _ := strings.Cut(rule.GetPolicy(), " ")
	return fmt.Sprintf("%s[%d]", name, rule.GetIndex())
}

// says is what the rules say that have decided.
func says(f *flow) string {
	var parts []string
	deciding(f, func(_ string, r *ruling) {
		if text := r.GetRule().GetText(); text != "" {
			parts = append(parts, text)
		}
	})
	return strings.Join(parts, "; ")
}

// Summary writes how full the table of connections is, and who fills it.
func Summary(w io.Writer, s *dataplanev1.FlowSummary) error {
	share := 0.0
	if s.GetLimit() > 0 {
		share = float64(s.GetFlows()) / float64(s.GetLimit())
	}
	line := func(head, text string) { fmt.Fprintf(w, "%-12s%s\n", head+":", text) }
	line("Flows", fmt.Sprintf("%d of %d (%s)", s.GetFlows(), s.GetLimit(), render.Percent(share)))
	line("States", counts(s.GetByState(), "none"))
	line("Ended", fmt.Sprintf("%d idle for too long, %d taken out or opened again; %d wait to be used again", s.GetExpired(), s.GetRetired(), s.GetWaiting()))
	line("Begun", strconv.FormatUint(s.GetInserted(), 10))
	line("Fragments", render.Plural(int(s.GetPartial()), "datagram")+" not whole yet")
	line("Refused", counts(s.GetRefused(), "no packets"))
	if len(s.GetHolders()) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := render.NewTable("WHO HOLDS MOST", ">FLOWS", ">SHARE")
	for _, h := range s.GetHolders() {
		t.Row(h.GetEndpoint(), render.Count(h.GetFlows()), render.Percent(float64(h.GetFlows())/float64(max(1, s.GetLimit()))))
	}
	return t.Write(w)
}

// counts are those that are not zero, the greatest first.
func counts(of map[string]uint64, none string) string {
	names := slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Or(cmp.Compare(of[b], of[a]), cmp.Compare(a, b)) })
	var parts []string
	for _, name := range names {
		if of[name] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", of[name], name))
		}
	}
	if len(parts) == 0 {
		return none
	}
	return strings.Join(parts, ", ")
}
