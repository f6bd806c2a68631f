//go:build linux

package doctor

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/internal/hostnet"
)

const (
	// linkHeader is an Ethernet header with one VLAN tag, in bytes.
	linkHeader = 14 + 4
	// oneFrame is the largest packet, without its link header, that one frame
	// holds behind the kernel's headroom and ours.
	oneFrame = umem.ChunkSize - unix.XDP_PACKET_HEADROOM - umem.Headroom - linkHeader
)

const native = hostnet.XDPBasic | hostnet.XDPRedirect

func checkDevice(_ Facts, d Device) []Finding {
	l := d.Link
	what := strings.TrimSpace(fmt.Sprintf("driver %s, MTU %d, %s", or(l.Driver, "unknown"), l.MTU, plural(d.queues(), "queue")))
	switch {
	case d.Missing != "":
		return one(Fault, d.Missing, "see `ip link`; a device that was moved to another namespace is looked at there")
	case !l.Up:
		return one(Fault, what+"; it is down", fmt.Sprintf("ip link set dev %s up", l.Name))
	case !l.Carrier:
		return one(Warning, what+"; it has no carrier", "look at the cable, the switch or the other end")
	}
	return one(OK, what, "")
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func checkXDP(_ Facts, d Device) []Finding {
	f := d.Capability.Features
	switch {
	case d.NoCapability != "":
		return one(Note, "whether the driver has native XDP is not known: "+d.NoCapability, "kernel 6.3 and later tell; the port's mode in `margayctl show ports` shows what was had")
	case f.Has(native | hostnet.XDPZeroCopy):
		return one(OK, fmt.Sprintf("native XDP, frames are copied once: the forwarder does not ask for the driver's zero-copy (%v)", f), "")
	case f.Has(native):
		return one(OK, fmt.Sprintf("native XDP, frames are copied once (%v)", f), "")
	case d.Peer != nil && d.Peer.RxQueues > d.Link.TxQueues:
		return one(Warning, fmt.Sprintf("generic XDP only, since the other end %s has %d receive queues and this end %d transmit queues",
			d.Peer.Name, d.Peer.RxQueues, d.Link.TxQueues), "make the pair with numtxqueues here no smaller than numrxqueues there")
	}
	return one(Warning, fmt.Sprintf("driver %s has generic XDP only: every packet is copied and a socket buffer made for it", or(d.Link.Driver, "unknown")),
		"use a device whose driver has native XDP, or expect a fraction of the rate")
}

// ourPrograms is how the names of our XDP programs begin.
const ourPrograms = "margay_"

func checkProgram(f Facts, d Device) []Finding {
	x, name := d.Link.XDP, or(d.Program.Name, "without a name")
	switch {
	case x.Mode == hostnet.XDPNone && d.Spec.Program != 0:
		return one(Fault, fmt.Sprintf("our XDP program (id %d) was taken off it: nothing that arrives comes to the forwarder", d.Spec.Program),
			"restart the forwarder, which puts it back; nobody else should detach it (bpftool link detach)")
	case x.Mode == hostnet.XDPNone:
		return one(OK, "no XDP program", "")
	case d.Spec.Program == x.Program, d.Spec.Program == 0 && strings.HasPrefix(name, ourPrograms):
		return ownProgram(f, d, fmt.Sprintf("our XDP program %s (id %d, %v)", name, x.Program, x.Mode))
	}
	return one(Fault, fmt.Sprintf("an XDP program of somebody else is on it: %s (id %d, %v)", name, x.Program, x.Mode),
		fmt.Sprintf("take it off (ip link set dev %s xdp off; if a process holds it, bpftool link names it), or choose another device", d.Link.Name))
}

// ownProgram judges a program of ours: generic mode is loud, and so is one that
// outlives its forwarder.
func ownProgram(f Facts, d Device, what string) []Finding {
	switch {
	case d.Spec.Program == 0 && !f.running():
		return one(Warning, what+", and no forwarder runs here: what is ours is dropped", "`bpftool link` names the process that holds it; end that, or start the forwarder")
	case d.Link.XDP.Mode == hostnet.XDPGeneric:
		return one(Warning, what+": every packet is copied once more", "the finding of check xdp says why")
	}
	return one(OK, what, "")
}

func checkQueues(f Facts, d Device) []Finding {
	queues, sockets, workers := d.queues(), d.Spec.Sockets, f.Expected.Workers
	switch {
	case sockets > 0 && queues > sockets:
		return one(Fault, fmt.Sprintf("%s receive, %s stand on them: what is ours and arrives on the rest is dropped", plural(queues, "queue"), plural(sockets, "socket")),
			fmt.Sprintf("leave the port's queues at 0 (all), or: ethtool -L %s combined %d", d.Link.Name, sockets))
	case workers > 0 && queues < workers:
		return one(Note, fmt.Sprintf("%s for %s: the other workers hand packets over to be sent", plural(queues, "queue"), plural(workers, "worker")),
			more(d, workers))
	case d.Channels.MaxCombined > 0 && workers > 0 && queues > 2*workers:
		return one(Note, fmt.Sprintf("%s for %s: more queues than needed cost CPU and gain nothing", plural(queues, "queue"), plural(workers, "worker")),
			fmt.Sprintf("ethtool -L %s combined %d", d.Link.Name, workers))
	}
	return one(OK, plural(queues, "receive queue"), "")
}

// more says how a device gets at least n queues.
func more(d Device, n int) string {
	switch {
	case d.Channels.MaxCombined >= n:
		return fmt.Sprintf("ethtool -L %s combined %d", d.Link.Name, n)
	case d.Channels.MaxRx >= n && d.Channels.MaxTx >= n:
		return fmt.Sprintf("ethtool -L %s rx %d tx %d", d.Link.Name, n, n)
	case d.Link.Kind == "veth":
		return fmt.Sprintf("make the pair with numrxqueues %d numtxqueues %d at both ends", n, n)
	}
	return fmt.Sprintf("the device has no more queues; %s is enough for it", plural(d.queues(), "worker"))
}

func checkMTU(f Facts, d Device) []Finding {
	mtu := d.Link.MTU
	known := d.NoCapability == ""
	switch {
	case mtu <= oneFrame:
		return one(OK, fmt.Sprintf("MTU %d fits one frame (up to %d)", mtu, oneFrame), "")
	case known && d.Capability.Features.Has(native) && !d.Capability.Features.Has(hostnet.XDPMultiRx):
		return one(Fault, fmt.Sprintf("MTU %d needs several frames for a packet, which native XDP of driver %s cannot do: the program is refused or runs in generic mode", mtu, or(d.Link.Driver, "unknown")),
			fmt.Sprintf("ip link set dev %s mtu %d, or less", d.Link.Name, oneFrame))
	}
	return one(Note, fmt.Sprintf("MTU %d needs up to %d frames for a packet (one holds %d): slower than one", mtu, frames(mtu), oneFrame),
		"fine where jumbo frames are wanted")
}

// frames is how many frames a packet of mtu bytes fills: each has headroom.
func frames(mtu int) int {
	const room = oneFrame + linkHeader
	return (mtu + linkHeader + room - 1) / room
}

func checkLRO(_ Facts, d Device) []Finding {
	return d.offload("rx-lro", "large receive offload", Fault, "lro",
		"the driver merges packets before XDP sees them, and most drivers refuse an XDP program while it is on")
}

func checkHardwareGRO(_ Facts, d Device) []Finding {
	return d.offload("rx-gro-hw", "hardware GRO", Fault, "rx-gro-hw",
		"the device merges packets beyond the MTU, and drivers refuse an XDP program or fall back to generic while it is on")
}

func checkVLANStripping(_ Facts, d Device) []Finding {
	severity := Warning
	if d.Link.Kind == "veth" { // a tag is taken off only where the sender offloads it
		severity = Note
	}
	return d.offload("rx-vlan-hw-parse", "VLAN tag stripping", severity, "rxvlan",
		"tags do not reach AF_XDP, so that tagged packets look untagged")
}

// offload judges a feature that should be off.
func (d Device) offload(feature, what string, on Severity, short, why string) []Finding {
	switch {
	case d.Offloads == nil:
		return one(Note, what+" could not be read", fmt.Sprintf("ethtool -k %s", d.Link.Name))
	case d.Offloads[feature]:
		return one(on, fmt.Sprintf("%s is on: %s", what, why), fmt.Sprintf("ethtool -K %s %s off", d.Link.Name, short))
	}
	return one(OK, what+" is off", "")
}

func checkChecksum(_ Facts, d Device) []Finding {
	switch {
	case d.Link.Kind != "veth":
		return one(OK, "no veth: its sender completes checksums", "")
	case d.Peer == nil:
		return one(Note, "the other end of the veth was not looked at: "+d.NoPeer,
			fmt.Sprintf("in its namespace, ethtool -k should show tx-checksumming off (link with index %d)", d.Link.Peer))
	case d.Peer.Checksum:
		return one(Fault, fmt.Sprintf("the other end %s sends with partial checksums, which AF_XDP cannot see: TCP and UDP from there look damaged", d.Peer.Name),
			strings.TrimSpace(in(d.Peer.Namespace)+fmt.Sprintf("ethtool -K %s tx off", d.Peer.Name)))
	}
	return one(OK, fmt.Sprintf("the other end %s completes checksums itself", d.Peer.Name), "")
}

// in is what to put before a command so that it runs in a namespace.
func in(namespace string) string {
	if namespace == "" {
		return ""
	}
	return "nsenter --net=" + namespace + " "
}

func checkMAC(_ Facts, d Device) []Finding {
	l := d.Link
	switch {
	case d.Spec.MAC.IsZero() || d.Spec.MAC == l.MAC:
		return one(OK, fmt.Sprintf("answers to its own address %v", l.MAC), "")
	case l.Promiscuous:
		return one(OK, fmt.Sprintf("answers to %v, which promiscuous mode lets through", d.Spec.MAC), "")
	}
	return one(Fault, fmt.Sprintf("the port answers to %v, which the device (%v) filters out", d.Spec.MAC, l.MAC),
		fmt.Sprintf("ip link set dev %s promisc on", l.Name))
}

// Above these, deferred interrupts cost throughput instead of saving CPU.
const (
	mostDeferred = 4
	mostDelay    = 300 * time.Microsecond
)

func checkNAPI(f Facts, d Device) []Finding {
	set := fmt.Sprintf("napi_defer_hard_irqs %d, gro_flush_timeout %v", d.DeferIRQs, d.FlushTimeout)
	switch {
	case d.DeferIRQs == 0 && d.FlushTimeout == 0:
		return one(OK, "interrupts are not deferred", "")
	case d.DeferIRQs > mostDeferred || d.FlushTimeout > mostDelay:
		return one(Warning, "interrupts are deferred so long that rings overflow: "+set,
			fmt.Sprintf("2 and 200000 (ns) save CPU at high rates, 0 and 0 are the kernel's: write them below /sys/class/net/%s/", d.Link.Name))
	case !f.running():
		return one(Note, "interrupts are deferred while no forwarder runs: "+set,
			fmt.Sprintf("if a forwarder left it so, write 0 to both below /sys/class/net/%s/", d.Link.Name))
	}
	return one(OK, "interrupts are deferred: "+set, "")
}

func checkOwner(_ Facts, d Device) []Finding {
	switch {
	case d.Above != "":
		return one(Warning, fmt.Sprintf("it is part of %s: what XDP takes never gets there", d.Above),
			"use the devices below a bond as ports and give the bond up, or take the device out of the bridge")
	case d.Owner != "":
		return one(OK, fmt.Sprintf("%s configures it, and keeps doing so: we leave its name and addresses alone", d.Owner), "")
	}
	return one(OK, "no bridge, bond or configuration manager holds it", "")
}
