package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/version"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func small() State {
	return State{
		Ports:     []*v1.Port{{Name: "a"}, {Name: "b"}},
		Addresses: []*v1.Address{{Port: "a", Prefix: "10.0.0.1/24"}},
		NextHops:  []*v1.NextHop{{Id: 1, Kind: v1.NextHop_KIND_PUNT}},
		Routes:    []Route{{netip.MustParsePrefix("10.0.0.0/8"), 1}, {netip.MustParsePrefix("fd00::/8"), 1}},
		Endpoints: []*v1.Endpoint{{Id: "e", Port: "a"}},
		HostPort:  &v1.HostPort{Name: "margay0"},
		Steering:  &v1.Steering{Prefixes: []string{"10.0.0.0/8"}},
		Sets: []Set{
			{1, "role == 'a'", []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::1/128")}},
			{2, "nets", nil},
		},
		Programs: []Program{{1, []byte("one")}, {2, []byte("two")}},
		Rules:    []*v1.RuleName{{Id: 1, Tier: "t"}, {Id: 2, Policy: "p"}},
	}
}

func dial(t *testing.T, f *fake, o Options) *Stream {
	t.Helper()
	s, err := Dial(t.Context(), f.socket, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// same compares states by what they say on the wire.
func same(t *testing.T, got, want *State) {
	t.Helper()
	wire := func(s *State) (out []string) {
		err := pack(&Delta{Set: *s}, func(c *v1.Chunk) error {
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
			out = append(out, string(b))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if !reflect.DeepEqual(wire(got), wire(want)) {
		t.Errorf("state in force is\n%+v\nwant\n%+v", got, want)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestSnapshotAndDeltasReachTheDataplane(t *testing.T) {
	f := newFake(t).start()
	s := dial(t, f, quick())
	gen, err := s.Apply(within(t), small())
	if err != nil || gen != 1 || s.Generation() != 1 {
		t.Fatalf("applied as generation %d, stream says %d: %v; want 1", gen, s.Generation(), err)
	}
	d, err := s.SendDelta(within(t), Delta{
		Set: State{
			Ports: []*v1.Port{{Name: "c"}}, Routes: []Route{{netip.MustParsePrefix("10.1.0.0/16"), 1}},
			Sets: []Set{{1, "role == 'b'", nil}},
		},
		RemovedPorts: []string{"b"}, RemovedEndpoints: []string{"e"}, RemovedHostPort: true,
		RemovedAddresses: []*v1.Address{{Port: "a", Prefix: "10.0.0.1/24"}}, RemovedNextHops: []uint32{7},
		RemovedRoutes: []netip.Prefix{netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("10.0.0.0/8")},
		Left:          []Set{{1, "", []netip.Prefix{netip.MustParsePrefix("fd00::1/128"), netip.MustParsePrefix("10.1.0.0/16")}}},
		RemovedSets:   []uint32{2}, RemovedPrograms: []uint32{1}, RemovedRules: []uint32{2},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	got, commits := f.snapshot()
	same(t, got, &State{
		Ports: []*v1.Port{{Name: "a"}, {Name: "c"}}, NextHops: []*v1.NextHop{{Id: 1, Kind: v1.NextHop_KIND_PUNT}},
		Routes:   []Route{{netip.MustParsePrefix("10.1.0.0/16"), 1}},
		Steering: &v1.Steering{Prefixes: []string{"10.0.0.0/8"}},
		Sets:     []Set{{1, "role == 'b'", []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}}},
		Programs: []Program{{2, []byte("two")}}, Rules: []*v1.RuleName{{Id: 1, Tier: "t"}},
	})
	if len(commits) != 2 || !commits[0].GetSnapshot() || commits[1].GetSnapshot() || commits[1].GetGeneration() != 2 {
		t.Errorf("commits are %v, want a snapshot and a delta, 1 and 2", commits)
	}
}

func TestManyRoutesTravelInChunks(t *testing.T) {
	f := newFake(t).start()
	s := dial(t, f, quick())
	var st State
	for i := range uint32(100_000) {
		st.Routes = append(st.Routes,
			Route{netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 0}), 24), 1<<24 - 1},
			Route{netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 16), byte(i >> 8), byte(i)}), 40), 1<<24 - 1})
	}
	for i := range 3000 {
		st.Endpoints = append(st.Endpoints, &v1.Endpoint{Id: fmt.Sprintf("%0500d", i)})
	}
	if _, err := s.Apply(within(t), st); err != nil {
		t.Fatal(err)
	}
	got, _ := f.snapshot()
	if len(got.Routes) != len(st.Routes) || len(got.Endpoints) != len(st.Endpoints) {
		t.Errorf("%d routes and %d endpoints arrived, want %d and %d", len(got.Routes), len(got.Endpoints), len(st.Routes), len(st.Endpoints))
	}
	if f.largest > ChunkLimit || f.largest < ChunkLimit*9/10 {
		t.Errorf("largest of %d messages has %d bytes, want nearly %d", f.chunks, f.largest, ChunkLimit)
	}
}

func TestLargePolicyTravelsInChunks(t *testing.T) {
	f := newFake(t).start()
	s := dial(t, f, quick())
	st := State{Programs: []Program{{9, []byte(strings.Repeat("image", ChunkLimit/2))}}}
	for id := uint32(1); id < 3; id++ {
		set := Set{ID: id}
		for i := range 100_000 {
			set.Members = append(set.Members, netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
		}
		for i := range 50_000 {
			set.Members = append(set.Members, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}), 128))
		}
		st.Sets = append(st.Sets, set)
	}
	if _, err := s.Apply(within(t), st); err != nil {
		t.Fatal(err)
	}
	got, _ := f.snapshot()
	same(t, got, &st)
	if f.largest > ChunkLimit || f.chunks < 4 {
		t.Errorf("largest of %d messages has %d bytes, want at most %d", f.chunks, f.largest, ChunkLimit)
	}
}

