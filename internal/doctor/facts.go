//go:build linux

package doctor

import (
	"fmt"
	"time"

	"margay.dev/margay/internal/hostbpf"
	"margay.dev/margay/internal/hostnet"
)

// State is whether something is there.
type State uint8

// The states.
const (
	Unknown State = iota // could not be found out
	Yes
	No
)

// An Answer is whether something is there, and if not or unknown, why.
type Answer struct {
	State State
	Why   string
}

// Facts are what Gather saw, and what was expected.
type Facts struct {
	Kernel   Kernel
	Process  Process
	Host     Host
	Devices  []Device
	Expected Options
}

// running tells whether a forwarder runs in our network namespace.
func (f Facts) running() bool { return f.Expected.Inside || len(f.Process.Forwarders) > 0 }

// Kernel is what the running kernel can do.
type Kernel struct {
	Release      string // as uname -r
	Major, Minor int
	AFXDP        Answer // sockets of family AF_XDP
	Tun          Answer // TUN with virtio-net headers and several queues
	USO          Answer // UDP segmentation on a TUN
	Memfd        Answer
	BTF          Answer // type information of the kernel
	JIT          string // net.core.bpf_jit_enable; empty if not to be read
}

// Process is what this process may do and has.
type Process struct {
	Capabilities uint64 // effective, one bit each as capabilities(7) numbers them
	Memlock      uint64 // bytes it may lock; the greatest number if there is no limit
	CPUs         int    // it may run on
	GoThreads    int    // GOMAXPROCS
	Forwarders   []int  // process ids of forwarders in our network namespace
}

// Host is how our network namespace is set up.
type Host struct {
	Forward4, Forward6 string      // ip_forward and its IPv6 counterpart; empty if not to be read
	ReversePath        int         // rp_filter in force on the host port; -1 if there is none
	LocalPorts         PortRange   // ports the kernel gives to its own connections
	Reserved           []PortRange // ports it keeps out of these
	HostPort           *hostnet.Link
	StaleTUN           []string // TUN devices of ours that no process holds, the host port aside
	Journal            []string // settings that stand in the journal
	JournalError       string   // why it could not be read
	Networkd           Networkd
}

// Networkd is how systemd-networkd treats what it did not make.
type Networkd struct {
	Running      bool
	KeepsRoutes  bool // ManageForeignRoutes=no
	OwnsHostPort bool // it configures the host port
}

// Device is one device and what its driver says.
type Device struct {
	Spec         DeviceSpec
	Missing      string // why it could not be read; all below is then empty
	Link         hostnet.Link
	Capability   hostnet.XDPCapability
	NoCapability string // why the driver's XDP features are not known
	Program      hostbpf.Program
	Channels     hostnet.Channels
	Offloads     map[string]bool // active ones by the kernel's names; nil if not to be read
	Peer         *Peer           // other end of a veth
	NoPeer       string          // why the other end of a veth was not found
	DeferIRQs    int             // napi_defer_hard_irqs
	FlushTimeout time.Duration   // gro_flush_timeout
	Owner        string          // host configuration manager that configures it
	Above        string          // bridge or bond that it is part of
}

// Peer is the other end of a veth pair.
type Peer struct {
	Name      string
	Namespace string // where it is; empty for the same namespace
	RxQueues  int
	Checksum  bool // transmit checksum offload is on
}

// Name is how findings call the device.
func (d Device) Name() string {
	if d.Spec.Namespace == "" {
		return d.Spec.Name
	}
	return fmt.Sprintf("%s (in %s)", d.Spec.Name, d.Spec.Namespace)
}

// queues is how many receive queues are in use: what the driver says, or else
// what the kernel allocated.
func (d Device) queues() int {
	if n := d.Channels.Combined + d.Channels.Rx; n > 0 {
		return n
	}
	return d.Link.RxQueues
}
