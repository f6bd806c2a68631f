package xsk

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// SteeringFDs are the maps of a Steering, to be passed to another process.
type SteeringFDs struct{ Prefix4, Prefix6, Services, Fragments int }

// FDs returns the descriptors of the maps; the Steering keeps owning them.
func (s *Steering) FDs() SteeringFDs {
	return SteeringFDs{s.maps.Prefix4.FD(), s.maps.Prefix6.FD(), s.maps.Services.FD(), s.maps.Fragments.FD()}
}

// AdoptSteering takes up the maps of another process's Steering, which hold what
// Prefixes and Services returned there; maps that do not give an error. Nothing in
// them is changed. Only one process may go on changing them.
func AdoptSteering(fds SteeringFDs, prefixes []OwnedPrefix, services []Service) (*Steering, error) {
	s, err := adoptSteering(fds, prefixes, services)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("adopt steering maps: %w", err), s.Close())
	}
	closeAll(fds.Prefix4, fds.Prefix6, fds.Services, fds.Fragments)
	return s, nil
}

// adoptSteering works on duplicates of fds; it returns what is to be closed also
// with an error.
func adoptSteering(fds SteeringFDs, prefixes []OwnedPrefix, services []Service) (*Steering, error) {
	s := newSteering()
	for _, one := range []struct {
		name string
		fd   int
		to   **ebpf.Map
	}{
		{steerMapPrefix4, fds.Prefix4, &s.maps.Prefix4},
		{steerMapPrefix6, fds.Prefix6, &s.maps.Prefix6},
		{steerMapServices, fds.Services, &s.maps.Services},
		{steerMapFragments, fds.Fragments, &s.maps.Fragments},
	} {
		var err error
		if *one.to, err = adoptMap(one.name, one.fd); err != nil {
			return s, err
		}
	}
	return s, errors.Join(s.believePrefixes(prefixes), s.believeServices(services))
}

// believePrefixes notes prefixes that the kernel has.
func (s *Steering) believePrefixes(prefixes []OwnedPrefix) error {
	for _, p := range prefixes {
		m, key, err := s.prefixKey(p.Prefix)
		if err != nil {
			return err
		}
		var has uint32 // of the longest prefix that covers this one: itself, if it is there
		if err := m.Lookup(key, &has); err != nil {
			return fmt.Errorf("prefix %v is said to be ours: look it up: %w", p.Prefix, err)
		}
		if Ownership(has) != p.Ownership {
			return fmt.Errorf("prefix %v is said to be ours as %v, but the kernel has %v", p.Prefix, p.Ownership, Ownership(has))
		}
		s.prefixes[p.Prefix] = p.Ownership
	}
	return nil
}

// believeServices notes services that are all that the kernel has.
func (s *Steering) believeServices(services []Service) error {
	var want [steerPlanePLANES]steerNumbers
	for _, v := range services {
		if err := v.validate(); err != nil {
			return err
		}
		s.services[v] = struct{}{}
		v.mark(&want[v.plane()])
	}
	for plane := range want {
		var has steerNumbers
		if err := s.maps.Services.Lookup(uint32(plane), &has); err != nil {
			return fmt.Errorf("read services: %w", err)
		}
		if has.Word != want[plane].Word {
			return fmt.Errorf("%d services are said to be ours, but the kernel has others", len(services))
		}
	}
	return nil
}

// adoptMap wraps a duplicate of fd, which must be a map like the one called name.
func adoptMap(name string, fd int) (*ebpf.Map, error) {
	spec, err := loadSteer()
	if err != nil {
		return nil, err
	}
	duplicate, err := duplicateBPF(fd, "map")
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	m, err := ebpf.NewMapFromFD(duplicate) // closes it where it fails
	if err != nil {
		return nil, fmt.Errorf("map %s: descriptor %d: %w", name, fd, err)
	}
	like := spec.Maps[name]
	if name == steerMapSockets { // as many as its port has queues
		like.MaxEntries = m.MaxEntries()
	}
	if err := like.Compatible(m); err != nil {
		return nil, errors.Join(fmt.Errorf("map %s: descriptor %d: %w", name, fd, err), m.Close())
	}
	return m, nil
}

// duplicateBPF duplicates fd, which must be a map, prog or link, as kind says: asked
// for what it knows of a descriptor, the kernel would tell of one as of another.
func duplicateBPF(fd int, kind string) (int, error) {
	is, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return -1, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if is != "anon_inode:bpf-"+kind && is != "anon_inode:bpf_"+kind {
		return -1, fmt.Errorf("descriptor %d is %s, want a BPF %s", fd, is, kind)
	}
	duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor %d: %w", fd, err)
	}
	return duplicate, nil
}

