package desired

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
)

func TestFind(t *testing.T) {
	c := &pb.Chunk{Ports: []*pb.Port{tun("a", "")}}
	for _, id := range []string{"pod/ann", "pod/bob", "shop/bob", "bob", "a/b/c", "shop/n-k8s-web-eth0", "shop/n--1-k8s-web--2-eth0"} {
		c.Endpoints = append(c.Endpoints, &pb.Endpoint{Id: id, Port: "a"})
	}
	s, faults := Empty().Apply(changeOf(c), true)
	if faults != nil {
		t.Fatal(faults)
	}
	for name, want := range map[string]string{
		"ann": "pod/ann", "pod/ann": "pod/ann", "nn": "", "bob": "bob", "shop/bob": "shop/bob", "b/c": "a/b/c", "c": "a/b/c", "": "", "/ann": "", "pod/": "",
		"web": "shop/n-k8s-web-eth0", "web-2": "shop/n--1-k8s-web--2-eth0", "web--2": "", "n-k8s-web-eth0": "shop/n-k8s-web-eth0", "eth0": "",
	} {
		if got := ids(s.Find(name)); got != want {
			t.Errorf("%q finds %q, want %q", name, got, want)
		}
	}
	c.Endpoints = append(c.Endpoints[:3:3], c.Endpoints[4:]...)
	if s, faults = s.Apply(changeOf(c), true); faults != nil {
		t.Fatal(faults)
	}
	if got := ids(s.Find("bob")); got != "pod/bob shop/bob" {
		t.Errorf("a name of two finds %q", got)
	}
}

func ids(list []*Endpoint) string {
	var out []string
	for _, e := range list {
		out = append(out, e.ID)
	}
	return strings.Join(out, " ")
}

// Whatever endpoints come and go, the owner is whom asking each of them gives.
func TestOwnerAgreesWithAskingAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	s := Empty()
	base := &pb.Chunk{Ports: []*pb.Port{tun("a", "")}}
	if _, faults := s.Apply(changeOf(base), false); faults != nil {
		t.Fatal(faults)
	}
	for range 200 {
		taken := map[netip.Prefix]bool{}
		for p := range s.owners {
			taken[p] = true
		}
		c := &pb.Chunk{}
		id := fmt.Sprint("e", rng.IntN(12))
		if e := s.Endpoints[id]; e != nil && rng.IntN(2) == 0 {
			c.RemovedEndpoints = []string{id}
		} else {
			m := &pb.Endpoint{Id: id, Port: "a"}
			for range rng.IntN(4) {
				if p := prefixAt(rng); !taken[p] {
					m.Addresses, taken[p] = append(m.Addresses, p.String()), true
				}
			}
			c.Endpoints = []*pb.Endpoint{m}
		}
		if _, faults := s.Apply(changeOf(c), false); faults != nil {
			t.Fatal(faults)
		}
		for range 50 {
			a := prefixAt(rng).Addr()
			var want *Endpoint
			longest := -1
			for _, e := range s.Endpoints {
				for _, p := range e.Addresses {
					if p.Contains(a) && p.Bits() > longest {
						want, longest = e, p.Bits()
					}
				}
			}
			if got := s.Owner(a); got != want {
				t.Fatalf("%v is %v's, want %v", a, got, want)
			}
		}
	}
	if s.Owner(netip.Addr{}) != nil {
		t.Error("no address has an owner")
	}
}

// prefixAt is one of few prefixes, of either family, so that they cover each other.
func prefixAt(rng *rand.Rand) netip.Prefix {
	low := byte(rng.IntN(4))
	if rng.IntN(2) == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, low, 0, byte(rng.IntN(3))}), []int{0, 8, 16, 32}[rng.IntN(4)]).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 3: low, 15: byte(rng.IntN(3))}), []int{0, 8, 32, 64, 128}[rng.IntN(5)]).Masked()
}
