package xsk

import (
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// AttachMode is where in the kernel the steering program runs.
type AttachMode uint8

const (
	Auto    AttachMode = iota // native, or generic where the driver has no XDP
	Native                    // in the driver, before the kernel makes a socket buffer
	Generic                   // in the kernel's receive path, after it; slow, any device
)

func (m AttachMode) String() string {
	switch m {
	case Auto:
		return "auto"
	case Native:
		return "native"
	case Generic:
		return "generic"
	}
	return fmt.Sprintf("AttachMode(%d)", uint8(m))
}

// ProgramConfig says on which port the steering program runs, and how.
type ProgramConfig struct {
	Interface string // name; may be empty when Index is given
	Index     int    // interface index in its namespace; 0 to look Interface up
	NetNS     int    // descriptor of the namespace that the interface is in; -1 for ours
	Takeover  bool   // every frame of the port is ours
	Mode      AttachMode
	Queues    int // receive queues that may get a socket; 0 for as many as the port has
}

// defaultQueues is for drivers that do not tell how many queues they have.
const defaultQueues = 64

// Program is the steering program on one port. It is held by a bpf_link that is not
// pinned: it comes off with Close or with the death of the process, and the kernel
// gets the port's frames from then on.
type Program struct {
	device    device
	mode      AttachMode
	fallbacks []Fallback
	takeover  bool
	program   *ebpf.Program // in force
	next      *ebpf.Program // to be put in force by Renew; nil where there is none
	maps      portMaps
	link      link.Link
}

// portMaps are the maps of the object that each port has for itself.
type portMaps struct {
	Sockets  *ebpf.Map `ebpf:"sockets"`
	Counters *ebpf.Map `ebpf:"counters"`
}

// Attach puts the steering program on a port. steering says what is ours; it may be
// nil under Takeover, which does not ask. Until SetSocket what is ours is dropped.
func Attach(cfg ProgramConfig, steering *Steering) (*Program, error) {
	if steering == nil && !cfg.Takeover {
		return nil, errors.New("attach steering program: no steering is given and the port is not taken over")
	}
	d, err := findDevice(cfg.NetNS, cfg.Interface, cfg.Index)
	if err != nil {
		name := SocketConfig{Interface: cfg.Interface, Index: cfg.Index}.name()
		return nil, fault(opFind, device{name: name}, -1, err)
	}
	p, err := load(cfg, d, steering)
	if err != nil {
		return nil, fault(opLoad, d, -1, err)
	}
	err = inNamespace(cfg.NetNS, func() error { return p.attach(cfg.Mode) })
	if err != nil {
		p.Close()
		return nil, fault(opAttach, d, -1, err)
	}
	return p, nil
}

// load brings the program and the maps of a port into the kernel.
func load(cfg ProgramConfig, d device, steering *Steering) (*Program, error) {
	queues := cfg.Queues
	if queues <= 0 {
		queues = d.queues
	}
	if queues <= 0 {
		queues = defaultQueues
	}
	var shared map[string]*ebpf.Map
	if !cfg.Takeover {
		shared = steering.byName()
	}
	p := &Program{device: d, takeover: cfg.Takeover}
	var err error
	p.program, p.maps, err = assemble(cfg.Takeover, uint32(queues), shared)
	return p, err
}

// assemble loads the program of a port around the maps given by name, and makes
// those that are not: sockets for so many queues.
func assemble(takeover bool, queues uint32, given map[string]*ebpf.Map) (*ebpf.Program, portMaps, error) {
	spec, err := loadSteer()
	if err != nil {
		return nil, portMaps{}, err
	}
	spec.Maps[steerMapSockets].MaxEntries = queues
	options := &ebpf.CollectionOptions{MapReplacements: given}
	if takeover {
		var objects struct {
			portMaps
			Program *ebpf.Program `ebpf:"margay_takeover"`
		}
		err = spec.LoadAndAssign(&objects, options)
		return objects.Program, objects.portMaps, err
	}
	var objects struct {
		portMaps
		Program *ebpf.Program `ebpf:"margay_steer"`
	}
	err = spec.LoadAndAssign(&objects, options)
	return objects.Program, objects.portMaps, err
}

// attach links the program to its port, in the namespace of the port.
func (p *Program) attach(mode AttachMode) error {
	if mode != Generic {
		err := p.attachAs(Native, link.XDPDriverMode)
		if mode == Native || err == nil || !nativeMissing(err) {
			return err
		}
		p.fallbacks = append(p.fallbacks, Fallback{Port: p.device.name, Queue: -1, Wanted: "native XDP", Got: "generic XDP", Err: err})
	}
	return p.attachAs(Generic, link.XDPGenericMode)
}

func (p *Program) attachAs(mode AttachMode, flags link.XDPAttachFlags) (err error) {
	p.link, err = link.AttachXDP(link.XDPOptions{Program: p.program, Interface: p.device.index, Flags: flags})
	p.mode = mode
	return err
}

// nativeMissing says that the driver refused native XDP for what it is or how it is
// set up, so that generic XDP may do.
func nativeMissing(err error) bool {
	for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.EINVAL, unix.ERANGE, unix.ENOSPC, unix.EMSGSIZE} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// SetSocket has frames that are ours and arrive on queue go to s, which must be
// bound to that queue of the port: the kernel drops what it redirects elsewhere.
func (p *Program) SetSocket(queue int, s *Socket) error {
	if queue < 0 || queue >= int(p.maps.Sockets.MaxEntries()) {
		return fmt.Errorf("give queue %d of %s to a socket: the program was attached for queues 0 to %d",
			queue, p.device.name, p.maps.Sockets.MaxEntries()-1)
	}
	if s.device.index != p.device.index || s.queue != queue {
		return fmt.Errorf("give queue %d of %s to a socket: the socket is bound to queue %d of %s",
			queue, p.device.name, s.queue, s.device.name)
	}
	if err := p.maps.Sockets.Put(uint32(queue), uint32(s.fd)); err != nil {
		return fmt.Errorf("give queue %d of %s to a socket: %w", queue, p.device.name, err)
	}
	return nil
}

// Counters are the frames that the program has seen on a port.
type Counters struct {
	Redirected uint64 // ours, given to a socket; see Statistics for what that lost
	Passed     uint64 // not ours, left to the kernel
	NoSocket   uint64 // ours, dropped since the queue had no socket
	Unparsed   uint64 // of Passed: IP or VLAN header cut off, lying or too long a chain
}

// All yields each counter with its name.
func (c Counters) All() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		_ = yield("redirected", c.Redirected) &&
			yield("passed", c.Passed) &&
			yield("no-socket", c.NoSocket) &&
			yield("unparsed", c.Unparsed)
	}
}

