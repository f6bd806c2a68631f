package truth

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"margay.dev/margay/internal/render"
)

// A Family is 4 or 6.
type Family uint8

// Families are both.
func Families() []Family { return []Family{4, 6} }

// Protocols that cases ask about.
const (
	TCP  = "TCP"
	UDP  = "UDP"
	SCTP = "SCTP"
)

// A Query is one question: is a conversation from one pod to another let through,
// if no packet of it was seen before?
type Query struct {
	From, To string // names of pods, with their namespaces: x/a
	Family   Family
	Protocol string // TCP, UDP or SCTP
	Port     uint16
}

// Of is what the query asks apart from the pods, such as "v6 UDP/81".
func (q Query) Of() string { return fmt.Sprintf("v%d %s/%d", q.Family, q.Protocol, q.Port) }

// String is the query in words.
func (q Query) String() string { return fmt.Sprintf("%s to %s, %s", q.From, q.To, q.Of()) }

// A Verdict is the answer to a Query.
type Verdict byte

// Verdicts. The zero Verdict is that of a query that nobody asked.
const (
	Allowed Verdict = '.'
	Refused Verdict = 'X'
	Unknown Verdict = '?' // nobody could tell: the destination showed no life
)

// A Table is the answers to many queries.
type Table map[Query]Verdict

// Open tells whether everything in the table is allowed.
func (t Table) Open() bool {
	for _, v := range t {
		if v != Allowed {
			return false
		}
	}
	return true
}

// Queries are what the table answers, by family, port and protocol, then by name.
func (t Table) Queries() []Query {
	return slices.SortedFunc(maps.Keys(t), func(a, b Query) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
}

// A Difference is what was found where something else must be.
type Difference struct {
	Want, Got Table
	Queries   []Query // whose answers differ, in the order of Table.Queries
}

// Compare holds what was found against what must be: every query of want must
// have the same answer in got, which may have more. It is nil if all do.
func Compare(want, got Table) *Difference {
	d := &Difference{Want: want, Got: got}
	for _, q := range want.Queries() {
		if got[q] != want[q] {
			d.Queries = append(d.Queries, q)
		}
	}
	if d.Queries == nil {
		return nil
	}
	return d
}

// String draws a grid for each family and port with a difference, one for all
// that look the same.
func (d *Difference) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d answers differ (. allowed, x refused, both as they must be; OPEN must be refused, SHUT must be allowed, ? unknown)\n", len(d.Queries), len(d.Want))
	var order []string
	grids := map[string][]string{} // what looks so
	for _, of := range d.kinds() {
		g := d.grid(of)
		if grids[g] == nil {
			order = append(order, g)
		}
		grids[g] = append(grids[g], of)
	}
	for _, g := range order {
		fmt.Fprintf(&b, "%s\n%s", strings.Join(grids[g], ", "), g)
	}
	return b.String()
}

// kinds are the families and ports with a difference.
func (d *Difference) kinds() (out []string) {
	for _, q := range d.Queries {
		if of := q.Of(); !slices.Contains(out, of) {
			out = append(out, of)
		}
	}
	return out
}

func (d *Difference) grid(of string) string {
	cells, names := map[[2]string]string{}, map[string]bool{}
	for q := range d.Want {
		if q.Of() == of {
			cells[[2]string{q.From, q.To}] = cell(d.Want[q], d.Got[q])
			names[q.From], names[q.To] = true, true
		}
	}
	pods := slices.Sorted(maps.Keys(names))
	t := render.NewTable(append([]string{"FROM \\ TO"}, pods...)...)
	for _, from := range pods {
		row := []string{from}
		for _, to := range pods {
			row = append(row, cmp.Or(cells[[2]string{from, to}], "-"))
		}
		t.Row(row...)
	}
	var b strings.Builder
	_ = t.Write(&b) // a Builder takes everything
	return b.String()
}

func cell(want, got Verdict) string {
	switch {
	case got == Unknown || got == 0:
		return "?"
	case want == got && want == Allowed:
		return "."
	case want == got:
		return "x"
	case got == Allowed:
		return "OPEN"
	}
	return "SHUT"
}
