package preview

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"

	"margay.dev/margay/cmd/margayctl/verdicts"
	"margay.dev/margay/internal/render"
)

// Report is what a change would do, for people and for programs.
type Report struct {
	Connections int      `json:"connections"` // that were judged
	Unknown     []string `json:"unknown"`     // objects that ask for what is not known here: World.Blind
	Turns       []Turned `json:"turns"`
	Rules       []Rule   `json:"rules"` // the one that turns most first
}

// Turned is a connection whose verdict would change.
type Turned struct {
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	SourcePort      uint32 `json:"sourcePort"` // of an ICMP query its identifier
	Destination     string `json:"destination"`
	DestinationPort uint32 `json:"destinationPort"` // of ICMP type * 256 + code
	Now             string `json:"now"`             // allow or deny
	Then            string `json:"then"`
	Direction       string `json:"direction"` // of who decides then: egress or ingress
	By              string `json:"by"`
}

// Rule is what one rule, or the end of a tier, would turn.
type Rule struct {
	Then        string `json:"then"`
	Direction   string `json:"direction"`
	By          string `json:"by"`
	Connections int    `json:"connections"`
}

// NewReport is of the connections that are turned, of those that were asked about.
func NewReport(turns []Turn, asked int, unknown []string) *Report {
	r := &Report{Connections: asked, Unknown: append([]string{}, unknown...), Turns: []Turned{}, Rules: []Rule{}}
	count := make(map[Rule]int)
	for _, t := range turns {
		d := t.Flow.GetOriginal()
		one := Turned{
			Protocol: verdicts.ProtocolName(t.Flow.GetProtocol()), Source: d.GetSource(), SourcePort: d.GetSourcePort(),
			Destination: d.GetDestination(), DestinationPort: d.GetDestinationPort(),
			Now: verdict(!t.Allowed), Then: verdict(t.Allowed), Direction: direction(t.Ingress), By: t.By,
		}
		r.Turns = append(r.Turns, one)
		count[Rule{Then: one.Then, Direction: one.Direction, By: one.By}]++
	}
	for rule, n := range count {
		rule.Connections = n
		r.Rules = append(r.Rules, rule)
	}
	slices.SortFunc(r.Rules, func(a, b Rule) int {
		return cmp.Or(cmp.Compare(b.Connections, a.Connections), cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.By, b.By), cmp.Compare(a.Then, b.Then))
	})
	return r
}

// Write prints connections that would be turned, then how many each rule turns; or
// all of it as a document.
func (r *Report) Write(w io.Writer, f render.Format) error {
	if f != render.Text {
		return render.Value(w, f, r)
	}
	if len(r.Turns) > 0 {
		if err := r.tables(w); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d connections would change verdict\n", len(r.Turns), r.Connections)
	return err
}

func (r *Report) tables(w io.Writer) error {
	table := render.NewTable("PROTO", "SOURCE", "DESTINATION", "NOW", "THEN", "BY")
	for _, t := range r.Turns {
		table.Row(t.Protocol, end(t.Source, t.SourcePort), end(t.Destination, t.DestinationPort), t.Now, t.Then, t.Direction+" "+t.By)
	}
	if err := table.Write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	table = render.NewTable("THEN", ">CONNECTIONS", "BY")
	for _, rule := range r.Rules {
		table.Row(rule.Then, strconv.Itoa(rule.Connections), rule.Direction+" "+rule.By)
	}
	if err := table.Write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

func direction(ingress bool) string {
	if ingress {
		return "ingress"
	}
	return "egress"
}

func verdict(allowed bool) string {
	if allowed {
		return "allow"
	}
	return "deny"
}

func end(address string, port uint32) string {
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}
