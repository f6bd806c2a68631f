package nft

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/classifier"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func allow(id uint32, protocol uint16, port uint16) classifier.Rule {
	return classifier.Rule{
		ID: id, Action: classifier.Allow, Protocols: []classifier.Range{{First: protocol, Last: protocol}},
		Destination: classifier.Side{Ports: []classifier.Range{{First: port, Last: port}}},
	}
}

// only is a judgement that has the rules, for both families, and then ends.
func only(end classifier.Action, rules ...classifier.Rule) *Judgement {
	return &Judgement{Tiers: []Tier{{Name: "default", V4: rules, V6: rules, End: classifier.Pass}}, End: end}
}

// both is a packet to a port, of each family.
func both(p packet, source, destination int) []packet {
	p.source, p.destination = netip.AddrFrom4([4]byte{10, byte(source), 0, 1}), netip.AddrFrom4([4]byte{10, byte(destination), 0, 1})
	q := p
	a, b := netip.MustParseAddr("2001:db8::1").As16(), netip.MustParseAddr("2001:db8::1").As16()
	a[5], b[5] = byte(source), byte(destination)
	q.source, q.destination = netip.AddrFrom16(a), netip.AddrFrom16(b)
	return []packet{p, q}
}

// wantThrough sends packets and compares which come through.
func (h *host) wantThrough(what string, packets []packet, want bool) {
	h.t.Helper()
	for i, came := range h.send(packets) {
		if came != want {
			h.t.Errorf("%s: %v came through: %v, want %v", what, &packets[i], came, want)
		}
	}
}

func (h *host) list(what ...string) string {
	h.t.Helper()
	return hostnettest.Run(h.t, h.ns, append([]string{"nft", "list"}, what...)...)
}

func (h *host) nft(text string) {
	h.t.Helper()
	hostnettest.Run(h.t, h.ns, "nft", text)
}

// onEth0 is a host with one endpoint, whose normal traffic is judged so.
func onEth0(in, out *Judgement) *Desired {
	return &Desired{Endpoints: []Endpoint{{Name: "eth0", Interface: "eth0", Normal: [2]*Judgement{in, out}}}}
}

func apply(t *testing.T, h *host, c Change) {
	t.Helper()
	if err := h.table.Apply(c); err != nil {
		t.Fatal(err)
	}
}

var (
	toPort80 = packet{protocol: 6, sourcePort: 1000, destinationPort: 80}
	toPort81 = packet{protocol: 6, sourcePort: 1000, destinationPort: 81}
	closed   = only(classifier.Deny)
	openTo80 = only(classifier.Deny, allow(1, 6, 80))
	openTo81 = only(classifier.Deny, allow(2, 6, 81))
)

func TestTrial(t *testing.T) {
	h := newHost(t, Options{})
	in80, in81 := both(toPort80, 1, ownNetwork), both(toPort81, 1, ownNetwork)
	if err := h.table.Try(Change{Desired: onEth0(closed, nil)}, time.Minute); !errors.Is(err, ErrNotWhole) {
		t.Errorf("a trial with nothing to go back to gives %v", err)
	}
	if err := h.table.Confirm(); !errors.Is(err, ErrNoTrial) {
		t.Errorf("confirming nothing gives %v", err)
	}
	apply(t, h, Change{Desired: onEth0(openTo80, nil)})

	try := func(d *Desired, within time.Duration) {
		t.Helper()
		if err := h.table.Try(Change{Desired: d}, within); err != nil {
			t.Fatal(err)
		}
	}
	try(onEth0(openTo81, nil), time.Minute)
	h.wantThrough("tried", in80, false)
	h.wantThrough("tried", in81, true)
	try(onEth0(closed, nil), time.Minute)
	h.wantThrough("a second trial", in81, false)
	if err := h.table.Revert(); err != nil {
		t.Fatal(err)
	}
	h.wantThrough("reverted", in80, true)
	h.wantThrough("reverted", in81, false)
	if err := h.table.Apply(Change{Desired: onEth0(closed, nil)}); !errors.Is(err, ErrRolledBack) {
		t.Errorf("a change of what was rolled back gives %v", err)
	}
	apply(t, h, Change{Whole: true, Desired: onEth0(openTo80, nil)})
	try(onEth0(openTo81, nil), time.Minute)
	if err := h.table.Confirm(); err != nil {
		t.Fatal(err)
	}
	h.wantThrough("confirmed", in80, false)
	h.wantThrough("confirmed", in81, true)
	if text := h.list("table", "inet", "margay"); strings.Contains(text, gateName) || strings.Count(text, "hook") != 5 {
		t.Errorf("a confirmed trial leaves behind:\n%s", text)
	}
}

