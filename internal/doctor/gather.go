//go:build linux

package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"margay.dev/margay/internal/hostbpf"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/journal"
)

// Gather looks at the node, its network namespace and the devices. What cannot
// be read is told in the Facts; an error means that nothing can be.
func Gather(ctx context.Context, o Options) (Facts, error) {
	return look{root: "/"}.gather(ctx, o)
}

// look reads the node's files below root.
type look struct{ root string }

func (l look) path(p string) string { return filepath.Join(l.root, p) }

func (l look) gather(ctx context.Context, o Options) (Facts, error) {
	ns, err := hostnet.OpenNamespace("")
	if err != nil {
		return Facts{}, fmt.Errorf("look at the node: %w", err)
	}
	defer ns.Close()
	host, err := hostnet.NewHost(ns)
	if err != nil {
		return Facts{}, fmt.Errorf("look at the node: %w", err)
	}
	defer host.Close()
	f := Facts{Expected: o, Kernel: l.kernel(ns), Process: l.process()}
	if f.Host, err = l.host(host, o); err != nil {
		return Facts{}, fmt.Errorf("look at the node: %w", err)
	}
	specs := o.Devices
	if len(specs) == 0 {
		if specs, err = candidates(host); err != nil {
			return Facts{}, fmt.Errorf("look for devices: %w", err)
		}
	}
	others := l.namespaces()
	defer closeAll(others)
	for _, s := range specs {
		if err := context.Cause(ctx); err != nil {
			return Facts{}, fmt.Errorf("look at device %s: %w", s.Name, err)
		}
		f.Devices = append(f.Devices, l.device(host, s, others))
	}
	return f, nil
}

// candidates are the devices that could be ports: hardware, and ends of veth
// pairs that are in no bridge.
func candidates(h *hostnet.Host) ([]DeviceSpec, error) {
	links, err := h.Links()
	if err != nil {
		return nil, err
	}
	var specs []DeviceSpec
	for _, l := range links {
		if !l.MAC.IsZero() && (l.Kind == "" || l.Kind == "veth" && l.Master == 0) {
			specs = append(specs, DeviceSpec{Name: l.Name, Candidate: true})
		}
	}
	return specs, nil
}

// host reads how the namespace of h is set up.
func (l look) host(h *hostnet.Host, o Options) (out Host, err error) {
	sysctl := func(key string) string {
		v, _ := h.Namespace().Sysctl(key)
		return v
	}
	out.Forward4, out.Forward6 = sysctl("net.ipv4.ip_forward"), sysctl("net.ipv6.conf.all.forwarding")
	if ends := strings.Fields(sysctl("net.ipv4.ip_local_port_range")); len(ends) == 2 {
		if r := parseRanges(ends[0] + "-" + ends[1]); len(r) == 1 {
			out.LocalPorts = r[0]
		}
	}
	out.Reserved = parseRanges(sysctl("net.ipv4.ip_local_reserved_ports"))
	links, err := h.Links()
	if err != nil {
		return out, err
	}
	out.ReversePath = -1
	for _, link := range links {
		switch {
		case link.Name == o.hostPort():
			out.HostPort = &link
			all, _ := strconv.Atoi(sysctl("net/ipv4/conf/all/rp_filter"))
			own, _ := strconv.Atoi(sysctl("net/ipv4/conf/" + link.Name + "/rp_filter"))
			out.ReversePath = max(all, own)
		case link.Kind == "tun" && strings.HasPrefix(link.Name, ourTUNs) && !link.Carrier && link.Up:
			out.StaleTUN = append(out.StaleTUN, link.Name)
		}
	}
	out.readJournal(o.Journal)
	out.Networkd = l.networkd(out.HostPort)
	return out, nil
}

// ourTUNs is how the names of TUN devices that we make begin.
const ourTUNs = "margay"

func (h *Host) readJournal(path string) {
	if path == "" {
		return
	}
	entries, err := journal.Read(path)
	switch {
	case hostnet.Missing(err):
	case err != nil:
		h.JournalError = err.Error()
	}
	for _, e := range entries {
		if e.Class == journal.UntilExit {
			h.Journal = append(h.Journal, e.String())
		}
	}
}

