package classbench

import (
	"encoding/binary"

	"margay.dev/margay/classifier"
)

// The fields of a header.
const (
	source = iota
	destination
	sourcePort
	destinationPort
	protocol
	numFields
)

// box is a rule as ranges: low end, and high end minus low end.
type box struct{ low, span [numFields]uint32 }

// Scan answers by asking every rule of a list, in order: slow, and plainly right.
type Scan struct{ boxes []box }

// NewScan takes a list as ReadRules makes it: at most one IPv4 prefix, one range
// of ports and one protocol.
func NewScan(list []classifier.Rule) *Scan {
	s := &Scan{boxes: make([]box, len(list))}
	for i := range list {
		b := &s.boxes[i]
		b.low[source], b.span[source] = addresses(&list[i].Source)
		b.low[destination], b.span[destination] = addresses(&list[i].Destination)
		b.low[sourcePort], b.span[sourcePort] = numbers(list[i].Source.Ports, 65535)
		b.low[destinationPort], b.span[destinationPort] = numbers(list[i].Destination.Ports, 65535)
		b.low[protocol], b.span[protocol] = numbers(list[i].Protocols, 255)
	}
	return s
}

func addresses(s *classifier.Side) (low, span uint32) {
	if len(s.Nets) == 0 {
		return 0, 1<<32 - 1
	}
	a := s.Nets[0].Masked().Addr().As4()
	return binary.BigEndian.Uint32(a[:]), uint32(uint64(1)<<(32-s.Nets[0].Bits()) - 1)
}

func numbers(r []classifier.Range, last uint32) (low, span uint32) {
	if len(r) == 0 {
		return 0, last
	}
	return uint32(r[0].First), uint32(r[0].Last - r[0].First)
}

// First is the position of the first rule that matches, or None.
func (s *Scan) First(k classifier.Key) int32 {
	src, dst := k.Source(), k.Destination()
	sport, dport, proto := uint32(k.SourcePort()), uint32(k.DestinationPort()), uint32(k.Protocol())
	for i := range s.boxes {
		b := &s.boxes[i]
		if src-b.low[source] <= b.span[source] && dst-b.low[destination] <= b.span[destination] &&
			sport-b.low[sourcePort] <= b.span[sourcePort] && dport-b.low[destinationPort] <= b.span[destinationPort] &&
			proto-b.low[protocol] <= b.span[protocol] {
			return int32(i)
		}
	}
	return None
}

// Answer gives every header its true answer.
func (s *Scan) Answer(trace []Header) {
	for i := range trace {
		trace[i].Answer = s.First(trace[i].Key)
	}
}

// Check asks about up to n headers, evenly spread, and returns how many of their
// answers are not true.
func (s *Scan) Check(trace []Header, n int) (wrong int) {
	n = min(n, len(trace))
	for i := range n {
		if h := &trace[i*len(trace)/n]; s.First(h.Key) != h.Answer {
			wrong++
		}
	}
	return wrong
}
