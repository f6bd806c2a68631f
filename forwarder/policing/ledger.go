package policing

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
)

// Ledger knows what the counters of a judge.Record stand for: which rule has an
// id, and which end of which endpoint's tiers a number. What is counted for
// something that is gone is forgotten before its number is given again. Its
// methods are safe for concurrent use.
type Ledger struct {
	record *judge.Record

	mu        sync.Mutex
	rules     map[uint32]*desired.RuleName // that workers may count by
	doubtful  map[uint32]struct{}          // rules that have changed, until no worker counts by what they were
	everyRule bool                         // all rules are doubtful
	ends      map[End]uint32               // their numbers
	byNumber  map[uint32]End               // the way back
	inForce   map[End]struct{}             // of those, since the last round of endpoints began
	free      []uint32                     // numbers that nobody counts by
	last      uint32                       // highest number that was ever given
	tenants   map[uint32]string            // endpoints by account
	ports     map[uint16]string            // names of ports
	offered   Counted                      // to another process
	pending   map[uint32]struct{}          // programs whose rules may be counted for what is staged
}

// End is something that is counted for one direction of an endpoint, and that no
// rule decides.
type End struct {
	Endpoint string
	Egress   bool
	Kind     EndKind
	IPv6     bool   // the end of a tier is counted for each family
	Tier     string // of TierDenies and StagedTierDenies; empty: what goes past all tiers, or past a tier without a name
}

// EndKind is what is counted.
type EndKind uint8

// The kinds of ends.
const (
	TierDenies       EndKind = iota // packets that the end of a tier denied
	StagedTierDenies                // that it would deny if staged policies were in force
	StagedDenies                    // that were allowed, and would be denied by whatever is staged
	StagedPermits                   // that were denied, and would be allowed by whatever is staged
)

// EndCount is what was counted for an end.
type EndCount struct {
	End
	Count judge.Count
}

func newLedger() *Ledger {
	return &Ledger{
		record: &judge.Record{}, rules: map[uint32]*desired.RuleName{}, doubtful: map[uint32]struct{}{},
		ends: map[End]uint32{}, byNumber: map[uint32]End{}, inForce: map[End]struct{}{}, tenants: map[uint32]string{}, ports: map[uint16]string{}, pending: map[uint32]struct{}{},
	}
}

// Keep has a ledger stand for a record, in which nothing has been counted yet.
func (l *Ledger) Keep(r *judge.Record) { l.record = r }

// Log is where workers tell of packets that meet Log rules.
func (l *Ledger) Log() *judge.Log { return &l.record.Log }

// Count is what a rule has decided.
func (l *Ledger) Count(rule uint32) judge.Count { return l.record.Rules.Count(rule) }

// Pending is what a rule would decide if staged policies were in force: for a rule
// of a staged policy, and for any other that judges beside one.
func (l *Ledger) Pending(rule uint32) judge.Count { return l.record.Pending.Count(rule) }

// Rule says what the rule of an id is.
func (l *Ledger) Rule(id uint32) (name desired.RuleName, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.rules[id]; r != nil {
		return *r, true
	}
	return desired.RuleName{}, false
}

// Tenant is the endpoint whose flows are charged to an account, or were; empty if
// there was never one.
func (l *Ledger) Tenant(account uint32) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tenants[account]
}

// Name notes what the port of an index is called.
func (l *Ledger) Name(port uint16, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports[port] = name
}

// Port is what the port of an index is called; empty if there was never one.
func (l *Ledger) Port(index uint16) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ports[index]
}

// Ends tells what was counted for all ends, in the order of their fields.
func (l *Ledger) Ends() (out []EndCount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e, n := range l.ends {
		out = append(out, EndCount{e, l.record.Ends.Count(n)})
	}
	slices.SortFunc(out, func(a, b EndCount) int { return a.compare(b.End) })
	return out
}

func (e End) compare(o End) int {
	switch {
	case e.Endpoint != o.Endpoint:
		return strings.Compare(e.Endpoint, o.Endpoint)
	case e.Egress != o.Egress:
		if e.Egress {
			return -1
		}
		return 1
	case e.Kind != o.Kind:
		return int(e.Kind) - int(o.Kind)
	case e.IPv6 != o.IPv6:
		if o.IPv6 {
			return -1
		}
		return 1
	}
	return strings.Compare(e.Tier, o.Tier)
}

// Open takes up what a state calls its rules, before workers judge by it. changed
// are the rules to look at, nil for all.
func (l *Ledger) Open(s *desired.State, changed iter.Seq[uint32]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if changed == nil {
		l.everyRule = true
		changed = maps.Keys(s.Rules)
	}
	for id := range changed {
		if l.rules[id] == nil && s.Rules[id] != nil {
			l.rules[id] = s.Rules[id]
		}
		l.doubtful[id] = struct{}{}
	}
}

// Close forgets what was counted for rules and ends that the state does not have
// any more, or that are something else now: when no worker judges by what was
// before Open.
func (l *Ledger) Close(s *desired.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.everyRule {
		for id := range l.rules {
			l.doubtful[id] = struct{}{}
		}
	}
	for id := range l.doubtful {
		was, is := l.rules[id], s.Rules[id]
		if was != nil && (is == nil || !sameRule(*was, *is)) {
			l.record.Rules.Reset(id)
			l.record.Pending.Reset(id)
			l.record.Log.Reset(id)
		}
		if l.rules[id] = is; is == nil {
			delete(l.rules, id)
		}
	}
	clear(l.doubtful)
	l.everyRule = false
	for e, n := range l.ends {
		if _, stays := l.inForce[e]; !stays {
			l.record.Ends.Reset(n)
			l.free = append(l.free, n)
			delete(l.ends, e)
			delete(l.byNumber, n)
		}
	}
}

// sameRule tells whether two names are of one rule, which others may have been put
// before meanwhile.
func sameRule(was, is desired.RuleName) bool {
	was.Index = is.Index
	return was == is
}

// begin begins a round of all endpoints.
func (l *Ledger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.inForce)
}

// lodge notes to whom flows are charged.
func (l *Ledger) lodge(e *desired.Endpoint, account uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenants[account] = e.ID
}

// number is what an end is counted by.
func (l *Ledger) number(e End) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inForce[e] = struct{}{}
	n, ok := l.ends[e]
	if ok {
		return n
	}
	if k := len(l.free); k > 0 {
		n, l.free = l.free[k-1], l.free[:k-1]
	} else {
		l.last++
		n = l.last
	}
	l.ends[e], l.byNumber[n] = n, e
	l.record.Ends.Expect(slices.Values([]uint32{n}))
	return n
}

// expect makes room for what the rules of a program decide and log.
func (l *Ledger) expect(p *classifier.Program) {
	l.record.Rules.Expect(ids(p, false))
	if p.HasLog() {
		l.record.Log.Expect(ids(p, true))
	}
}

// expectPending makes room for what the rules of a program would decide.
func (l *Ledger) expectPending(id uint32, p *classifier.Program) {
	if _, done := l.pending[id]; !done {
		l.pending[id] = struct{}{}
		l.record.Pending.Expect(ids(p, false))
	}
}

// ids yields the ids of a program's rules: of those that log, or of the others.
func ids(p *classifier.Program, log bool) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for v := range p.All() {
			if (v.Action() == classifier.Log) == log && !yield(v.Rule()) {
				return
			}
		}
	}
}
