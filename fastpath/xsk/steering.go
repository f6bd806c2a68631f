package xsk

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Ownership says how much of a prefix is ours.
type Ownership uint8

const (
	// Whole: every packet to the prefix is ours. For addresses of pods and services.
	Whole = Ownership(steerOwnershipWHOLE)
	// Local: an address of the node itself. Only services are ours, ICMP errors
	// about packets that we sent from it, and fragments that follow a first of ours.
	Local = Ownership(steerOwnershipLOCAL)
)

func (o Ownership) String() string {
	switch o {
	case Whole:
		return "whole"
	case Local:
		return "local"
	}
	return fmt.Sprintf("Ownership(%d)", uint8(o))
}

// Service is what is ours on a local address: the destination ports Low to High of
// TCP, UDP or SCTP, the echo ids Low to High of ICMP or ICMPv6 (in echo replies:
// requests are for the node), or, with Low and High zero, another protocol.
type Service struct {
	Proto     uint8
	Low, High uint16
}

// ErrNotSet is returned when a prefix or service is deleted that was not set.
var ErrNotSet = errors.New("is not set")

// Steering is what is ours, shared by the programs of all ports of a node. A change
// is in force for the next frame.
type Steering struct {
	mu       sync.Mutex
	maps     steeringMaps
	prefixes map[netip.Prefix]Ownership
	services map[Service]struct{}
}

// steeringMaps are the maps of the object that ports share.
type steeringMaps struct {
	Prefix4   *ebpf.Map `ebpf:"prefix4"`
	Prefix6   *ebpf.Map `ebpf:"prefix6"`
	Services  *ebpf.Map `ebpf:"services"`
	Fragments *ebpf.Map `ebpf:"fragments"`
}

// NewSteering makes the maps; nothing is ours yet.
func NewSteering() (*Steering, error) {
	s := newSteering()
	if err := loadSteerObjects(&s.maps, nil); err != nil {
		return nil, fault("make steering maps", device{}, -1, err)
	}
	return s, nil
}

func newSteering() *Steering {
	return &Steering{prefixes: map[netip.Prefix]Ownership{}, services: map[Service]struct{}{}}
}

// byName returns the maps under the names that a program refers to them by.
func (s *Steering) byName() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		steerMapPrefix4:   s.maps.Prefix4,
		steerMapPrefix6:   s.maps.Prefix6,
		steerMapServices:  s.maps.Services,
		steerMapFragments: s.maps.Fragments,
	}
}

// SetPrefix makes p ours in the sense of o. A longer prefix wins over a shorter one.
func (s *Steering) SetPrefix(p netip.Prefix, o Ownership) error {
	if o != Whole && o != Local {
		return fmt.Errorf("set prefix %v: ownership is %v, want whole or local", p, o)
	}
	m, key, err := s.prefixKey(p)
	if err != nil {
		return fmt.Errorf("set prefix: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := m.Put(key, uint32(o)); err != nil {
		return fmt.Errorf("set prefix %v: %w%s", p, err, fullAdvice(err, m))
	}
	s.prefixes[p] = o
	return nil
}

// fullAdvice explains a map that takes no more.
func fullAdvice(err error, m *ebpf.Map) string {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Sprintf(": the port can steer %d prefixes of a family; cover them by shorter ones", m.MaxEntries())
	}
	return ""
}

// DeletePrefix undoes SetPrefix; ErrNotSet when p was not set.
func (s *Steering) DeletePrefix(p netip.Prefix) error {
	m, key, err := s.prefixKey(p)
	if err != nil {
		return fmt.Errorf("delete prefix: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.prefixes[p]; !ok {
		return fmt.Errorf("delete prefix %v: %w", p, ErrNotSet)
	}
	if err := m.Delete(key); err != nil {
		return fmt.Errorf("delete prefix %v: %w", p, err)
	}
	delete(s.prefixes, p)
	return nil
}

// OwnedPrefix is a prefix and how much of it is ours.
type OwnedPrefix struct {
	Prefix    netip.Prefix
	Ownership Ownership
}

// Prefixes returns what was set, sorted.
func (s *Steering) Prefixes() []OwnedPrefix {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]OwnedPrefix, 0, len(s.prefixes))
	for p, o := range s.prefixes {
		all = append(all, OwnedPrefix{p, o})
	}
	slices.SortFunc(all, func(a, b OwnedPrefix) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return all
}

