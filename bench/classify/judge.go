package classify

import (
	"encoding/binary"
	"net/netip"
	"time"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/label"
)

// judge decides flows as a worker does: both addresses to classes, classes to the
// program's own, and the walk. What it asks about lies close, as headers lie that were just
// read: to fetch packets from memory is not what is measured.
type judge struct {
	ipv6  bool
	table *label.Table
	prog  *classifier.Program
	burst int
	want  []int // of the first flows: the rule that decides, or -1

	d4   []uint32    // source, destination, source...
	d6   [][2]uint64 // likewise
	rest []ports

	batch   label.Batch
	classes [2 * classifier.Burst]label.Class
	packets [classifier.Burst]classifier.Packet
	order   [classifier.Burst]uint8 // 0, 1, 2...
	keys    [classifier.Burst]classifier.Key
	out     []classifier.Verdict
}

// ports is what is known of a flow beside its addresses.
type ports struct {
	destination uint16
	protocol    uint8
}

func newJudge(p *policy, t *label.Table, prog *classifier.Program, burst int, want []int) *judge {
	j := &judge{ipv6: p.ipv6, table: t, prog: prog, burst: burst, want: want, out: make([]classifier.Verdict, len(p.flows))}
	for i := range j.order {
		j.order[i] = uint8(i)
	}
	for i := range p.flows {
		j.rest = append(j.rest, ports{p.flows[i].port, p.flows[i].protocol})
		for _, a := range []netip.Addr{p.flows[i].source, p.flows[i].destination} {
			b := a.AsSlice()
			if p.ipv6 {
				j.d6 = append(j.d6, [2]uint64{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])})
			} else {
				j.d4 = append(j.d4, binary.BigEndian.Uint32(b))
			}
		}
	}
	return j
}

func (j *judge) pass(took []float64) (wrong int, err error) {
	for c := range took {
		from := c * chunkSize
		end := min(from+chunkSize, len(j.out))
		start := time.Now()
		for i := from; i < end; i += j.burst {
			if j.burst == 1 {
				j.one(i)
			} else {
				j.some(i, min(i+j.burst, end))
			}
		}
		took[c] = float64(time.Since(start).Nanoseconds())
	}
	for i, want := range j.want {
		if v := j.out[i]; (v.Action() == classifier.NoMatch) != (want < 0) || want >= 0 && int(v.Rule()) != want {
			wrong++
		}
	}
	return wrong, nil
}

// some judges the flows from to end, at most classifier.Burst.
func (j *judge) some(from, end int) {
	v, n := j.table.View(), end-from
	if j.ipv6 {
		j.batch.Lookup6(v, j.d6[2*from:2*end], j.classes[:2*n])
	} else {
		j.batch.Lookup4(v, j.d4[2*from:2*end], j.classes[:2*n])
	}
	for i, rest := range j.rest[from:end] {
		j.packets[i] = classifier.Packet{
			SourceClass: uint32(j.classes[2*i]), DestinationClass: uint32(j.classes[2*i+1]), Protocol: rest.protocol, DestinationPort: rest.destination,
		}
	}
	j.prog.Keys(j.packets[:n], j.order[:n], j.keys[:])
	j.prog.Match(j.keys[:n], j.out[from:end])
}

// one judges one flow.
func (j *judge) one(i int) {
	v, rest := j.table.View(), j.rest[i]
	p := classifier.Packet{Protocol: rest.protocol, DestinationPort: rest.destination}
	if j.ipv6 {
		s, d := &j.d6[2*i], &j.d6[2*i+1]
		p.SourceClass, p.DestinationClass = uint32(v.Lookup6(s[0], s[1])), uint32(v.Lookup6(d[0], d[1]))
	} else {
		p.SourceClass, p.DestinationClass = uint32(v.Lookup4(j.d4[2*i])), uint32(v.Lookup4(j.d4[2*i+1]))
	}
	var k classifier.Key
	j.prog.Key(&p, &k)
	j.out[i] = j.prog.MatchOne(&k)
}
