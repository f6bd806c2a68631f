package domains

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	v1 "margay.dev/margay/api/dataplane/v1"
)

// heard is a packet between a client and a server.
func heard(client, server string, port uint32, query bool, payload []byte) *v1.Overheard {
	return &v1.Overheard{
		Id: 1, Client: address(client).AsSlice(), ClientPort: port, Server: address(server).AsSlice(), Query: query, Payload: payload,
	}
}

func TestReaderBelieves(t *testing.T) {
	answer := func(id uint16, name string, qtype uint16) []byte {
		return reply(t, id, name, qtype, name+". 60 A 192.0.2.1")
	}
	for _, family := range []struct{ pod, other, server, elsewhere string }{
		{"10.1.0.2", "10.1.0.3", "10.0.0.10", "10.0.0.11"}, {"fd00::2", "fd00::3", "fd00::a", "fd00::b"},
	} {
		good := heard(family.pod, family.server, 4000, false, answer(7, "a.example", dns.TypeA))
		tests := map[string]struct {
			answer *v1.Overheard
			after  time.Duration
			err    error
		}{
			"the answer":         {good, time.Second, nil},
			"in other letters":   {heard(family.pod, family.server, 4000, false, answer(7, "A.Example", dns.TypeA)), time.Second, nil},
			"another id":         {heard(family.pod, family.server, 4000, false, answer(8, "a.example", dns.TypeA)), 0, ErrUnasked},
			"another port":       {heard(family.pod, family.server, 4001, false, answer(7, "a.example", dns.TypeA)), 0, ErrUnasked},
			"another server":     {heard(family.pod, family.elsewhere, 4000, false, answer(7, "a.example", dns.TypeA)), 0, ErrUnasked},
			"another client":     {heard(family.other, family.server, 4000, false, answer(7, "a.example", dns.TypeA)), 0, ErrUnasked},
			"another name":       {heard(family.pod, family.server, 4000, false, answer(7, "b.example", dns.TypeA)), 0, ErrUnasked},
			"another type":       {heard(family.pod, family.server, 4000, false, answer(7, "a.example", dns.TypeAAAA)), 0, ErrUnasked},
			"late":               {good, askedLasts + time.Second, ErrUnasked},
			"from who asks":      {heard(family.pod, family.server, 4000, true, answer(7, "a.example", dns.TypeA)), 0, ErrUnasked},
			"a question instead": {heard(family.pod, family.server, 4000, false, query(t, 7, "a.example", dns.TypeA)), 0, ErrUnasked},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				r := NewReader()
				if _, err := r.Hear(start, heard(family.pod, family.server, 4000, true, query(t, 7, "a.example", dns.TypeA))); err != nil {
					t.Fatal(err)
				}
				found, err := r.Hear(start.Add(tt.after), tt.answer)
				if !errors.Is(err, tt.err) || len(found) != map[bool]int{true: 1}[tt.err == nil] {
					t.Errorf("found %v, %v; want %v", found, err, tt.err)
				}
				if again, err := r.Hear(start.Add(tt.after), good); tt.err == nil && (err == nil || len(again) > 0) {
					t.Errorf("the answer to a query that was answered: found %v", again)
				}
			})
		}
	}
}

func TestReaderBounds(t *testing.T) {
	r := NewReader()
	for i := range 3 * maxAsked {
		if _, err := r.Hear(start, heard("10.1.0.2", "10.0.0.10", 4000, true, query(t, uint16(i), "a.example", dns.TypeA))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.clients[address("10.1.0.2")]); n != maxAsked {
		t.Errorf("%d queries of a client wait, want %d", n, maxAsked)
	}
	for i := range 2 * maxClients {
		o := heard("10.1.0.2", "10.0.0.10", 4000, true, query(t, 7, "a.example", dns.TypeA))
		o.Client = netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}).AsSlice()
		if _, err := r.Hear(start.Add(time.Duration(i)*time.Second/4), o); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.clients); n > maxClients {
		t.Errorf("%d clients, want %d", n, maxClients)
	}
	for i := range 2 * maxStreams {
		o := heard("10.1.0.2", "10.0.0.10", uint32(i), false, nil)
		o.Tcp, o.Begins = true, true
		if _, err := r.Hear(start.Add(time.Duration(i)*time.Millisecond), o); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.streams); n != maxStreams {
		t.Errorf("%d connections, want %d", n, maxStreams)
	}
	for name, o := range map[string]*v1.Overheard{
		"an address of 3 bytes": {Client: []byte{1, 2, 3}, Server: []byte{1, 2, 3, 4}},
		"no server":             {Client: []byte{1, 2, 3, 4}},
		"a port of 17 bits":     {Client: []byte{1, 2, 3, 4}, Server: []byte{1, 2, 3, 4}, ClientPort: 1 << 16},
	} {
		if _, err := r.Hear(start, o); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
}

