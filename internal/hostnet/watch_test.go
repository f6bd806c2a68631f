//go:build linux

package hostnet_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// view is what a consumer that marks and sweeps believes.
type view struct {
	mu         sync.Mutex
	resyncs    int
	lost       int
	links      map[int]hostnet.Link
	addresses  map[string]hostnet.Address
	routes     map[string]hostnet.Route
	neighbours map[string]hostnet.Neighbour
	marked     map[string]bool // known before the resync and not told in it yet
	hold       chan struct{}   // when set, the consumer waits for it
	held       chan struct{}   // closed when it does
}

func (v *view) take(e hostnet.Event) {
	v.mu.Lock()
	hold, held := v.hold, v.held
	v.hold = nil
	v.mu.Unlock()
	if hold != nil {
		close(held)
		<-hold
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e.Kind {
	case hostnet.ResyncBegin:
		v.marked = map[string]bool{}
		for k := range v.neighbours {
			v.marked[k] = true
		}
		if e.Lost {
			v.lost++
		}
	case hostnet.ResyncEnd:
		v.resyncs++
		for k := range v.marked {
			delete(v.neighbours, k)
		}
	case hostnet.LinkSet:
		v.links[e.Link.Index] = e.Link
	case hostnet.LinkGone:
		delete(v.links, e.Link.Index)
	case hostnet.AddressSet:
		v.addresses[e.Address.Prefix.String()] = e.Address
	case hostnet.AddressGone:
		delete(v.addresses, e.Address.Prefix.String())
	case hostnet.RouteSet:
		v.routes[fmt.Sprint(e.Route.Dst, e.Route.Table)] = e.Route
	case hostnet.RouteGone:
		delete(v.routes, fmt.Sprint(e.Route.Dst, e.Route.Table))
	case hostnet.NeighbourSet:
		if e.Neighbour.State == hostnet.NoARP { // multicast: the kernel makes these without an event
			return
		}
		v.neighbours[e.Neighbour.Addr.String()] = e.Neighbour
		delete(v.marked, e.Neighbour.Addr.String())
	case hostnet.NeighbourGone:
		delete(v.neighbours, e.Neighbour.Addr.String())
	}
}

func (v *view) holds(f func(*view) bool) func() bool {
	return func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return f(v)
	}
}

// watch runs a subscription for the length of the test, and waits for its first resync.
func watch(t *testing.T, h *hostnet.Host, s hostnet.Subscription) *view {
	t.Helper()
	v := &view{links: map[int]hostnet.Link{}, addresses: map[string]hostnet.Address{},
		routes: map[string]hostnet.Route{}, neighbours: map[string]hostnet.Neighbour{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Subscribe(ctx, s, v.take) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Subscribe returned %v, want its context's end", err)
		}
	})
	hostnettest.Eventually(t, "first resync", v.holds(func(v *view) bool { return v.resyncs == 1 }))
	return v
}

func TestSubscriptionTellsEverythingFirst(t *testing.T) {
	left, _ := addressed(t)
	must(t, left.SetNeighbour("left", addr("10.1.0.77"), hostnet.MAC{2, 0, 0, 0, 7, 7}),
		left.ReplaceRoute(hostnet.Route{Dst: prefix("fd09::/48"), Kind: hostnet.Blackhole}))
	v := watch(t, left, hostnet.Subscription{})
	v.mu.Lock()
	defer v.mu.Unlock()
	links, err := left.Links()
	must(t, err)
	for _, l := range links {
		if v.links[l.Index] != l {
			t.Errorf("link told as %+v, is %+v", v.links[l.Index], l)
		}
	}
	if len(links) != 2 || len(v.links) != 2 {
		t.Errorf("told %d links, there are %d, want 2", len(v.links), len(links))
	}
	for _, p := range []string{"10.1.0.1/24", "fd00:1::1/64"} {
		if v.addresses[p].Prefix != prefix(p) {
			t.Errorf("address %s was not told: %v", p, v.addresses)
		}
	}
	if r := v.routes["fd09::/48 254"]; r.Kind != hostnet.Blackhole {
		t.Errorf("blackhole route was not told: %v", v.routes)
	}
	if n := v.neighbours["10.1.0.77"]; n.MAC != (hostnet.MAC{2, 0, 0, 0, 7, 7}) {
		t.Errorf("neighbour was not told: %v", v.neighbours)
	}
}

