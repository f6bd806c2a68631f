package fib

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

const hopUnderTest NextHopID = 5

func even(ids ...AdjacencyID) []Member {
	var out []Member
	for _, id := range ids {
		out = append(out, Member{id, 1})
	}
	return out
}

func setNextHop(t *testing.T, tb *Table, id NextHopID, members []Member) {
	t.Helper()
	if err := tb.SetNextHop(id, members); err != nil {
		t.Fatal(err)
	}
}

// flows resolves many hashes: what 8k flows would do.
func flows(tb *Table, id NextHopID) []AdjacencyID {
	v := tb.View()
	out := make([]AdjacencyID, 1<<13)
	for i := range out {
		out[i] = v.Resolve(id, uint32(i)*2654435761+uint32(i)>>3)
	}
	return out
}

func share(fs []AdjacencyID, a AdjacencyID) float64 {
	n := 0
	for _, f := range fs {
		if f == a {
			n++
		}
	}
	return float64(n) / float64(len(fs))
}

func TestResolve(t *testing.T) {
	tb := New()
	if got := flows(tb, hopUnderTest); share(got, 0) != 1 {
		t.Error("next hop that was never set does not drop")
	}
	setNextHop(t, tb, hopUnderTest, even(9))
	if got := flows(tb, hopUnderTest); share(got, 9) != 1 {
		t.Error("next hop of one member does not send all to it")
	}
	setNextHop(t, tb, hopUnderTest, nil)
	if got := flows(tb, hopUnderTest); share(got, 0) != 1 {
		t.Error("next hop without members does not drop")
	}
	v := tb.View()
	if v.Resolve(NoRoute, 1) != 0 || v.Resolve(MaxNextHop, 1) != 0 {
		t.Error("no route, or a next hop beyond the table, does not drop")
	}
	if k := v.Adjacency(0).Kind; k != Drop {
		t.Errorf("adjacency 0 is of kind %v, want drop", k)
	}
	if k := v.Adjacency(MaxAdjacency).Kind; k != Drop {
		t.Errorf("adjacency beyond the table is of kind %v, want drop", k)
	}
}

func TestSharesFollowWeights(t *testing.T) {
	tests := map[string][]Member{
		"two even":          even(1, 2),
		"three even":        even(1, 2, 3),
		"128 even":          even(sequence(128)...),
		"one to three":      {{1, 1}, {2, 3}},
		"bandwidths":        {{1, 10}, {2, 25}, {3, 40}, {4, 100}},
		"largest weights":   {{1, math.MaxUint16}, {2, math.MaxUint16}, {3, math.MaxUint16}},
		"hardly any, a lot": {{1, 1}, {2, math.MaxUint16}},
	}
	for name, members := range tests {
		t.Run(name, func(t *testing.T) {
			tb := New()
			setNextHop(t, tb, hopUnderTest, members)
			checkShares(t, tb, members)
		})
	}
}

// checkShares wants each member's buckets within one of its exact share.
func checkShares(t *testing.T, tb *Table, members []Member) {
	t.Helper()
	total := 0
	for _, m := range members {
		total += int(m.Weight)
	}
	now, _ := tb.hops.group(tb.hops.hops[hopUnderTest] &^ groupBit)
	for _, m := range members {
		n := 0
		for _, b := range now {
			if b == uint32(m.Adjacency) {
				n++
			}
		}
		if want := Buckets * float64(m.Weight) / float64(total); math.Abs(float64(n)-want) >= 1 {
			t.Errorf("adjacency %d has %d buckets, want %.2f", m.Adjacency, n, want)
		}
	}
	fs := flows(tb, hopUnderTest)
	for _, m := range members {
		want := float64(m.Weight) / float64(total)
		if got := share(fs, m.Adjacency); math.Abs(got-want) > 0.02 {
			t.Errorf("adjacency %d has %.3f of the flows, want %.3f", m.Adjacency, got, want)
		}
	}
}

func sequence(n int) []AdjacencyID {
	out := make([]AdjacencyID, n)
	for i := range out {
		out[i] = AdjacencyID(i + 1)
	}
	return out
}

// moved reports the share of flows that changed, and whether one moved that
// was not with old before and is not with new after.
func moved(before, after []AdjacencyID, old, new AdjacencyID) (part float64, stray bool) {
	n := 0
	for i := range before {
		if before[i] != after[i] {
			n++
			stray = stray || before[i] != old && after[i] != new
		}
	}
	return float64(n) / float64(len(before)), stray
}

