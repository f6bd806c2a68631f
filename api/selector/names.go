package selector

import "slices"

// Names are the labels that s asks about, sorted, each once: whatever else of a
// thing changes, s goes on picking it, or not. The caller may keep them.
func (s *Selector) Names() []string {
	names := make([]string, len(s.steps))
	for i := range s.steps {
		names[i] = s.steps[i].label
	}
	slices.Sort(names)
	return slices.Compact(names)
}
