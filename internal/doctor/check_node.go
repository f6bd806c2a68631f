//go:build linux

package doctor

import (
	"cmp"
	"fmt"
	"slices"
)

func checkForwarding(f Facts) []Finding {
	var out []Finding
	for _, s := range []struct{ family, key, value string }{
		{"IPv4", "net.ipv4.ip_forward", f.Host.Forward4},
		{"IPv6", "net.ipv6.conf.all.forwarding", f.Host.Forward6},
	} {
		switch s.value {
		case "0", "":
		default:
			out = append(out, one(Note, fmt.Sprintf("the kernel forwards %s packets too: what it is handed may go on without having met a policy", s.family),
				fmt.Sprintf("unless something else on the node needs it: sysctl -w %s=0", s.key))...)
		}
	}
	if len(out) == 0 {
		return one(OK, "the kernel forwards nothing past us", "")
	}
	return out
}

func checkReversePath(f Facts) []Finding {
	name := f.Expected.hostPort()
	switch f.Host.ReversePath {
	case -1:
		return one(OK, fmt.Sprintf("no host port %s yet", name), "")
	case 1:
		return one(Warning, fmt.Sprintf("strict reverse-path filter on %s: the node drops what we hand it from sources that are not routed there", name),
			fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2, and net.ipv4.conf.all.rp_filter at 0 or 2", name))
	}
	return one(OK, fmt.Sprintf("no strict reverse-path filter on %s", name), "")
}

// hostPort is the host port's name.
func (o Options) hostPort() string { return cmp.Or(o.HostPort, DefaultHostPort) }

func checkLocalPorts(f Facts) []Finding {
	if len(f.Expected.NodePorts) == 0 {
		return one(OK, "no ports of the node's own addresses are ours", "")
	}
	local := f.Host.LocalPorts
	if local == (PortRange{}) {
		return one(Note, "ip_local_port_range could not be read", "run the doctor as root")
	}
	var out []Finding
	for _, ours := range f.Expected.NodePorts {
		for _, clash := range without(ours.and(local), f.Host.Reserved) {
			out = append(out, one(Fault, fmt.Sprintf("ports %v are ours and the kernel gives them to connections of the node (%v): their replies come to us", clash, local),
				fmt.Sprintf("add them to sysctl net.ipv4.ip_local_reserved_ports: %v", clash))...)
		}
	}
	if len(out) == 0 {
		return one(OK, fmt.Sprintf("the kernel gives none of our ports to connections of the node (%v)", local), "")
	}
	return out
}

// String is one port, or both ends.
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// and is what two ranges share: none, or one range.
func (r PortRange) and(o PortRange) []PortRange {
	both := PortRange{max(r.First, o.First), min(r.Last, o.Last)}
	if both.First > both.Last {
		return nil
	}
	return []PortRange{both}
}

// without takes what holes cover out of ranges.
func without(ranges, holes []PortRange) []PortRange {
	for _, hole := range holes {
		var rest []PortRange
		for _, r := range ranges {
			if len(r.and(hole)) == 0 {
				rest = append(rest, r)
				continue
			}
			if r.First < hole.First {
				rest = append(rest, PortRange{r.First, hole.First - 1})
			}
			if r.Last > hole.Last {
				rest = append(rest, PortRange{hole.Last + 1, r.Last})
			}
		}
		ranges = rest
	}
	return slices.Clip(ranges)
}

func checkLeftovers(f Facts) []Finding {
	var out []Finding
	if p := f.Host.HostPort; p != nil && !p.Carrier && p.Up && !f.running() {
		out = append(out, one(Note, fmt.Sprintf("host port %s stands without a forwarder: it stays on purpose, so that nothing of a pod leaks", p.Name),
			fmt.Sprintf("start the forwarder; after an uninstall: ip link delete %s", p.Name))...)
	}
	for _, name := range f.Host.StaleTUN {
		out = append(out, one(Warning, fmt.Sprintf("no process holds TUN device %s", name), fmt.Sprintf("if no forwarder is to take it up again: ip link delete %s", name))...)
	}
	if len(out) == 0 {
		return one(OK, "no device of a dead forwarder", "")
	}
	return out
}

// shown is how many settings of a journal a finding names.
const shown = 3

func checkJournal(f Facts) []Finding {
	h, n := f.Host, len(f.Host.Journal)
	switch {
	case f.Expected.Journal == "":
		return one(OK, "no journal is configured", "")
	case h.JournalError != "":
		return one(Warning, "the journal of changed settings cannot be read: "+h.JournalError, "start the forwarder: it repairs what it can and says what it cannot")
	case n > 0 && !f.running():
		some := list(h.Journal[:min(n, shown)])
		if n > shown {
			some += fmt.Sprintf(" and %d more", n-shown)
		}
		return one(Warning, fmt.Sprintf("a forwarder that ended left %s changed: %s", plural(n, "setting"), some),
			"start the forwarder once: it puts them back first")
	}
	return one(OK, "every changed setting has an owner", "")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func checkNetworkd(f Facts) []Finding {
	n := f.Host.Networkd
	if !n.Running {
		return one(OK, "systemd-networkd does not run", "")
	}
	var out []Finding
	if !n.KeepsRoutes {
		out = append(out, one(Warning, "systemd-networkd removes routes that it did not make when it restarts",
			"put ManageForeignRoutes=no below [Network] in /etc/systemd/networkd.conf.d/margay.conf")...)
	}
	if n.OwnsHostPort {
		out = append(out, one(Warning, fmt.Sprintf("systemd-networkd configures the host port %s", f.Expected.hostPort()),
			fmt.Sprintf("match Name=%s in a .network file with Unmanaged=yes below [Link]", f.Expected.hostPort()))...)
	}
	if len(out) == 0 {
		return one(OK, "systemd-networkd leaves our routes alone", "")
	}
	return out
}
