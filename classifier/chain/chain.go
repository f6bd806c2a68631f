// Package chain puts compiled lists of rules behind each other, as tiers.
package chain

import (
	"fmt"
	"slices"

	"margay.dev/margay/classifier"
)

// List is a program of an ordered list. Endpoints with equal lists share one.
type List struct{ program *classifier.Program }

// NewList makes a list of a program that was told of every class.
func NewList(p *classifier.Program) *List { return &List{p} }

// Program is the list's program.
//
//fastpath:hot
func (l *List) Program() *classifier.Program { return l.program }

// Tier is a list with what happens to packets that none of its rules decides.
type Tier struct {
	List *List
	End  classifier.Action // Deny, or Pass: the next tier decides
}

// Chain is the tiers that a packet goes through, in their order. Allow and Deny
// end the way; Pass leads to the next tier.
type Chain struct{ tiers []Tier }

// NewChain makes a chain of up to classifier.MaxTiers tiers. It reports one without a list
// or with another end than Deny or Pass.
func NewChain(tiers ...Tier) (*Chain, error) {
	if len(tiers) > classifier.MaxTiers {
		return nil, fmt.Errorf("make chain: %d tiers, want at most %d", len(tiers), classifier.MaxTiers)
	}
	for i, t := range tiers {
		if t.List == nil || t.End != classifier.Deny && t.End != classifier.Pass {
			return nil, fmt.Errorf("make chain: tier %d of %d: it has a list: %v, and ends in %v, want deny or pass", i, len(tiers), t.List != nil, t.End)
		}
	}
	return &Chain{tiers: append([]Tier(nil), tiers...)}, nil
}

// Match judges packets in bursts: out[i] is the verdict of packets[i], with the
// tier that gave it. A packet that no tier decided has the zero verdict: the
// caller knows what the end of all tiers means. out is at least as long as packets.
//
//fastpath:hot
func (c *Chain) Match(packets []classifier.Packet, out []classifier.Verdict) {
	out = out[:len(packets)]
	for len(packets) > 0 {
		n := min(len(packets), classifier.Burst)
		c.burst(packets[:n], out[:n])
		packets, out = packets[n:], out[n:]
	}
}

// burst takes up to Burst packets through the tiers. After each, those that go
// on are moved together, so that the next program sees them as one burst.
//
//fastpath:hot
func (c *Chain) burst(packets []classifier.Packet, out []classifier.Verdict) {
	var keys [classifier.Burst]classifier.Key
	var got [classifier.Burst]classifier.Verdict
	var open [classifier.Burst]uint8 // packets without a verdict
	clear(out)
	n := len(packets)
	for i := range packets {
		open[i&(classifier.Burst-1)] = uint8(i)
	}
	for t := 0; t < len(c.tiers) && n > 0; t++ {
		p := c.tiers[t].List.Program()
		p.Keys(packets, open[:n], keys[:])
		p.Match(keys[:n], got[:n])
		left := 0
		for j, i := range open[:n] {
			if v, goesOn := c.after(t, got[j]); goesOn {
				open[left&(classifier.Burst-1)] = i
				left++
			} else {
				out[i] = v
			}
		}
		n = left
	}
}

// after says what a program's verdict means in its tier, and whether the packet
// goes on to the next.
//
//fastpath:hot
func (c *Chain) after(tier int, v classifier.Verdict) (classifier.Verdict, bool) {
	switch v.Action() {
	case classifier.Allow, classifier.Deny:
		return classifier.NewVerdict(v.Action(), v.Rule(), tier), false
	case classifier.NoMatch:
		end := c.tiers[tier].End
		return classifier.NewVerdict(end, classifier.EndOfTier, tier), end == classifier.Pass
	}
	return classifier.NewVerdict(v.Action(), v.Rule(), tier), true
}

// Tiers are the chain's, in their order.
func (c *Chain) Tiers() []Tier { return slices.Clone(c.tiers) }

// Walk is the verdict of the chain for a packet of which the list of each tier
// says what ask does.
func (c *Chain) Walk(ask func(tier int) classifier.Verdict) classifier.Verdict {
	for t := range c.tiers {
		if v, goesOn := c.after(t, ask(t)); !goesOn {
			return v
		}
	}
	return 0
}

// HasLog reports whether any list of the chain may have Log rules.
func (c *Chain) HasLog() bool {
	for _, t := range c.tiers {
		if t.List.Program().HasLog() {
			return true
		}
	}
	return false
}

// Explain appends to steps, for each tier that the packet comes to, a verdict of
// action Log for each Log rule that it meets, and then what the tier says.
func (c *Chain) Explain(k *classifier.Packet, steps []classifier.Verdict) []classifier.Verdict {
	var ids []uint32
	for t := range c.tiers {
		p := c.tiers[t].List.Program()
		var key classifier.Key
		p.Key(k, &key)
		ids = p.Logged(&key, ids[:0])
		for _, id := range ids {
			steps = append(steps, classifier.NewVerdict(classifier.Log, id, t))
		}
		v, goesOn := c.after(t, p.MatchOne(&key))
		steps = append(steps, v)
		if !goesOn {
			break
		}
	}
	return steps
}
