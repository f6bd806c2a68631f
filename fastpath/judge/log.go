package judge

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/chain"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/graph"
)

// LogRate is how many packets of one rule a worker logs.
type LogRate struct {
	Burst int           // at once, at least 1
	Every time.Duration // and then one each time that so much has passed; 0: all
}

// DefaultLogRate keeps a flood that meets a Log rule from flooding the log.
func DefaultLogRate() LogRate { return LogRate{Burst: 10, Every: time.Second} }

// logRoom is how many packets of a worker can wait to be read.
const logRoom = 256

// Logged is a packet that met a rule with action Log.
type Logged struct {
	Rule       uint32
	Verdict    classifier.Verdict // that the packet got in the end
	End        uint32             // where no rule gave it, the number of the end that did
	Egress     bool               // it is the endpoint's egress policy, else its ingress policy
	Account    uint32             // of the endpoint whose policy it is
	InPort     uint16             // that the packet came in by
	Packet     flow.Key           // its addresses and ports
	Segments   uint16             // wire packets it stands for
	Bytes      uint32             // from the IP header on
	Suppressed uint64             // packets that met the rule since the one logged before, by the same worker, and were not logged
}

// LogStats counts packets that met rules with action Log, once for each rule.
type LogStats struct {
	Logged     uint64 // handed to who reads
	Suppressed uint64 // passed over, for the rule's rate
	Lost       uint64 // passed over, since who reads is behind
}

// Log carries packets that met rules with action Log from workers to one reader,
// without a lock: in bounded rings, for workers wait for nobody.
type Log struct {
	// Rate is each rule's, DefaultLogRate where it is zero. It is set before a graph is built.
	Rate    LogRate
	rates   pad[rate]
	mu      sync.Mutex
	writers []*writer
	before  LogStats // what another process counted
}

// rate is a worker's leave to log a rule, as a bucket of tokens that leaks.
type rate struct {
	full       atomic.Int64 // ns of the worker's clock at which the bucket would be full
	suppressed atomic.Uint64
}

// take asks for leave at a time.
func (r *rate) take(now int64, of LogRate) bool {
	at := max(r.full.Load(), now)
	if at-now > int64(of.Every)*int64(of.Burst-1) {
		return false
	}
	r.full.Store(at + int64(of.Every))
	return true
}

// writer is a worker's part.
type writer struct {
	rate   LogRate
	rates  *sheet[rate]
	events [logRoom]Logged
	tail   atomic.Uint64 // events that were ever put in

	suppressed, lost atomic.Uint64
	_                [64]byte
	head             atomic.Uint64 // events that were ever taken out
}

func (l *Log) join() *writer {
	w := &writer{rate: l.Rate, rates: l.rates.join()}
	if w.rate == (LogRate{}) {
		w.rate = DefaultLogRate()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writers = append(l.writers, w)
	return w
}

// Expect makes room for the rates of rules, before they are in force. Those that
// nobody expected share one.
func (l *Log) Expect(rules iter.Seq[uint32]) { l.rates.Expect(rules) }

// put hands an event on, unless there is no room or no leave.
func (w *writer) put(now int64, e *Logged) {
	tail, r := w.tail.Load(), w.rates.at(e.Rule)
	switch {
	case tail-w.head.Load() == logRoom:
		w.lost.Add(1)
	case !r.take(now, w.rate):
		w.suppressed.Add(1)
	default:
		e.Suppressed = r.suppressed.Swap(0)
		w.events[tail%logRoom] = *e
		w.tail.Store(tail + 1)
		return
	}
	r.suppressed.Add(1)
}

// Read shows each what was logged since the last Read, in order for each worker,
// and returns how much that was. What it is shown may not be kept. It is for one goroutine.
func (l *Log) Read(each func(*Logged)) (n int) {
	l.mu.Lock()
	writers := l.writers
	l.mu.Unlock()
	for _, w := range writers {
		for h := w.head.Load(); h != w.tail.Load(); h++ {
			each(&w.events[h%logRoom])
			w.head.Store(h + 1)
			n++
		}
	}
	return n
}

// Adopt adds what another process has counted.
func (l *Log) Adopt(s LogStats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before.Logged += s.Logged
	l.before.Suppressed += s.Suppressed
	l.before.Lost += s.Lost
}

// Stats sums over workers.
func (l *Log) Stats() (s LogStats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s = l.before
	for _, w := range l.writers {
		s.Logged += w.tail.Load()
		s.Suppressed += w.suppressed.Load()
		s.Lost += w.lost.Load()
	}
	return s
}

// Reset forgets what was passed over for a rule that is gone: its id is to stand
// for another.
func (l *Log) Reset(rule uint32) {
	l.rates.each(rule, func(r *rate) {
		r.suppressed.Store(0)
		r.full.Store(0)
	})
}

// log hands on which cases met rules with action Log, of a chain that has some.
// Their tuples are the first of n.tuples. Packets of known flows are not logged,
// as they would not come to the rules.
func (n *bar) log(side int, by *chain.Chain, idx []uint16) {
	for i, slot := range idx {
		c := n.Docket.At(slot)
		if c.Flow != 0 {
			continue
		}
		e, got := c.By[side], c.Verdict[side]
		by.Logged(&n.tuples[i], got, &n.logs)
		for _, v := range n.logs.Met {
			n.writer.put(n.now, &Logged{
				Rule: v.Rule(), Verdict: got, End: e.Ends[side].of(c.family(), got), Egress: (side == 0) != e.Host, Account: e.Account,
				InPort: n.metas[slot&graph.SlotMask].InPort, Packet: c.Key, Segments: c.Packet.Segments, Bytes: c.Packet.Bytes,
			})
		}
	}
}
