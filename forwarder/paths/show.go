package paths

import (
	"encoding/binary"
	"net"
	"net/netip"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/forwarder/desired"
)

// Way is an adjacency as inspection shows it.
type Way struct {
	ID      uint32
	Kind    string
	Port    string
	Gateway netip.Addr
	MAC     desired.MAC // that packets are sent to; zero while unknown or where there is none
	MTU     int
	Down    bool
}

// Hop is a next hop as inspection shows it.
type Hop struct {
	Client uint32 // id that the client gave it, 0 for one of ours
	Ways   []Way
}

// Route is a prefix and the FIB's next hop for it.
type Route struct {
	Prefix netip.Prefix
	Hop    fib.NextHopID
}

// Routes is every route in force, in no order.
func (w *Writer) Routes() []Route {
	out := make([]Route, 0, w.fib.Len())
	for prefix, hop := range w.fib.Routes() {
		out = append(out, Route{prefix, hop})
	}
	return out
}

// Covering is the route that decides for addr, asked of the live table.
func (w *Writer) Covering(addr netip.Addr) (Route, bool) {
	v := w.fib.View()
	var found fib.NextHopID
	if addr.Is4() {
		b := addr.As4()
		found = v.Lookup4(binary.BigEndian.Uint32(b[:]))
	} else {
		b := addr.As16()
		found = v.Lookup6(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
	}
	if found == fib.NoRoute {
		return Route{}, false
	}
	for n := addr.BitLen(); n >= 0; n-- {
		prefix := netip.PrefixFrom(addr, n).Masked()
		if _, ok := w.fib.Route(prefix); ok {
			return Route{prefix, found}, true // the trie's answer for the list's prefix: they must agree
		}
	}
	return Route{}, false
}

// Hops is every next hop in force by its id.
func (w *Writer) Hops() map[fib.NextHopID]Hop {
	out := make(map[fib.NextHopID]Hop, len(w.hops))
	for key, h := range w.hops {
		one := Hop{Client: key.client}
		for _, a := range h.adjs {
			one.Ways = append(one.Ways, a.show())
		}
		out[h.id] = one
	}
	return out
}

func (a *adjacency) show() Way {
	out := Way{
		ID: uint32(a.id), Kind: a.now.Kind.String(), Port: a.way.port, Gateway: a.way.addr, MTU: int(a.now.MTU), Down: a.down,
	}
	if a.now.HeaderLen >= 14 {
		out.MAC = desired.MAC(a.now.Header[:6])
	}
	return out
}

// Proto is the ways of the hop as inspection sends them.
func (h Hop) Proto() (out []*pb.RouteList_Adjacency) {
	for _, w := range h.Ways {
		a := &pb.RouteList_Adjacency{Id: w.ID, Kind: w.Kind, Port: w.Port, Mtu: uint32(w.MTU), Down: w.Down}
		if w.MAC != (desired.MAC{}) {
			a.Mac = net.HardwareAddr(w.MAC[:]).String()
		}
		if w.Gateway.IsValid() {
			a.Gateway = w.Gateway.String()
		}
		out = append(out, a)
	}
	return out
}
