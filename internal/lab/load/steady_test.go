//go:build linux

package load

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/internal/hostnet"
)

// paths lead from a to b, and back.
func paths(a, b *hostnet.Namespace) (out []Path) {
	for _, f := range families {
		out = append(out, Path{a, b, f.src, f.dst}, Path{b, a, f.dst, f.src})
	}
	return out
}

// interrupt takes the link of a namespace down while meanwhile runs. IPv6 loses
// its address by that, and is given it again.
func interrupt(t *testing.T, ns *hostnet.Namespace, meanwhile func()) {
	t.Helper()
	h, err := hostnet.NewHost(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.SetDown("v"); err != nil {
		t.Fatal(err)
	}
	meanwhile()
	err = errors.Join(h.SetUp("v"), h.AddAddress("v", netip.MustParsePrefix("fd08::2/64"), hostnet.NoDAD))
	if err != nil {
		t.Fatal(err)
	}
}

// sendMore waits until every path has sent n datagrams since the mark: a sender
// without a CPU sends less than it should.
func sendMore(t *testing.T, s *Steady, since Mark, n uint64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		least := n
		for i, at := range s.Mark() {
			least = min(least, at-since[i])
		}
		if least == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("in a minute some path has sent %d datagrams, want %d", least, n)
		}
	}
}

func TestSteadyCountsEveryDatagram(t *testing.T) {
	a, b := two(t)
	s, err := StartSteady(paths(a, b), 1000, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Await(ctx); err != nil {
		t.Fatal(err)
	}
	calm := s.Mark()
	sendMore(t, s, calm, 200)
	cut := s.Mark()
	// The kernel may keep some 280 until it knows its neighbour again, and send them then.
	interrupt(t, b, func() { sendMore(t, s, cut, 600) })
	if err := s.Await(ctx); err != nil {
		t.Fatal(err)
	}
	after := s.Mark()
	s.Stop()
	for i, f := range s.Between(calm, cut) {
		if f.Sent < 200 || f.Lost > f.Sent/50 { // the last of them meet the cut
			t.Errorf("path %d, nothing happening: %+v", i, f)
		}
	}
	for i, f := range s.Between(cut, after) {
		if f.Lost < 100 || f.Lost > f.Sent || f.Gap < 250*time.Millisecond {
			t.Errorf("path %d, cut for 600 datagrams: %+v", i, f)
		}
	}
	if d := s.Disorder(); d != (Disorder{}) {
		t.Errorf("a veth does not reorder: %+v", d)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Await(short); err == nil || !strings.Contains(err.Error(), "nothing arrives at") {
		t.Errorf("a path that delivers nothing any more: %v", err)
	}
}

func TestLedger(t *testing.T) {
	tests := map[string]struct {
		came        []uint64 // numbers, of datagrams sent from 2 up to 8
		lost        uint64
		late, twice uint64
	}{
		"all of them":          {[]uint64{2, 3, 4, 5, 6, 7}, 0, 0, 0},
		"none":                 {nil, 6, 0, 0},
		"some lost":            {[]uint64{2, 3, 6, 7}, 2, 0, 0},
		"the last lost":        {[]uint64{2, 3, 4, 5}, 2, 0, 0},
		"one too late":         {[]uint64{2, 4, 3, 5, 6, 7}, 0, 1, 0},
		"one twice":            {[]uint64{2, 3, 3, 5, 6, 7}, 1, 0, 1},
		"the first comes last": {[]uint64{3, 4, 5, 6, 7, 2}, 0, 1, 0},
		"others are not asked": {[]uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0, 0, 0},
		"a number of nobody's": {[]uint64{2, 3, 1 << 60, 4, 5, 6, 7}, 0, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := &ledger{start: time.Now()}
			for _, seq := range tt.came {
				l.note(seq)
			}
			if got := l.between(2, 8); got.Sent != 6 || got.Lost != tt.lost || l.late != tt.late || l.twice != tt.twice {
				t.Errorf("%+v, %d late, %d twice", got, l.late, l.twice)
			}
		})
	}
	l := &ledger{came: []uint32{10, 1010, 0, 9010, 5010, 9020}}
	if got := l.between(0, 6); got.Gap != 8*time.Millisecond {
		t.Errorf("the longest gap is %v, want 8 ms", got.Gap)
	}
}

func TestConnectionsLive(t *testing.T) {
	a, b := two(t)
	c, err := StartConnections(t.Context(), paths(a, b), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		before := c.Lived()
		if err := c.Await(ctx); err != nil {
			t.Fatal(err)
		}
		if after := c.Lived(); after.Received <= before.Sent {
			t.Errorf("they are said to go on, and have come from %+v to %+v", before, after)
		}
		interrupt(t, b, func() { time.Sleep(50 * time.Millisecond) })
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Await(over); err == nil || !strings.Contains(err.Error(), "does not go on") {
		t.Errorf("waiting that was ended gives %v", err)
	}
	if got := c.Stop(time.Minute); got.Connections != 4 || got.Resets != 0 || got.Sent == 0 || got.Received != got.Sent || got.Bent != 0 {
		t.Errorf("connections that were interrupted: %+v", got)
	}
}

func TestConnectionsThatAreLostAreCounted(t *testing.T) {
	a, b := two(t)
	c, err := StartConnections(t.Context(), paths(a, b), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	// One is reset from the side that receives, and one is fed what nobody sent.
	if err := errors.Join(c.all[0].to.SetLinger(0), c.all[0].to.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.all[3].from.Write([]byte("this is not of the pattern")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); c.Lived().Resets == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if err := c.Await(t.Context()); err != nil {
		t.Errorf("one that was lost is waited for: %v", err)
	}
	if got := c.Stop(time.Minute); got.Resets != 1 || got.First == nil || got.Bent == 0 {
		t.Errorf("a connection was reset and another bent: %+v", got)
	}
}

// An end that nobody asked for is a loss, also when it is a polite one.
func TestAConnectionThatEndsEarlyIsLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	to, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	one := &lasting{from: from.(*net.TCPConn), to: to.(*net.TCPConn)}
	c := &Connections{pattern: unlike(patternSize), all: []*lasting{one}, ending: make(chan struct{})}
	from.Close()
	c.receive(one)
	if got := c.Stop(0); got.Resets != 1 || !errors.Is(got.First, io.EOF) {
		t.Errorf("it ended: %+v", got)
	}
}

func TestSteadyLoadsThatCannotBe(t *testing.T) {
	for name, f := range map[string]func() error{
		"no path":             func() error { _, err := StartSteady(nil, 100, 100); return err },
		"no rate":             func() error { _, err := StartSteady(make([]Path, 1), 0, 100); return err },
		"too small to number": func() error { _, err := StartSteady(make([]Path, 1), 100, 7); return err },
		"a trickle of none":   func() error { _, err := StartConnections(t.Context(), nil, 0); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%s: %v, want an error that says what is wanted", name, err)
		}
	}
	a, b := two(t)
	bad := slices.Concat(paths(a, b), []Path{{a, b, families[0].src, families[0].nobody}})
	if _, err := StartSteady(bad, 100, 100); err == nil {
		t.Error("a steady load to an address that is not there begins")
	}
	if _, err := StartConnections(t.Context(), bad, 1000); err == nil {
		t.Error("connections to an address that is not there are made")
	}
}
