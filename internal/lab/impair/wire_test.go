//go:build linux

package impair

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"margay.dev/margay/internal/hostnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// space is a namespace for one test.
func space(t *testing.T, name string) (*hostnet.Namespace, *hostnet.Host) {
	t.Helper()
	full := fmt.Sprintf("mgtest-wire-%d-%s", os.Getpid(), name)
	ns, err := hostnet.CreateNamespace(full)
	if err != nil {
		t.Fatal(err)
	}
	h, err := hostnet.NewHost(ns)
	t.Cleanup(func() {
		if h != nil {
			h.Close()
		}
		ns.Close()
		if err := hostnet.DeleteNamespace(full); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range [][2]string{{"net.ipv6.conf.all.accept_dad", "0"}, {"net.ipv6.conf.default.accept_dad", "0"}} {
		if err := ns.SetSysctl(kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	return ns, h
}

// station is a kernel stack at one end of the wire:
//
//	station s0 ── veth ── pN in the wire's namespace
func station(t *testing.T, name string, wire *hostnet.Namespace, peer string, addrs ...string) *hostnet.Namespace {
	t.Helper()
	ns, h := space(t, name)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(h.AddVeth(hostnet.VethConfig{Name: "s0", Peer: peer, PeerNS: wire}))
	must(h.SetOffload("s0", "tx", false))
	for _, a := range addrs {
		must(h.AddAddress("s0", netip.MustParsePrefix(a), hostnet.NoDAD))
	}
	must(h.SetUp("s0"))
	return ns
}

// udp opens a socket inside a namespace.
func udp(t *testing.T, ns *hostnet.Namespace, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestWireCarriesWhatKernelsSend(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and packet sockets")
	}
	middle, h := space(t, "mid")
	left := station(t, "l", middle, "p0", "10.9.0.1/24", "fd09::1/64")
	right := station(t, "r", middle, "p1", "10.9.0.2/24", "fd09::2/64")
	for _, p := range []string{"p0", "p1"} {
		if err := h.SetUp(p); err != nil {
			t.Fatal(err)
		}
	}
	w, err := NewWire(End{middle, "p0"}, End{middle, "p1"}, 1, Impairment{}, Impairment{})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "wire.sock")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Serve(ctx, socket); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); w.Close() })
	tests := map[string][2]string{"ip4": {"10.9.0.1:0", "10.9.0.2:7000"}, "ip6": {"[fd09::1]:0", "[fd09::2]:7000"}}
	for name, addr := range tests {
		t.Run(name, func(t *testing.T) { carries(t, w, socket, udp(t, left, addr[0]), udp(t, right, addr[1]), addr[1]) })
	}
}

// carries sends datagrams over a good wire, a slow one, a cut one, and a good one again.
func carries(t *testing.T, w *Wire, socket string, from, to *net.UDPConn, addr string) {
	dst := netip.MustParseAddrPort(addr)
	send := func(patience time.Duration) (time.Duration, error) {
		began := time.Now()
		if _, err := from.WriteToUDPAddrPort([]byte("hello"), dst); err != nil {
			return 0, err
		}
		_ = to.SetReadDeadline(time.Now().Add(patience))
		_, err := to.Read(make([]byte, 100))
		return time.Since(began), err
	}
	change := func(i Impairment) {
		t.Helper()
		if _, err := Control(t.Context(), socket, &i, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, err := send(400 * ms) // the link's carrier and its neighbours may take a second to be there
	for tries := 0; err != nil && tries < 150; tries++ {
		_, err = send(400 * ms)
	}
	if err != nil {
		t.Fatalf("good wire: %v", err)
	}
	for err == nil { // datagrams of the tries before
		_ = to.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = to.Read(make([]byte, 100))
	}
	change(Impairment{Delay: Duration(50 * ms)})
	if took, err := send(time.Minute); err != nil || took < 50*ms {
		t.Errorf("a wire of 50 ms took %v: %v", took, err)
	}
	change(Impairment{Partition: true})
	if _, err := send(400 * ms); err == nil {
		t.Error("a cut wire carries datagrams")
	}
	change(Impairment{})
	if _, err := send(time.Minute); err != nil {
		t.Errorf("mended wire: %v", err)
	}
	s := w.Status()
	if s.CountAB.Cut == 0 || s.CountAB.Delivered == 0 || s.Refused != 0 {
		t.Errorf("status is %+v", s)
	}
	bad := Impairment{Loss: 3}
	if _, err := Control(t.Context(), socket, nil, &bad); err == nil {
		t.Error("a loss of 300% was taken")
	}
}