const nobody AdjacencyID = math.MaxUint32

func TestMemberThatLeavesMovesOnlyItsFlows(t *testing.T) {
	leave := map[string]func(tb *Table, all []AdjacencyID, gone AdjacencyID) error{
		"carrier fails": func(tb *Table, _ []AdjacencyID, gone AdjacencyID) error {
			tb.SetMemberDown(gone, true)
			return nil
		},
		"taken from the list": func(tb *Table, all []AdjacencyID, gone AdjacencyID) error {
			return tb.SetNextHop(hopUnderTest, even(slices.DeleteFunc(slices.Clone(all), func(a AdjacencyID) bool { return a == gone })...))
		},
		"fails, then is taken from the list": func(tb *Table, all []AdjacencyID, gone AdjacencyID) error {
			tb.SetMemberDown(gone, true)
			return tb.SetNextHop(hopUnderTest, even(slices.DeleteFunc(slices.Clone(all), func(a AdjacencyID) bool { return a == gone })...))
		},
	}
	for name, leaves := range leave {
		for _, n := range []int{3, 4, 5, 7, 16, 31, 100, 128} {
			t.Run(fmt.Sprintf("%s, one of %d", name, n), func(t *testing.T) {
				tb := New()
				all := sequence(n)
				setNextHop(t, tb, hopUnderTest, even(all...))
				gone := all[n/2]
				before := flows(tb, hopUnderTest)
				if err := leaves(tb, all, gone); err != nil {
					t.Fatal(err)
				}
				after := flows(tb, hopUnderTest)
				part, stray := moved(before, after, gone, nobody)
				if stray || part != share(before, gone) || share(after, gone) != 0 {
					t.Errorf("%.4f of the flows moved (others' among them: %v), %.4f were the member's, it has %.4f left",
						part, stray, share(before, gone), share(after, gone))
				}
			})
		}
	}
}

func TestMemberThatReturnsTakesItsShareOnly(t *testing.T) {
	for _, n := range []int{2, 3, 5, 16, 128} {
		tb := New()
		all := sequence(n)
		setNextHop(t, tb, hopUnderTest, even(all...))
		before := flows(tb, hopUnderTest)
		for _, a := range all {
			tb.SetMemberDown(a, true)
		}
		if share(flows(tb, hopUnderTest), 0) != 1 {
			t.Fatalf("%d members: all are down and the group does not drop", n)
		}
		for _, a := range all {
			was := flows(tb, hopUnderTest)
			tb.SetMemberDown(a, false)
			if a == all[0] {
				continue
			}
			if _, stray := moved(was, flows(tb, hopUnderTest), nobody, a); stray {
				t.Errorf("%d members: the return of %d moved flows between others", n, a)
			}
		}
		if !slices.Equal(before, flows(tb, hopUnderTest)) {
			t.Errorf("%d members: flows are not where they were before all failed and came back", n)
		}
	}
}

func TestMemberThatJoinsTakesItsShareOnly(t *testing.T) {
	tb := New()
	for n := 1; n <= 24; n++ {
		before := flows(tb, hopUnderTest)
		setNextHop(t, tb, hopUnderTest, even(sequence(n)...))
		if n == 1 {
			continue
		}
		part, stray := moved(before, flows(tb, hopUnderTest), nobody, AdjacencyID(n))
		if limit := 1/float64(n) + 1.5/Buckets; stray || part > limit {
			t.Errorf("member %d joined: %.4f of the flows moved (between others: %v), want at most %.4f", n, part, stray, limit)
		}
		checkShares(t, tb, even(sequence(n)...))
	}
}

