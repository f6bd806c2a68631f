package veth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"margay.dev/margay/bench/stage"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/xdpgen"
	"margay.dev/margay/internal/pkt"
)

// topology is filled in with the number of workers; every veth has as many queues.
const topology = `
pools: [10.80.0.0/16, "fd80::/48"]
nodes: [{name: near, workers: %d}]
pods:
  - {name: a, node: near, port: xsk, addresses: [10.80.0.10, "fd80::10"]}
  - {name: b, node: near, port: xsk, addresses: [10.80.0.11, "fd80::11"]}
`

const (
	node           = "near"
	inside         = "eth0"       // of both pods
	entry, exit    = "p-a", "p-b" // of the node
	conversations  = 256          // in each load, from each generator
	frames         = 16384        // of the forwarder's memory, for each worker: what it has by default for one
	readyTime      = 15 * time.Second
	probes         = 64    // frames that ask whether anyone forwards
	probeRate      = 100e3 // and how fast they go
	checkTime      = 5 * time.Millisecond
	checkPatience  = 5 * time.Second // on a busy machine anyone may have no CPU for a while
	settleTime     = 500 * time.Millisecond
	settleInterval = 2 * time.Millisecond
	settled        = 20 // looks at which nothing new had arrived: who forwards may have no CPU for a while
)

// bed is the pair of veths with the Sources and the Sink at its ends. The frames
// of each Source come in at a receive queue of their own.
type bed struct {
	place    placement
	lab      *lab.Lab
	ns       *hostnet.Namespace        // the node's
	in, out  hostnet.Link              // the node's ends
	from, to hostnet.Link              // the pods'
	sources  map[load][]*xdpgen.Source // by the receive queue that they feed
	sink     *xdpgen.Sink

	sent, arrived uint64 // of all offers
}

// raise makes the bed; nobody forwards on it yet.
func raise(ctx context.Context, forwarder string, at placement, loads []load) (_ *bed, err error) {
	b := &bed{place: at, sources: map[load][]*xdpgen.Source{}}
	n := len(at.workers)
	b.lab, err = stage.RaiseWith(ctx, fmt.Sprintf("veth%d", n), fmt.Sprintf(topology, n), forwarder,
		map[string]any{"cpus": at.workers, "frames": n * frames})
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
		for _, cpu := range b.place.generators {
			g, err := xdpgen.NewSource(pods["a"], inside, cpu, b.stream(l))
			if err != nil {
				return err
			}
			b.sources[l] = append(b.sources[l], g)
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
	for _, all := range b.sources {
		for _, s := range all {
			_ = s.Close()
		}
	}
	if b.sink != nil {
		_ = b.sink.Close()
	}
	_ = b.lab.Down()
}

// trial is what became of one offer.
type trial struct {
	sent    xdpgen.Sent   // by all, in the longest of their times
	each    []xdpgen.Sent // by each Source
	arrived xdpgen.Arrived
}

// lost is frames that did not arrive.
func (t trial) lost() uint64 { return t.sent.Frames - min(t.sent.Frames, t.arrived.Frames) }

// spread is an error unless every Source sent, and frames left by every queue.
func (t trial) spread() error {
	if q := slices.IndexFunc(t.each, func(s xdpgen.Sent) bool { return s.Frames == 0 }); q >= 0 {
		return fmt.Errorf("the generator of queue %d had no time on its CPU", q)
	}
	if t.arrived.Frames == 0 {
		return fmt.Errorf("none of %d frames arrived", t.sent.Frames)
	}
	if q := slices.Index(t.arrived.Queues, 0); q >= 0 {
		return fmt.Errorf("frames came in by all queues, but none left by queue %d: %v", q, t.arrived.Queues)
	}
	return nil
}

// offer sends a load for a while, at rate frames a second by all Sources together,
// and waits until all that arrives has arrived.
func (b *bed) offer(ctx context.Context, l load, rate float64, d time.Duration) (t trial, err error) {
	if err := b.sink.Reset(); err != nil {
		return t, err
	}
	if t.each, err = xdpgen.SendAll(ctx, b.sources[l], rate/float64(len(b.sources[l])), d); err != nil {
		return t, err
	}
	for _, s := range t.each {
		t.sent.Frames, t.sent.Took = t.sent.Frames+s.Frames, max(t.sent.Took, s.Took)
	}
	defer func() { b.sent, b.arrived = b.sent+t.sent.Frames, b.arrived+t.arrived.Frames }()
	for end, still := time.Now().Add(settleTime), 0; still < settled && time.Now().Before(end); still++ {
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
// the pod's, whole, and as many hops left as it should have; and whether every queue
// has its share, so that it is all workers that work.
func (b *bed) check(ctx context.Context, l load, hops byte) error {
	for end := time.Now().Add(checkPatience); ; {
		err := b.sink.Catch()
		var t trial
		if err == nil {
			t, err = b.offer(ctx, l, probeRate, checkTime)
		}
		if err != nil {
			return err
		}
		err = t.spread()
		if err == nil {
			break
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("check %v: %w", l, err)
		}
	}
	head, size, err := b.sink.Caught()
	if err != nil {
		return err
	}
	if head == nil {
		return fmt.Errorf("check a frame of %v: the sink counted some and caught none", l)
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
