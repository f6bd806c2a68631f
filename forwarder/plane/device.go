package plane

import (
	"errors"

	"margay.dev/margay/fastpath/port"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/internal/hostnet"
)

// errNoDevice says that the device of a port does not exist (yet).
var errNoDevice = errors.New("no such device")

// Device is an opened port with what the dataplane must know of it.
type Device struct {
	Port    port.Port
	Index   int    // of the network interface, 0 for none
	L2      bool   // Ethernet frames
	GSO     bool   // takes superpackets
	Mode    string // for people
	Program uint32 // id of the steering program on it, 0 for none
	Admit   func() error
	Shut    func() error // undoes Admit; before the workers let go of the queues
	Remove  func(*umem.Cache) error
	Extra   func() map[string]uint64 // counters beside the port's
	MAC     desired.MAC
	Carrier bool // as it was when opened
}

// Opener opens the devices of ports. host works in the port's namespace and is
// nil for an Opener that needs no network.
type Opener interface {
	Open(want *desired.Port, host *hostnet.Host, workers int, steering SteeringSource) (*Device, error)
}
