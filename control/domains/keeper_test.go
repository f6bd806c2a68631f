package domains

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	v1 "margay.dev/margay/api/dataplane/v1"
)

// desk is a keeper, the packets that it let go on, and a clock.
type desk struct {
	*Keeper
	t       testing.TB
	on      []uint64
	clock   time.Time
	queries uint16
}

func newDesk(t testing.TB, patterns ...string) *desk {
	d := &desk{t: t, clock: start}
	d.Keeper = NewKeeper(Limits{Grace: -1}, func(ids []uint64) { d.on = append(d.on, ids...) })
	d.now = func() time.Time { return d.clock }
	t.Cleanup(d.Stop)
	if err := d.Want(patterns, nil); err != nil {
		t.Fatal(err)
	}
	return d
}

// tell asks for a name and answers it, in a packet with an id.
func (d *desk) tell(id uint64, name, a string) {
	d.t.Helper()
	d.queries++
	kind, qtype := " 60 A ", dns.TypeA
	if strings.Contains(a, ":") {
		kind, qtype = " 60 AAAA ", dns.TypeAAAA
	}
	question := heard("10.1.0.2", "10.0.0.10", 4000, true, query(d.t, d.queries, name, qtype))
	question.Id = 0
	d.Hear(question)
	o := heard("10.1.0.2", "10.0.0.10", 4000, false, reply(d.t, d.queries, name, qtype, name+"."+kind+a))
	o.Id = id
	d.Hear(o)
}

func (d *desk) went(want ...uint64) {
	d.t.Helper()
	if !slices.Equal(d.on, want) {
		d.t.Errorf("packets %v went on, want %v", d.on, want)
	}
}

// Known is of what is wanted, each name once, whoever matches it.
func TestKeeperTellsWhatItKnows(t *testing.T) {
	d := newDesk(t, "b.example", "*.example")
	d.tell(1, "b.example", "192.0.2.2")
	d.tell(2, "b.example", "192.0.2.1")
	d.tell(3, "a.example", "2001:db8::1")
	d.tell(4, "a.elsewhere", "192.0.2.9")
	patterns, names := d.Known()
	if got := fmt.Sprint(patterns, names); got != "[*.example b.example] map[a.example:[2001:db8::1] b.example:[192.0.2.1 192.0.2.2]]" {
		t.Errorf("it knows %s", got)
	}
	if err := d.Want(nil, []string{"*.example"}); err != nil {
		t.Fatal(err)
	}
	if patterns, names = d.Known(); fmt.Sprint(patterns, names) != "[b.example] map[b.example:[192.0.2.1 192.0.2.2]]" {
		t.Errorf("after one is not wanted any more it knows %v %v", patterns, names)
	}
}

func TestKeeperHoldsWhatIsNew(t *testing.T) {
	d := newDesk(t, "*.example")
	d.tell(1, "a.elsewhere", "192.0.2.1")
	d.went(1)
	d.tell(2, "a.example", "192.0.2.1")
	d.tell(3, "b.example", "2001:db8::1")
	d.went(1)
	select {
	case <-d.Ready():
	default:
		t.Fatal("nothing is ready")
	}
	first := d.Take()
	if first == nil || len(first.Changes) != 1 || len(first.Changes[0].Joined) != 2 {
		t.Fatalf("taken: %+v", first)
	}
	d.tell(4, "a.example", "192.0.2.1") // known, and not in force
	d.went(1)
	d.tell(5, "c.example", "192.0.2.3")
	second := d.Take()
	d.tell(6, "c.example", "192.0.2.3")
	first.InForce()
	d.went(1, 2, 3, 4)
	second.InForce()
	second.InForce()
	d.went(1, 2, 3, 4, 5, 6)
	d.tell(7, "c.example", "192.0.2.3")
	d.went(1, 2, 3, 4, 5, 6, 7)
	if b := d.Take(); b != nil {
		t.Errorf("taken where nothing is new: %+v", b)
	}
	d.clock = d.clock.Add(time.Hour)
	if b := d.Take(); b == nil || len(b.Changes[0].Left) != 3 {
		t.Errorf("an hour later: %+v", b)
	}
	stats, counts := d.Stats()
	if stats.Addresses != 0 || counts != (Counts{Queries: 7, Learned: 6, Others: 1}) {
		t.Errorf("%+v, %+v", stats, counts)
	}
	forged := heard("10.1.0.2", "10.0.0.10", 4000, false, reply(t, 999, "d.example", dns.TypeA, "d.example. 60 A 192.0.2.66"))
	d.Hear(forged)
	d.Hear(&v1.Overheard{Id: 9, Client: forged.Client, Server: forged.Server, Payload: []byte{1}})
	d.Hear(&v1.Overheard{Id: 10, Client: forged.Client, Server: forged.Server, Tcp: true, Payload: []byte{1}})
	d.went(1, 2, 3, 4, 5, 6, 7, 1, 9, 10)
	if _, counts = d.Stats(); counts.Unasked != 1 || counts.Unreadable != 1 || counts.Gaps != 1 || d.Take() != nil {
		t.Errorf("%+v", counts)
	}
}

