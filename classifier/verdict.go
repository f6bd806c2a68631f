package classifier

import "fmt"

// Verdict is what a list says of a packet, in one word: action, rule and tier.
// The zero Verdict is "no rule of tier 0 matched".
type Verdict uint32

const (
	tierShift   = 24
	actionShift = 29
	// MaxTiers is how many lists can follow each other: a verdict has 5 bits for it.
	MaxTiers = 32
	// EndOfTier is the rule id of a verdict that no rule gave, but the end of a tier.
	EndOfTier = 1<<24 - 1
)

// NewVerdict packs an action, a rule id (or EndOfTier) and a tier (below MaxTiers).
//
//fastpath:hot
func NewVerdict(a Action, id uint32, tier int) Verdict {
	return Verdict(uint32(a)<<actionShift | uint32(tier)<<tierShift | id&EndOfTier)
}

// Action is what is to be done: NoMatch where no rule decided.
//
//fastpath:hot
func (v Verdict) Action() Action { return Action(v >> actionShift) }

// Rule is the id of the rule that decided, 0 where none did.
func (v Verdict) Rule() uint32 { return uint32(v) & EndOfTier }

// Tier counts the lists that came before the one that decided.
func (v Verdict) Tier() int { return int(v >> tierShift & (MaxTiers - 1)) }

// String gives the three parts for people.
func (v Verdict) String() string {
	if v.Rule() == EndOfTier {
		return fmt.Sprintf("%v by the end of tier %d", v.Action(), v.Tier())
	}
	return fmt.Sprintf("%v by rule %d of tier %d", v.Action(), v.Rule(), v.Tier())
}
