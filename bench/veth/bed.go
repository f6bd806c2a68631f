package veth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"margay.dev/margay/bench/stage"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/xdpgen"
	"margay.dev/margay/internal/pkt"
)

const topology = `
pools: [10.80.0.0/16, "fd80::/48"]
nodes: [{name: near}]
pods:
  - {name: a, node: near, port: xsk, addresses: [10.80.0.10, "fd80::10"]}
  - {name: b, node: near, port: xsk, addresses: [10.80.0.11, "fd80::11"]}
`

const (
	node           = "near"
	inside         = "eth0"       // of both pods
	entry, exit    = "p-a", "p-b" // of the node
	conversations  = 256          // in each load
	readyTime      = 15 * time.Second
	probes         = 64    // frames that ask whether anyone forwards
	probeRate      = 100e3 // and how fast they go
	settleTime     = 300 * time.Millisecond
	settleInterval = 2 * time.Millisecond
)

// bed is the pair of veths with the Source and the Sink at its ends.
type bed struct {
	lab      *lab.Lab
	ns       *hostnet.Namespace // the node's
	in, out  hostnet.Link       // the node's ends
	from, to hostnet.Link       // the pods'
	sources  map[load]*xdpgen.Source
	sink     *xdpgen.Sink

	sent, arrived uint64 // of all offers
}

// raise makes the bed; nobody forwards on it yet.
func raise(ctx context.Context, forwarder string, loads []load) (_ *bed, err error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("this needs two CPUs: one for the generator, one for who forwards")
	}
	b := &bed{sources: map[load]*xdpgen.Source{}}
	b.lab, err = stage.RaiseWith(ctx, "veth", topology, forwarder, map[string]any{"cpus": []int{forwarderCPU}})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.lab.StopForwarder(node, false), b.equip(loads)); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bed) equip(loads []load) error {
	var err error
	if b.ns, err = b.lab.Namespace(node); err != nil {
		return err
	}
	pods := map[string]*hostnet.Namespace{}
	for _, name := range []string{"a", "b"} {
		if pods[name], err = b.lab.Namespace(name); err != nil {
			return err
		}
	}
	for _, at := range []struct {
		ns   *hostnet.Namespace
		name string
		link *hostnet.Link
	}{{b.ns, entry, &b.in}, {b.ns, exit, &b.out}, {pods["a"], inside, &b.from}, {pods["b"], inside, &b.to}} {
		if *at.link, err = linkOf(at.ns, at.name); err != nil {
			return err
		}
	}
	for _, l := range loads {
		b.sources[l], err = xdpgen.NewSource(pods["a"], inside, generatorCPU, b.stream(l))
		if err != nil {
			return err
		}
	}
	b.sink, err = xdpgen.NewSink(pods["b"], inside)
	return err
}

func linkOf(ns *hostnet.Namespace, name string) (hostnet.Link, error) {
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return hostnet.Link{}, err
	}
	defer h.Close()
	return h.Link(name)
}

// stream is a load as it leaves pod a.
func (b *bed) stream(l load) xdpgen.Stream {
	src, dst := addresses(l.ipv6)
	return xdpgen.Stream{SrcMAC: b.from.MAC, DstMAC: b.in.MAC, Src: src, Dst: dst, Size: l.size, Ports: conversations}
}

// addresses are those of the pods.
func addresses(ipv6 bool) (src, dst netip.Addr) {
	if ipv6 {
		return netip.MustParseAddr("fd80::10"), netip.MustParseAddr("fd80::11")
	}
	return netip.MustParseAddr("10.80.0.10"), netip.MustParseAddr("10.80.0.11")
}

// close takes everything down; what it cannot, a later run clears.
func (b *bed) close() {
	for _, s := range b.sources {
		_ = s.Close()
	}
	if b.sink != nil {
		_ = b.sink.Close()
	}
	_ = b.lab.Down()
}

// trial is what became of one offer.
type trial struct {
	sent    xdpgen.Sent
	arrived xdpgen.Arrived
}

// lost is frames that did not arrive.
func (t trial) lost() uint64 { return t.sent.Frames - min(t.sent.Frames, t.arrived.Frames) }

// offer sends a load for a while and waits until all that arrives has arrived.
func (b *bed) offer(ctx context.Context, l load, rate float64, d time.Duration) (t trial, err error) {
	if err := b.sink.Reset(); err != nil {
		return t, err
	}
	if t.sent, err = b.sources[l].Send(ctx, rate, d); err != nil {
		return t, err
	}
	defer func() { b.sent, b.arrived = b.sent+t.sent.Frames, b.arrived+t.arrived.Frames }()
	for end, still := time.Now().Add(settleTime), 0; still < 5 && time.Now().Before(end); still++ {
		then := t.arrived.Frames
		if t.arrived, err = b.sink.Arrived(); err != nil || t.arrived.Frames >= t.sent.Frames {
			return t, err
		}
		if t.arrived.Frames != then {
			still = 0
		}
		time.Sleep(settleInterval)
	}
	return t, nil
}

// ready waits until somebody forwards.
func (b *bed) ready(ctx context.Context, l load, ended <-chan struct{}) error {
	for end := time.Now().Add(readyTime); ; {
		t, err := b.offer(ctx, l, probeRate, probes*time.Second/probeRate)
		if err != nil || t.arrived.Frames > 0 {
			return err
		}
		select {
		case <-ended:
			return errors.New("it has ended")
		default:
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return fmt.Errorf("wait until it forwards: nothing arrived in %v", readyTime)
		}
	}
}

// check looks at one frame of a load as it arrives: from the node's MAC address to
// the pod's, whole, and as many hops left as it should have.
func (b *bed) check(ctx context.Context, l load, hops byte) error {
	if err := b.sink.Catch(); err != nil {
		return err
	}
	if _, err := b.offer(ctx, l, probeRate, probes*time.Second/probeRate); err != nil {
		return err
	}
	head, size, err := b.sink.Caught()
	if err != nil {
		return err
	}
	if head == nil {
		return fmt.Errorf("check a frame of %v: none arrived", l)
	}
	s := b.stream(l)
	s.SrcMAC, s.DstMAC = b.out.MAC, b.to.MAC
	if err := same(head, s.Frame(), hops); err != nil {
		return fmt.Errorf("check a frame of %v: %w", l, err)
	}
	if size != l.size {
		return fmt.Errorf("check a frame of %v: it has %d bytes", l, size)
	}
	return nil
}

// same says how a frame's head differs from what was sent, but for hops, the
// checksum that has to fit, and the source port.
func same(head, sent []byte, hops byte) error {
	want := append([]byte(nil), sent[:len(head)]...)
	ip, udp := want[pkt.EthernetSize:], pkt.EthernetSize+pkt.IPv6Size
	if ip[0]>>4 == 4 {
		udp = pkt.EthernetSize + pkt.IPv4Size
		ip[8], ip[10], ip[11] = hops, 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^pkt.Fold(pkt.Sum(ip[:pkt.IPv4Size])))
	} else {
		ip[7] = hops
	}
	copy(want[udp:udp+2], head[udp:])
	copy(want[udp+8:udp+10], head[udp+8:])
	for i := range want {
		if head[i] != want[i] {
			return fmt.Errorf("byte %d is %#02x, want %#02x:\n\tgot  %x\n\twant %x", i, head[i], want[i], head, want)
		}
	}
	return nil
}
