package stage

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// What the uplink carries are frames or superpackets, as was asked for.
func TestUplinkCarriesWhatItShould(t *testing.T) {
	hostnettest.NeedRoot(t)
	for name, frames := range map[string]bool{"frames": true, "superpackets": false} {
		t.Run(name, func(t *testing.T) {
			var s Spaces
			t.Cleanup(func() { s.Close() })
			if err := s.Make(4); err != nil {
				t.Fatal(err)
			}
			if err := routeAcross(s[0], s[1], s[2], s[3], frames); err != nil {
				t.Fatal(err)
			}
			at := routedAddrs(serverPair, 2)
			p := &Path{Client: s[0], Server: s[3], V4: at[0].Addr(), V6: at[1].Addr()}
			for _, ipv6 := range []bool{false, true} {
				octets, packets := counter(t, s[2], "rx_bytes"), counter(t, s[2], "rx_packets")
				send(t, p, p.Addr(ipv6), 8<<20)
				mean := (counter(t, s[2], "rx_bytes") - octets) / max(1, counter(t, s[2], "rx_packets")-packets)
				if frames != (mean <= 1514) {
					t.Errorf("IPv6 %v: packets on the uplink have %d octets on average", ipv6, mean)
				}
			}
			if got, err := p.Received(); err != nil || got < 2*8<<20 {
				t.Errorf("the server's device received %d octets, %v, want those that were sent", got, err)
			}
		})
	}
}

func counter(t *testing.T, ns *hostnet.Namespace, name string) uint64 {
	t.Helper()
	v, err := ns.Sysfs(uplinkDevice, "statistics/"+name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// send sends octets from client to server.
func send(t *testing.T, p *Path, to netip.Addr, octets int) {
	t.Helper()
	var l net.Listener
	err := p.Server.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c net.Conn
	if err := p.Client.Do(func() (err error) { c, err = net.Dial("tcp", l.Addr().String()); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() { _, _ = c.Write(make([]byte, octets)) }()
	if _, err := io.ReadFull(s, make([]byte, octets)); err != nil {
		t.Fatal(err)
	}
}
