package preview

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"

	"margay.dev/margay/cmd/margayctl/verdicts"
	"margay.dev/margay/internal/render"
)

// Table prints connections that would be turned, then how many each rule turns.
func Table(w io.Writer, turns []Turn, asked int) error {
	if len(turns) > 0 {
		table := render.NewTable("PROTO", "SOURCE", "DESTINATION", "NOW", "THEN", "BY")
		for _, t := range turns {
			d := t.Flow.GetOriginal()
			table.Row(verdicts.ProtocolName(t.Flow.GetProtocol()), end(d.GetSource(), d.GetSourcePort()), end(d.GetDestination(), d.GetDestinationPort()),
				verdict(!t.Allowed), verdict(t.Allowed), t.rule())
		}
		if err := table.Write(w); err != nil {
			return err
		}
		if err := rules(w, turns); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d connections would change verdict\n", len(turns), asked)
	return err
}

// rules prints how many connections each rule would turn, the most first.
func rules(w io.Writer, turns []Turn) error {
	type change struct {
		allowed bool
		rule    string
	}
	count := make(map[change]int)
	for _, t := range turns {
		count[change{t.Allowed, t.rule()}]++
	}
	table := render.NewTable("THEN", ">CONNECTIONS", "BY")
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b change) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.rule, b.rule))
	}) {
		table.Row(verdict(c.allowed), strconv.Itoa(count[c]), c.rule)
	}
	fmt.Fprintln(w)
	if err := table.Write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// rule is who decides, and in which direction.
func (t Turn) rule() string {
	if t.Ingress {
		return "ingress " + t.By
	}
	return "egress " + t.By
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