// TestGroupsUnderChurn changes members, weights and carriers at random and
// checks what must hold always: flows only on members that are up, and none
// moves when nothing of its own changed.
func TestGroupsUnderChurn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	tb := New()
	members, down := even(1, 2, 3, 4), map[AdjacencyID]bool{}
	setNextHop(t, tb, hopUnderTest, members)
	for i := range 2000 {
		a := AdjacencyID(1 + r.IntN(8))
		at := slices.IndexFunc(members, func(m Member) bool { return m.Adjacency == a })
		before, home := bucketsOf(tb)
		switch {
		case r.IntN(2) == 0:
			down[a] = !down[a]
			tb.SetMemberDown(a, down[a])
		case at < 0:
			members = append(members, Member{a, uint16(1 + r.IntN(5))})
		case len(members) > 2:
			members = slices.Delete(members, at, at+1)
		}
		setNextHop(t, tb, hopUnderTest, members)
		after, _ := bucketsOf(tb)
		for b, now := range after {
			allowed := slices.ContainsFunc(members, func(m Member) bool { return m.Adjacency == now && !down[now] })
			allDown := !slices.ContainsFunc(members, func(m Member) bool { return !down[m.Adjacency] })
			if !allowed && (now != 0 || !allDown) {
				t.Fatalf("change %d: bucket %d goes to %d, members are %v, down are %v", i, b, now, members, down)
			}
			if now != before[b] && at >= 0 && before[b] != a && home[b] != a && now != a && before[b] != 0 && now != 0 {
				t.Fatalf("change %d of %d moved bucket %d from %d to %d", i, a, b, before[b], now)
			}
		}
	}
}

func bucketsOf(tb *Table) (now, home []AdjacencyID) {
	buckets, home := tb.hops.group(tb.hops.hops[hopUnderTest] &^ groupBit)
	for _, b := range buckets {
		now = append(now, AdjacencyID(b))
	}
	return now, slices.Clone(home)
}

func TestFailureLeavesEveryGroup(t *testing.T) {
	tb := New()
	for id := range NextHopID(500) {
		setNextHop(t, tb, id+1, even(7, AdjacencyID(100+id)))
	}
	setNextHop(t, tb, 1000, even(7))
	tb.SetMemberDown(7, true)
	if !tb.MemberDown(7) || tb.MemberDown(8) {
		t.Error("table does not know who is down")
	}
	setNextHop(t, tb, 501, even(7, 8)) // made while it is down
	v := tb.View()
	for id := range NextHopID(501) {
		for h := range uint32(1000) {
			if v.Resolve(id+1, h*7919) == 7 {
				t.Fatalf("next hop %d still sends to the adjacency that failed", id+1)
			}
		}
	}
	if v.Resolve(1000, 1) != 7 {
		t.Error("next hop of one member left it, though there is no other way")
	}
}

func TestRefusedNextHops(t *testing.T) {
	tests := map[string]struct {
		id      NextHopID
		members []Member
	}{
		"next hop 0":               {NoRoute, even(1)},
		"next hop above the last":  {MaxNextHop + 1, even(1)},
		"adjacency 0":              {1, even(0, 1)},
		"adjacency above the last": {1, even(MaxAdjacency + 1)},
		"weight 0":                 {1, []Member{{1, 1}, {2, 0}}},
		"a member twice":           {1, even(1, 2, 1)},
		"too many members":         {1, even(sequence(MaxMembers + 1)...)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tb := New()
			setNextHop(t, tb, 1, even(3))
			if err := tb.SetNextHop(tt.id, tt.members); !errors.Is(err, ErrNextHop) {
				t.Errorf("error is %v, want %v", err, ErrNextHop)
			}
			if got := tb.Members(1); !slices.Equal(got, even(3)) {
				t.Errorf("refused change left members %v, want 3 alone", got)
			}
		})
	}
}

// TestGroupsAreReused: a group that became a single way gives its buckets back,
// but not before readers have moved on.
func TestGroupsAreReused(t *testing.T) {
	tb := New()
	for i := range 1000 {
		setNextHop(t, tb, 1, even(1, 2, 3))
		v := tb.View()
		setNextHop(t, tb, 1, even(4))
		setNextHop(t, tb, 2, even(5, 6))
		if a := v.Resolve(2, uint32(i)); a != 5 && a != 6 {
			t.Fatalf("next hop 2 sends to %d", a)
		}
		setNextHop(t, tb, 2, nil)
		tb.Reclaim()
	}
	if n := len(tb.hops.members); n > 4 {
		t.Errorf("%d groups were made, want those that were free again to be used", n)
	}
}

func TestMembersAreListed(t *testing.T) {
	tb := New()
	setNextHop(t, tb, 3, []Member{{1, 5}, {2, 6}})
	if got := tb.Members(3); !slices.Equal(got, []Member{{1, 5}, {2, 6}}) {
		t.Errorf("members are %v", got)
	}
	if got := tb.Members(4); got != nil {
		t.Errorf("next hop that was never set has members %v", got)
	}
	if got := tb.Members(MaxNextHop); got != nil {
		t.Errorf("next hop beyond the table has members %v", got)
	}
}
