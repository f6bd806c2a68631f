package chain

import "margay.dev/margay/classifier"

// Logs is the Log rules that a packet meets, each as a verdict of action Log with
// the rule's id and tier. It keeps its room from packet to packet.
type Logs struct {
	Met []classifier.Verdict
	ids []uint32
}

// Logged puts into l, in place of what is there, the Log rules that a packet meets on its way to v,
// which the chain has said of it.
func (c *Chain) Logged(k *classifier.Packet, v classifier.Verdict, l *Logs) {
	l.Met = l.Met[:0]
	last := len(c.tiers) - 1
	if v.Action() != classifier.NoMatch {
		last = min(last, v.Tier())
	}
	for t := range c.tiers[:last+1] {
		p := c.tiers[t].List.Program()
		if !p.HasLog() {
			continue
		}
		var key classifier.Key
		p.Key(k, &key)
		l.ids = p.Logged(&key, l.ids[:0])
		for _, id := range l.ids {
			l.Met = append(l.Met, classifier.NewVerdict(classifier.Log, id, t))
		}
	}
}
