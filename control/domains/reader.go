package domains

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
)

// What a Reader remembers at most, and for how long.
const (
	maxClients   = 4096 // addresses that have asked something
	maxAsked     = 64   // queries of a client; a later one takes the place of the first
	askedLasts   = 30 * time.Second
	maxStreams   = 128 // TCP connections, each with less than maxMessage bytes
	streamLasts  = 30 * time.Second
	lengthPrefix = 2 // bytes before each message in TCP (RFC 1035 section 4.2.2)
)

// Why a Reader believes nothing of what it hears.
var (
	ErrUnasked = errors.New("an answer that its endpoint has not asked for, or no longer waits for")
	ErrGap     = errors.New("a segment of a TCP connection of which not everything was heard")
)

// Reader finds in what is overheard what may be believed: by UDP, an answer to a
// query that was heard before, with its id and question; by TCP, whose segments
// cannot be forged by who does not see them, any answer. It is for one goroutine.
type Reader struct {
	clients map[netip.Addr][]asked
	streams map[streamKey]*stream
}

// asked is a query that waits for its answer.
type asked struct {
	port   uint16
	server netip.Addr
	id     uint16
	name   string
	qtype  uint16
	at     time.Time
}

// same says whether an answer belongs to the query.
func (q asked) same(p asked) bool {
	p.at = q.at
	return p == q
}

type streamKey struct {
	client, server netip.Addr
	port           uint16
}

// stream is what the server of a TCP connection has said, and nobody has read yet.
type stream struct {
	next uint32 // sequence number of what comes behind it
	text []byte
	at   time.Time
}

// NewReader makes one that has heard nothing.
func NewReader() *Reader {
	return &Reader{clients: map[netip.Addr][]asked{}, streams: map[streamKey]*stream{}}
}

// Hear takes a packet, and gives what the answers say that end in it. It
// fails where the packet cannot be read or believed; what it gives all the same came
// before the fault.
func (r *Reader) Hear(now time.Time, o *v1.Overheard) ([]Found, error) {
	client, ok1 := netip.AddrFromSlice(o.GetClient())
	server, ok2 := netip.AddrFromSlice(o.GetServer())
	if !ok1 || !ok2 || o.GetClientPort() > 1<<16-1 {
		return nil, errors.New("hear of names: addresses are no addresses, or the port is no port")
	}
	if o.GetTcp() {
		return r.segment(now, streamKey{client, server, uint16(o.GetClientPort())}, o)
	}
	answers, a, err := Read(o.GetPayload())
	if err != nil {
		return nil, err
	}
	q := asked{uint16(o.GetClientPort()), server, a.ID, a.Question.Name, a.Question.Qtype, now}
	switch {
	case answers == o.GetQuery():
		return nil, ErrUnasked // a question where answers come from, or the other way round
	case !answers:
		r.ask(client, q)
		return nil, nil
	case !r.answered(client, q):
		return nil, ErrUnasked
	}
	return a.Found, nil
}

// ask remembers a query.
func (r *Reader) ask(client netip.Addr, q asked) {
	queries, known := r.clients[client]
	for !known && len(r.clients) >= maxClients {
		r.forgetClient(q.at)
	}
	if len(queries) == maxAsked {
		queries = append(queries[:0], queries[1:]...)
	}
	r.clients[client] = append(queries, q)
}

// forgetClient forgets those whose queries are all old, or, where there is none, anybody.
func (r *Reader) forgetClient(now time.Time) {
	before := len(r.clients)
	for client, queries := range r.clients {
		if now.Sub(queries[len(queries)-1].at) > askedLasts {
			delete(r.clients, client)
		}
	}
	for client := range r.clients {
		if len(r.clients) == before {
			delete(r.clients, client)
		}
		return
	}
}

// answered finds the query of an answer, which is asked no longer then.
func (r *Reader) answered(client netip.Addr, a asked) bool {
	queries := r.clients[client]
	for i, q := range queries {
		if !q.same(a) || a.at.Sub(q.at) > askedLasts {
			continue
		}
		if queries = append(queries[:i], queries[i+1:]...); len(queries) == 0 {
			delete(r.clients, client)
		} else {
			r.clients[client] = queries
		}
		return true
	}
	return false
}

// segment puts what a server says by TCP together. What comes out of order, or twice
// in part, is put right where nothing is missing; else the connection is given up.
func (r *Reader) segment(now time.Time, key streamKey, o *v1.Overheard) (found []Found, err error) {
	s, payload := r.streams[key], o.GetPayload()
	if o.GetBegins() {
		if s == nil && len(r.streams) >= maxStreams {
			r.forgetStream(now)
		}
		s = &stream{next: o.GetSequence() + 1, at: now}
		r.streams[key] = s
		if len(payload) == 0 {
			return nil, nil
		}
	}
	if s == nil {
		return nil, ErrGap
	}
	at := o.GetSequence()
	if o.GetBegins() {
		at++
	}
	heard := int32(s.next - at) // bytes of the segment that were heard before
	if heard < 0 {
		delete(r.streams, key)
		return nil, ErrGap
	}
	if int(heard) >= len(payload) {
		return nil, nil
	}
	s.next += uint32(len(payload)) - uint32(heard)
	s.text, s.at = append(s.text, payload[heard:]...), now
	for len(s.text) >= lengthPrefix {
		end := lengthPrefix + int(binary.BigEndian.Uint16(s.text))
		if len(s.text) < end {
			break
		}
		answers, a, rerr := Read(s.text[lengthPrefix:end])
		if rerr == nil && !answers {
			rerr = ErrUnasked
		}
		if rerr != nil {
			delete(r.streams, key)
			return found, fmt.Errorf("hear of names by TCP: %w", rerr)
		}
		found, s.text = append(found, a.Found...), s.text[end:]
	}
	if len(s.text) == 0 {
		s.text = nil // not a slice at the end of what was read
	}
	return found, nil
}

// forgetStream forgets connections that have been silent, or the one that has been for
// longest.
func (r *Reader) forgetStream(now time.Time) {
	var oldest streamKey
	for key, s := range r.streams {
		if now.Sub(s.at) > streamLasts {
			delete(r.streams, key)
		} else if o := r.streams[oldest]; o == nil || s.at.Before(o.at) {
			oldest = key
		}
	}
	if len(r.streams) >= maxStreams {
		delete(r.streams, oldest)
	}
}
