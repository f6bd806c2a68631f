package tap_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	. "margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/fastpath/tap"
	"margay.dev/margay/internal/pkt"
)

// Whatever comes in, be it cut short, bent or a part of a datagram, is followed to
// its end, and captured as it is.
func TestMalformedPacketsAreFollowedToTheirEnd(t *testing.T) {
	ends := regexp.MustCompile(`(out \d+|drop [a-z0-9-]+|(arp|nd|fragment)>stays)$`)
	Families(t, func(t *testing.T, ipv6 bool) {
		b := newBench(t, Config{})
		follow := b.watch("", tap.Want{Follow: true, Snap: 64, Count: 1 << 20})
		asked := b.watch("not (port 7 or icmp type 8) and (frag or less 60 or greater 61)", tap.Want{Follow: true, Count: 1 << 20})
		stages := b.watch("", tap.Want{Stages: tap.RX | tap.PreTX | tap.Drop, Snap: 100, Count: 1 << 20})
		r := rand.New(rand.NewPCG(1, 2))
		whole := UDP(Addr(ipv6, NetRemote, 9), Addr(ipv6, NetPods, PodHost), 100)
		drops := 0
		for range 600 {
			port := []uint16{Up, Pod, Veth, Host, Small}[r.IntN(5)]
			p := append([]byte(nil), Framed(port, whole)...)
			for range 1 + r.IntN(4) {
				p[r.IntN(len(p))] = byte(r.Uint32())
			}
			p = p[:1+r.IntN(len(p))]
			b.Inject(port, p)
			b.Run()
			b.Advance(4 * time.Second) // what is held ends too
			got := b.told(follow)
			if len(got) != 1 {
				t.Fatalf("%x: told is %v, want one packet", p, got)
			}
			for _, way := range got {
				if !ends.MatchString(way) {
					t.Fatalf("%x: its way has no end: %s", p, way)
				}
			}
			asked.Read(func(*tap.Event, []byte) {})
			stages.Read(func(e *tap.Event, data []byte) {
				if len(data) != min(100, int(e.Meta.Len)) {
					t.Fatalf("%x: %d bytes were kept of %d", p, len(data), e.Meta.Len)
				}
				if e.Kind == tap.Dropped {
					drops++
				}
			})
		}
		if c := b.Change(); uint64(drops) != c.Dropped() || drops < 100 {
			t.Errorf("%d drops were captured, %d counted", drops, c.Dropped())
		}
	})
}

// What does not fit its way out is split, or its sender is told: the parts and the
// error are packets of ours.
func TestWhatBecomesOfAPacketTooBig(t *testing.T) {
	Families(t, func(t *testing.T, ipv6 bool) {
		b := newBench(t, Config{})
		w := b.watch("", tap.Want{Follow: true, Made: true})
		ip := UDP(Addr(ipv6, NetPods, PodHost), Addr(ipv6, NetSmall, Station), 1400)
		want := map[uint32]string{
			1: "in 2 ip-input>route route>icmp-error icmp-error>drop drop too-big",
			2: "icmp-error makes rewrite>tx out 2",
		}
		if !ipv6 {
			ip[6], ip[10], ip[11] = 0, 0, 0 // it may be split
			binary.BigEndian.PutUint16(ip[10:], ^pkt.Fold(pkt.Sum(ip[:pkt.IPv4Size])))
			want = map[uint32]string{
				1: "in 2 ip-input>route route>fragment fragment>stays",
				2: "fragment makes rewrite>tx out 6", 3: "fragment makes rewrite>tx out 6",
			}
		}
		b.SendIP(Pod, ip)
		if got := b.told(w); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("told is %v, want %v", got, want)
		}
	})
}
