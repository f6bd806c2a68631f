package plane

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/internal/hostnet"
)

// xskMemory is the packet memory as AF_XDP has it: one registration for all
// ports, and a holder for each, so that the frames of a closed one are found.
type xskMemory struct {
	umem    *xsk.UMEM
	holders [256]bool // in use; 0 is the graph's
	rings   shares
}

const (
	busyPollTime   = 20 * time.Microsecond
	busyPollBudget = 64
)

// openXSK opens AF_XDP sockets on every queue of a device and attaches the
// steering program. Frames come in only once Admit was called.
func (d *devices) openXSK(want *desired.Port, host *hostnet.Host, steering SteeringSource) (*Device, error) {
	l, err := host.Link(want.Device)
	if errors.Is(err, hostnet.ErrNoLink) {
		return nil, fmt.Errorf("%w: %w", errNoDevice, err)
	}
	if err != nil {
		return nil, err
	}
	x := &xskDevice{owner: d}
	if err := x.open(want, host, l, steering); err != nil {
		return nil, errors.Join(err, x.close(d.cache))
	}
	return x.device(l), nil
}

// device is the port as the dataplane has it, on the network interface l.
func (x *xskDevice) device(l hostnet.Link) *Device {
	return &Device{
		Port: x, Index: l.Index, L2: true, MAC: desired.MAC(l.MAC), Carrier: l.Up && l.Carrier,
		Mode: x.program.Mode().String() + "/" + x.XSK.Sockets()[0].Mode().String(), Admit: x.admit, Extra: x.counters,
		Program: x.program.ID(),
	}
}

// xskDevice is a port of sockets with its program.
type xskDevice struct {
	*port.XSK
	owner     *devices
	program   *xsk.Program
	holder    umem.Holder
	fallbacks []string
}

func (x *xskDevice) open(want *desired.Port, host *hostnet.Host, l hostnet.Link, steering SteeringSource) error {
	memory, err := x.owner.memory()
	if err != nil {
		return err
	}
	if x.holder, err = x.owner.xsk.take(); err != nil {
		return err
	}
	cfg := port.XSKConfig{
		Name: want.Device, Index: l.Index, NetNS: host.Namespace().FD(), Queues: want.Queues, RingSize: uint32(want.RingSize),
		MTU: l.MTU, MAC: l.MAC[:], UMEM: memory, Arena: x.owner.arena, Holder: x.holder,
	}
	if cfg.Queues == 0 {
		cfg.Queues = queuesOf(host, l)
	}
	if err := x.size(&cfg); err != nil {
		return err
	}
	if want.BusyPoll {
		cfg.BusyPoll = xsk.BusyPoll{Prefer: true, Time: busyPollTime, Budget: busyPollBudget}
	}
	if err := x.attach(want, cfg, steering); err != nil {
		return err
	}
	x.XSK, err = port.OpenXSK(cfg)
	return err
}

// size chooses the size of the rings by the frames that are there.
func (x *xskDevice) size(cfg *port.XSKConfig) error {
	memory, arena := &x.owner.xsk, x.owner.arena
	asked := int(cfg.RingSize)
	if asked == 0 {
		asked = defaultRing
	}
	got, ok := memory.rings.take(x.holder, arena.Spare(), cfg.Queues, asked)
	advice := fmt.Sprintf("%d frames do not fill the rings of all AF_XDP ports; raise frames in the configuration to %d, or have fewer queues",
		arena.Frames(), arena.FramesFor(memory.rings.enough(x.holder, cfg.Queues*asked)))
	switch {
	case !ok:
		return fmt.Errorf("find frames for %d queues: %w: %s", cfg.Queues, errFewFrames, advice)
	case got < asked:
		x.fallbacks = append(x.fallbacks, fmt.Sprintf("rings have %d entries, not %d: %s", got, asked, advice))
	}
	cfg.RingSize = uint32(got)
	return nil
}

// attach puts the program on the device, which drops what is ours until Admit.
func (x *xskDevice) attach(want *desired.Port, cfg port.XSKConfig, steering SteeringSource) (err error) {
	var ours *xsk.Steering
	if !want.Takeover {
		if ours, err = steering(); err != nil {
			return err
		}
	}
	x.program, err = xsk.Attach(xsk.ProgramConfig{
		Interface: cfg.Name, Index: cfg.Index, NetNS: cfg.NetNS, Takeover: want.Takeover, Mode: xsk.AttachMode(want.Mode),
	}, ours)
	return err
}

// queuesOf is how many receive queues a device has in use.
func queuesOf(host *hostnet.Host, l hostnet.Link) int {
	if c, err := host.Channels(l.Name); err == nil && c.Rx+c.Combined > 0 {
		return c.Rx + c.Combined
	}
	return max(l.RxQueues, 1)
}

// admit lets frames come to the sockets.
func (x *xskDevice) admit() error {
	for i, s := range x.Sockets() {
		if err := x.program.SetSocket(i, s); err != nil {
			return err
		}
	}
	return nil
}

// Fallbacks tells what was asked for and not had, of program and sockets.
func (x *xskDevice) Fallbacks() []string {
	all := slices.Clone(x.fallbacks)
	for _, f := range x.program.Fallbacks() {
		all = append(all, f.String())
	}
	return append(all, x.XSK.Fallbacks()...)
}

// Close takes the program off and closes the sockets; the kernel has the device's
// frames from then on.
func (x *xskDevice) Close(c *umem.Cache) error { return x.close(c) }

func (x *xskDevice) close(c *umem.Cache) error {
	errs := faults{}
	if x.program != nil {
		errs.add(x.program.Close())
	}
	if x.XSK != nil {
		errs.add(x.XSK.Close(c))
	}
	x.owner.xsk.holders[x.holder] = false
	x.owner.xsk.rings.give(x.holder)
	return errs.err()
}

// Forsake lets go of sockets and program for this process only.
func (x *xskDevice) Forsake() error { return errors.Join(x.XSK.Forsake(), x.program.Close()) }

// counters are the program's.
func (x *xskDevice) counters() map[string]uint64 {
	out := map[string]uint64{}
	if c, err := x.program.Counters(); err == nil { // one that is closed counts no more
		for name, n := range c.All() {
			out["steering-"+name] = n
		}
	}
	return out
}

// memory registers the arena with the kernel when the first port needs it.
func (d *devices) memory() (*xsk.UMEM, error) {
	if d.xsk.umem == nil {
		// What the kernel keeps free in front of a packet is umem.Headroom already.
		u, err := xsk.NewCopyUMEM(d.arena.FrameArea(), umem.ChunkSize, umem.Headroom-xsk.KernelHeadroom)
		if err != nil {
			return nil, err
		}
		d.xsk.umem = u
	}
	return d.xsk.umem, nil
}

func (m *xskMemory) take() (umem.Holder, error) {
	for i := 1; i < len(m.holders); i++ {
		if !m.holders[i] {
			m.holders[i] = true
			return umem.Holder(i), nil
		}
	}
	return 0, fmt.Errorf("all %d AF_XDP ports are in use", len(m.holders)-1)
}

// Close gives the registration up. Every port is closed by then.
func (d *devices) Close() error {
	if d.xsk.umem == nil {
		return nil
	}
	return d.xsk.umem.Close()
}
