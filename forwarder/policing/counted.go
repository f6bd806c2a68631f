package policing

import (
	"margay.dev/margay/fastpath/judge"
)

// Counted is what a ledger's counters show, for another process to go on from:
// both have the same state, so an id is the same rule to both.
type Counted struct {
	Rules, Pending []Line
	Ends           []EndCount
	Log            judge.LogStats
}

// Line is a rule's id, and the packets, segments and bytes that it decided.
type Line [4]uint64

// Offer is all that was counted so far, for another process to know before Rest.
func (l *Ledger) Offer() Counted {
	c := l.counted()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered = c
	return c
}

// Rest is what was counted since Offer, so that little need be told while
// packets stand.
func (l *Ledger) Rest() Counted {
	c := l.counted()
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.since(l.offered)
}

func (l *Ledger) counted() Counted {
	return Counted{Rules: lines(&l.record.Rules), Pending: lines(&l.record.Pending), Ends: l.Ends(), Log: l.record.Log.Stats()}
}

func lines(t *judge.Tally) (out []Line) {
	for n, c := range t.All() {
		out = append(out, Line{uint64(n), c.Packets, c.Segments, c.Bytes})
	}
	return out
}

// since is what was counted after before was. Numbers whose counts have begun
// anew are left out.
func (c Counted) since(before Counted) (d Counted) {
	d.Rules, d.Pending = linesSince(c.Rules, before.Rules), linesSince(c.Pending, before.Pending)
	was := map[End]judge.Count{}
	for _, e := range before.Ends {
		was[e.End] = e.Count
	}
	for _, e := range c.Ends {
		if line, ok := less(Line{0, e.Count.Packets, e.Count.Segments, e.Count.Bytes}, was[e.End]); ok {
			d.Ends = append(d.Ends, EndCount{e.End, line.count()})
		}
	}
	d.Log = judge.LogStats{
		Logged: c.Log.Logged - before.Log.Logged, Suppressed: c.Log.Suppressed - before.Log.Suppressed, Lost: c.Log.Lost - before.Log.Lost,
	}
	return d
}

func linesSince(now, before []Line) (out []Line) {
	was := map[uint64]judge.Count{}
	for _, line := range before {
		was[line[0]] = line.count()
	}
	for _, line := range now {
		if line, ok := less(line, was[line[0]]); ok {
			out = append(out, line)
		}
	}
	return out
}

func (l Line) count() judge.Count { return judge.Count{Packets: l[1], Segments: l[2], Bytes: l[3]} }

// less takes what was counted before from a line; false if nothing is left, or less.
func less(l Line, was judge.Count) (Line, bool) {
	if l[1] <= was.Packets || l[2] < was.Segments || l[3] < was.Bytes {
		return l, false
	}
	return Line{l[0], l[1] - was.Packets, l[2] - was.Segments, l[3] - was.Bytes}, true
}

// Adopt goes on from what another process has counted. What this ledger has no
// number for is passed over: it stands for nothing any more.
func (l *Ledger) Adopt(c Counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range c.Rules {
		l.record.Rules.Adopt(uint32(line[0]), line.count())
	}
	for _, line := range c.Pending {
		l.record.Pending.Adopt(uint32(line[0]), line.count())
	}
	for _, e := range c.Ends {
		if n, ok := l.ends[e.End]; ok {
			l.record.Ends.Adopt(n, e.Count)
		}
	}
	l.record.Log.Adopt(c.Log)
}
