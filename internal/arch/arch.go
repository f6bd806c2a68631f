// Package arch holds the rules of the house as checks: who may import whom,
// how long things may grow, what every name owes its reader, and what a
// function marked //fastpath:hot must not do. Its test runs them over the whole
// module; each check is also run over a small module with planted faults, for a
// check that cannot fail guards nothing.
//
// A rule may be waived where it stands, by a comment that gives the reason:
//
//	// arch:long REASON   on a function of more than 60 lines
//	// arch:var REASON    on a package variable that changes after its declaration
//	// arch:cap REASON    on an append on the packet path that never grows its slice
//
// There is no list of exceptions elsewhere.
package arch

import (
	"cmp"
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// Finding is one place where the module breaks a rule.
type Finding struct {
	File string // path below the module's root
	Line int    // 1-based
	Text string // what is wrong, and what would be right
}

// String gives the finding in the form that editors jump to.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// sorted puts findings in reading order and drops repeats.
func sorted(found []Finding) []Finding {
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(found)
}

// waived reports whether one of the comment groups says "arch:WORD REASON".
// A waiver without a reason does not count.
func waived(word string, groups ...*ast.CommentGroup) bool {
	for _, g := range groups {
		if g == nil {
			continue
		}
		for _, c := range g.List {
			_, reason, ok := strings.Cut(c.Text, "arch:"+word+" ")
			if ok && strings.TrimSpace(reason) != "" {
				return true
			}
		}
	}
	return false
}

// below reports whether rel, a path below the module's root, is dir or lies in it.
func below(rel, dir string) bool {
	return rel == dir || strings.HasPrefix(rel, dir+"/")
}
