package impair

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// sent is a frame that came out, and when.
type sent struct {
	number uint32
	at     time.Duration
}

// feed offers n frames of size bytes, one every gap, polls the path at every
// step, and drains it.
func feed(p *Path, n, size int, gap time.Duration) []sent {
	var out []sent
	frame := make([]byte, size)
	take := func(now time.Duration) {
		p.Due(now, func(f []byte) { out = append(out, sent{binary.BigEndian.Uint32(f), now}) })
	}
	now := time.Duration(0)
	for i := range n {
		for at, ok := p.Next(); ok && at <= now; at, ok = p.Next() {
			take(at)
		}
		binary.BigEndian.PutUint32(frame, uint32(i))
		p.Offer(now, frame)
		now += gap
	}
	for at, ok := p.Next(); ok; at, ok = p.Next() {
		take(at)
	}
	return out
}

// near tells whether n of total is the share, within five standard deviations.
func near(n, total int, share float64) bool {
	want := float64(total) * share
	return math.Abs(float64(n)-want) <= 5*math.Sqrt(want*(1-share))+1
}

func TestGoodWireChangesNothing(t *testing.T) {
	p := NewPath(1, Impairment{})
	for i, s := range feed(p, 1000, 64, ms) {
		if s.number != uint32(i) || s.at != time.Duration(i)*ms {
			t.Fatalf("frame %d came as number %d at %v", i, s.number, s.at)
		}
	}
	if c := p.Counters(); c != (Counters{Offered: 1000, Delivered: 1000}) {
		t.Errorf("counters are %+v", c)
	}
}

func TestSharesAreAsAskedFor(t *testing.T) {
	const n = 100_000
	p := NewPath(7, Impairment{Loss: 0.1, Duplicate: 0.05, Delay: Duration(10 * ms), Reorder: 0.2})
	out := feed(p, n, 64, ms)
	c := p.Counters()
	if !near(int(c.Lost), n, 0.1) || !near(int(c.Duplicated), n, 0.9*0.05) || !near(int(c.Reordered), n, 0.9*0.2) {
		t.Errorf("of %d frames %d were lost, %d doubled, %d reordered; want 10%%, 4.5%% and 18%%", n, c.Lost, c.Duplicated, c.Reordered)
	}
	if uint64(len(out)) != c.Delivered || c.Offered+c.Duplicated != c.Delivered+c.Lost {
		t.Errorf("account does not add up: %+v, %d came out", c, len(out))
	}
	early := 0
	for _, s := range out {
		switch s.at - time.Duration(s.number)*ms {
		case 0:
			early++
		case 10 * ms:
		default:
			t.Fatalf("frame %d left after %v, want 10 ms or at once", s.number, s.at-time.Duration(s.number)*ms)
		}
	}
	if !near(early, len(out), 0.2) {
		t.Errorf("%d of %d frames overtook, want 20%%", early, len(out))
	}
}

func TestSameSeedSameFate(t *testing.T) {
	is := Impairment{Loss: 0.3, Duplicate: 0.1, Delay: Duration(5 * ms), Jitter: Duration(4 * ms), Reorder: 0.1}
	a, b, other := feed(NewPath(3, is), 1000, 64, ms), feed(NewPath(3, is), 1000, 64, ms), feed(NewPath(4, is), 1000, 64, ms)
	if !reflect.DeepEqual(a, b) {
		t.Error("two paths of one seed differ")
	}
	if reflect.DeepEqual(a, other) {
		t.Error("another seed makes no difference")
	}
	is.Delay, is.Reorder, is.Jitter, is.Duplicate = 0, 0, 0, 0
	lossy := feed(NewPath(3, is), 1000, 64, ms)
	numbers := map[uint32]bool{}
	for _, s := range a {
		numbers[s.number] = true
	}
	if len(numbers) != len(lossy) {
		t.Errorf("%d frames get through with delay and %d without: the other knobs changed who is lost", len(numbers), len(lossy))
	}
}

