package desired

import (
	"fmt"

	pb "margay.dev/margay/api/dataplane/v1"
)

// line checks words for people: bounded, and nothing in them that would do more
// to a terminal than show letters.
func (p parser) line(object, field, s string) string {
	if len(s) > pb.MaxLine {
		p.add(object, field+" length", len(s), fmt.Sprintf("at most %d bytes", pb.MaxLine))
	} else if s != pb.Line(s) {
		p.say("%s: %s is %.64q, want letters that can be shown", object, field, s)
	}
	return s
}

// nameSet notes what a set is called.
func (c *Change) nameSet(s *SetChange, m *pb.SetMembers) {
	object := setName(m.GetSet())
	name := parser{&c.faults}.line(object, "name", m.GetName())
	if s.name != "" && name != "" && name != s.name {
		c.faults.say("%s: named twice in one commit, %.64q and %.64q", object, s.name, name)
	}
	if name != "" {
		s.name = name
	}
}

// SetName says, for people, whom a set holds: the selector or the list that it
// comes from. It is empty for a set that nobody named.
func (s *State) SetName(id uint32) string { return s.setNames[id] }

// RuleName says what the rule of an id is; nil for one that nobody named.
func (s *State) RuleName(id uint32) *RuleName { return s.Rules[id] }
