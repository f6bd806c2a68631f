//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// A Path is a way from one place to another, with an address of one family at
// either end.
type Path struct {
	From, To       Place
	Source, Target netip.Addr
}

// Steady sends numbered datagrams over several paths at one rate until it is
// stopped, and knows of each whether it arrived, and when.
type Steady struct {
	rate   uint64
	flows  []*flow
	cancel context.CancelFunc
	sends  sync.WaitGroup
	reads  sync.WaitGroup
	stop   sync.Once
}

// A Mark is how far a Steady was: of each path, the number of its next datagram.
type Mark []uint64

// Fate is what became of datagrams of one path.
type Fate struct {
	Sent, Lost uint64
	// Gap is the longest time in which none arrived, between one that did before
	// and one of them.
	Gap time.Duration
}

// Disorder is what came otherwise than it was sent, over all paths.
type Disorder struct {
	Late  uint64 // behind one that was sent after it
	Twice uint64
}

const (
	mostSteady = 100_000 // datagrams a second on a path
	flowsCheck = 2 * time.Millisecond
)

// StartSteady begins to send rate datagrams a second, 1 to 100,000, with size
// bytes of payload, at least 8, over each path.
func StartSteady(paths []Path, rate uint64, size int) (*Steady, error) {
	if len(paths) == 0 || rate < 1 || rate > mostSteady || size < stampSize || size > largestUDP {
		return nil, fmt.Errorf("send %d datagrams a second of %d bytes over %d paths: want 1 to %d of %d to %d bytes over one at least",
			rate, size, len(paths), mostSteady, stampSize, largestUDP)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Steady{rate: rate, cancel: cancel}
	for _, p := range paths {
		f, err := p.flow()
		if err != nil {
			s.Stop()
			return nil, err
		}
		f.ledger = &ledger{start: time.Now()}
		s.flows = append(s.flows, f)
	}
	for _, f := range s.flows {
		s.reads.Go(f.receive)
		s.sends.Go(func() { f.send(ctx, size, 8*rate*uint64(size)) })
	}
	return s, nil
}

// Stop ends the sending, waits for what is on its way, and closes the sockets.
// What was counted stays; it may be called again.
func (s *Steady) Stop() {
	s.stop.Do(func() {
		s.cancel()
		s.sends.Wait()
		time.Sleep(settle)
		for _, f := range s.flows {
			f.close()
		}
		s.reads.Wait()
	})
}

// Rate is the datagrams a second on each path.
func (s *Steady) Rate() uint64 { return s.rate }

// Mark is how far it is now.
func (s *Steady) Mark() Mark {
	m := make(Mark, len(s.flows))
	for i, f := range s.flows {
		m[i] = max(f.sent.Load(), f.ledger.reach()) // one may come before its sender has counted it
	}
	return m
}

// Await waits until every path has delivered something that was sent after the
// call. Else the error names a path that has not.
func (s *Steady) Await(ctx context.Context) error {
	for m := s.Mark(); ; {
		silent := -1
		for i, f := range s.flows {
			if f.ledger.reach() <= m[i] {
				silent = i
			}
		}
		if silent < 0 {
			return nil
		}
		if ctx.Err() != nil {
			f := s.flows[silent]
			return errors.Join(fmt.Errorf("nothing arrives at %v from %v", f.to.LocalAddr(), f.from.LocalAddr()), context.Cause(ctx))
		}
		time.Sleep(flowsCheck)
	}
}

// Between is what has become, by now, of the datagrams that each path was sent
// between two marks. Those that may still be on their way count as lost.
func (s *Steady) Between(from, to Mark) []Fate {
	out := make([]Fate, len(s.flows))
	for i, f := range s.flows {
		out[i] = f.ledger.between(from[i], to[i])
	}
	return out
}

// Disorder is what has come in disorder so far.
func (s *Steady) Disorder() (d Disorder) {
	for _, f := range s.flows {
		f.ledger.mu.Lock()
		d.Late += f.ledger.late
		d.Twice += f.ledger.twice
		f.ledger.mu.Unlock()
	}
	return d
}

// ledger knows of each datagram of a flow when it came.
type ledger struct {
	start time.Time

	mu          sync.Mutex
	came        []uint32 // by number: microseconds after start, and one; 0 for not yet
	late, twice uint64
}

// note writes down that a datagram has come.
func (l *ledger) note(seq uint64) {
	now := uint32(time.Since(l.start).Microseconds()) + 1 // wraps after 71 minutes: gaps are differences
	l.mu.Lock()
	defer l.mu.Unlock()
	have := uint64(len(l.came))
	switch {
	case seq >= have+1<<24: // none of ours: nobody is so many ahead
		return
	case seq >= have:
		l.came = append(l.came, make([]uint32, seq-have+1)...)
	case l.came[seq] != 0:
		l.twice++
		return
	default:
		l.late++
	}
	l.came[seq] = max(now, 1)
}

// reach is the number behind the greatest that has come.
func (l *ledger) reach() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.came))
}

func (l *ledger) between(from, to uint64) (f Fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Sent = to - from
	var last uint32 // of those before them, that which came last
	for seq := min(from, uint64(len(l.came))); seq > 0 && last == 0; seq-- {
		last = l.came[seq-1]
	}
	for seq := from; seq < to; seq++ {
		if seq >= uint64(len(l.came)) || l.came[seq] == 0 {
			f.Lost++
			continue
		}
		at := l.came[seq]
		gap := int32(at - last)
		if last != 0 {
			f.Gap = max(f.Gap, time.Duration(gap)*time.Microsecond)
		}
		if last == 0 || gap > 0 {
			last = at
		}
	}
	return f
}