func TestWhatCannotBeSentIsRefusedAtOnce(t *testing.T) {
	s := dial(t, newFake(t).start(), quick())
	tests := map[string]State{
		"an object larger than a message": {Endpoints: []*v1.Endpoint{{Id: strings.Repeat("x", ChunkLimit)}}},
		"a route with host bits":          {Routes: []Route{{netip.MustParsePrefix("10.0.0.1/8"), 1}}},
		"a v6 route with host bits":       {Routes: []Route{{netip.MustParsePrefix("fd00::1/8"), 1}}},
		"no prefix at all":                {Routes: []Route{{}}},
		"a member with host bits":         {Sets: []Set{{1, "", []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}}},
		"a mapped member":                 {Sets: []Set{{1, "", []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}}}},
		"a program without image":         {Programs: []Program{{ID: 1}}},
		"a mapped route":                  {Routes: []Route{{netip.MustParsePrefix("::ffff:10.0.0.0/104"), 1}}},
	}
	for name, st := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := s.SendSnapshot(within(t), st); err == nil {
				t.Error("was sent")
			}
		})
	}
}

func TestRefusalTellsAllFaultsAndKeepsTheStateBefore(t *testing.T) {
	f := newFake(t).start()
	s := dial(t, f, quick())
	if _, err := s.Apply(within(t), small()); err != nil {
		t.Fatal(err)
	}
	f.set(func() {
		f.answer = func(c *v1.Commit, srv v1.Dataplane_ConnectServer) (bool, error) {
			if c.GetSnapshot() {
				return false, nil
			}
			return true, srv.Send(refusal(c.GetGeneration(), "port a: mtu is 1", "port b: no kind"))
		}
	})
	d, err := s.SendDelta(within(t), Delta{RemovedPorts: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	var r *Refusal
	if err := d.Wait(within(t)); !errors.As(err, &r) || len(r.Faults) != 2 || r.Generation != 2 || !strings.Contains(err.Error(), "no kind") {
		t.Fatalf("got %v, want a refusal of generation 2 with both faults", err)
	}
	f.stop() // what was refused must not come back with the next session
	f.start()
	waitFor(t, func() bool { _, c := f.snapshot(); return len(c) == 3 })
	got, _ := f.snapshot()
	want := small()
	same(t, got, &want)
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited a minute in vain")
		}
	}
}

