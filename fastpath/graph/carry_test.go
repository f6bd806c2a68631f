package graph

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"margay.dev/margay/fastpath/umem"
)

// keep holds every packet, until it is told to let go.
type keep struct {
	held []Meta
	open bool
}

func (k *keep) Process(w *Worker, v *Vector, next []Edge) {
	for i := range next {
		if k.open {
			v.Meta(i).OutPort = 2
			next[i] = 1
			continue
		}
		k.held = append(k.held, *v.Meta(i))
		w.Hold(v.Meta(i))
		next[i] = Gone
	}
}

func (k *keep) Resume(*Worker) {}

func (k *keep) Holding(yield func(m *Meta, at Again)) {
	for i := range k.held {
		yield(&k.held[i], 0)
	}
}

func (k *keep) Forget() { k.held = nil }

func keepSpec(k *keep) Spec {
	return Spec{Name: "pass", Edges: []string{DropName, TxName}, Resumes: []string{"pass"}, New: func(int) Node { return k }}
}

// roomy is a loopQueue that leaves room in front of its packets.
type roomy struct{ loopQueue }

func (q *roomy) RxBurst(io *IO, ms []Meta) int {
	n := q.loopQueue.RxBurst(io, ms)
	for i := range ms[:n] {
		ms[i].Off += umem.Headroom
	}
	return n
}

// giver is a halted engine that holds n packets, over an arena of 4,096 frames.
func giver(t testing.TB, n int) (*Engine, *umem.Arena, Carried) {
	t.Helper()
	e, a := engine(t, 1, keepSpec(&keep{}))
	addPort(t, e, 1, &roomy{loopQueue{left: n}})
	for e.Step() {
	}
	if err := e.Halt(context.Background()); err != nil {
		t.Fatal(err)
	}
	c, err := e.Carry()
	if err != nil {
		t.Fatal(err)
	}
	return e, a, decoded(t, c)
}

