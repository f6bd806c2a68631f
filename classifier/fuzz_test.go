package classifier_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"margay.dev/margay/classifier"
	"margay.dev/margay/classifier/classifiertest"
	"margay.dev/margay/classifier/oracle"
)

// reader takes what a fuzzer has made for numbers; at the end they are 0.
type reader struct{ b []byte }

func (r *reader) byte() (v byte) {
	if len(r.b) > 0 {
		v, r.b = r.b[0], r.b[1:]
	}
	return v
}

func (r *reader) u16() uint16 { return uint16(r.byte())<<8 | uint16(r.byte()) }

func (r *reader) addr() netip.Addr {
	return netip.AddrFrom4([4]byte{10, r.byte() & 3, r.byte() & 1, r.byte()})
}

func (r *reader) ranges(most byte, last uint16) (out []classifier.Range) {
	for range r.byte() % most {
		a, b := min(r.u16(), last), min(r.u16(), last)
		out = append(out, classifier.Range{First: min(a, b), Last: max(a, b)})
	}
	return out
}

func (r *reader) side() (s classifier.Side) {
	if bits := int(r.byte()) % 40; bits <= 32 {
		s.Nets = []netip.Prefix{netip.PrefixFrom(r.addr(), bits)}
	}
	s.Ports = r.ranges(3, 1<<16-1)
	return s
}

func (r *reader) rule() classifier.Rule {
	return classifier.Rule{ID: uint32(len(r.b)), Action: classifier.Action(1 + r.byte()%4), Protocols: r.ranges(2, 255), Source: r.side(), Destination: r.side()}
}

// Every input is some list and some packets: trees, overlay and oracle agree.
func FuzzMatch(f *testing.F) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 7))
		b := make([]byte, 40<<seed)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b, seed)
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		r := &reader{b}
		var list []classifier.Rule
		for len(r.b) > 24 && len(list) < 400 {
			list = append(list, r.rule())
		}
		p := classifiertest.Load(t, list, classifier.Options{Editable: true})
		rng := rand.New(rand.NewPCG(seed, 0))
		packets := classifiertest.Probes(rng, list, 40)
		packets = append(packets, oracle.Packet{Source: r.addr(), Destination: r.addr(), Protocol: r.byte(), SourcePort: r.u16(), DestinationPort: r.u16()})
		agree(t, list, p, packets)
		if len(list) > 0 {
			edits, after := classifiertest.Edits(rng, list, list, 4)
			q, err := p.Edit(nil, edits...)
			if err != nil {
				t.Fatal(err)
			}
			agree(t, after, q, packets)
		}
	})
}
