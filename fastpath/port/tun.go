package port

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port/tundev"
	"margay.dev/margay/fastpath/umem"
)

// TUNConfig says which TUN device to make or to take up again.
type TUNConfig struct {
	Name   string // of the device, 1 to 15 bytes
	Queues int    // queues to attach, 1 to 256
	MTU    int    // bytes from the IP header on, 68 to 65,535; the device is set to it
	// Inside runs fn in the network namespace that the device is to be in, on a
	// thread that stays there meanwhile; nil is the caller's namespace. An open
	// queue keeps that namespace alive, even when its last name is deleted.
	Inside func(fn func() error) error
	// Persist keeps the device when its last descriptor closes, so that a
	// restarted forwarder finds it with addresses and routes in place.
	Persist bool
	// Owner and Group may attach to the device without CAP_NET_ADMIN; 0 sets none.
	Owner, Group int
}

func (c TUNConfig) validate() error {
	var errs []error
	if c.Name == "" || len(c.Name) >= unix.IFNAMSIZ {
		errs = append(errs, fmt.Errorf("name is %q, want 1 to %d bytes", c.Name, unix.IFNAMSIZ-1))
	}
	if c.Queues < 1 || c.Queues > 256 {
		errs = append(errs, fmt.Errorf("queues is %d, want 1 to 256", c.Queues))
	}
	if c.MTU < 68 || c.MTU > 1<<16-1 {
		errs = append(errs, fmt.Errorf("MTU is %d, want 68 to 65535", c.MTU))
	}
	return errors.Join(errs...)
}

// TUN is a port made of a TUN device with virtio-net headers: superpackets and
// partial checksums pass in both directions.
type TUN struct {
	name      string
	mtu       atomic.Int32
	queues    []*tunQueue
	fallbacks []string
	closed    atomic.Bool
}

var _ Port = (*TUN)(nil)

// OpenTUN makes a TUN device, or attaches to a persistent one of that name that
// a former process left, and opens its queues. The device comes without
// addresses and down; both are its owner's business.
func OpenTUN(cfg TUNConfig) (*TUN, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open TUN: %w", err)
	}
	t := &TUN{name: cfg.Name}
	t.mtu.Store(int32(cfg.MTU))
	inside := cfg.Inside
	if inside == nil {
		inside = func(fn func() error) error { return fn() }
	}
	if err := inside(func() error { return t.open(cfg) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open TUN %s: %w", cfg.Name, err), t.closeAll())
	}
	return t, nil
}

// open attaches every queue; it runs in the device's namespace.
func (t *TUN) open(cfg TUNConfig) error {
	for range cfg.Queues {
		fd, err := unix.Open(tundev.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s (load the tun module, or make the node: c 10 200): %w", tundev.Path, err)
		}
		t.queues = append(t.queues, newTunQueue(fd))
		if err := tundev.Attach(fd, cfg.Name); err != nil {
			return fmt.Errorf("attach queue: %w%s", err, attachAdvice(err))
		}
		if err := tundev.SetHeader(fd, vnetSize); err != nil {
			return err
		}
	}
	if err := t.setOffloads(); err != nil {
		return err
	}
	if err := tundev.SetMTU(cfg.Name, cfg.MTU); err != nil {
		return fmt.Errorf("set MTU to %d: %w", cfg.MTU, err)
	}
	return t.keep(cfg)
}

func attachAdvice(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return ": run as root or with CAP_NET_ADMIN in the device's namespace"
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
		return ": a device of that name exists that is no multi-queue TUN, or has another user; delete it or choose another name"
	case errors.Is(err, unix.E2BIG):
		return ": the device has as many queues as the kernel allows, since another process is attached to it"
	}
	return ""
}

// setOffloads asks for all that we can take, and for less where the kernel is
// older. Offloads are of the device, not of a queue.
func (t *TUN) setOffloads() error {
	const base, tso, uso = tundev.Csum, tundev.TSO, tundev.USO
	fd := t.queues[0].fd
	err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, base|tso|uso)
	if err == nil {
		return nil
	}
	refused := err
	for _, less := range []struct {
		flags int
		lost  string
	}{{base | tso, "UDP segmentation (needs Linux 6.2)"}, {base, "TCP and UDP segmentation"}, {0, "segmentation and checksum offload"}} {
		if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, less.flags); err == nil {
			t.fallbacks = append(t.fallbacks, fmt.Sprintf("%s: works without %s: %v", t.name, less.lost, refused))
			return nil
		}
	}
	return fmt.Errorf("set offloads: %w", err)
}

// keep sets what outlives us: whether the device does, and who may attach.
func (t *TUN) keep(cfg TUNConfig) error {
	fd := t.queues[0].fd
	persist := 0
	if cfg.Persist {
		persist = 1
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, persist); err != nil {
		return fmt.Errorf("set persistence: %w", err)
	}
	if cfg.Owner != 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, cfg.Owner); err != nil {
			return fmt.Errorf("set owner to %d: %w", cfg.Owner, err)
		}
	}
	if cfg.Group != 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETGROUP, cfg.Group); err != nil {
			return fmt.Errorf("set group to %d: %w", cfg.Group, err)
		}
	}
	return nil
}

// Name is the device's name.
func (t *TUN) Name() string { return t.name }

// Kind is KindTUN.
func (t *TUN) Kind() Kind { return KindTUN }

// Queues are the device's queues, in the order in which they were attached.
func (t *TUN) Queues() []graph.Queue {
	all := make([]graph.Queue, len(t.queues))
	for i, q := range t.queues {
		all[i] = q
	}
	return all
}

// MTU is the most bytes of a packet from the IP header on.
func (t *TUN) MTU() int { return int(t.mtu.Load()) }

// SetMTU notes that the device's MTU has changed.
func (t *TUN) SetMTU(mtu int) { t.mtu.Store(int32(mtu)) }

// MAC is nil: a TUN device has no link layer.
func (t *TUN) MAC() net.HardwareAddr { return nil }

// Fallbacks tells which offloads the kernel refused.
func (t *TUN) Fallbacks() []string { return t.fallbacks }

// Statistics tells what GRO made of what was transmitted, and how often the
// device was not there.
func (t *TUN) Statistics() []Statistic {
	var trains, segments, bad, gone uint64
	for _, q := range t.queues {
		trains += q.trains.Load()
		segments += q.segments.Load()
		bad += q.badSums.Load()
		gone += q.vanished.Load()
	}
	return []Statistic{
		{"gro-trains", trains},
		{"gro-segments", segments},
		{"gro-bad-checksums", bad},
		{"queues-vanished", gone},
	}
}

// Close detaches every queue and gives the buffers they hold to c. A device that
// is not persistent goes away. Closing again does nothing.
func (t *TUN) Close(c *umem.Cache) error {
	t.Settle(c)
	return t.closeAll()
}

// Remove closes the port and takes the device away, persistent or not.
func (t *TUN) Remove(c *umem.Cache) error {
	var err error
	if q := t.queues[0]; !q.gone && !t.closed.Load() {
		if err = unix.IoctlSetInt(q.fd, unix.TUNSETPERSIST, 0); errors.Is(err, unix.EBADFD) {
			err = nil // somebody was faster
		}
	}
	return errors.Join(err, t.Close(c))
}

func (t *TUN) closeAll() error {
	if t.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, q := range t.queues {
		errs = append(errs, unix.Close(q.fd))
	}
	return errors.Join(errs...)
}
