package tap

import "sync/atomic"

// ring carries events from one worker to one reader, without a lock. The bytes of
// packets have a ring of their own, in which each lies in one piece.
type ring struct {
	events []Event
	data   []byte
	put    uint64 // of data; the worker's

	tail  atomic.Uint64 // events that were ever put in
	lost  atomic.Uint64
	_     [64]byte
	head  atomic.Uint64 // events that were ever taken out
	freed atomic.Uint64 // of data
}

func (r *ring) init(events, bytes int) {
	r.events, r.data = make([]Event, max(events, 1)), make([]byte, max(bytes, 1))
}

// reserve finds room for an event with n bytes; the event's place is to be filled
// in, but for where its bytes are, and so are the bytes. It counts a loss and says
// nil when there is no room. For the worker.
func (r *ring) reserve(n int) (*Event, []byte) {
	tail, size := r.tail.Load(), uint64(len(r.data))
	at := r.put
	if at%size+uint64(n) > size {
		at += size - at%size
	}
	if tail-r.head.Load() == uint64(len(r.events)) || at+uint64(n)-r.freed.Load() > size {
		r.lost.Add(1)
		return nil, nil
	}
	r.put = at + uint64(n)
	e := &r.events[tail%uint64(len(r.events))]
	e.at, e.n = at, n
	return e, r.bytes(e)
}

// commit lets the reader see what was reserved.
func (r *ring) commit() { r.tail.Add(1) }

// bytes are those of e.
func (r *ring) bytes(e *Event) []byte {
	at := e.at % uint64(len(r.data))
	return r.data[at : at+uint64(e.n)]
}

// peek is the oldest event, nil when there is none. For the reader.
func (r *ring) peek() *Event {
	h := r.head.Load()
	if h == r.tail.Load() {
		return nil
	}
	return &r.events[h%uint64(len(r.events))]
}

// pop gives the place of e, the oldest event, back.
func (r *ring) pop(e *Event) {
	r.freed.Store(e.at + uint64(e.n))
	r.head.Add(1)
}
