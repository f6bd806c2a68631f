package domains

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"margay.dev/margay/api/domain"
)

// maxAliases is how many aliases (CNAME) are followed from the name that was asked
// for. Resolvers give up earlier.
const maxAliases = 16

// maxFound is how many addresses of names are taken from one message: every address
// is one of each alias, and a hostile message has thousands.
const maxFound = 1 << 13

// An Answer is what a DNS message says about the name that it answers for.
type Answer struct {
	ID       uint16
	Question dns.Question // with the name in canonical form
	Found    []Found      // in the order of the message; each name and address once
}

// Found is an address of a name.
type Found struct {
	Name    string // canonical: that was asked for, or an alias on the way from it to the address
	Address netip.Addr
	TTL     time.Duration // the least of the way
}

// Read reads a message, question or answer. It fails for what is neither, and for
// what is cut off or contradicts itself; a message about no host is read, and finds
// nothing.
func Read(message []byte) (answers bool, a Answer, err error) {
	var m dns.Msg
	if err := m.Unpack(message); err != nil {
		return false, Answer{}, fmt.Errorf("read a DNS message of %d bytes: %w", len(message), err)
	}
	for i, n := range []int{len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra)} {
		if said := binary.BigEndian.Uint16(message[4+2*i:]); int(said) != n {
			return false, Answer{}, fmt.Errorf("read a DNS message of %d bytes: it has %d records of part %d, and says %d", len(message), n, i, said)
		}
	}
	if m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || m.Question[0].Qclass != dns.ClassINET {
		return false, Answer{}, errors.New("read a DNS message: it is not about one name of the Internet")
	}
	a = Answer{ID: m.Id, Question: m.Question[0]}
	name, ok := domain.FromDNS(a.Question.Name)
	if a.Question.Name = name; !ok || !m.Response || m.Rcode != dns.RcodeSuccess {
		return m.Response, a, nil
	}
	a.Found = found(name, m.Answer)
	return true, a, nil
}

// found follows aliases from a name to addresses. What the message says of other
// names nobody has asked for.
func found(name string, records []dns.RR) (out []Found) {
	aliases := map[string]*dns.CNAME{}
	for _, r := range records {
		if c, ok := r.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET {
			if owner, ok := domain.FromDNS(c.Hdr.Name); ok && aliases[owner] == nil {
				aliases[owner] = c
			}
		}
	}
	ttls := map[string][]Found{} // by owner: the names that lead there, with the TTL of the way
	way := []Found{{Name: name, TTL: maxTTL}}
	for range maxAliases {
		if _, been := ttls[name]; been {
			break
		}
		ttls[name] = append([]Found(nil), way...)
		c := aliases[name]
		if c == nil {
			break
		}
		next, ok := domain.FromDNS(c.Target)
		if !ok {
			break
		}
		for i := range way {
			way[i].TTL = min(way[i].TTL, ttl(c.Hdr.Ttl))
		}
		name, way = next, append(way, Found{Name: next, TTL: maxTTL})
	}
	type pair struct {
		name    string
		address netip.Addr
	}
	seen := map[pair]bool{}
	for _, r := range records {
		address, ok := addressOf(r)
		owner, named := domain.FromDNS(r.Header().Name)
		if !ok || !named {
			continue
		}
		for _, f := range ttls[owner] {
			f.Address, f.TTL = address, min(f.TTL, ttl(r.Header().Ttl))
			if key := (pair{f.Name, address}); !seen[key] && len(out) < maxFound {
				seen[key] = true
				out = append(out, f)
			}
		}
	}
	return out
}

// maxTTL is the longest that an address is believed in without being told anew:
// servers say so by mistake, or on purpose.
const maxTTL = 24 * time.Hour

// ttl is as RFC 2181 section 8 has it: with the highest bit it is 0.
func ttl(seconds uint32) time.Duration {
	if seconds > 1<<31-1 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxTTL)
}

// addressOf is the address that a record gives to its owner, if it is one that
// packets may be for beyond a host.
func addressOf(r dns.RR) (netip.Addr, bool) {
	var raw []byte
	switch r := r.(type) {
	case *dns.A:
		raw = r.A.To4()
	case *dns.AAAA:
		raw = r.AAAA.To16()
	}
	a, ok := netip.AddrFromSlice(raw)
	if a = a.Unmap(); !ok || r.Header().Class != dns.ClassINET || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return netip.Addr{}, false
	}
	return a, true
}