// prefixKey returns the map of p's family and p as its key.
func (s *Steering) prefixKey(p netip.Prefix) (*ebpf.Map, any, error) {
	switch {
	case !p.IsValid() || p != p.Masked():
		return nil, nil, fmt.Errorf("%v is not a prefix: host bits are set or the length is wrong", p)
	case p.Addr().Is4In6():
		return nil, nil, fmt.Errorf("%v is an IPv4 prefix written as IPv6; write it as IPv4", p)
	case p.Addr().Is4():
		return s.maps.Prefix4, steerPrefix4Key{Bits: uint32(p.Bits()), Address: p.Addr().As4()}, nil
	}
	return s.maps.Prefix6, steerPrefix6Key{Bits: uint32(p.Bits()), Address: p.Addr().As16()}, nil
}

// SetService makes ports low to high of proto ours on every local address; see
// Service for what low and high mean. Services may overlap.
func (s *Steering) SetService(proto uint8, low, high uint16) error {
	service := Service{proto, low, high}
	if err := service.validate(); err != nil {
		return fmt.Errorf("set service: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, had := s.services[service]
	s.services[service] = struct{}{}
	if err := s.writePlane(service.plane()); err != nil {
		if !had {
			delete(s.services, service)
		}
		return fmt.Errorf("set service %+v: %w", service, err)
	}
	return nil
}

// DeleteService undoes a SetService of the same arguments; ErrNotSet when there was
// none. What other services cover stays ours.
func (s *Steering) DeleteService(proto uint8, low, high uint16) error {
	service := Service{proto, low, high}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.services[service]; !ok {
		return fmt.Errorf("delete service %+v: %w", service, ErrNotSet)
	}
	delete(s.services, service)
	if err := s.writePlane(service.plane()); err != nil {
		s.services[service] = struct{}{}
		return fmt.Errorf("delete service %+v: %w", service, err)
	}
	return nil
}

// Services returns what was set, sorted.
func (s *Steering) Services() []Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Service, 0, len(s.services))
	for service := range s.services {
		all = append(all, service)
	}
	slices.SortFunc(all, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Low, b.Low), cmp.Compare(a.High, b.High))
	})
	return all
}

// writePlane makes the kernel's bitmap of a plane anew from the services of it.
// The kernel writes it word by word: a port that stays ours is ours all the while.
func (s *Steering) writePlane(plane steerPlane) error {
	var numbers steerNumbers
	for service := range s.services {
		if service.plane() == plane {
			service.mark(&numbers)
		}
	}
	return s.maps.Services.Put(uint32(plane), &numbers)
}

func (v Service) validate() error {
	if v.Low > v.High {
		return fmt.Errorf("%+v: low is above high", v)
	}
	if v.plane() == steerPlanePROTOCOL && v.High != 0 {
		return fmt.Errorf("%+v: protocol %d has no ports, want low and high 0", v, v.Proto)
	}
	return nil
}

// plane returns which bitmap of the program the service is in.
func (v Service) plane() steerPlane {
	switch v.Proto {
	case unix.IPPROTO_TCP:
		return steerPlaneTCP
	case unix.IPPROTO_UDP:
		return steerPlaneUDP
	case unix.IPPROTO_SCTP:
		return steerPlaneSCTP
	case unix.IPPROTO_ICMP:
		return steerPlaneICMP
	case unix.IPPROTO_ICMPV6:
		return steerPlaneICMP6
	}
	return steerPlanePROTOCOL
}

// mark sets the bits of the service.
func (v Service) mark(numbers *steerNumbers) {
	low, high := uint(v.Low), uint(v.High)
	if v.plane() == steerPlanePROTOCOL {
		low, high = uint(v.Proto), uint(v.Proto)
	}
	for n := low; n <= high; n++ {
		numbers.Word[n/64] |= 1 << (n % 64)
	}
}

// Close gives the maps up. Programs attached with them keep theirs.
func (s *Steering) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.maps.Prefix4.Close(), s.maps.Prefix6.Close(), s.maps.Services.Close(), s.maps.Fragments.Close())
}
