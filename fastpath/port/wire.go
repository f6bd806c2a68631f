package port

import (
	"bytes"

	"margay.dev/margay/fastpath/graph"
)

// Wire is what a wire carries of packet p, which lies in one piece and of which m
// tells: the segments of a superpacket, else p itself, with checksums complete. It
// is for those who look on: ports do the same in frames. p stays as it is. It says
// false where no port would cut p: where m contradicts it, or where it would fill
// too many frames.
func Wire(p []byte, m graph.Meta) (packets [][]byte, ok bool) {
	m.Bufs = 1
	if m.GSO == graph.GSONone {
		whole := bytes.Clone(p)
		if m.Flags&graph.Partial != 0 && !complete(whole, &m) {
			return nil, false
		}
		return [][]byte{whole}, true
	}
	var s superpacket
	if !s.open(p, &m) {
		return nil, false
	}
	if _, all := s.frames(); all > maxCut {
		return nil, false
	}
	for i := range s.count() {
		head := make([]byte, len(s.head), s.largest())
		payload := s.segment(head, i)
		packets = append(packets, append(head, payload...))
	}
	return packets, true
}