// parseRanges reads ports as the kernel lists them: "8080,9000-9100".
func parseRanges(s string) []PortRange {
	var out []PortRange
	for _, part := range strings.Split(s, ",") {
		first, last, both := strings.Cut(part, "-")
		if !both {
			last = first
		}
		a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		if errA == nil && errB == nil {
			out = append(out, PortRange{uint16(a), uint16(b)})
		}
	}
	return out
}

// device reads one device. others are the namespaces in which the other end of
// a veth may be.
func (l look) device(own *hostnet.Host, spec DeviceSpec, others []*hostnet.Namespace) Device {
	if spec.Namespace == "" {
		return l.deviceIn(own, spec, others)
	}
	ns, err := hostnet.OpenNamespace(spec.Namespace)
	if err != nil {
		return Device{Spec: spec, Missing: err.Error()}
	}
	defer ns.Close()
	host, err := hostnet.NewHost(ns)
	if err != nil {
		return Device{Spec: spec, Missing: err.Error()}
	}
	defer host.Close()
	return l.deviceIn(host, spec, append([]*hostnet.Namespace{own.Namespace()}, others...))
}

func (l look) deviceIn(h *hostnet.Host, spec DeviceSpec, others []*hostnet.Namespace) Device {
	d := Device{Spec: spec}
	var err error
	if d.Link, err = h.Link(spec.Name); err != nil {
		d.Missing = err.Error()
		return d
	}
	if d.Capability, err = h.XDPCapability(spec.Name); err != nil {
		d.NoCapability = err.Error()
	}
	if d.Link.XDP.Program != 0 {
		d.Program, _ = hostbpf.Lookup(d.Link.XDP.Program) // a name is a help, not a need
	}
	d.Channels, _ = h.Channels(spec.Name) // many drivers have none: zero says so
	d.Offloads = active(h, spec.Name)
	if d.Link.Kind == "veth" {
		d.findPeer(h, others)
	}
	d.DeferIRQs = int(attribute(h, spec.Name, "napi_defer_hard_irqs"))
	d.FlushTimeout = time.Duration(attribute(h, spec.Name, "gro_flush_timeout"))
	if d.Link.Master != 0 {
		d.Above = "another device"
		if m, err := h.LinkByIndex(d.Link.Master); err == nil {
			d.Above = strings.TrimSpace(m.Kind + " " + m.Name)
		}
	}
	if spec.Namespace == "" {
		d.Owner = l.owner(d.Link.Index)
	}
	return d
}

// attribute is a number in the device's sysfs, 0 if there is none.
func attribute(h *hostnet.Host, link, name string) int64 {
	s, err := h.Namespace().Sysfs(link, name)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// active are the offloads in force; nil if they cannot be read.
func active(h *hostnet.Host, link string) map[string]bool {
	features, err := h.Features(link)
	if err != nil {
		return nil
	}
	on := map[string]bool{}
	for name, f := range features {
		if f.Active {
			on[name] = true
		}
	}
	return on
}

// findPeer looks at the other end of a veth.
func (d *Device) findPeer(h *hostnet.Host, others []*hostnet.Namespace) {
	l, at, err := h.Peer(d.Link.Name, others)
	if err != nil {
		d.NoPeer = err.Error()
		return
	}
	there := h
	p := &Peer{Name: l.Name, RxQueues: l.RxQueues}
	if at >= 0 {
		if there, err = hostnet.NewHost(others[at]); err != nil {
			d.NoPeer = err.Error()
			return
		}
		defer there.Close()
		p.Namespace = others[at].Path()
	}
	if p.Checksum, err = there.Offload(l.Name, "tx"); err != nil {
		d.NoPeer = err.Error()
		return
	}
	d.Peer = p
}

func closeAll(all []*hostnet.Namespace) {
	for _, ns := range all {
		ns.Close()
	}
}

// namespaces opens every network namespace that has a name or a process, our
// own aside, each once.
func (l look) namespaces() []*hostnet.Namespace {
	named, _ := filepath.Glob(l.path("run/netns/*"))
	processes, _ := filepath.Glob(l.path("proc/[0-9]*/ns/net"))
	seen := []uint64{inode(l.path("proc/self/ns/net"))}
	var out []*hostnet.Namespace
	for _, path := range slices.Concat(named, processes) {
		id := inode(path)
		if id == 0 || slices.Contains(seen, id) {
			continue
		}
		if ns, err := hostnet.OpenNamespace(path); err == nil {
			seen = append(seen, id)
			out = append(out, ns)
		}
	}
	return out
}
