package classbench

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"

	"margay.dev/margay/classifier"
)

// MaxHeaders is how many headers a trace may have.
const MaxHeaders = 1 << 22

// None is the answer of a header that no rule matches.
const None = -1

// Header is one packet of a trace.
type Header struct {
	Key    classifier.Key
	Answer int32 // position of the first rule that matches, or None
}

// ReadTrace reads a trace for a set of so many rules. A sixth column is taken for
// the answer; told reports whether all headers have it. It reports a line that is
// no header, a trace without headers, and one of more than MaxHeaders.
//
// The generator of ClassBench writes into that column the rule that a header was
// made from, which need not be the first that matches: see Check.
func ReadTrace(r io.Reader, rules int) (trace []Header, told bool, err error) {
	return readTrace(r, rules, MaxHeaders)
}

func readTrace(r io.Reader, rules, most int) (trace []Header, told bool, err error) {
	told = true
	err = eachLine(r, func(words []string) error {
		if len(trace) == most {
			return fmt.Errorf("more than %d headers", most)
		}
		h, err := parseHeader(words, rules)
		told = told && len(words) > 5
		trace = append(trace, h)
		return err
	})
	if err == nil && len(trace) == 0 {
		err = errors.New("no header in it")
	}
	if err != nil {
		return nil, false, fmt.Errorf("read trace: %w", err)
	}
	return trace, told, nil
}

func parseHeader(words []string, rules int) (Header, error) {
	if len(words) != 5 && len(words) != 6 {
		return Header{}, fmt.Errorf("%d columns, want SOURCE DESTINATION SPORT DPORT PROTOCOL [INDEX]", len(words))
	}
	var v [5]uint32
	for i, bits := range [5]int{32, 32, 16, 16, 8} {
		n, err := strconv.ParseUint(words[i], 10, bits)
		if err != nil {
			return Header{}, fmt.Errorf("column %d is %q, want a number of %d bits", i+1, words[i], bits)
		}
		v[i] = uint32(n)
	}
	h := Header{Key: classifier.NewKey(v[0], v[1], uint8(v[4]), uint16(v[2]), uint16(v[3])), Answer: None}
	if len(words) == 6 {
		n, err := strconv.ParseInt(words[5], 10, 32)
		if err != nil || n < None || n >= int64(rules) {
			return Header{}, fmt.Errorf("index %q, want the number of one of %d rules, from 0, or -1", words[5], rules)
		}
		h.Answer = int32(n)
	}
	return h, nil
}

// commonProtocols are what headers of a rule for any protocol have, by their share.
var commonProtocols = [8]uint8{6, 6, 6, 6, 17, 17, 17, 1} // arch:var a constant table

// MakeTrace draws n headers with their answers: each a point inside a rule, both
// drawn evenly. That is the hard case for caches, as no header comes often. Equal
// seeds make equal traces.
func MakeTrace(list []classifier.Rule, n int, seed uint64) []Header {
	scan := NewScan(list)
	rng := rand.New(rand.NewPCG(seed, 0))
	trace := make([]Header, n)
	for i := range trace {
		b := &scan.boxes[rng.IntN(len(list))]
		var v [numFields]uint32
		for f := range v {
			v[f] = b.low[f] + uint32(rng.Uint64N(uint64(b.span[f])+1))
		}
		if b.span[protocol] > 0 {
			v[protocol] = uint32(commonProtocols[rng.IntN(len(commonProtocols))])
		}
		trace[i].Key = classifier.NewKey(v[source], v[destination], uint8(v[protocol]), uint16(v[sourcePort]), uint16(v[destinationPort]))
	}
	scan.Answer(trace)
	return trace
}
