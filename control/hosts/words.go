package hosts

import (
	"fmt"
	"strings"
	"sync"

	"margay.dev/margay/policy"
)

// DefaultLogPrefix is what lines of Log rules begin with, as Calico's do.
const DefaultLogPrefix = "calico-packet"

// Words knows which rules the ids in a kernel's lists stand for, so that people read
// their names beside the rules and in the log. Its methods may be called by any
// goroutine. The zero value knows none.
type Words struct {
	mu   sync.Mutex
	refs []map[uint32]policy.RuleRef
}

// know has the refs be all that there are; none of them changes any more.
func (w *Words) know(refs []map[uint32]policy.RuleRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refs = refs
}

// Rule is what an id stands for; it is false for what no list of the kernel has.
func (w *Words) Rule(id uint32) (policy.RuleRef, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, some := range w.refs {
		if ref, ok := some[id]; ok {
			return ref, true
		}
	}
	return policy.RuleRef{}, false
}

// Comment is what people read beside the kernel's rule, for nft.Options. An id that
// nobody knows stands for itself.
func (w *Words) Comment(id uint32) string {
	ref, ok := w.Rule(id)
	switch {
	case !ok:
		return fmt.Sprintf("rule %d", id)
	case ref.StandsIn:
		return ref.Object.String() + " (not understood)"
	}
	return ref.Object.String()
}

// Prefix is what the lines of a Log rule begin with, for nft.Options: in the
// template %t stands for the rule's tier, %k for the kind of its object, %n for
// the object's name, %p for that with its namespace.
func (w *Words) Prefix(template string, id uint32) string {
	ref, _ := w.Rule(id)
	tier, full := ref.Tier, ref.Object.Name
	if tier == "" {
		tier = "profile"
	}
	if ref.Object.Namespace != "" {
		full = ref.Object.Namespace + "/" + full
	}
	return strings.NewReplacer("%t", tier, "%k", ref.Object.Kind, "%n", ref.Object.Name, "%p", full, "%%", "%").Replace(template) + ": "
}
