package desired

import (
	"encoding/binary"
	"iter"
	"net/netip"
)

// route4 is an IPv4 prefix: the address in the upper 32 bits, the length below.
type route4 uint64

type route6 struct {
	hi, lo uint64
	bits   uint8
}

// Routes maps prefixes to next hops, in maps that the collector need not look
// into. A next hop of 0 stands for "removed" in a change.
type Routes struct {
	v4 map[route4]uint32
	v6 map[route6]uint32
}

// NewRoutes returns an empty set.
func NewRoutes() Routes {
	return Routes{v4: map[route4]uint32{}, v6: map[route6]uint32{}}
}

// Len is the number of routes.
func (r Routes) Len() int { return len(r.v4) + len(r.v6) }

// Get returns the next hop of exactly p, which must be masked.
func (r Routes) Get(p netip.Prefix) (hop uint32, ok bool) {
	if p.Addr().Is4() {
		hop, ok = r.v4[key4(p)]
	} else {
		hop, ok = r.v6[key6(p)]
	}
	return hop, ok
}

func (r Routes) set(p netip.Prefix, hop uint32) {
	if p.Addr().Is4() {
		r.v4[key4(p)] = hop
	} else {
		r.v6[key6(p)] = hop
	}
}

func (r Routes) remove(p netip.Prefix) {
	if p.Addr().Is4() {
		delete(r.v4, key4(p))
	} else {
		delete(r.v6, key6(p))
	}
}

// All yields every route, in no order.
func (r Routes) All() iter.Seq2[netip.Prefix, uint32] {
	return func(yield func(netip.Prefix, uint32) bool) {
		for k, hop := range r.v4 {
			if !yield(k.prefix(), hop) {
				return
			}
		}
		for k, hop := range r.v6 {
			if !yield(k.prefix(), hop) {
				return
			}
		}
	}
}

func key4(p netip.Prefix) route4 {
	b := p.Addr().As4()
	return route4(binary.BigEndian.Uint32(b[:]))<<32 | route4(p.Bits())
}

func (k route4) prefix() netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(k>>32))
	return netip.PrefixFrom(netip.AddrFrom4(b), int(k&0xff))
}

func key6(p netip.Prefix) route6 {
	b := p.Addr().As16()
	return route6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]), uint8(p.Bits())}
}

func (k route6) prefix() netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), int(k.bits))
}
