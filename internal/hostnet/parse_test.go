//go:build linux

package hostnet

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestXDPOfALink(t *testing.T) {
	message := func(mode byte, program uint32) []byte {
		m := append([]byte{}, linkHead(7, unix.IFF_UP, 0)...)
		m = append(m, attr(unix.IFLA_IFNAME, text("eth0")).Serialize()...)
		return append(m, nest(unix.IFLA_XDP, attr(unix.IFLA_XDP_ATTACHED, []byte{mode}), attr(unix.IFLA_XDP_PROG_ID, u32(program))).Serialize()...)
	}
	tests := map[string]struct {
		message []byte
		want    XDP
		word    string
	}{
		"none":            {message(0, 0), XDP{}, "none"},
		"in the driver":   {message(1, 41), XDP{XDPNative, 41}, "native"},
		"in the stack":    {message(2, 42), XDP{XDPGeneric, 42}, "generic"},
		"in hardware":     {message(3, 43), XDP{XDPOffload, 43}, "offload"},
		"several":         {message(4, 0), XDP{XDPMulti, 0}, "multi"},
		"of no known":     {message(9, 0), XDP{XDPMode(9), 0}, "mode 9"},
		"not told at all": {linkHead(7, 0, 0), XDP{}, "none"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, ok := parseLink(tt.message)
			if !ok || l.Index != 7 || l.XDP != tt.want || l.XDP.Mode.String() != tt.word {
				t.Errorf("read %+v (%v), mode %v, want %+v, %s", l, ok, l.XDP.Mode, tt.want, tt.word)
			}
		})
	}
}

func TestMessagesOfOtherFamiliesAreNotOurs(t *testing.T) {
	bridge := make([]byte, 64)
	bridge[0] = unix.AF_BRIDGE
	_, link := parseLink(bridge)
	_, address := parseAddress(bridge)
	_, route := parseRoute(bridge)
	_, neighbour := parseNeighbour(bridge)
	_, rule := parseRule(bridge)
	if link || address || route || neighbour || rule {
		t.Errorf("a bridge's message was read: link %v, address %v, route %v, neighbour %v, rule %v", link, address, route, neighbour, rule)
	}
}

func TestCachedClonesAreNoRoutes(t *testing.T) {
	r := Route{Dst: netip.MustParsePrefix("fd09::/48"), Link: 3}.Canonical()
	var m []byte
	for _, p := range r.encode(0) {
		m = append(m, p.Serialize()...)
	}
	if got, ok := parseRoute(m); !ok || !got.Equal(r) {
		t.Errorf("read back %+v (%v), want %+v", got, ok, r)
	}
	native.PutUint32(m[8:], unix.RTM_F_CLONED)
	if got, ok := parseRoute(m); ok {
		t.Errorf("a cached clone was read as a route: %+v", got)
	}
}

// FuzzMessages: whatever a message holds, it is read without harm, and what is
// read of addresses is valid. Routes survive being written and read again.
func FuzzMessages(f *testing.F) {
	for _, r := range []Route{
		{Dst: netip.MustParsePrefix("10.0.0.0/8"), Link: 1, Gateway: netip.MustParseAddr("fe80::1"), MTU: 1400},
		{Dst: netip.MustParsePrefix("::/0"), Hops: []Hop{{Link: 1, Weight: 2, Gateway: netip.MustParseAddr("fe80::1")}, {Link: 2}}},
	} {
		var m []byte
		for _, p := range r.Canonical().encode(0) {
			m = append(m, p.Serialize()...)
		}
		f.Add(m)
	}
	f.Add([]byte(linkHead(1, 0, 0)))
	f.Fuzz(func(t *testing.T, m []byte) {
		parseLink(m)
		parseRule(m)
		parseBitset(m)
		if a, ok := parseAddress(m); ok && !a.Prefix.IsValid() {
			t.Errorf("address %+v is not valid", a)
		}
		if n, ok := parseNeighbour(m); ok && !n.Addr.IsValid() {
			t.Errorf("neighbour %+v is not valid", n)
		}
		r, ok := parseRoute(m)
		if !ok || r.Dst != r.Dst.Masked() {
			return
		}
		r = r.Canonical()
		var again []byte
		for _, p := range r.encode(r.Scope) {
			again = append(again, p.Serialize()...)
		}
		if got, ok := parseRoute(again); !ok || !got.Equal(r) {
			t.Errorf("wrote %+v\nread  %+v (%v)", r, got, ok)
		}
	})
}
