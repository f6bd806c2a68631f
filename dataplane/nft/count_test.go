package nft

import (
	"net"
	"testing"
	"time"

	"margay.dev/margay/classifier"
)

// Each rule counts what meets it, in both families together; it goes on counting when it
// is written anew, also by another change, and its counter goes with it.
func TestRulesAreCounted(t *testing.T) {
	host, peer, addresses := joinedPair(t)
	var table *Table
	if err := host.Namespace().Do(func() (err error) { table, err = Open(Options{}); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	if _, err := table.Counts(); err == nil {
		t.Error("nothing was applied, and there are counts")
	}
	rule := func(id uint32, port uint16) classifier.Rule {
		r := allow(id, 17, port)
		r.Action = classifier.Deny
		return r
	}
	state := func(prefix string, rules ...classifier.Rule) *Desired {
		return &Desired{Settings: Settings{LogPrefix: prefix}, Endpoints: []Endpoint{
			{Name: "left", Interface: "left", Normal: [2]*Judgement{only(classifier.Pass, rules...), nil}},
		}}
	}
	steps := []struct {
		change Change
		rounds map[uint32]int // of both addresses, that each rule has counted; others have no counter
	}{
		{Change{Desired: state("a", rule(7, 80), rule(8, 81))}, map[uint32]int{7: 1, 8: 0}},
		{Change{Desired: state("b", rule(7, 80), rule(8, 81))}, map[uint32]int{7: 2, 8: 0}},                    // all is written anew
		{Change{Desired: state("b", rule(9, 79), rule(7, 80), rule(8, 81))}, map[uint32]int{9: 0, 7: 3, 8: 0}}, // its neighbour has changed
		{Change{Desired: state("b", rule(9, 79), rule(8, 80))}, map[uint32]int{9: 0, 8: 1}},                    // it has gone
		{Change{Desired: state("b", rule(9, 79), rule(8, 80)), Whole: true}, map[uint32]int{9: 0, 8: 1}},       // the table is new
	}
	for i, step := range steps {
		if err := table.Apply(step.change); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		for _, a := range addresses {
			err := peer.Namespace().Do(func() error {
				c, err := net.Dial("udp", net.JoinHostPort(a, "80"))
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.Write([]byte("x"))
				return err
			})
			if err != nil {
				t.Fatalf("step %d: send to %s: %v", i, a, err)
			}
		}
		// What was sent over a veth pair has arrived when the call comes back, but for what waits for a neighbour.
		eventually := time.Now().Add(10 * time.Second)
		got, err := table.Counts()
		for err == nil && !enough(got, step.rounds, len(addresses)) && time.Now().Before(eventually) {
			time.Sleep(5 * time.Millisecond)
			got, err = table.Counts()
		}
		if err != nil || len(got) != len(step.rounds) {
			t.Fatalf("step %d: counted are %+v, %v", i, got, err)
		}
		for id, rounds := range step.rounds {
			if c := got[id]; c.Packets != uint64(rounds*len(addresses)) || (c.Bytes > 0) != (rounds > 0) {
				t.Errorf("step %d: rule %d has counted %+v, want %d packets", i, id, c, rounds*len(addresses))
			}
		}
	}
}

// enough reports whether each rule has counted so much at least.
func enough(got map[uint32]Count, rounds map[uint32]int, each int) bool {
	for id, n := range rounds {
		if got[id].Packets < uint64(n*each) {
			return false
		}
	}
	return true
}

// Many counters come in several pieces.
func TestManyRulesAreCounted(t *testing.T) {
	h := newHost(t, Options{})
	var rules []classifier.Rule
	for i := range uint32(1500) {
		rules = append(rules, allow(i+1, 6, uint16(i)))
	}
	apply(t, h, Change{Desired: onEth0(only(classifier.Deny, rules...), nil)})
	if got, err := h.table.Counts(); err != nil || len(got) != len(rules) {
		t.Errorf("%d counters, %v, want %d", len(got), err, len(rules))
	}
	if _, _, ok := readCounter(appendAttr(nil, 2, []byte("another\x00"))); ok {
		t.Error("another object is a rule's counter")
	}
}
