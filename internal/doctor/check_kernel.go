//go:build linux

package doctor

import (
	"fmt"
	"math"
	"strings"

	"golang.org/x/sys/unix"
)

// The oldest kernel that a forwarder runs on, by what it brought.
const (
	oldestMajor, oldestMinor = 6, 6 // AF_XDP packets of several buffers
)

func (k Kernel) atLeast(major, minor int) bool {
	return k.Major > major || k.Major == major && k.Minor >= minor
}

func checkKernel(f Facts) []Finding {
	k := f.Kernel
	switch {
	case k.Major == 0:
		return one(Note, fmt.Sprintf("kernel release %q is not in the usual form", k.Release),
			fmt.Sprintf("make sure that it is %d.%d or newer", oldestMajor, oldestMinor))
	case !k.atLeast(oldestMajor, oldestMinor):
		return one(Fault, fmt.Sprintf("kernel %s is older than %d.%d, which brought AF_XDP packets of several buffers", k.Release, oldestMajor, oldestMinor),
			fmt.Sprintf("install kernel %d.%d or newer", oldestMajor, oldestMinor))
	}
	return one(OK, fmt.Sprintf("kernel %s has XDP links, XDP packets of several buffers, and AF_XDP with both", k.Release), "")
}

// judge turns an Answer into a finding: yes is fine, no is as bad as lacking says.
func (a Answer) judge(what string, lacking Severity, advice string) []Finding {
	switch a.State {
	case Yes:
		return one(OK, what, "")
	case No:
		return one(lacking, fmt.Sprintf("no %s: %s", what, a.Why), advice)
	}
	return one(Note, fmt.Sprintf("%s: not found out: %s", what, a.Why), "run the doctor as root")
}

func checkAFXDP(f Facts) []Finding {
	return f.Kernel.AFXDP.judge("AF_XDP sockets", Fault, "use a kernel built with CONFIG_XDP_SOCKETS=y; without it only TUN ports work")
}

func checkTun(f Facts) []Finding {
	return f.Kernel.Tun.judge("TUN with offload headers and several queues", Fault,
		"load the module (modprobe tun) and let the forwarder open /dev/net/tun")
}

func checkUSO(f Facts) []Finding {
	return f.Kernel.USO.judge("UDP segmentation offload on TUN", Warning,
		"kernel 6.2 brought it: without, UDP between pods costs one pass per packet")
}

func checkMemfd(f Facts) []Finding {
	return f.Kernel.Memfd.judge("memory by memfd", Fault, "packet memory lives in a memfd: let the forwarder's seccomp profile allow memfd_create")
}

func checkBTF(f Facts) []Finding {
	return f.Kernel.BTF.judge("type information (BTF)", Note,
		"nothing of ours needs it; tracing tools do, and a kernel with CONFIG_DEBUG_INFO_BTF=y has it")
}

func checkJIT(f Facts) []Finding {
	switch f.Kernel.JIT {
	case "":
		return one(Note, "whether eBPF is compiled could not be read", "look at sysctl net.core.bpf_jit_enable on the host: it should be 1")
	case "0":
		return one(Warning, "eBPF programs are interpreted, several times slower", "sysctl -w net.core.bpf_jit_enable=1")
	case "2":
		return one(Warning, "the eBPF compiler writes its code to the kernel's log", "sysctl -w net.core.bpf_jit_enable=1")
	}
	return one(OK, "eBPF programs are compiled", "")
}

// capability is one that the forwarder needs, and for what.
type capability struct {
	bit  int
	name string
	why  string
}

var needed = []capability{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "devices, routes, XDP"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", "AF_XDP sockets"},
	{unix.CAP_BPF, "CAP_BPF", "loading the XDP program"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "namespaces of pods"},
}

func (p Process) has(bit int) bool { return p.Capabilities&(1<<bit) != 0 }

func checkCapabilities(f Facts) []Finding {
	var lack []string
	for _, c := range needed {
		if !f.Process.has(c.bit) {
			lack = append(lack, fmt.Sprintf("%s (%s)", c.name, c.why))
		}
	}
	switch {
	case len(lack) == 0:
		return one(OK, "all capabilities that a forwarder needs", "")
	case f.Expected.Inside:
		return one(Fault, "the forwarder lacks "+strings.Join(lack, ", "), "add them to its unit (AmbientCapabilities=) or to its container's securityContext")
	}
	return one(Note, "this process lacks "+strings.Join(lack, ", "), "run the doctor as root to see as much as the forwarder does")
}

func checkMemlock(f Facts) []Finding {
	p, limit := f.Process, f.Process.Memlock
	switch {
	case limit == math.MaxUint64:
		return one(OK, "no limit on locked memory", "")
	case p.has(unix.CAP_IPC_LOCK):
		return one(OK, fmt.Sprintf("locked memory is limited to %s, which CAP_IPC_LOCK lifts", size(limit)), "")
	case !f.Expected.Inside:
		return one(Note, fmt.Sprintf("this process may lock %s", size(limit)), "the forwarder's own limit is what counts: run the doctor while it is up")
	case f.Expected.Memory > limit:
		return one(Fault, fmt.Sprintf("the forwarder may lock %s and registers %s of packet memory", size(limit), size(f.Expected.Memory)),
			"set LimitMEMLOCK=infinity in its unit, or grant CAP_IPC_LOCK")
	}
	return one(Warning, fmt.Sprintf("locked memory is limited to %s", size(limit)), "set LimitMEMLOCK=infinity in its unit, or grant CAP_IPC_LOCK")
}

// spareThreads is how many of Go's threads a forwarder wants beside its workers.
const spareThreads = 2

func checkCPUs(f Facts) []Finding {
	p, workers := f.Process, f.Expected.Workers
	if workers == 0 {
		return one(OK, fmt.Sprintf("%d CPUs", p.CPUs), "")
	}
	var out []Finding
	if workers > p.CPUs {
		out = append(out, one(Warning, fmt.Sprintf("%d workers share %d CPUs", workers, p.CPUs), "configure at most as many workers as CPUs")...)
	}
	if f.Expected.Inside && p.GoThreads < workers+spareThreads {
		out = append(out, one(Warning, fmt.Sprintf("GOMAXPROCS is %d for %d workers: control may wait for packets", p.GoThreads, workers),
			fmt.Sprintf("leave GOMAXPROCS unset, or set it to %d or more", workers+spareThreads))...)
	}
	if len(out) == 0 {
		return one(OK, fmt.Sprintf("%d workers on %d CPUs", workers, p.CPUs), "")
	}
	return out
}

func checkForwarders(f Facts) []Finding {
	pids := f.Process.Forwarders
	switch {
	case len(pids) > 1:
		return one(Fault, fmt.Sprintf("%d forwarders run in this network namespace (processes %s): they take queues and routes from each other", len(pids), list(pids)),
			"stop all but one")
	case len(pids) == 1:
		return one(OK, fmt.Sprintf("one forwarder runs here (process %d)", pids[0]), "")
	}
	return one(OK, "no forwarder runs here", "")
}

func list[T any](all []T) string {
	var b strings.Builder
	for i, v := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, v)
	}
	return b.String()
}

// size writes bytes as people say them.
func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
}