func TestStreamComesBackWithWhatWasAcceptedAndWhatWasNot(t *testing.T) {
	f := newFake(t).start()
	s := dial(t, f, quick())
	if _, err := s.Apply(within(t), small()); err != nil {
		t.Fatal(err)
	}
	f.set(func() { // the next commit is lost with the connection
		f.answer = func(*v1.Commit, v1.Dataplane_ConnectServer) (bool, error) {
			return true, status.Error(codes.Unavailable, "gone")
		}
	})
	d, err := s.SendDelta(within(t), Delta{Set: State{Ports: []*v1.Port{{Name: "late"}}}})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { _, c := f.snapshot(); return len(c) >= 3 })
	f.set(func() { f.answer, f.state, f.inForce = nil, newMirror(), 500 }) // as if it had lost all, and run far ahead
	if err := d.Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	if d.Generation() < 500 {
		t.Errorf("settled as generation %d, want one above the dataplane's 500", d.Generation())
	}
	got, _ := f.snapshot()
	want := small()
	want.Ports = append(want.Ports, &v1.Port{Name: "late"})
	same(t, got, &want)
}

func TestClientThatNeverSentSweepsNothing(t *testing.T) {
	f := newFake(t).start()
	s := dial(t, f, quick())
	f.stop()
	waitFor(t, func() bool { return !s.Connected() })
	f.start()
	waitFor(t, s.Connected)
	time.Sleep(20 * time.Millisecond)
	if _, commits := f.snapshot(); len(commits) != 0 {
		t.Errorf("commits %v came from a client without a state", commits)
	}
}

func TestDialWaitsForTheDataplaneUntilItsContextEnds(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, f.socket, quick()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), f.socket) {
		t.Errorf("got %v, want the deadline and the socket's path", err)
	}
	go func() { time.Sleep(50 * time.Millisecond); f.start() }()
	s := dial(t, f, quick())
	if _, err := s.Apply(within(t), small()); err != nil {
		t.Error(err)
	}
}

