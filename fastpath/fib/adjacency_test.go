package fib

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
)

func TestAdjacencyIsOneCacheLine(t *testing.T) {
	typ := reflect.TypeFor[Adjacency]()
	if typ.Size() != 64 {
		t.Errorf("an adjacency has %d bytes, want 64", typ.Size())
	}
	for f := range typ.Fields() {
		if k := f.Type.Kind(); k == reflect.Pointer || k == reflect.Slice || k == reflect.String {
			t.Errorf("field %s is a pointer to the collector", f.Name)
		}
	}
}

func TestAdjacencyInForce(t *testing.T) {
	tb := New()
	old := Adjacency{HeaderLen: 14, Kind: Rewrite, Port: 3, MTU: 1500}
	if err := tb.SetAdjacency(2, old); err != nil {
		t.Fatal(err)
	}
	v := tb.View()
	seen := v.Adjacency(2)
	if err := tb.SetAdjacency(2, Adjacency{Kind: Incomplete, Port: 4}); err != nil {
		t.Fatal(err)
	}
	if *seen != old {
		t.Errorf("what a reader holds changed under it: %+v", *seen)
	}
	if got := v.Adjacency(2); got.Kind != Incomplete || got.Port != 4 {
		t.Errorf("adjacency is %+v, want incomplete on port 4", *got)
	}
	if err := tb.SetAdjacency(2, Adjacency{}); err != nil {
		t.Fatal(err)
	}
	if got := v.Adjacency(2).Kind; got != Drop {
		t.Errorf("adjacency that was taken away is of kind %v, want drop", got)
	}
}

// TestViewsFollowGrowth: an index that is newer than a view resolves all the
// same, whichever table had to grow for it.
func TestViewsFollowGrowth(t *testing.T) {
	tb := New()
	setNextHop(t, tb, 1, even(1))
	v := tb.View()
	for i := range AdjacencyID(5000) {
		if err := tb.SetAdjacency(i+1, Adjacency{Kind: Rewrite, Port: uint16(i + 1)}); err != nil {
			t.Fatal(err)
		}
		setNextHop(t, tb, NextHopID(i+1), even(i+1, i+2))
	}
	for i := range NextHopID(5000) {
		a := v.Resolve(i+1, uint32(i)*77)
		if i == 0 && a == 1 || a == AdjacencyID(i+1) || a == AdjacencyID(i+2) {
			continue
		}
		t.Fatalf("next hop %d resolves to %d", i+1, a)
	}
	for i := range AdjacencyID(5000) {
		if got := v.Adjacency(i + 1).Port; got != uint16(i+1) {
			t.Fatalf("adjacency %d is of port %d", i+1, got)
		}
	}
}

func TestAdjacencySlotsAreReused(t *testing.T) {
	tb := New()
	for i := range 100_000 {
		if err := tb.SetAdjacency(AdjacencyID(i%10+1), Adjacency{Kind: Rewrite, MTU: uint32(i)}); err != nil {
			t.Fatal(err)
		}
		tb.Reclaim()
	}
	if n := tb.adjs.next; n > 16 {
		t.Errorf("10 adjacencies used %d slots, want those that were free again to be used", n)
	}
}

func TestRefusedAdjacencies(t *testing.T) {
	tb := New()
	for _, id := range []AdjacencyID{0, MaxAdjacency + 1} {
		if err := tb.SetAdjacency(id, Adjacency{Kind: Punt}); !errors.Is(err, ErrNextHop) {
			t.Errorf("adjacency %d: error is %v, want %v", id, err, ErrNextHop)
		}
	}
	if err := tb.SetAdjacency(1, Adjacency{HeaderLen: HeaderSize + 1}); err == nil {
		t.Error("header longer than its room is taken")
	}
	v := tb.View()
	if k := v.Adjacency(1).Kind; k != Drop {
		t.Errorf("refused adjacency is of kind %v, want drop", k)
	}
}

func TestGateway(t *testing.T) {
	for _, want := range []string{"10.0.0.1", "fe80::1", "2001:db8::1", "invalid IP"} {
		gw, _ := netip.ParseAddr(want)
		a := Adjacency{Gateway: [16]byte{9}}
		if a.SetGateway(gw); a.GatewayAddr().String() != want {
			t.Errorf("gateway is %v, want %s", a.GatewayAddr(), want)
		}
	}
}

func TestKindNames(t *testing.T) {
	for k, want := range map[Kind]string{Drop: "drop", Local: "local", Blackhole: "blackhole", 99: "kind(99)"} {
		if k.String() != want {
			t.Errorf("kind %d is called %q, want %q", uint8(k), k, want)
		}
	}
}