// closeAll closes descriptors that have been duplicated and cannot be of interest
// to anybody any more.
func closeAll(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// ProgramState is what another process must know of a port's program beside its
// descriptors.
type ProgramState struct {
	Interface string
	Index     int
	Takeover  bool
	Mode      AttachMode // in force: Native or Generic
	Fallbacks []Fallback
}

// ProgramFDs are what holds a port's program in the kernel, to be passed to another
// process.
type ProgramFDs struct{ Link, Program, Sockets, Counters int }

// State tells what AdoptProgram needs.
func (p *Program) State() ProgramState {
	return ProgramState{
		Interface: p.device.name, Index: p.device.index, Takeover: p.takeover, Mode: p.mode, Fallbacks: p.fallbacks,
	}
}

// FDs returns the descriptors; the Program keeps owning them.
func (p *Program) FDs() ProgramFDs {
	return ProgramFDs{Link: p.link.(interface{ FD() int }).FD(), Program: p.program.FD(), Sockets: p.maps.Sockets.FD(), Counters: p.maps.Counters.FD()}
}

// AdoptProgram takes up the program that another process attached to a port, and
// loads this process's own around the same maps, to be put in force by Renew. Until
// then nothing changes for the port. steering is as for Attach.
func AdoptProgram(st ProgramState, fds ProgramFDs, steering *Steering) (*Program, error) {
	p := &Program{
		device: device{name: st.Interface, index: st.Index}, takeover: st.Takeover, mode: st.Mode, fallbacks: slices.Clone(st.Fallbacks),
	}
	if err := p.adopt(fds, steering); err != nil {
		return nil, errors.Join(fault("adopt steering program of", p.device, -1, err), p.Close())
	}
	closeAll(fds.Link, fds.Program, fds.Sockets, fds.Counters)
	return p, nil
}

// adopt works on duplicates of fds.
func (p *Program) adopt(fds ProgramFDs, steering *Steering) (err error) {
	if steering == nil && !p.takeover {
		return errors.New("no steering is given and the port is not taken over")
	}
	if p.mode != Native && p.mode != Generic {
		return fmt.Errorf("it is said to be in mode %v, want native or generic", p.mode)
	}
	if p.maps.Sockets, err = adoptMap(steerMapSockets, fds.Sockets); err != nil {
		return err
	}
	if p.maps.Counters, err = adoptMap(steerMapCounters, fds.Counters); err != nil {
		return err
	}
	if err := p.adoptLink(fds.Link); err != nil {
		return err
	}
	duplicate, err := duplicateBPF(fds.Program, "prog")
	if err != nil {
		return err
	}
	if p.program, err = ebpf.NewProgramFromFD(duplicate); err != nil { // which closes it
		return fmt.Errorf("descriptor %d: %w", fds.Program, err)
	}
	if kind := p.program.Type(); kind != ebpf.XDP {
		return fmt.Errorf("descriptor %d: a program of type %v, want %v", fds.Program, kind, ebpf.XDP)
	}
	return p.prepare(steering)
}

// adoptLink wraps a duplicate of fd, which must link a program to our port.
func (p *Program) adoptLink(fd int) error {
	duplicate, err := duplicateBPF(fd, "link")
	if err != nil {
		return err
	}
	held, err := link.NewFromFD(duplicate) // closes it where it fails
	if err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	p.link = held
	info, err := held.Info()
	switch {
	case err != nil:
		return fmt.Errorf("descriptor %d: %w", fd, err)
	case info.XDP() == nil:
		return fmt.Errorf("descriptor %d: a link of type %d, want an XDP link", fd, info.Type)
	case info.XDP().Ifindex == 0:
		return ErrGone
	case int(info.XDP().Ifindex) != p.device.index:
		return fmt.Errorf("descriptor %d: a link to interface %d, want %d", fd, info.XDP().Ifindex, p.device.index)
	}
	return nil
}

// prepare loads our own program around the maps of the one in force.
func (p *Program) prepare(steering *Steering) error {
	given := map[string]*ebpf.Map{}
	if !p.takeover {
		given = steering.byName()
	}
	given[steerMapSockets], given[steerMapCounters] = p.maps.Sockets, p.maps.Counters
	next, clones, err := assemble(p.takeover, p.maps.Sockets.MaxEntries(), given)
	if err != nil {
		return err
	}
	p.next = next
	return errors.Join(clones.Sockets.Close(), clones.Counters.Close())
}

// Renew puts the program that AdoptProgram loaded in force, at once for the next
// frame, and does nothing for a Program of Attach or a second time. Where the kernel
// refuses, the one in force goes on, which is a Fallback besides the error.
func (p *Program) Renew() error {
	if p.next == nil {
		return nil
	}
	old := p.program
	err := p.link.Update(p.next)
	if err != nil {
		old = p.next
		p.fallbacks = append(p.fallbacks, Fallback{Port: p.device.name, Queue: -1, Wanted: "this forwarder's steering program", Got: "that of the one before", Err: err})
		err = fault("renew steering program of", p.device, -1, err)
	} else {
		p.program = p.next
	}
	p.next = nil
	return errors.Join(err, old.Close())
}