// The kernel goes back by itself: nobody calls the table.
func TestTrialEndsWithoutUs(t *testing.T) {
	h := newHost(t, Options{})
	in80 := both(toPort80, 1, ownNetwork)
	set := []SetChange{{ID: 5, Name: "who may", Joined: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}}}
	rule := allow(1, 6, 80)
	rule.Source.Sets = []classifier.SetID{5}
	apply(t, h, Change{Desired: onEth0(only(classifier.Deny, rule), nil), Sets: set})
	h.wantThrough("before", in80, true)
	// A set may lock out as well as a rule.
	if err := h.table.Try(Change{Sets: []SetChange{{ID: 5, Left: set[0].Joined}}}, 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	h.wantThrough("tried", in80, false)
	if deadline, ok := h.table.Trial(); !ok || time.Until(deadline) > 2*time.Second {
		t.Errorf("the trial ends at %v, %v", deadline, ok)
	}
	hostnettest.Eventually(t, "the former state", func() bool { return !slices.Contains(h.send(in80), false) })
	if err := h.table.Confirm(); !errors.Is(err, ErrRolledBack) {
		t.Errorf("confirming too late gives %v", err)
	}
	if _, ok := h.table.Trial(); ok {
		t.Error("a trial that has ended goes on")
	}
	h.wantThrough("after what was tried is gone", in80, true)
}

func TestWatch(t *testing.T) {
	repaired := make(chan error, 16)
	rolled := make(chan struct{}, 16)
	h := newHost(t, Options{Repaired: func(err error) { repaired <- err }, RolledBack: func() { rolled <- struct{}{} }})
	h.nft("add table inet foreign")
	h.nft("add chain inet foreign c { type filter hook input priority 10; }")
	h.nft("add rule inet foreign c tcp dport 99 drop")
	foreign := h.list("table", "inet", "foreign")
	apply(t, h, Change{Desired: onEth0(openTo80, nil)})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); h.table.Watch(ctx) }()
	defer func() { stop(); <-ended }()
	in80, in81 := both(toPort80, 1, ownNetwork), both(toPort81, 1, ownNetwork)
	for _, harm := range []string{
		"delete table inet margay", "flush table inet margay", "add chain inet margay x",
		"insert rule inet margay input accept", "flush chain inet margay " + h.table.side.view.side + "if.eth0.input.4",
	} {
		h.nft(harm)
		select {
		case err := <-repaired:
			if err != nil {
				t.Fatalf("after %q: %v", harm, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("after %q nobody repairs", harm)
		}
		h.wantThrough(harm, in80, true)
		h.wantThrough(harm, in81, false)
	}
	if now := h.list("table", "inet", "foreign"); now != foreign {
		t.Errorf("a foreign table is\n%s\nand was\n%s", now, foreign)
	}
	// Neither our own changes nor those of others to what is theirs are harm.
	apply(t, h, Change{Desired: onEth0(openTo81, nil)})
	h.nft("add rule inet foreign c tcp dport 98 drop")
	if err := h.table.Try(Change{Desired: onEth0(closed, nil)}, time.Second); err != nil {
		t.Fatal(err)
	}
	<-rolled
	h.wantThrough("rolled back", in81, true)
	select {
	case <-repaired:
		t.Error("a repair without harm")
	default:
	}
}

// A flush while something is tried, and after that has ended, brings back what then
// holds.
func TestRepairKeepsTrial(t *testing.T) {
	h := newHost(t, Options{})
	in80, in81 := both(toPort80, 1, ownNetwork), both(toPort81, 1, ownNetwork)
	apply(t, h, Change{Desired: onEth0(openTo80, nil)})
	if err := h.table.Try(Change{Desired: onEth0(openTo81, nil)}, 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	h.nft("delete table inet margay")
	if err := h.table.Repair(); err != nil {
		t.Fatal(err)
	}
	h.wantThrough("repaired in a trial", in81, true)
	hostnettest.Eventually(t, "the former state", func() bool { return !slices.Contains(h.send(in80), false) })
	h.nft("delete table inet margay")
	if err := h.table.Repair(); err != nil {
		t.Fatal(err)
	}
	h.wantThrough("repaired after a trial", in80, true)
	h.wantThrough("repaired after a trial", in81, false)
}