func TestJitterSpreadsAndKeepsTheOrder(t *testing.T) {
	p := NewPath(1, Impairment{Delay: Duration(20 * ms), Jitter: Duration(5 * ms)})
	low, high := time.Hour, time.Duration(0)
	for i, s := range feed(p, 10_000, 64, 20*ms) { // so far apart that order binds none
		if s.number != uint32(i) {
			t.Fatalf("frame %d came as number %d", i, s.number)
		}
		d := s.at - time.Duration(s.number)*20*ms
		low, high = min(low, d), max(high, d)
	}
	if low < 15*ms || low > 16*ms || high > 25*ms || high < 24*ms {
		t.Errorf("delays are %v to %v, want about 15 to 25 ms", low, high)
	}
	last := uint32(0)
	for _, s := range feed(NewPath(2, p.is), 10_000, 64, 100*time.Microsecond) {
		if s.number < last {
			t.Fatalf("frame %d came after %d: jitter alone keeps the order", s.number, last)
		}
		last = s.number
	}
}

func TestRateSpacesFramesOut(t *testing.T) {
	p := NewPath(1, Impairment{Rate: 8e6, Limit: 50}) // 1,000 bytes a millisecond
	out := feed(p, 100, 1000, 0)
	if len(out) != 50 || p.Counters().Overflowed != 50 {
		t.Fatalf("%d frames came out and %d found no room, want 50 each", len(out), p.Counters().Overflowed)
	}
	for i, s := range out {
		if want := time.Duration(i+1) * ms; s.at != want {
			t.Fatalf("frame %d left at %v, want %v", i, s.at, want)
		}
	}
	slow := NewPath(1, Impairment{Rate: 8e6})
	if got := feed(slow, 10, 1000, 5*ms); got[9].at != 46*ms {
		t.Errorf("a line that is idle between frames sends the last at %v, want 46ms", got[9].at)
	}
}

func TestPartitionCutsWhatIsOnTheWire(t *testing.T) {
	p := NewPath(1, Impairment{Delay: Duration(10 * ms)})
	p.Offer(0, []byte{1})
	p.Set(Impairment{Partition: true})
	p.Offer(ms, []byte{2})
	p.Set(Impairment{})
	p.Offer(2*ms, []byte{3})
	var got []byte
	p.Due(time.Second, func(f []byte) { got = append(got, f...) })
	if string(got) != "\x03" || p.Counters() != (Counters{Offered: 3, Cut: 2, Delivered: 1}) {
		t.Errorf("frames %v came out, counters %+v; want only the third", got, p.Counters())
	}
}

func TestNotation(t *testing.T) {
	var is Impairment
	in := `{"loss":"1.5%","duplicate":0.25,"delay":"10ms","jitter":"2ms","reorder":"100%","rate":"1.5gbit","limit":7}`
	if err := json.Unmarshal([]byte(in), &is); err != nil {
		t.Fatal(err)
	}
	want := Impairment{Loss: 0.015, Duplicate: 0.25, Delay: Duration(10 * ms), Jitter: Duration(2 * ms), Reorder: 1, Rate: 1_500_000_000, Limit: 7}
	if is != want {
		t.Errorf("read %+v, want %+v", is, want)
	}
	if s := is.String(); s != "loss 1.5%, duplicate 25%, delay 10ms, jitter 2ms, reorder 100%, rate 1500mbit, limit 7" {
		t.Errorf("written %q", s)
	}
	b, err := json.Marshal(is)
	var back Impairment
	if err != nil || json.Unmarshal(b, &back) != nil || back != is {
		t.Errorf("%s came back as %+v", b, back)
	}
	for _, bad := range []string{`{"loss":"101%"}`, `{"loss":-1}`, `{"loss":"NaN"}`, `{"delay":"10"}`, `{"rate":"fast"}`, `{"rate":"-1bit"}`} {
		if err := json.Unmarshal([]byte(bad), new(Impairment)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestValidateTellsAllFaults(t *testing.T) {
	err := Impairment{Loss: 2, Duplicate: -1, Reorder: 0.1, Jitter: 1, Limit: -1}.Validate()
	for _, want := range []string{"loss", "duplicate", "jitter", "reorder", "limit"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
	if err := (Impairment{Delay: Duration(ms), Jitter: Duration(ms), Reorder: 1, Loss: 1}).Validate(); err != nil {
		t.Error(err)
	}
}
