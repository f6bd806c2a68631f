package impair

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// An Impairment says how bad a wire is in one direction. The zero value is a
// good wire.
type Impairment struct {
	Partition bool     `json:"partition,omitempty"` // nothing passes
	Loss      Ratio    `json:"loss,omitempty"`      // of frames
	Duplicate Ratio    `json:"duplicate,omitempty"` // of frames that are not lost
	Delay     Duration `json:"delay,omitempty"`
	Jitter    Duration `json:"jitter,omitempty"`  // delays vary by up to this, to both sides; the order stays
	Reorder   Ratio    `json:"reorder,omitempty"` // of frames that skip the delay and overtake what waits
	Rate      BitRate  `json:"rate,omitempty"`    // of the wire; 0: no limit
	Limit     int      `json:"limit,omitempty"`   // frames that may wait; 0: DefaultLimit
}

// DefaultLimit is how many frames may wait in one direction.
const DefaultLimit = 1000

// Validate reports every fault.
func (i Impairment) Validate() error {
	var errs []error
	ratio := func(name string, r Ratio) {
		if !(r >= 0 && r <= 1) {
			errs = append(errs, fmt.Errorf("%s is %v, want 0%% to 100%%", name, float64(r)))
		}
	}
	ratio("loss", i.Loss)
	ratio("duplicate", i.Duplicate)
	ratio("reorder", i.Reorder)
	if i.Delay < 0 || i.Delay > Duration(time.Minute) {
		errs = append(errs, fmt.Errorf("delay is %v, want 0s to 1m", i.Delay))
	}
	if i.Jitter < 0 || i.Jitter > i.Delay {
		errs = append(errs, fmt.Errorf("jitter is %v, want at most the delay of %v", i.Jitter, i.Delay))
	}
	if i.Reorder > 0 && i.Delay == 0 {
		errs = append(errs, errors.New("reorder is set without a delay: there would be nothing to overtake"))
	}
	if i.Limit < 0 || i.Limit > 1_000_000 {
		errs = append(errs, fmt.Errorf("limit is %d, want 0 to 1000000 frames", i.Limit))
	}
	return errors.Join(errs...)
}

func (i Impairment) limit() int {
	if i.Limit == 0 {
		return DefaultLimit
	}
	return i.Limit
}

// String is the impairment as the command line takes it; "none" for a good wire.
func (i Impairment) String() string {
	var out []string
	add := func(set bool, format string, v any) {
		if set {
			out = append(out, fmt.Sprintf(format, v))
		}
	}
	add(i.Partition, "%s", "partition")
	add(i.Loss > 0, "loss %v", i.Loss)
	add(i.Duplicate > 0, "duplicate %v", i.Duplicate)
	add(i.Delay > 0, "delay %v", i.Delay)
	add(i.Jitter > 0, "jitter %v", i.Jitter)
	add(i.Reorder > 0, "reorder %v", i.Reorder)
	add(i.Rate > 0, "rate %v", i.Rate)
	add(i.Limit > 0, "limit %d", i.Limit)
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// A Ratio is 0 to 1, written as "1.5%" or 0.015.
type Ratio float64

// String is the percentage.
func (r Ratio) String() string { return strconv.FormatFloat(float64(r)*100, 'g', 6, 64) + "%" }

// MarshalText writes the percentage.
func (r Ratio) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads "1.5%" or "0.015".
func (r *Ratio) UnmarshalText(b []byte) error {
	number, percent := strings.CutSuffix(strings.TrimSpace(string(b)), "%")
	f, err := strconv.ParseFloat(number, 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) {
		return fmt.Errorf("%q is no share: want 0%% to 100%%, or 0 to 1", b)
	}
	*r = Ratio(f)
	return nil
}

// UnmarshalJSON takes a number too.
func (r *Ratio) UnmarshalJSON(b []byte) error { return r.UnmarshalText(unquote(b)) }

// Set is UnmarshalText, for command lines.
func (r *Ratio) Set(s string) error { return r.UnmarshalText([]byte(s)) }

// Type names the value in a command line's help.
func (r *Ratio) Type() string { return "share" }

// A Duration is a time.Duration, written as "10ms".
type Duration time.Duration

// String is Go's notation.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads Go's notation.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration: want something as 10ms", b)
	}
	*d = Duration(v)
	return nil
}

// Set is UnmarshalText, for command lines.
func (d *Duration) Set(s string) error { return d.UnmarshalText([]byte(s)) }

// Type names the value in a command line's help.
func (d *Duration) Type() string { return "duration" }

// A BitRate is in bits per second, written as "100mbit".
type BitRate uint64

// rateUnits are ordered so that the first that divides is the shortest.
var rateUnits = []struct {
	suffix string
	bits   uint64
}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// String is the rate in the largest unit that gives a whole number.
func (r BitRate) String() string {
	for _, u := range rateUnits {
		if r != 0 && uint64(r)%u.bits == 0 {
			return strconv.FormatUint(uint64(r)/u.bits, 10) + u.suffix
		}
	}
	return "0bit"
}

// MarshalText writes "100mbit".
func (r BitRate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads "100mbit", "1.5gbit" or a bare number of bits per second.
func (r *BitRate) UnmarshalText(b []byte) error {
	number, unit := strings.ToLower(strings.TrimSpace(string(b))), uint64(1)
	for _, u := range rateUnits {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = n, u.bits
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0 && f*float64(unit) < 1e15) {
		return fmt.Errorf("%q is no rate: want something as 100mbit", b)
	}
	*r = BitRate(f * float64(unit))
	return nil
}

// UnmarshalJSON takes a number too.
func (r *BitRate) UnmarshalJSON(b []byte) error { return r.UnmarshalText(unquote(b)) }

// Set is UnmarshalText, for command lines.
func (r *BitRate) Set(s string) error { return r.UnmarshalText([]byte(s)) }

// Type names the value in a command line's help.
func (r *BitRate) Type() string { return "rate" }

func unquote(b []byte) []byte {
	if s, err := strconv.Unquote(string(b)); err == nil {
		return []byte(s)
	}
	return b
}
