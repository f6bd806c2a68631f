package veth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/xdpgen"
)

// contestant is somebody who forwards, and what was measured of it.
type contestant struct {
	name    string
	why     string // it cannot run
	hops    byte   // that its frames have left
	start   func(context.Context) (running, error)
	samples map[load][]sample
}

// running is one that was started.
type running struct {
	pid   int // of its process; 0: it is the kernel
	stop  func() error
	ended <-chan struct{}                      // closed if it ends by itself; nil where it cannot
	drops func(context.Context) (drops, error) // nil where nobody tells
}

// contestants are all; ours is the first.
//
// testpmd rewrites Ethernet addresses and looks no further: it has no route to
// look up and no header to mend, which is less work than the others have.
func contestants(b *bed) []*contestant {
	return []*contestant{
		{name: "ours", hops: xdpgen.Hops - 1, start: b.ours, samples: map[load][]sample{}},
		{name: "testpmd-af-xdp", hops: xdpgen.Hops, start: b.testpmd, samples: map[load][]sample{}},
		{name: "kernel-ip-forward", hops: xdpgen.Hops - 1, start: b.kernel, samples: map[load][]sample{}},
	}
}

// ours starts the forwarder: workers, their CPUs and memory given, all else by
// default.
func (b *bed) ours(ctx context.Context) (running, error) {
	if err := b.lab.StartForwarder(ctx, node); err != nil {
		return running{}, err
	}
	stop := func() error { return b.lab.StopForwarder(node, false) }
	return running{pid: b.lab.PID(node), stop: stop, drops: b.oursDrops}, nil
}

// drops are frames that were lost on the way, by who counted them.
type drops map[string]uint64

func (d drops) sum() (n uint64) {
	for _, v := range d {
		n += v
	}
	return n
}

// oursDrops reads what is counted on the way of the forwarder: by the entry, of
// frames that found its ring full or that the socket had no room for; by the
// forwarder, each with a reason; and by the exit, of frames that found the ring of
// the other side full.
func (b *bed) oursDrops(ctx context.Context) (drops, error) {
	d := drops{}
	for name, attribute := range map[string]string{entry: "rx_dropped", exit: "tx_dropped"} {
		v, err := b.ns.Sysfs(name, "statistics/"+attribute)
		if err != nil {
			return nil, err
		}
		if d[name+" "+attribute], err = strconv.ParseUint(v, 10, 64); err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", attribute, name, err)
		}
	}
	c, err := b.lab.Counters(ctx, node)
	for reason, n := range c.Drops {
		d[reason] = n
	}
	return d, err
}

const (
	testpmdProgram = "dpdk-testpmd"
	endTime        = 5 * time.Second // that it may take to end
)

