package plane

import (
	"errors"

	"margay.dev/margay/fastpath/umem"
)

// errFewFrames says that the fill rings of a port's queues would get too few
// frames to receive into, or none.
var errFewFrames = errors.New("too few are left")

const (
	defaultRing  = 2048
	smallestRing = 64 // entries; with fewer a port could not take what a worker moves at once
)

// shares is what the fill rings of each AF_XDP port may hold. What an idle fill
// ring has it never gives back, so frames are shared out as ports are opened.
type shares map[umem.Holder]share

type share struct{ asked, got int } // frames

// take chooses the size of a port's rings, asked or a part of it, so that they
// take at most half of what is left of spare frames: the next port shall find
// some too. It refuses where not even the smallest rings could be filled.
func (s *shares) take(h umem.Holder, spare, queues, asked int) (size int, ok bool) {
	left := spare
	for _, o := range *s {
		left -= o.got
	}
	for size = asked; size > smallestRing && size*queues > left/2; {
		size /= 2
	}
	if size*queues > left {
		return 0, false
	}
	s.set(h, share{asked: queues * asked, got: queues * size})
	return size, true
}

// set notes the share of a port.
func (s *shares) set(h umem.Holder, one share) {
	if *s == nil {
		*s = shares{}
	}
	(*s)[h] = one
}

// give takes a closed port's share back.
func (s *shares) give(h umem.Holder) { delete(*s, h) }

// enough is how many spare frames give all that port h asks for, and the others
// what they asked for, in whatever order they are opened.
func (s *shares) enough(h umem.Holder, asked int) int {
	sum, most := asked, asked
	for other, o := range *s {
		if other != h {
			sum, most = sum+o.asked, max(most, o.asked)
		}
	}
	return sum + most
}