func TestKeeperSurvives(t *testing.T) {
	d := newDesk(t, "*.example", "gone.example")
	d.tell(1, "a.example", "192.0.2.1")
	d.tell(2, "gone.example", "2001:db8::1")
	var file bytes.Buffer
	if err := d.Save(&file); err != nil {
		t.Fatal(err)
	}
	text := file.String()
	next := newDesk(t)
	next.clock = start.Add(30 * time.Second)
	if err := next.Load(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if b := next.Take(); b != nil {
		t.Errorf("told of what nobody wants: %+v", b.Changes)
	}
	if err := next.Want([]string{"*.example"}, nil); err != nil {
		t.Fatal(err)
	}
	if b := next.Take(); b == nil || len(b.Changes) != 1 || fmt.Sprint(b.Changes[0].Joined) != "[192.0.2.1 2001:db8::1]" {
		t.Errorf("after a new start: %+v", b)
	}
	next.clock = start.Add(61 * time.Second)
	if b := next.Take(); b == nil || len(b.Changes) != 1 || len(b.Changes[0].Left) != 2 {
		t.Errorf("when its time is over: %+v", b)
	}
	if s, _ := next.Stats(); s != (Stats{Patterns: 1}) {
		t.Errorf("what nobody wanted is kept: %+v", s)
	}
	early := newDesk(t, "*.example")
	early.clock = start.Add(-365 * 24 * time.Hour) // a clock that was put right
	if err := early.Load(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	early.clock = early.clock.Add(maxTTL + time.Second)
	if early.Take(); early.book.entries != 0 {
		t.Error("kept for a year, since the clock was wrong")
	}
	for i := range len(text) - 2 {
		broken := newDesk(t, "*.example")
		if err := broken.Load(strings.NewReader(text[:i])); err == nil || broken.Take() != nil {
			t.Fatalf("cut after %d bytes: %v, and something is told", i, err)
		}
	}
	for _, bad := range []string{`{"version":2}`, `[]`, `{"version":1,"entries":[{"pattern":"*","name":"a","addresses":{}}]}`, `{"version":1,"entries":[{"pattern":"a","name":"a","addresses":{"x":"y"}}]}`} {
		if err := newDesk(t).Load(strings.NewReader(bad)); err == nil {
			t.Errorf("%s is loaded", bad)
		}
	}
	odd := newDesk(t, "a.example")
	if err := odd.Load(strings.NewReader(`{"version":1,"entries":[{"pattern":"a.example","name":"b.example","addresses":{"192.0.2.1":"2030-01-01T00:00:00Z"}},{"pattern":"a.example","name":"a.example","addresses":{"":"2030-01-01T00:00:00Z"}}]}`)); err != nil || odd.Take() != nil {
		t.Errorf("what is of another pattern, or no address, is told: %v", err)
	}
}
