package forwarder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/internal/doctor"
	"margay.dev/margay/internal/hostnet"
)

// healthTime is how long a pass may hold the plane before it counts as hung.
const healthTime = 5 * time.Second

// healthy tells whether the plane still moves: a restart would help if not.
func (d *Daemon) healthy() error {
	free := make(chan struct{})
	go func() {
		defer close(free)
		d.plane.Alive()
	}()
	select {
	case <-free:
		return nil
	case <-time.After(healthTime):
		return fmt.Errorf("a pass has held the dataplane for more than %v", healthTime)
	}
}

// isReady tells whether packets are forwarded by a state that a client has sent.
func (d *Daemon) isReady() error {
	switch {
	case d.stopping.Load():
		return errors.New("stopping")
	case !d.ready.Load():
		return errors.New("starting")
	case d.plane.Generation() == 0:
		return errors.New("no state: no client has sent any, and there was none on disk")
	}
	return nil
}

// notify tells systemd that we are ready, that ours is the main process of the
// service (after a hand-over it was another) and, where it asks for it, that we
// are alive, until stop is called, which tells that the service ends unless
// another process goes on with it. Without systemd it does nothing.
func (d *Daemon) notify(ctx context.Context) (stop func(ends bool)) {
	d.tell(fmt.Sprintf("MAINPID=%d\n%s", os.Getpid(), daemon.SdNotifyReady))
	var watchdog sync.WaitGroup
	if every, err := daemon.SdWatchdogEnabled(false); err == nil && every > 0 {
		watchdog.Go(func() { d.watchdog(ctx, every/2) })
	}
	return func(ends bool) {
		watchdog.Wait()
		if ends {
			d.tell(daemon.SdNotifyStopping)
		}
	}
}

func (d *Daemon) watchdog(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := d.healthy(); err != nil {
				d.log.Error("not telling the watchdog that all is well", "error", err)
				continue
			}
			d.tell(daemon.SdNotifyWatchdog)
		}
	}
}

func (d *Daemon) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Warn("tell systemd", "state", state, "error", err)
	}
}

// diagnose runs the doctor on our own ports.
func (d *Daemon) diagnose(ctx context.Context) (*pb.Diagnosis, error) {
	var host string // its device
	var services []desired.Service
	d.plane.Look(func(l plane.Live) {
		if l.State.Host != nil {
			host = l.State.Host.Name
		}
		if len(l.State.Steering.Local) > 0 { // else there is no address that they are ports of
			services = slices.Clone(l.State.Steering.Services)
		}
	})
	o := doctor.Options{
		Workers: d.cfg.Workers, Memory: uint64(d.cfg.Frames) * umem.ChunkSize, HostPort: host,
		Journal: filepath.Join(d.cfg.StateDir, "journal"), Inside: true,
	}
	for _, p := range d.plane.Ports() {
		if p.Kind != "xsk" {
			continue
		}
		o.Devices = append(o.Devices, expected(p))
		if !p.Takeover {
			o.NodePorts = nodePorts(services)
		}
	}
	findings, err := doctor.Diagnose(ctx, o)
	if err != nil {
		return nil, err
	}
	return doctor.ToWire(findings), nil
}

// expected is what the doctor should find on the device of an AF_XDP port.
func expected(p plane.PortState) doctor.DeviceSpec {
	return doctor.DeviceSpec{Name: p.Device, Namespace: p.NetNS, Sockets: p.Queues, Program: p.Program, MAC: hostnet.MAC(p.MAC)}
}

// nodePorts is every TCP and UDP port among services, once: a range that TCP and
// UDP share is one to the kernel's choice of ports too.
func nodePorts(services []desired.Service) (out []doctor.PortRange) {
	ranges := make([]doctor.PortRange, 0, len(services))
	for _, s := range services {
		if s.Protocol == unix.IPPROTO_TCP || s.Protocol == unix.IPPROTO_UDP {
			ranges = append(ranges, doctor.PortRange{First: s.First, Last: s.Last})
		}
	}
	slices.SortFunc(ranges, func(a, b doctor.PortRange) int { return cmp.Compare(a.First, b.First) })
	for _, r := range ranges {
		if n := len(out); n > 0 && r.First <= out[n-1].Last {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}
