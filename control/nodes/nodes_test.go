package nodes

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/api/v3/fabric"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/file"
	"margay.dev/margay/internal/hostnet"
)

func face(name string, up bool, texts ...string) Interface {
	i := Interface{Name: name, Up: up}
	for _, text := range texts {
		i.Addresses = append(i.Addresses, netip.MustParsePrefix(text))
	}
	return i
}

// machine is a node's interfaces as such machines have them.
var machine = []Interface{
	face("lo", true, "127.0.0.1/8", "::1/128"),
	face("docker0", true, "172.17.0.1/16"),
	face("down0", false, "10.9.0.1/24", "fd09::1/64"),
	face("cali1234", true, "10.8.0.1/32"),
	face("eth0", true, "169.254.1.1/16", "10.0.0.5/24", "10.0.0.6/24", "fe80::5/64", "fd00::5/64"),
	face("eth1", true, "192.168.7.5/23", "fd07::5/64"),
}

func TestDetect(t *testing.T) {
	internal := []netip.Addr{netip.MustParseAddr("192.168.7.5"), netip.MustParseAddr("fd55::5")}
	route := func(host string, six bool) (netip.Addr, error) {
		switch {
		case host != "far.example":
			return netip.Addr{}, errors.New("no route")
		case six:
			return netip.MustParseAddr("fd07::5"), nil
		}
		return netip.MustParseAddr("192.168.7.5"), nil
	}
	tests := map[string]struct {
		method, four, six string // of none: part of the error
	}{
		"the first one":                     {"first-found", "10.0.0.5/24", "fd00::5/64"},
		"how the kernel goes":               {"can-reach=far.example", "192.168.7.5/23", "fd07::5/64"},
		"how the kernel cannot go":          {"can-reach=nowhere.example", "!no route", "!no route"},
		"an interface":                      {"interface=eth1", "192.168.7.5/23", "fd07::5/64"},
		"interfaces in the order of wishes": {"interface=wlan.*, eth1,eth.*", "192.168.7.5/23", "fd07::5/64"},
		"a whole name is meant":             {"interface=th1", "!no interface", "!no interface"},
		"names left out otherwise":          {"interface=docker.*", "172.17.0.1/16", "!no interface"},
		"one that is down":                  {"interface=down0", "!no interface", "!no interface"},
		"not these":                         {"skip-interface=eth0,x.*", "192.168.7.5/23", "fd07::5/64"},
		"of a network":                      {"cidr=192.168.0.0/16,10.0.0.6/32,fd07::/16", "10.0.0.6/24", "fd07::5/64"},
		"of no network here":                {"cidr=203.0.113.0/24", "!no interface", "!no interface"},
		"what the Node says":                {"kubernetes-internal-ip", "192.168.7.5/23", "fd55::5/128"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := ParseMethod(tt.method)
			if err != nil {
				t.Fatal(err)
			}
			for six, want := range map[bool]string{false: tt.four, true: tt.six} {
				got, err := m.Detect(six, machine, internal, route)
				says, fails := strings.CutPrefix(want, "!")
				switch {
				case fails && (err == nil || !strings.Contains(err.Error(), says)):
					t.Errorf("IPv6 %v: got %v, %v, want an error with %q", six, got, err, says)
				case !fails && (err != nil || got.String() != want):
					t.Errorf("IPv6 %v: got %v, %v, want %s", six, got, err, want)
				}
			}
		})
	}
}

func TestMethodsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "first", "first-found=x", "can-reach", "can-reach=", "interface=(", "cidr=10.0.0.0", "kubernetes-internal-ip=1", "skip-interface="} {
		if _, err := ParseMethod(text); err == nil {
			t.Errorf("%q is a method", text)
		}
	}
}