// Counters reads and sums the counters of all CPUs.
func (p *Program) Counters() (Counters, error) {
	var c Counters
	for index, to := range map[steerCounter]*uint64{
		steerCounterREDIRECTED: &c.Redirected,
		steerCounterPASSED:     &c.Passed,
		steerCounterNO_SOCKET:  &c.NoSocket,
		steerCounterUNPARSED:   &c.Unparsed,
	} {
		var perCPU []uint64
		if err := p.maps.Counters.Lookup(uint32(index), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("read counters of %s: %w", p.device.name, err)
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	return c, nil
}

// Mode returns the mode in force, Native or Generic.
func (p *Program) Mode() AttachMode { return p.mode }

// ID is the kernel's number of the program in force, as `bpftool link` and `ip link`
// show it; 0 if the kernel does not tell. It changes when a process that takes over
// renews the program.
func (p *Program) ID() uint32 {
	info, err := p.link.Info()
	if err != nil {
		return 0
	}
	return uint32(info.Program)
}

// Fallbacks returns what was asked for and not had.
func (p *Program) Fallbacks() []Fallback { return p.fallbacks }

// Close takes the program off the port, unless another process has adopted it: from
// then on the kernel gets its frames.
func (p *Program) Close() error {
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close())
	}
	return errors.Join(append(errs, p.program.Close(), p.next.Close(), p.maps.Sockets.Close(), p.maps.Counters.Close())...)
}
