package node_test

import (
	"fmt"
	"testing"

	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
)

// fate is what became of packets: how many left by each port and why others did not.
type fate struct {
	left  [gt.Ports]int
	drops [graph.Reasons]uint64
	held  uint64
	made  uint64
}

func (f *fate) add(o fate) {
	for i, n := range o.left {
		f.left[i] += n
	}
	for i, n := range o.drops {
		f.drops[i] += n
	}
	f.held += o.held
	f.made += o.made
}

// fateOf sends packets to hosts of nets in one vector.
func fateOf(t *testing.T, ipv6 bool, nets ...int) (f fate) {
	t.Helper()
	l := gt.Standard(t, 1)
	var packets [][]byte
	for _, n := range nets {
		packets = append(packets, gt.UDP(gt.Addr(ipv6, gt.NetPods, gt.PodHost), gt.Addr(ipv6, n, gt.VethHost), 30))
	}
	l.SendIP(gt.Pod, packets...)
	for port, out := range l.CollectAll() {
		f.left[port] = len(out)
	}
	c := l.Change()
	f.drops, f.held = c.Drops, c.Held
	for _, n := range c.Made {
		f.made += n
	}
	return f
}

// What a stop asked for one packet of a vector it may use for the next one, and
// only where the answer is the same.
func TestAPacketsFateDoesNotHangOnItsCompany(t *testing.T) {
	nets := []int{gt.NetPods, gt.NetRemote, gt.NetSpread, gt.NetNowhere, gt.NetBlackhole, gt.NetProhibited, gt.NetPunt, gt.NetAskSide}
	gt.Families(t, func(t *testing.T, ipv6 bool) {
		alone := map[int]fate{}
		for _, n := range nets {
			alone[n] = fateOf(t, ipv6, n)
		}
		for _, a := range nets {
			for _, b := range nets {
				if a == b {
					continue
				}
				t.Run(fmt.Sprintf("net %d then %d", a, b), func(t *testing.T) {
					var want fate
					want.add(alone[a])
					want.add(alone[b])
					if got := fateOf(t, ipv6, a, b); got != want {
						t.Errorf("together %+v\nalone    %+v", got, want)
					}
				})
			}
		}
	})
}
