package tape

import "math"

// maxGap is the longest pause between two packets, in ns: more than a day is a
// clock that was set meanwhile.
const maxGap = 24 * 3600 * 1e9

// pacer tells when packets are due, in ns after the first.
type pacer struct {
	Pace
	count  float64 // packets so far
	at     int64   // when the last was due
	latest int64   // latest time stamp of this pass; 0 before the first
}

// again begins another pass over the file.
func (p *pacer) again() { p.latest = 0 }

// due is when a packet captured at stamp is due. Time does not run backwards
// where the time stamps do.
func (p *pacer) due(stamp int64) int64 {
	switch {
	case p.Rate > 0:
		p.at = int64(min(p.count*1e9/p.Rate, math.MaxInt64/2))
		p.count++
	case p.Timed && stamp > p.latest:
		if p.latest > 0 {
			p.at += min(stamp-p.latest, maxGap)
		}
		p.latest = stamp
	}
	return p.at
}