func store(t *testing.T) datastore.Store {
	t.Helper()
	s, err := file.Open(file.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func self(four, six string) Self {
	m, _ := ParseMethod(FirstFound)
	return Self{Name: "n0", IPv4: four, IPv6: six, IPv4Method: m, IPv6Method: m, Route: Route}
}

func registered(t *testing.T, s datastore.Store) *v3.Node {
	t.Helper()
	o, err := s.Get(t.Context(), datastore.Key{Kind: v3.KindNode, Name: "n0"})
	if err != nil {
		t.Fatal(err)
	}
	return o.(*v3.Node)
}

func TestRegister(t *testing.T) {
	s := store(t)
	me := self(Autodetect, "fd07::5")
	me.Own = []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	must := func() *v3.Node {
		t.Helper()
		if err := me.Register(t.Context(), s, machine); err != nil {
			t.Fatal(err)
		}
		return registered(t, s)
	}
	n := must()
	if n.Spec.BGP.IPv4Address != "10.0.0.5/24" || n.Spec.BGP.IPv6Address != "fd07::5/64" || len(n.Spec.Addresses) != 3 {
		t.Errorf("registered as %+v", n.Spec)
	}
	if again := must(); again.ResourceVersion != n.ResourceVersion {
		t.Error("nothing has changed, and the Node is written anew")
	}
	n.Labels = map[string]string{"rack": "1"}
	n.Spec.BGP.RouteReflectorClusterID = "1.2.3.4"
	n.Spec.Addresses = append(n.Spec.Addresses, fabric.NodeAddress{Address: "192.0.2.1", Type: fabric.ExternalIP}, fabric.NodeAddress{Address: "10.77.0.1", Type: fabric.InternalIP})
	if _, err := s.Update(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	me.IPv4, me.IPv6, me.Own = Keep, None, nil
	n = must()
	if n.Labels["rack"] != "1" || n.Spec.BGP.RouteReflectorClusterID != "1.2.3.4" || n.Spec.BGP.IPv4Address != "10.0.0.5/24" || n.Spec.BGP.IPv6Address != "" {
		t.Errorf("what others have written is %v %+v", n.Labels, n.Spec.BGP)
	}
	if len(n.Spec.Addresses) != 2 || n.Spec.Addresses[1].Address != "192.0.2.1" {
		t.Errorf("addresses are %+v, want our one and the one for the outside", n.Spec.Addresses)
	}
}

func TestAnAddressOfAnotherNodeIsNotRegistered(t *testing.T) {
	for name, at := range map[string]fabric.NodeBGPSpec{"IPv4": {IPv4Address: "10.0.0.5/16"}, "IPv6": {IPv6Address: "fd00::5/64"}} {
		t.Run(name, func(t *testing.T) {
			s := store(t)
			other := &v3.Node{}
			other.Name, other.Spec.BGP = "n1", &at
			if _, err := s.Create(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			err := self(Autodetect, Autodetect).Register(t.Context(), s, machine)
			if !errors.Is(err, ErrTwice) || !strings.Contains(err.Error(), "node n1") {
				t.Errorf("it says %v", err)
			}
			if _, err := s.Get(t.Context(), datastore.Key{Kind: v3.KindNode, Name: "n0"}); !errors.Is(err, datastore.ErrNotFound) {
				t.Errorf("and yet it is written: %v", err)
			}
		})
	}
}

// interrupted is a store in which somebody else always writes between Get and Update.
type interrupted struct {
	datastore.Store
	times int
}

func (s *interrupted) Get(ctx context.Context, key datastore.Key) (v3.Object, error) {
	o, err := s.Store.Get(ctx, key)
	if err == nil && s.times > 0 {
		s.times--
		other := o.DeepCopyObject().(v3.Object)
		other.SetLabels(map[string]string{"times": strings.Repeat("x", s.times+1)})
		if _, err := s.Store.Update(ctx, other); err != nil {
			return nil, err
		}
	}
	return o, err
}

func TestWritersWhoComeBetweenAreHeeded(t *testing.T) {
	s := &interrupted{Store: store(t)}
	if err := self("10.0.0.5", None).Register(t.Context(), s, machine); err != nil {
		t.Fatal(err)
	}
	s.times = 3
	if err := self("10.0.0.6", None).Register(t.Context(), s, machine); err != nil {
		t.Fatal(err)
	}
	if n := registered(t, s); n.Labels["times"] != "x" || n.Spec.BGP.IPv4Address != "10.0.0.6/24" {
		t.Errorf("the Node is %v %+v", n.Labels, n.Spec.BGP)
	}
}

func TestWatchGathersWhatTheKernelTells(t *testing.T) {
	w := watch{links: map[int]hostnet.Link{}, addresses: map[int][]netip.Prefix{}}
	a := func(kind hostnet.EventKind, text string, flags hostnet.AddressFlags) hostnet.Event {
		return hostnet.Event{Kind: kind, Address: hostnet.Address{Link: 2, Prefix: netip.MustParsePrefix(text), Flags: flags}}
	}
	link := func(kind hostnet.EventKind, up bool) hostnet.Event {
		return hostnet.Event{Kind: kind, Link: hostnet.Link{Name: "eth0", Index: 2, Up: up}}
	}
	for i, step := range []struct {
		e     hostnet.Event
		whole bool
		want  string
	}{
		{hostnet.Event{Kind: hostnet.ResyncBegin}, false, ""},
		{link(hostnet.LinkSet, true), false, "eth0"},
		{a(hostnet.AddressSet, "10.0.0.9/24", 0), false, "eth0 10.0.0.9/24"},
		{a(hostnet.AddressSet, "10.0.0.1/24", 0), false, "eth0 10.0.0.9/24 10.0.0.1/24"},
		{hostnet.Event{Kind: hostnet.ResyncEnd}, true, "eth0 10.0.0.9/24 10.0.0.1/24"},
		{a(hostnet.AddressSet, "fd00::1/64", hostnet.AddressTentative), true, "eth0 10.0.0.9/24 10.0.0.1/24"},
		{a(hostnet.AddressSet, "fd00::1/64", 0), true, "eth0 10.0.0.9/24 10.0.0.1/24 fd00::1/64"},
		{a(hostnet.AddressGone, "10.0.0.9/24", 0), true, "eth0 10.0.0.1/24 fd00::1/64"},
		{hostnet.Event{Kind: hostnet.ResyncBegin, Lost: true}, false, ""},
		{link(hostnet.LinkSet, false), false, "eth0"},
		{hostnet.Event{Kind: hostnet.ResyncEnd}, true, "eth0"},
		{link(hostnet.LinkGone, false), true, ""},
	} {
		whole := w.event(step.e)
		got := ""
		for _, i := range w.interfaces() {
			got = i.Name
			for _, p := range i.Addresses {
				got += " " + p.String()
			}
		}
		if whole != step.whole || got != step.want {
			t.Errorf("step %d: whole %v, %q, want %v, %q", i, whole, got, step.whole, step.want)
		}
	}
}