// testpmd starts DPDK's, with a core that forwards for each pair of queues and what
// its AF_XDP driver has by default: 2048 descriptors, busy polling asked for, budget
// 64. Its main core does nothing meanwhile. It ends when its input does, so also with
// this process.
func (b *bed) testpmd(ctx context.Context) (running, error) {
	if _, err := exec.LookPath(testpmdProgram); err != nil {
		return running{}, fmt.Errorf("%s is not installed: apt-get install --no-install-recommends dpdk-dev", testpmdProgram)
	}
	cmd := exec.CommandContext(ctx, testpmdProgram, b.testpmdArguments()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // as the lab starts ours: the scheduler groups by session
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	if err == nil {
		err = b.ns.Do(cmd.Start)
	}
	if err != nil {
		return running{}, fmt.Errorf("start %s: %w", testpmdProgram, err)
	}
	ended := make(chan struct{})
	var status error
	go func() { status = cmd.Wait(); close(ended) }()
	stop := func() error {
		kill := time.AfterFunc(endTime, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = in.Close() // it may have ended
		<-ended
		if status != nil {
			status = fmt.Errorf("%s: %w: %s", testpmdProgram, status, tail(out.Bytes()))
		}
		return errors.Join(status, b.clearXDP())
	}
	return running{pid: cmd.Process.Pid, stop: stop, ended: ended}, nil
}

// testpmdArguments are its command line. Its cores are numbered apart from CPUs, 0
// the main one. Its driver takes a veth for a device of one queue, so each pair of
// queues is a pair of ports, which it forwards between, and those of one pair are
// one core's.
func (b *bed) testpmdArguments() []string {
	cores := []string{fmt.Sprintf("0@%d", b.place.generators[0])}
	var ports, peers []string
	n := len(b.place.workers)
	for q, cpu := range b.place.workers {
		cores = append(cores, fmt.Sprintf("%d@%d", q+1, cpu))
		for i, link := range []string{entry, exit} {
			ports = append(ports, fmt.Sprintf("--vdev=net_af_xdp%d,iface=%s,start_queue=%d,queue_count=1", 2*q+i, link, q))
		}
		peers = append(peers, fmt.Sprintf("--eth-peer=%d,%v", 2*q+1, b.to.MAC))
	}
	args := append([]string{"--lcores=" + strings.Join(cores, ","), "--main-lcore=0", "--no-huge", "--no-shconf",
		"-m", strconv.Itoa(256 * n), "--no-pci", "--no-telemetry"}, ports...)
	args = append(args, "--", fmt.Sprintf("--nb-cores=%d", n), "--port-topology=paired",
		"--forward-mode=mac", fmt.Sprintf("--total-num-mbufs=%d", n*frames))
	return append(args, peers...)
}

func tail(b []byte) []byte { return b[max(0, len(b)-600):] }

// clearXDP takes off programs that one left which was killed.
func (b *bed) clearXDP() error {
	var errs []error
	for _, name := range []string{entry, exit} {
		l, err := linkOf(b.ns, name)
		if err == nil && l.XDP.Mode != hostnet.XDPNone {
			err = b.detachXDP(name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (b *bed) detachXDP(link string) error {
	h, err := hostnet.NewHost(b.ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.DetachXDP(link)
}

// setting is a file of the node's namespace, as it is while the kernel forwards,
// and as it is otherwise.
type setting struct {
	key     string
	on, off string
}

// settings let the node's kernel forward.
func settings() []setting {
	return []setting{
		{"net/ipv6/conf/" + entry + "/disable_ipv6", "0", "1"},
		{"net/ipv6/conf/" + exit + "/disable_ipv6", "0", "1"},
		{"net/ipv4/ip_forward", "1", "0"},
		{"net/ipv6/conf/all/forwarding", "1", "0"},
	}
}

// steer has the kernel spread what comes in over the workers' CPUs by conversation
// (RPS), and send from each of them by a queue of its own (XPS), or no longer. By
// receive queue it cannot be spread: veth notes none on frames that were redirected
// to it, and the kernel takes them for the first queue's.
func (b *bed) steer(on bool) error {
	all := "0"
	if on {
		all = cpuMask(b.place.workers...)
	}
	errs := []error{b.ns.SetSysfs(entry, "queues/rx-0/rps_cpus", all)}
	for q, cpu := range b.place.workers {
		mask := "0"
		if on {
			mask = cpuMask(cpu)
		}
		if len(b.place.workers) > 1 { // one queue is no choice, and cannot be told
			errs = append(errs, b.ns.SetSysfs(exit, fmt.Sprintf("queues/tx-%d/xps_cpus", q), mask))
		}
	}
	return errors.Join(errs...)
}

// cpuMask is a set of CPUs as sysfs takes it: words of 32 bits, the lowest last.
func cpuMask(cpus ...int) string {
	words := make([]uint32, slices.Max(cpus)/32+1)
	for _, cpu := range cpus {
		words[cpu/32] |= 1 << (cpu % 32)
	}
	slices.Reverse(words)
	mask := fmt.Sprintf("%x", words[0])
	for _, w := range words[1:] {
		mask += fmt.Sprintf(",%08x", w)
	}
	return mask
}

// kernel has the node's kernel forward: GRO on at the entry, since a veth without
// XDP polls only then, and the CPUs of the workers for what comes after.
func (b *bed) kernel(context.Context) (running, error) {
	err := b.kernelOn()
	if err != nil {
		return running{}, errors.Join(err, b.kernelOff())
	}
	return running{stop: b.kernelOff}, nil
}

func (b *bed) kernelOn() error {
	for _, s := range settings() {
		if err := b.ns.SetSysctl(s.key, s.on); err != nil {
			return err
		}
	}
	if err := b.steer(true); err != nil {
		return err
	}
	h, err := hostnet.NewHost(b.ns)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.SetOffload(entry, "gro", true); err != nil {
		return err
	}
	for _, ipv6 := range []bool{false, true} {
		src, dst := addresses(ipv6)
		err := errors.Join(
			h.ReplaceRoute(hostnet.Route{Dst: netip.PrefixFrom(src, src.BitLen()), Link: b.in.Index}),
			h.ReplaceRoute(hostnet.Route{Dst: netip.PrefixFrom(dst, dst.BitLen()), Link: b.out.Index}),
			h.SetNeighbour(exit, dst, b.to.MAC))
		if err != nil {
			return err
		}
	}
	return nil
}

// kernelOff puts back what kernelOn did, as far as it came.
func (b *bed) kernelOff() error {
	h, err := hostnet.NewHost(b.ns)
	if err != nil {
		return err
	}
	defer h.Close()
	var errs []error
	for _, ipv6 := range []bool{false, true} {
		src, dst := addresses(ipv6)
		errs = append(errs,
			h.DeleteRoute(hostnet.Route{Dst: netip.PrefixFrom(src, src.BitLen()), Link: b.in.Index}),
			h.DeleteRoute(hostnet.Route{Dst: netip.PrefixFrom(dst, dst.BitLen()), Link: b.out.Index}),
			h.DeleteNeighbour(exit, dst))
	}
	errs = append(errs, h.SetOffload(entry, "gro", false), b.steer(false))
	for _, s := range settings() {
		errs = append(errs, b.ns.SetSysctl(s.key, s.off))
	}
	return errors.Join(errs...)
}
