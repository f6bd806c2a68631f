// Package render prints answers: tables and quantities for people, JSON and
// YAML documents for programs.
package render

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// gap is what stands between two columns.
const gap = "  "

// A Table is rows under headings, each column as wide as its widest cell, or as
// Fix says.
// Numbers line up at the right where a heading begins with ">".
type Table struct {
	heads []string
	right []bool
	rows  [][]string
	fixed []int
}

// NewTable makes a table without rows. A heading that begins with ">" (which
// is not printed) sets its column to the right.
func NewTable(heads ...string) *Table {
	t := &Table{}
	for _, h := range heads {
		name, right := strings.CutPrefix(h, ">")
		t.heads = append(t.heads, name)
		t.right = append(t.right, right)
	}
	return t
}

// Row adds a row. Missing cells are empty, an empty one prints as "-";
// cells beyond the headings are left out.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.heads))
	copy(row, cells)
	for i := range row {
		if row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// Continue adds a row that belongs to the one above it: what is empty stays empty.
func (t *Table) Continue(cells ...string) {
	row := make([]string, len(t.heads))
	copy(row, cells)
	t.rows = append(t.rows, row)
}

// Fix gives every column a width in letters, whatever is in it: what is longer is
// cut. It returns the table.
func (t *Table) Fix(widths ...int) *Table {
	t.fixed = widths
	return t
}

// Keep leaves out all rows but the first n.
func (t *Table) Keep(n int) { t.rows = t.rows[:min(n, len(t.rows))] }

// Cut shortens s to n letters, at least 1. What was longer ends with "…".
func Cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Write prints the table. No line ends in a blank.
func (t *Table) Write(w io.Writer) error {
	widths := t.widths()
	out := bufio.NewWriter(w)
	var line strings.Builder
	for _, row := range append([][]string{t.heads}, t.rows...) {
		line.Reset()
		for i, cell := range row {
			if i > 0 {
				line.WriteString(gap)
			}
			cell = Cut(cell, widths[i])
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if t.right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		out.WriteString(strings.TrimRight(line.String(), " "))
		out.WriteByte('\n')
	}
	return out.Flush()
}

func (t *Table) widths() []int {
	if t.fixed != nil {
		return t.fixed
	}
	widths := make([]int, len(t.heads))
	for _, row := range append([][]string{t.heads}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}
