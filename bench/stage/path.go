package stage

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"margay.dev/margay/internal/hostnet"
)

// Path is a way from a client's namespace to a server's.
type Path struct {
	Client, Server *hostnet.Namespace
	V4, V6         netip.Addr // of the server
	// CPU is what processes between the two have taken; nil where the kernel
	// does it all, in the time of those who send and receive.
	CPU func() (time.Duration, error)
	// Close takes down the path, and those that were made with it.
	Close func()
}

// Addr is the server's address of a family.
func (p *Path) Addr(ipv6 bool) netip.Addr {
	if ipv6 {
		return p.V6
	}
	return p.V4
}

// Received is the octets that the server's device has received.
func (p *Path) Received() (uint64, error) {
	v, err := p.Server.Sysfs(Device, "statistics/rx_bytes")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read what %s has received: %w", Device, err)
	}
	return n, nil
}