// decoded is c after it was written and read.
func decoded(t testing.TB, c Carried) (d Carried) {
	t.Helper()
	b, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// taker is an engine over arena that never ran, and lets every packet through.
func taker(t testing.TB, a *umem.Arena) (*Engine, *keep, *loopQueue) {
	t.Helper()
	k, out := &keep{open: true}, &loopQueue{}
	g, err := Build(keepSpec(k))
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEngine(g, a, Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	addPort(t, e, 2, out)
	return e, k, out
}

// More packets are held than fit a pass: the next engine sends all of them, in
// their order, and counts on.
func TestHeldPacketsGoOnInAnotherEngine(t *testing.T) {
	const n = 3*VectorMax + 7
	from, a, c := giver(t, n)
	from.Stop()
	if f, _ := a.Free(); f != a.Frames()-n {
		t.Errorf("%d frames are free after the end of an engine that holds %d of %d", f, n, a.Frames())
	}
	e, _, out := taker(t, a)
	if err := e.Adopt(c); err != nil {
		t.Fatal(err)
	}
	if got := e.Total(); got.Rx != n || got.Held != n || got.In() != got.Out() {
		t.Errorf("before the start %+v", got)
	}
	if bufs, err := e.Held(); err != nil || len(bufs) != n {
		t.Errorf("%d buffers are held, want %d (%v)", len(bufs), n, err)
	}
	again, err := e.Carry()
	if err != nil || !reflect.DeepEqual(again.Workers[0].Held, c.Workers[0].Held) {
		t.Errorf("what was adopted is not what would be carried on (%v)", err)
	}
	e.Step()
	if out.sent != VectorMax {
		t.Errorf("%d packets left in the first pass, want %d", out.sent, VectorMax)
	}
	e.Start()
	waitFor(t, "all to be sent", func() bool { return e.Total().Tx == n })
	e.Stop()
	if got := e.Total(); got.Held != 0 || got.In() != got.Out() || out.sent != n {
		t.Errorf("in the end %+v", got)
	}
	wantFree(t, a)
}

// Whatever became of the other one, the giver goes on as if it had not been asked.
func TestCarryTakesNothingAway(t *testing.T) {
	e, _, c := giver(t, 10)
	again, err := e.Carry()
	if err != nil {
		t.Fatal(err)
	}
	if again = decoded(t, again); !reflect.DeepEqual(again, c) {
		t.Errorf("first\n%+v, then\n%+v", c, again)
	}
	e.Start()
	if _, err := e.Carry(); err == nil || !strings.Contains(err.Error(), "halt them first") {
		t.Errorf("a running engine says %v", err)
	}
	if _, err := e.Held(); err == nil {
		t.Error("a running engine lists what it holds")
	}
	e.Stop()
	if got := e.Total(); got.Held != 10 || got.In() != got.Out() {
		t.Errorf("after the end %+v", got)
	}
}

// What was forfeited is dropped and counted, adopted or not, and nobody frees it.
func TestForfeitLeavesBuffersAlone(t *testing.T) {
	from, a, c := giver(t, 10)
	to, _, out := taker(t, a)
	if err := to.Adopt(c); err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]*Engine{"the giver": from, "the taker": to} {
		if err := e.Forfeit(); err != nil {
			t.Fatal(err)
		}
		if got := e.Total(); got.Held != 0 || got.Drops[HandedOver] != 10 || got.In() != got.Out() {
			t.Errorf("%s counts %+v", name, got)
		}
		if bufs, err := e.Held(); len(bufs) != 0 || err != nil {
			t.Errorf("%s holds %v (%v)", name, bufs, err)
		}
		if again, err := e.Carry(); err != nil || len(again.Workers[0].Held) != 0 {
			t.Errorf("%s carries %+v (%v)", name, again, err)
		}
		e.Step()
		if f, _ := a.Free(); f != a.Frames()-10 || out.sent != 0 {
			t.Errorf("%s: %d of %d frames are free, %d packets were sent", name, f, a.Frames(), out.sent)
		}
		e.Start()
		if err := e.Forfeit(); err == nil {
			t.Errorf("%s forfeits while it runs", name)
		}
		e.Stop()
	}
}

// silent holds packets, and cannot tell which.
type silent struct{}

func (silent) Process(w *Worker, v *Vector, next []Edge) {
	for i := range next {
		w.Hold(v.Meta(i))
		next[i] = Gone
	}
}

func TestCarryFailsWhereANodeDoesNotTell(t *testing.T) {
	e, _ := engine(t, 1, Spec{Name: "pass", Edges: []string{DropName}, New: func(int) Node { return silent{} }})
	addPort(t, e, 1, &loopQueue{left: 3})
	e.Step()
	if _, err := e.Carry(); err == nil || !strings.Contains(err.Error(), "no Holder") {
		t.Errorf("carry says %v", err)
	}
	e.Stop()
}

// A version before this one had other names: the account is even all the same.
func TestAdoptCountsWhatItDoesNotKnow(t *testing.T) {
	e, _ := engine(t, 2, passSpec(1))
	c := decoded(t, Carried{Workers: []CarriedWorker{
		{
			Rx: 100, Tx: 50, Punt: 5, MadeRefused: 9,
			Made:     map[string]uint64{"arp": 7, "telegram": 3, "letter": 2},
			Consumed: map[string]uint64{"nd": 4, "eaten": 6},
			Drops:    map[string]uint64{"no-route": 20, "bad-mood": 11, "rain": 13, "former": 1},
			Nodes:    map[string]NodeCounters{"pass": {Calls: 1, Packets: 90}, "fail": {Calls: 2, Packets: 80}},
			Ports:    map[uint16]PortCounters{7: {RxPackets: 100, RxBytes: 6400}},
		},
		{Tx: 2},
	}})
	if err := e.Adopt(c); err != nil {
		t.Fatal(err)
	}
	got := e.Total()
	if got.In() != 112 || got.In() != got.Out() || got.Drops[Former] != 25 || got.Drops[NoRoute] != 20 || got.Made[MadeFormer] != 5 ||
		got.Made[MadeARP] != 7 || got.Consumed[UsedFormer] != 6 || got.Consumed[UsedND] != 4 || got.MadeRefused != 9 || got.Punt != 5 {
		t.Errorf("counters are %+v", got)
	}
	s := e.Stats()[0]
	if s.Nodes[0].Packets != 90 || s.Ports[7].RxBytes != 6400 || s.Load != (Load{}) {
		t.Errorf("of worker 0 %+v", s)
	}
	want := []string{`11 packets dropped for "bad-mood"`, `13 packets dropped for "rain"`, `2 packets made, of kind "letter"`,
		`3 packets made, of kind "telegram"`, `6 packets consumed as "eaten"`, `80 packets through node "fail"`}
	if told := e.Unknown(c); !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	addPort(t, e, 1, &loopQueue{left: 8}, &loopQueue{})
	for e.Step() {
	}
	if got = e.Total(); got.Rx != 108 || got.Tx != 60 {
		t.Errorf("eight packets later %+v", got)
	}
	e.Stop()
}

// What is wrong in what was carried is told, and nothing changes.
func TestAdoptRefuses(t *testing.T) {
	from, a, good := giver(t, 2)
	defer from.Stop()
	tests := map[string]func(w *CarriedWorker, m *Meta){
		"no node is called so":              func(w *CarriedWorker, _ *Meta) { w.Held[1].Node = "nowhere" },
		`goes on from pass at "tx"`:         func(w *CarriedWorker, _ *Meta) { w.Held[1].At = "tx" },
		"port 4096 is not below 4096":       func(w *CarriedWorker, _ *Meta) { w.Ports = map[uint16]PortCounters{MaxPorts: {}} },
		"is number 4104, and there are":     func(_ *CarriedWorker, m *Meta) { m.Buf = 4104 },
		"is number 4294967295":              func(_ *CarriedWorker, m *Meta) { m.Buf = umem.None },
		"is another packet's, too":          func(w *CarriedWorker, m *Meta) { *m = w.Held[0].Meta },
		"fills 0 buffers":                   func(_ *CarriedWorker, m *Meta) { m.Bufs = 0 },
		"stands for 0 packets":              func(_ *CarriedWorker, m *Meta) { m.Segments = 0 },
		"came in by port 4096":              func(_ *CarriedWorker, m *Meta) { m.InPort = MaxPorts },
		"reach beyond its buffer":           func(_ *CarriedWorker, m *Meta) { m.Off = 1<<32 - 1 },
		"bytes 0 to 64 reach":               func(_ *CarriedWorker, m *Meta) { m.Off = 0 },
		"want at least 64":                  func(w *CarriedWorker, m *Meta) { m.Off -= umem.Headroom },
		"its IP header, 20 bytes at 50":     func(_ *CarriedWorker, m *Meta) { m.L3 = 50 },
		"its IP header, 40 bytes at 30":     func(_ *CarriedWorker, m *Meta) { m.L3, m.Flags = 30, IPv6 },
		"its transport header at 65":        func(_ *CarriedWorker, m *Meta) { m.L4 = 65 },
		"no transport header":               func(_ *CarriedWorker, m *Meta) { m.GSO, m.GSOSize = GSOTCP4, 1000 },
		"its checksum at 65535+0":           func(_ *CarriedWorker, m *Meta) { m.Flags, m.CsumStart = Partial, 1<<16-1 },
		"its length is 9 bytes":             func(_ *CarriedWorker, m *Meta) { m.Len = 9 },
		"buffer 2 of its 2 is number 42949": func(_ *CarriedWorker, m *Meta) { m.Bufs = 2 },
		"buffer 1 of its 2 is number 4100":  func(_ *CarriedWorker, m *Meta) { m.Buf, m.Bufs = 4100, 2 },
	}
	for i := range a.Frames() {
		*a.Segment(umem.Buf(i)) = umem.Segment{Next: umem.None}
	}
	e, _, _ := taker(t, a)
	before := e.Stats()
	for want, spoil := range tests {
		c := decoded(t, good)
		spoil(&c.Workers[0], &c.Workers[0].Held[1].Meta)
		if err := e.Adopt(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("adopt says %v, want %q", err, want)
		}
		if bufs, err := e.Held(); len(bufs) != 0 || err != nil || !reflect.DeepEqual(e.Stats(), before) {
			t.Fatalf("%q: something was adopted: %+v", want, e.Stats())
		}
	}
	for _, workers := range []int{0, 2, 1000} {
		if err := e.Adopt(Carried{Workers: make([]CarriedWorker, workers)}); err == nil || !strings.Contains(err.Error(), "run as many") {
			t.Errorf("with %d workers adopt says %v", workers, err)
		}
	}
	if err := e.Adopt(good); err != nil {
		t.Error(err)
	}
	if err := e.Adopt(good); err == nil || !strings.Contains(err.Error(), "before") {
		t.Errorf("a second time adopt says %v", err)
	}
	ran, _, _ := taker(t, a)
	ran.Step()
	if err := ran.Adopt(good); err == nil || !strings.Contains(err.Error(), "has run") {
		t.Errorf("an engine that ran says %v", err)
	}
}

// A packet of several frames holds all of them, and what else is in the chain is
// checked as well.
func TestHeldChains(t *testing.T) {
	e, a, c := giver(t, 3)
	defer e.Stop()
	held := c.Workers[0].Held
	first, second, third := held[0].Meta.Buf, held[1].Meta.Buf, held[2].Meta.Buf
	c.Workers[0].Held = held[:1]
	m := &held[0].Meta
	m.Bufs, m.Len = 3, 64+100+50
	lay := func(s ...umem.Segment) {
		*a.Segment(first) = umem.Segment{Next: second}
		*a.Segment(second), *a.Segment(third) = s[0], s[1]
	}
	to, _, _ := taker(t, a)
	for want, s := range map[string][]umem.Segment{
		"reach beyond it":                  {{Next: third, Off: 4000, Len: 100}, {Len: 50}},
		"those of its parts are 213":       {{Next: third, Off: 256, Len: 100}, {Len: 49}},
		"is another packet's, too":         {{Next: first, Len: 100}, {Len: 50}},
		"buffer 3 of its 3 is number 4104": {{Next: 4104, Len: 100}, {Len: 50}},
	} {
		lay(s...)
		if err := to.Adopt(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("adopt says %v, want %q", err, want)
		}
	}
	lay(umem.Segment{Next: third, Off: 256, Len: 100}, umem.Segment{Len: 50})
	if err := to.Adopt(c); err != nil {
		t.Fatal(err)
	}
	if bufs, err := to.Held(); err != nil || !slices.Equal(bufs, []umem.Buf{first, second, third}) {
		t.Errorf("held are %v, want %v (%v)", bufs, []umem.Buf{first, second, third}, err)
	}
}

func TestMetaTravelsByNames(t *testing.T) {
	was := Meta{Off: 1 << 31, Flags: IPv6 | Partial | Options, GSO: GSOUDP, Reason: TTLSpent, Segments: 44}
	b, err := json.Marshal(was)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{`"ipv6,partial-checksum,options"`, `"udp"`, `"ttl-spent"`} {
		if !strings.Contains(string(b), name) {
			t.Errorf("%s does not name %s", b, name)
		}
	}
	var got Meta
	if err := json.Unmarshal(b, &got); err != nil || got != was {
		t.Errorf("%s was read as %+v (%v)", b, got, err)
	}
	if err := json.Unmarshal([]byte(`{"Reason":"bad-mood","Flags":""}`), &got); err != nil || got.Reason != Former || got.Flags != 0 {
		t.Errorf("read as %+v (%v)", got, err)
	}
	for in, want := range map[string]string{
		`{"Flags":"ipv6,ipv7"}`: `"ipv7" is not known`, `{"GSO":"sctp"}`: `"sctp" is not known`,
	} {
		if err := json.Unmarshal([]byte(in), &got); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is read: %v, want %q", in, err, want)
		}
	}
	for _, m := range []Meta{{Flags: 1 << 15}, {GSO: 9}} {
		if b, err := json.Marshal(m); err == nil {
			t.Errorf("%+v was written: %s", m, b)
		}
	}
}
