package domains

import (
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
	if _, err := d.book.pattern("former.example"); err != nil { // as it is read from a file: nobody wants it yet
		t.Fatal(err)
	}
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
