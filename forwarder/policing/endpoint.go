package policing

import (
	"fmt"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
)

// judges are what judges endpoints, by the account of each.
type judges map[uint32]*judge.Endpoint

// Endpoint is what judges an endpoint's packets, and what would by its staged
// stages. Those with equal stages share their chains. account is what its flows
// are charged to. Where nothing has changed since the round before, it is the same
// Endpoint, so that flows stay as they are.
func (w *Writer) Endpoint(e *desired.Endpoint, account uint32) (*judge.Endpoint, error) {
	j := &judge.Endpoint{Account: account, Host: e.Host, HostDenied: e.HostDenied}
	w.ledger.lodge(e, account)
	for side, stages := range e.Facing() {
		in, err := w.direction(End{Endpoint: e.ID, Egress: (side == 0) != e.Host, Kind: TierDenies}, stages, e.Host)
		if err != nil {
			return nil, fmt.Errorf("chain the tiers of endpoint %s: %w", e.ID, err)
		}
		j.Ends[side], j.Open[side] = in.ends, in.open
		if side == 0 {
			j.Egress = in.chains
		} else {
			j.Ingress = in.chains
		}
	}
	for side, stages := range e.FacingStaged() {
		var err error
		if j.Staged[side], err = w.staged(End{Endpoint: e.ID, Egress: (side == 0) != e.Host, Kind: StagedTierDenies}, stages, e.Host); err != nil {
			return nil, fmt.Errorf("chain the staged tiers of endpoint %s: %w", e.ID, err)
		}
	}
	if was := w.seated[account]; was != nil && same(was, j) {
		j = was
	}
	w.seats[account] = j
	return j, nil
}

// same says whether two endpoints are judged, and counted, alike.
func same(a, b *judge.Endpoint) bool {
	for side := range a.Ends {
		if !a.Ends[side].Equal(&b.Ends[side]) || !a.Staged[side].Equal(b.Staged[side]) {
			return false
		}
	}
	return a.Egress == b.Egress && a.Ingress == b.Ingress && a.Host == b.Host && a.Open == b.Open && a.Account == b.Account && a.HostDenied == b.HostDenied
}

// staged is what would judge one direction of an endpoint; nil if nothing is staged.
func (w *Writer) staged(as End, stages []desired.Stage, open bool) (*judge.Staged, error) {
	if len(stages) == 0 {
		return nil, nil
	}
	for i := range stages {
		for _, id := range []uint32{stages[i].Program4, stages[i].Program6} {
			if l := w.lists[id]; l != nil {
				w.ledger.expectPending(id, l.Program())
			}
		}
	}
	in, err := w.direction(as, stages, open)
	if err != nil {
		return nil, err
	}
	denies, permits := as, as
	denies.Kind, permits.Kind = StagedDenies, StagedPermits
	return &judge.Staged{Chain: in.chains, Open: in.open, Ends: in.ends, Denies: w.ledger.number(denies), Permits: w.ledger.number(permits)}, nil
}

// direction is what judges one direction, by family.
type direction struct {
	chains [2]*chain.Chain
	ends   judge.Ends
	open   [2]bool // nothing denies what no tier decides
}

// direction chains stages, for both families. open allows what goes past all of them.
func (w *Writer) direction(as End, stages []desired.Stage, open bool) (d direction, err error) {
	for family := range d.chains {
		tiers, key, names, blocked := w.tiers(stages, family)
		d.open[family] = open && !blocked
		if d.chains[family], err = w.chain(tiers, key); err != nil {
			return d, err
		}
		for _, name := range names {
			as.IPv6, as.Tier = family == 1, name
			d.ends[family] = append(d.ends[family], w.ledger.number(as))
		}
	}
	return d, nil
}

// tiers are the stages of one family, 0 for IPv4, with their names and that of what
// denies the rest, and a key that tells them from others. blocked says that a stage
// denies the rest.
func (w *Writer) tiers(stages []desired.Stage, family int) (tiers []chain.Tier, key string, names []string, blocked bool) {
	asked, last, blocked := ask(stages, family)
	for i := range asked {
		id, end := Program(&asked[i], family), classifier.Deny
		if asked[i].UndecidedPasses {
			end = classifier.Pass
		}
		tiers, names = append(tiers, chain.Tier{List: w.lists[id], End: end}), append(names, asked[i].Name)
		key += fmt.Sprint(id, end, " ")
	}
	return tiers, key, append(names, last), blocked
}

// chain is the one of some tiers, by their key.
func (w *Writer) chain(tiers []chain.Tier, key string) (c *chain.Chain, err error) {
	if c = w.used[key]; c == nil {
		c = w.chains[key]
	}
	if c == nil {
		if c, err = chain.NewChain(tiers...); err != nil {
			return nil, err
		}
	}
	w.used[key] = c
	return c, nil
}