func TestConditionsAndSessionsAreTold(t *testing.T) {
	f := newFake(t).start()
	f.answer = func(_ *v1.Commit, srv v1.Dataplane_ConnectServer) (bool, error) {
		return false, srv.Send(&v1.ServerMessage{Message: &v1.ServerMessage_Condition{Condition: &v1.Condition{Object: "port/a", Reason: "device-missing"}}})
	}
	var mu sync.Mutex
	var objects, sessions []string
	o := quick()
	o.OnCondition = func(c *v1.Condition) {
		mu.Lock()
		defer mu.Unlock()
		objects = append(objects, c.GetObject())
	}
	o.OnSession = func(e Session) {
		mu.Lock()
		defer mu.Unlock()
		sessions = append(sessions, fmt.Sprint(e.Connected, e.Server))
	}
	s := dial(t, f, o)
	if _, err := s.Apply(within(t), small()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if !reflect.DeepEqual(objects, []string{"port/a"}) || !reflect.DeepEqual(sessions, []string{"truefake", "falsefake"}) {
		t.Errorf("told of objects %q and sessions %q", objects, sessions)
	}
}

func TestWaitingEnds(t *testing.T) {
	f := newFake(t).start()
	f.answer = func(*v1.Commit, v1.Dataplane_ConnectServer) (bool, error) { return true, nil } // never answers
	o := quick()
	o.Unsettled = 2
	s := dial(t, f, o)
	first, err := s.SendSnapshot(within(t), small())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := first.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting ended with %v, want the deadline", err)
	}
	if _, err := s.SendDelta(within(t), Delta{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SendDelta(ctx, Delta{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third unsettled commit ended with %v, want the deadline", err)
	}
	s.Close()
	if err := first.Wait(within(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close waiting ended with %v, want ErrClosed", err)
	}
	if _, err := s.SendDelta(within(t), Delta{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close sending ended with %v, want ErrClosed", err)
	}
}

func TestTakenOverClientDoesNotFight(t *testing.T) {
	f := newFake(t).start()
	f.answer = func(*v1.Commit, v1.Dataplane_ConnectServer) (bool, error) {
		return true, status.Error(codes.Aborted, "client other has connected")
	}
	s := dial(t, f, quick())
	if _, err := s.Apply(within(t), small()); !errors.Is(err, ErrTakenOver) {
		t.Errorf("got %v, want ErrTakenOver", err)
	}
	time.Sleep(50 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sessions != 1 {
		t.Errorf("connected %d times, want once", f.sessions)
	}
}

func TestHostileGreetings(t *testing.T) {
	welcome := func(w *v1.Welcome) func() *v1.ServerMessage {
		return func() *v1.ServerMessage {
			return &v1.ServerMessage{Message: &v1.ServerMessage_Welcome{Welcome: w}}
		}
	}
	tests := map[string]struct {
		welcome func() *v1.ServerMessage
		want    string
	}{
		"a version too new":                {welcome(&v1.Welcome{Version: version.Contract + 1, Server: "new"}), "upgrade the older"},
		"a version that never was":         {welcome(&v1.Welcome{}), "upgrade the older"},
		"an ack instead of a welcome":      {func() *v1.ServerMessage { return ack(1) }, "want a welcome"},
		"an empty message":                 {func() *v1.ServerMessage { return &v1.ServerMessage{} }, "want a welcome"},
		"a generation that leaves no room": {welcome(&v1.Welcome{Version: version.Contract, Generation: 1<<64 - 1}), "no room"},
		"silence":                          {func() *v1.ServerMessage { return nil }, "no welcome within"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.welcome = tt.welcome
			f.start()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			o, began := quick(), 0
			if name != "silence" {
				o.HelloTimeout = time.Minute
			}
			o.OnSession = func(Session) {
				if began++; began == 2 { // it tries again, and would for ever
					cancel()
				}
			}
			s, err := Dial(ctx, f.socket, o)
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestHostileAnswersEndTheSessionAndNothingElse(t *testing.T) {
	send := func(ms ...*v1.ServerMessage) func(*v1.Commit, v1.Dataplane_ConnectServer) (bool, error) {
		return func(_ *v1.Commit, s v1.Dataplane_ConnectServer) (bool, error) {
			for _, m := range ms {
				if err := s.Send(m); err != nil {
					return true, err
				}
			}
			return true, nil
		}
	}
	tests := map[string]func(*v1.Commit, v1.Dataplane_ConnectServer) (bool, error){
		"an ack of what was never sent":    send(ack(1 << 60)),
		"a refusal of what was never sent": send(refusal(1<<60, "no")),
		"a second welcome":                 send(&v1.ServerMessage{Message: &v1.ServerMessage_Welcome{Welcome: &v1.Welcome{Version: 1}}}),
		"a stream that ends": func(*v1.Commit, v1.Dataplane_ConnectServer) (bool, error) {
			return true, status.Error(codes.Internal, "")
		},
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.answer = answer
			f.start()
			s := dial(t, f, quick())
			d, err := s.SendSnapshot(within(t), small())
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.sessions >= 2 })
			f.set(func() { f.answer = nil })
			if err := d.Wait(within(t)); err != nil {
				t.Errorf("after the dataplane came to reason: %v", err)
			}
		})
	}
}

func TestAnswersThatMeanNothingAreIgnored(t *testing.T) {
	f := newFake(t)
	f.answer = func(c *v1.Commit, s v1.Dataplane_ConnectServer) (bool, error) {
		for _, m := range []*v1.ServerMessage{{}, ack(0), refusal(0), refusal(c.GetGeneration() - 1)} {
			if err := s.Send(m); err != nil {
				return true, err
			}
		}
		return false, nil
	}
	f.start()
	s := dial(t, f, quick())
	for range 3 {
		if _, err := s.Apply(within(t), small()); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sessions != 1 {
		t.Errorf("%d sessions, want one", f.sessions)
	}
}