func TestSubscriptionTellsChanges(t *testing.T) {
	left, right := addressed(t)
	v := watch(t, left, hostnet.Subscription{})
	l, err := left.Link("left")
	must(t, err)
	dst := map[string]hostnet.Route{
		"10.9.0.0/16 254": {Dst: prefix("10.9.0.0/16"), Link: l.Index},
		"fd09::/48 254":   {Dst: prefix("fd09::/48"), Kind: hostnet.Blackhole},
	}
	for key, r := range dst {
		must(t, left.ReplaceRoute(r))
		hostnettest.Eventually(t, "route set", v.holds(func(v *view) bool { return v.routes[key].Equal(r.Canonical()) }))
		must(t, left.DeleteRoute(r))
		hostnettest.Eventually(t, "route gone", v.holds(func(v *view) bool { _, is := v.routes[key]; return !is }))
	}
	for _, p := range []string{"10.2.0.1/24", "fd00:2::1/64"} {
		must(t, left.AddAddress("left", prefix(p), hostnet.NoDAD))
		hostnettest.Eventually(t, "address set", v.holds(func(v *view) bool { return v.addresses[p].Link == l.Index }))
		must(t, left.DeleteAddress("left", prefix(p)))
		hostnettest.Eventually(t, "address gone", v.holds(func(v *view) bool { _, is := v.addresses[p]; return !is }))
	}
	must(t, left.AddVeth(hostnet.VethConfig{Name: "new", Peer: "newer"}))
	hostnettest.Eventually(t, "link set", v.holds(func(v *view) bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(v.links)), func(l hostnet.Link) bool { return l.Name == "new" && l.Driver == "veth" })
	}))
	must(t, left.DeleteLink("new"))
	hostnettest.Eventually(t, "links gone", v.holds(func(v *view) bool { return len(v.links) == 2 }))
	must(t, right.SetDown("right"))
	hostnettest.Eventually(t, "carrier lost", v.holds(func(v *view) bool { l := v.links[l.Index]; return l.Up && !l.Carrier }))
}

func TestLinkInABridgeIsNotToldAsGone(t *testing.T) {
	h, _ := hostnettest.Pair(t)
	hostnettest.Run(t, h.Namespace(), "ip", "link", "add", "br0", "type", "bridge")
	v := watch(t, h, hostnet.Subscription{Topics: hostnet.TopicLinks})
	l, err := h.Link("left")
	must(t, err)
	hostnettest.Run(t, h.Namespace(), "ip", "link", "set", "left", "master", "br0")
	hostnettest.Eventually(t, "master told", v.holds(func(v *view) bool { return v.links[l.Index].Master != 0 }))
	hostnettest.Run(t, h.Namespace(), "ip", "link", "set", "left", "nomaster") // sends RTM_DELLINK of family bridge
	hostnettest.Eventually(t, "no master told", v.holds(func(v *view) bool { l, is := v.links[l.Index]; return is && l.Master == 0 }))
}

func TestSubscriptionSeesTheNeighboursMACChange(t *testing.T) {
	left, right := addressed(t)
	v := watch(t, left, hostnet.Subscription{Topics: hostnet.TopicNeighbours})
	knows := func(s string, mac hostnet.MAC) func() bool {
		return v.holds(func(v *view) bool { return v.neighbours[s].State.Usable() && v.neighbours[s].MAC == mac })
	}
	old, err := right.Link("right")
	must(t, err)
	for _, s := range []string{"10.1.0.2", "fd00:1::2"} {
		hostnettest.Eventually(t, s+" resolved", func() bool {
			if knows(s, old.MAC)() {
				return true
			}
			must(t, left.ResolveNeighbour("left", addr(s))) // again, for the first answers may be lost
			return false
		})
	}
	fresh := hostnet.MAC{2, 9, 9, 9, 9, 9}
	must(t, right.SetMAC("right", fresh))
	for _, s := range []string{"10.1.0.2", "fd00:1::2"} {
		hostnettest.Eventually(t, s+" told with its new MAC", func() bool {
			if knows(s, fresh)() {
				return true
			}
			// The peer speaks, from its new MAC, so that the kernel hears of it.
			_, _ = hostnettest.TryRun(right.Namespace(), "ip", "neigh", "flush", "dev", "right")
			_, _ = hostnettest.TryRun(left.Namespace(), "ip", "neigh", "flush", "dev", "left")
			must(t, left.ResolveNeighbour("left", addr(s)))
			return false
		})
	}
}

