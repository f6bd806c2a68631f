package graph

import (
	"context"
	"math/bits"
	"slices"
	"testing"
	"time"
)

func TestEveryFlagHasANameOfItsOwn(t *testing.T) {
	names := (Told<<1 - 1).Names() // Told is the last
	slices.Sort(names)
	if n := len(slices.Compact(names)); n != bits.Len16(uint16(Told)) || len(flagNames) != n {
		t.Errorf("%d flags have the names %q", bits.Len16(uint16(Told)), names)
	}
	if got := (IPv6 | Expiring).Names(); !slices.Equal(got, []string{"ipv6", "expiring"}) {
		t.Errorf("names are %q", got)
	}
}

// counted is a tap that counts what it is shown; one worker calls it.
type counted struct{ in, refused, made, visited, out, dropped int }

func (c *counted) Received(_ *Worker, _ int, v *Vector) { c.in += v.Len() }
func (c *counted) Refused(_ *Worker, entry int, m *Meta, r Reason) {
	if entry == 0 && m.InPort == 1 && m.Reason == r && r == RxOffload {
		c.refused++
	}
}
func (c *counted) Made(*Worker, int, Edge, *Meta) { c.made++ }
func (c *counted) Visited(_ *Worker, _ int, v *Vector, _ []Edge, _ time.Duration) {
	c.visited += v.Len()
}
func (c *counted) Transmitted(_ *Worker, _ uint16, v *Vector) { c.out += v.Len() }
func (c *counted) Dropped(*Worker, *Meta, Reason)             { c.dropped++ }

// pickyQueue refuses every third packet that comes in.
type pickyQueue struct {
	loopQueue
	came int
}

func (q *pickyQueue) RxBurst(io *IO, ms []Meta) int {
	kept := 0
	for _, m := range ms[:q.loopQueue.RxBurst(io, ms)] {
		if q.came++; q.came%3 == 0 {
			io.DropRx(RxOffload, &m)
			io.Free(&m)
			continue
		}
		ms[kept] = m
		kept++
	}
	return kept
}

// What a tap is shown agrees with the account, and after SetTap it is shown nothing.
func TestATapIsShownWhatIsCounted(t *testing.T) {
	e, _ := engine(t, 1, eachSpec(func(_ *Worker, m *Meta) Edge {
		m.OutPort = 1 + uint16(m.Buf)%3 // 1 has a queue, 2 and 3 have none
		m.Reason = NoRoute
		return Edge(m.Buf) % 2
	}))
	q := &pickyQueue{loopQueue: loopQueue{left: 1000}}
	addPort(t, e, 0, &loopQueue{})
	addPort(t, e, 1, q)
	tap := &counted{}
	if err := e.SetTap(context.Background(), tap); err != nil {
		t.Fatal(err)
	}
	for e.Step() {
	}
	c := e.Total()
	if tap.in != 667 || tap.refused != 333 || tap.visited != 667 || c.In() != c.Out() || uint64(tap.dropped+tap.refused) != c.Dropped() || tap.out != q.sent || q.sent == 0 || tap.dropped <= 300 {
		t.Errorf("the tap was shown %+v, the account is %+v, the queue sent %d", tap, c, q.sent)
	}
	if err := e.SetTap(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	before := *tap
	q.left = 100
	for e.Step() {
	}
	if *tap != before || e.Total().Rx != 1100 {
		t.Errorf("without a tap it was shown %+v after %+v", *tap, before)
	}
	e.Stop()
}
