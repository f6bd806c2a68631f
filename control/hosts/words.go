package hosts

import (
	"fmt"
	"strings"

	"margay.dev/margay/policy"
)

// DefaultLogPrefix is what lines of Log rules begin with, as Calico's do.
const DefaultLogPrefix = "calico-packet"

// Comment is what people read beside the kernel's rule, for nft.Options. An id that
// nobody knows stands for itself.
func Comment(rule func(uint32) (policy.RuleRef, bool), id uint32) string {
	ref, ok := rule(id)
	switch {
	case !ok:
		return fmt.Sprintf("rule %d", id)
	case ref.StandsIn:
		return ref.Object.String() + " (not understood)"
	}
	return ref.Object.String()
}

// LogPrefix is what the lines of a Log rule begin with, for nft.Options: in the
// template %t stands for the rule's tier, %k for the kind of its object, %n for
// the object's name, %p for that with its namespace.
func LogPrefix(template string, rule func(uint32) (policy.RuleRef, bool), id uint32) string {
	ref, _ := rule(id)
	tier, full := ref.Tier, ref.Object.Name
	if tier == "" {
		tier = "profile"
	}
	if ref.Object.Namespace != "" {
		full = ref.Object.Namespace + "/" + full
	}
	return strings.NewReplacer("%t", tier, "%k", ref.Object.Kind, "%n", ref.Object.Name, "%p", full, "%%", "%").Replace(template) + ": "
}
