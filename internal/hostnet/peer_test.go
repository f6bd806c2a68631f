//go:build linux

package hostnet_test

import (
	"errors"
	"testing"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestPeer(t *testing.T) {
	left, right := hostnettest.Pair(t)
	stranger := hostnettest.Namespace(t)
	if err := left.AddVeth(hostnet.VethConfig{Name: "near", Peer: "far"}); err != nil {
		t.Fatal(err)
	}
	elsewhere := []*hostnet.Namespace{stranger, right.Namespace()}
	tests := map[string]struct {
		link, want string
		index      int
	}{
		"both ends here":                  {"near", "far", -1},
		"the other end elsewhere":         {"left", "right", 1},
		"the other end of the second end": {"far", "near", -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, index, err := left.Peer(tt.link, elsewhere)
			if err != nil {
				t.Fatal(err)
			}
			if l.Name != tt.want || index != tt.index {
				t.Errorf("found %s at %d, want %s at %d", l.Name, index, tt.want, tt.index)
			}
		})
	}
	if _, _, err := left.Peer("left", elsewhere[:1]); !errors.Is(err, hostnet.ErrNoPeer) {
		t.Errorf("searched where it is not: %v, want ErrNoPeer", err)
	}
	if _, _, err := left.Peer("lo", elsewhere); !errors.Is(err, hostnet.ErrNoPeer) {
		t.Errorf("loopback: %v, want ErrNoPeer", err)
	}
}

// A veth offers native XDP only while it has a transmit queue for each receive
// queue of its other end: the kernel's answer must change with that.
func TestXDPCapability(t *testing.T) {
	h := hostnettest.Host(t)
	if err := h.AddVeth(hostnet.VethConfig{Name: "even", Peer: "odd"}); err != nil {
		t.Fatal(err)
	}
	hostnettest.Run(t, h.Namespace(), "ip", "link", "add", "narrow", "numtxqueues", "1", "numrxqueues", "1",
		"type", "veth", "peer", "wide", "numtxqueues", "4", "numrxqueues", "4")
	tests := map[string]struct {
		link string
		want hostnet.XDPFeatures
		none hostnet.XDPFeatures
	}{
		"as many queues": {"even", hostnet.XDPBasic | hostnet.XDPRedirect | hostnet.XDPMultiRx, hostnet.XDPZeroCopy},
		"too few queues": {"narrow", 0, hostnet.XDPBasic | hostnet.XDPRedirect},
		"a loopback":     {"lo", 0, hostnet.XDPBasic | hostnet.XDPRedirect},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := h.XDPCapability(tt.link)
			if err != nil {
				t.Fatal(err)
			}
			if !c.Features.Has(tt.want) || c.Features&tt.none != 0 {
				t.Errorf("features are %v, want %v and none of %v", c.Features, tt.want, tt.none)
			}
		})
	}
	if _, err := h.XDPCapability("absent"); !errors.Is(err, hostnet.ErrNoLink) {
		t.Errorf("absent link: %v, want ErrNoLink", err)
	}
}

func TestXDPFeaturesAreNamed(t *testing.T) {
	tests := map[string]struct {
		f    hostnet.XDPFeatures
		want string
	}{
		"none":                 {0, "none"},
		"what veth has":        {hostnet.XDPBasic | hostnet.XDPRedirect | hostnet.XDPMultiRx, "basic redirect rx-sg"},
		"one without a name":   {hostnet.XDPBasic | 1<<9, "basic 0x200"},
		"the last with a name": {hostnet.XDPMultiTransmit, "ndo-xmit-sg"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.f.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
