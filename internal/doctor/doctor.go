//go:build linux

// Package doctor finds what on a node would keep a forwarder from working or
// from being fast, and says what to do about it.
//
//	Gather ─► Facts ─► Check ─► []Finding
//	 looks     data     pure
//
// It changes nothing on the node and attaches nothing to its devices: what a
// driver can do is asked, not tried. The two trials it makes (a memfd, a TUN in
// a namespace of its own) are gone before Gather returns.
package doctor

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"margay.dev/margay/internal/hostnet"
)

// Severity is how much a finding matters; worse is greater.
type Severity uint8

// The severities.
const (
	OK      Severity = iota // as it should be
	Note                    // worth knowing; costs nothing or could not be found out
	Warning                 // works, but slower or less safely than it could
	Fault                   // does not work
)

// String is the severity in a word.
func (s Severity) String() string {
	return [...]string{"ok", "note", "warning", "fault"}[min(s, Fault)]
}

// A Finding is the answer of one check.
type Finding struct {
	Check    string   // name of the check, as "mtu"
	Subject  string   // device or process it is about; empty for the node
	Severity Severity // how much it matters
	Found    string   // what is the case
	Advice   string   // what to do; empty where nothing is to be done
}

// PortRange is a range of TCP and UDP ports, both ends included.
type PortRange struct{ First, Last uint16 }

// DeviceSpec is a device to look at, and what is expected of it.
type DeviceSpec struct {
	Name      string
	Namespace string      // path of the network namespace; empty for our own
	Sockets   int         // AF_XDP sockets that stand on its receive queues; 0 if unknown
	Program   uint32      // id of our own XDP program on it; 0 if unknown
	MAC       hostnet.MAC // address that the port answers to; zero for the device's own
	Candidate bool        // nobody said that it is a port: a fault is but a warning
}

// Options say where to look and what is expected. The zero value looks at the
// node and at every device that could be a port.
type Options struct {
	Devices   []DeviceSpec // none: every hardware and veth device of our namespace
	Workers   int          // workers that run, or are to run; 0 if unknown
	Memory    uint64       // bytes of packet memory to register; 0 if unknown
	HostPort  string       // name of the host port; empty: margay0
	NodePorts []PortRange  // ports of the node's own addresses that are ours
	Journal   string       // file with the settings to put back; empty: not looked at
	Inside    bool         // we are the forwarder: what this process lacks is missing
}

// DefaultHostPort is the name of the host port where nothing else is said.
const DefaultHostPort = "margay0"

// Diagnose gathers facts and judges them. Findings about the node come first,
// then those of each device, each in the order of the checks. An error means
// that nothing could be looked at, as when ctx ends.
func Diagnose(ctx context.Context, o Options) ([]Finding, error) {
	f, err := Gather(ctx, o)
	if err != nil {
		return nil, err
	}
	return Check(f), nil
}

// Check judges facts. It looks at nothing else.
func Check(f Facts) []Finding {
	var out []Finding
	for _, c := range nodeChecks {
		for _, finding := range c.judge(f) {
			finding.Check = c.name
			out = append(out, finding)
		}
	}
	for _, d := range f.Devices {
		for _, c := range deviceChecks {
			if d.Missing != "" && c.name != "device" {
				continue
			}
			for _, finding := range c.judge(f, d) {
				finding.Check, finding.Subject = c.name, d.Name()
				if d.Spec.Candidate {
					finding.Severity = min(finding.Severity, Warning)
				}
				out = append(out, finding)
			}
		}
	}
	return out
}

// Worst is the greatest severity among findings, OK if there are none.
func Worst(findings []Finding) Severity {
	worst := OK
	for _, f := range findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// Merge joins what was found from outside with what the forwarder found itself.
// Where both speak of the same check and subject, the forwarder knows more.
func Merge(local, inside []Finding) []Finding {
	type about struct{ check, subject string }
	known := map[about]bool{}
	for _, f := range inside {
		known[about{f.Check, f.Subject}] = true
	}
	out := slices.Clone(inside)
	for _, f := range local {
		if !known[about{f.Check, f.Subject}] {
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Subject, b.Subject), cmp.Compare(rank(a.Check), rank(b.Check)))
	})
	return out
}

// rank is the place of a check in the order of the checks; unknown ones come last.
func rank(check string) int {
	for i, c := range nodeChecks {
		if c.name == check {
			return i
		}
	}
	for i, c := range deviceChecks {
		if c.name == check {
			return len(nodeChecks) + i
		}
	}
	return len(nodeChecks) + len(deviceChecks)
}

type nodeCheck struct {
	name  string
	judge func(Facts) []Finding
}

type deviceCheck struct {
	name  string
	judge func(Facts, Device) []Finding
}

var nodeChecks = []nodeCheck{
	{"kernel", checkKernel},
	{"af-xdp", checkAFXDP},
	{"tun", checkTun},
	{"tun-uso", checkUSO},
	{"memfd", checkMemfd},
	{"btf", checkBTF},
	{"bpf-jit", checkJIT},
	{"capabilities", checkCapabilities},
	{"memlock", checkMemlock},
	{"cpus", checkCPUs},
	{"forwarders", checkForwarders},
	{"ip-forward", checkForwarding},
	{"rp-filter", checkReversePath},
	{"local-ports", checkLocalPorts},
	{"leftovers", checkLeftovers},
	{"journal", checkJournal},
	{"networkd", checkNetworkd},
}

var deviceChecks = []deviceCheck{
	{"device", checkDevice},
	{"xdp", checkXDP},
	{"xdp-program", checkProgram},
	{"queues", checkQueues},
	{"mtu", checkMTU},
	{"lro", checkLRO},
	{"hw-gro", checkHardwareGRO},
	{"rxvlan", checkVLANStripping},
	{"tx-checksum", checkChecksum},
	{"mac", checkMAC},
	{"napi", checkNAPI},
	{"owner", checkOwner},
}

// one makes the answer of a check that found one thing.
func one(s Severity, found, advice string) []Finding {
	return []Finding{{Severity: s, Found: found, Advice: advice}}
}