// spoken is messages as TCP carries them.
func spoken(messages ...[]byte) (out []byte) {
	for _, m := range messages {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(m))), m...)
	}
	return out
}

func TestReaderOfTCP(t *testing.T) {
	one := reply(t, 7, "a.example", dns.TypeA, "a.example. 60 A 192.0.2.1")
	two := reply(t, 8, "b.example", dns.TypeA, "b.example. 60 A 192.0.2.2")
	text := spoken(one, two)
	type part struct {
		at, end int
		begins  bool
	}
	all := len(text)
	tests := map[string]struct {
		parts []part
		want  int
		err   error
	}{
		"in one":                    {[]part{{begins: true}, {0, all, false}}, 2, nil},
		"in parts":                  {[]part{{begins: true}, {0, 1, false}, {1, 30, false}, {30, all, false}}, 2, nil},
		"with parts twice":          {[]part{{begins: true}, {0, 30, false}, {0, 30, false}, {20, 40, false}, {10, all, false}}, 2, nil},
		"without its beginning":     {[]part{{0, all, false}}, 0, ErrGap},
		"with a gap":                {[]part{{begins: true}, {0, len(one) + 2, false}, {len(one) + 4, all, false}}, 1, ErrGap},
		"with data in its SYN":      {[]part{{0, all, true}}, 2, nil},
		"begun anew in between":     {[]part{{begins: true}, {0, 10, false}, {begins: true}, {0, all, false}}, 2, nil},
		"what nobody can have said": {[]part{{begins: true}, {3, all, false}}, 0, ErrGap},
	}
	for name, tt := range tests {
		for _, base := range []uint32{0, 1<<32 - 20} { // sequence numbers that begin anew
			t.Run(fmt.Sprint(name, " from ", base), func(t *testing.T) {
				r, found, failed := NewReader(), 0, error(nil)
				for _, p := range tt.parts {
					o := heard("fd00::2", "fd00::a", 4000, false, text[p.at:p.end])
					o.Tcp, o.Begins, o.Sequence = true, p.begins, base+1+uint32(p.at)
					if p.begins {
						o.Sequence--
					}
					f, err := r.Hear(start, o)
					if found += len(f); err != nil {
						failed = err
					}
				}
				if found != tt.want || !errors.Is(failed, tt.err) {
					t.Errorf("found %d, %v; want %d, %v", found, failed, tt.want, tt.err)
				}
			})
		}
	}
}

// FuzzTCP cuts what a server says where the bytes say, and it is found whole; what they
// say of sequence numbers besides is survived.
func FuzzTCP(f *testing.F) {
	f.Add([]byte{3, 9, 200, 1}, uint32(1<<32-5), []byte("any"))
	f.Fuzz(func(t *testing.T, cuts []byte, base uint32, noise []byte) {
		text := spoken(reply(t, 7, "a.example", dns.TypeA, "a.example. 60 A 192.0.2.1"), reply(t, 8, "b.example", dns.TypeA, "b.example. 60 AAAA 2001:db8::2"))
		r, found := NewReader(), 0
		say := func(port uint32, at uint32, begins bool, payload []byte) {
			o := heard("10.1.0.2", "10.0.0.10", port, false, payload)
			o.Tcp, o.Begins, o.Sequence = true, begins, at
			got, err := r.Hear(start, o)
			if port == 4000 && err != nil {
				t.Fatal(err)
			}
			if port == 4000 {
				found += len(got)
			}
		}
		say(4000, base-1, true, nil)
		for at := 0; at < len(text); {
			n := len(text) - at
			if len(cuts) > 0 {
				n, cuts = min(n, int(cuts[0])), cuts[1:]
			}
			say(4000, base+uint32(at), false, text[at:at+n])
			if at > 0 {
				say(4000, base+uint32(at-1), false, text[at-1:at+n]) // once more, with the byte before
			}
			at += n
			if len(noise) > 4 {
				say(4001, binary.BigEndian.Uint32(noise), noise[4]&1 > 0, noise[4:])
				noise = noise[1:]
			}
		}
		if found != 2 {
			t.Errorf("found %d addresses, want 2", found)
		}
	})
}
