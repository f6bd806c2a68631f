package veth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
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

// ours starts the forwarder: one worker, its CPU given, all else by default.
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

// testpmd starts DPDK's, with one core that forwards and what its AF_XDP driver
// has by default: 2048 descriptors, busy polling asked for, budget 64. It ends when
// its input does, so also with this process.
func (b *bed) testpmd(ctx context.Context) (running, error) {
	if _, err := exec.LookPath(testpmdProgram); err != nil {
		return running{}, fmt.Errorf("%s is not installed: apt-get install --no-install-recommends dpdk-dev", testpmdProgram)
	}
	cmd := exec.CommandContext(ctx, testpmdProgram,
		"-l", fmt.Sprintf("%d,%d", generatorCPU, forwarderCPU), "--main-lcore", fmt.Sprint(generatorCPU),
		"--no-huge", "--no-shconf", "-m", "256", "--no-pci", "--no-telemetry",
		"--vdev", "net_af_xdp0,iface="+entry, "--vdev", "net_af_xdp1,iface="+exit,
		"--", "--nb-cores=1", "--forward-mode=mac", "--eth-peer=1,"+b.to.MAC.String(), "--total-num-mbufs=16384")
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

func tail(b []byte) []byte { return b[max(0, len(b)-600):] }

// clearXDP takes off programs that one left which was killed.
func (b *bed) clearXDP() error {
	var errs []error
	for _, name := range []string{entry, exit} {
		l, err := linkOf(b.ns, name)
		if err == nil && l.XDP.Mode != hostnet.XDPNone {
			err = b.ns.Do(exec.Command("ip", "link", "set", "dev", name, "xdp", "off").Run)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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

const rps = "queues/rx-0/rps_cpus"

// kernel has the node's kernel forward: GRO on at the entry, since a veth without
// XDP polls only then, and RPS to the CPU of the forwarder.
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
	if err := b.ns.SetSysfs(entry, rps, fmt.Sprintf("%x", 1<<forwarderCPU)); err != nil {
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
	errs = append(errs, h.SetOffload(entry, "gro", false), b.ns.SetSysfs(entry, rps, "0"))
	for _, s := range settings() {
		errs = append(errs, b.ns.SetSysctl(s.key, s.off))
	}
	return errors.Join(errs...)
}