func TestSubscriptionResyncsAfterOverflow(t *testing.T) {
	left, _ := addressed(t)
	must(t, left.SetNeighbour("left", addr("10.1.0.200"), hostnet.MAC{2, 1, 1, 1, 1, 1}))
	v := watch(t, left, hostnet.Subscription{Topics: hostnet.TopicNeighbours, Buffer: 4096})
	hold, held := make(chan struct{}), make(chan struct{})
	v.mu.Lock()
	v.hold, v.held = hold, held
	v.mu.Unlock()
	// The consumer sleeps on the first event while more change than the buffer holds.
	var batch strings.Builder
	for i := range 400 {
		fmt.Fprintf(&batch, "neigh replace 10.1.0.%d lladdr 02:00:00:00:00:%02x dev left nud permanent\n", i%150+20, i%256)
		fmt.Fprintf(&batch, "neigh replace fd00:1::%x lladdr 02:00:00:00:01:%02x dev left nud permanent\n", i%150+20, i%256)
	}
	batch.WriteString("neigh del 10.1.0.200 dev left\n") // its event is lost: only sweeping finds out
	ip := exec.Command("nsenter", "--net="+left.Namespace().Path(), "ip", "-batch", "-")
	ip.Stdin = strings.NewReader(batch.String())
	if out, err := ip.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	<-held
	close(hold)
	hostnettest.Eventually(t, "resync after loss", v.holds(func(v *view) bool { return v.lost > 0 && v.resyncs > 1 }))
	want, err := left.Neighbours()
	must(t, err)
	defer func() {
		if t.Failed() {
			t.Log(v.differences(byAddr(want)))
		}
	}()
	hostnettest.Eventually(t, "the view is the table", v.holds(func(v *view) bool {
		return maps.Equal(v.neighbours, byAddr(want))
	}))
	if _, is := byAddr(want)["10.1.0.200"]; is || len(want) < 300 {
		t.Fatalf("the table is not what the test needs: %d entries", len(want))
	}
	must(t, left.SetNeighbour("left", addr("10.1.0.201"), hostnet.MAC{2, 2}))
	hostnettest.Eventually(t, "events after the resync", v.holds(func(v *view) bool { return v.neighbours["10.1.0.201"].MAC == hostnet.MAC{2, 2} }))
}

// differences lists where the view is not the table.
func (v *view) differences(want map[string]hostnet.Neighbour) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out strings.Builder
	for k, n := range want {
		if v.neighbours[k] != n {
			fmt.Fprintf(&out, "table has %+v, view %+v\n", n, v.neighbours[k])
		}
	}
	for k, n := range v.neighbours {
		if _, is := want[k]; !is {
			fmt.Fprintf(&out, "view alone has %+v\n", n)
		}
	}
	return out.String()
}

func byAddr(list []hostnet.Neighbour) map[string]hostnet.Neighbour {
	out := map[string]hostnet.Neighbour{}
	for _, n := range list {
		if n.State != hostnet.NoARP {
			out[n.Addr.String()] = n
		}
	}
	return out
}

func TestDeletedNamespaceDoesNotHangASubscription(t *testing.T) {
	left, _ := addressed(t)
	v := watch(t, left, hostnet.Subscription{})
	must(t, hostnet.DeleteNamespace(hostnettest.Name(left.Namespace())))
	must(t, left.AddAddress("lo", netip.MustParsePrefix("10.7.0.1/32"), 0)) // alive while a Host is
	hostnettest.Eventually(t, "event from the nameless namespace", v.holds(func(v *view) bool { _, is := v.addresses["10.7.0.1/32"]; return is }))
}
