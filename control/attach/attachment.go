// Package attach keeps where the devices of a node's workloads are, as those say
// who make workloads there:
//
//	CNI plugin, lab ── Attach, Detach ──► Server ──► Book ──► a file for each, on disk
//	                                        ▲          │
//	                                        └── Tell ──┴── All ──► who puts them in force
//
// The store cannot say it: a path of a namespace means something on one node alone,
// and must outlive the agent, since the workload does.
package attach

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	agentv1 "margay.dev/margay/api/agent/v1"
)

// A Key names a workload endpoint.
type Key struct{ Namespace, Name string }

// String is namespace/name, which is also the endpoint's id in the forwarder.
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Compare orders keys by namespace, then by name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// Kind is how a workload is connected.
type Kind string

// The kinds.
const (
	TUN Kind = "tun" // the forwarder makes a TUN device in the workload's namespace
	XSK Kind = "xsk" // the forwarder takes over the node's side of a veth pair
)

// An Attachment says where a workload's device is.
type Attachment struct {
	Key    Key
	Kind   Kind
	NetNS  string // path of the namespace of a TUN's device
	Device string // of a TUN in NetNS; of XSK in the node's namespace
	MAC    []byte // of an XSK workload's side; nil: learnt
	MTU    int    // of IP, in bytes; 0: the device's
	Queues int    // 0: as many as is good
	Port   string // in the forwarder, at most 32 bytes
}

// Limits, which are those of the dataplane's contract and of the kernel.
const (
	maxPort      = 32
	maxDevice    = 15
	maxPath      = 4096
	maxName      = 253
	minMTU       = 576
	maxMTU       = 65535
	maxQueues    = 256
	tunDevice    = "eth0"
	portHashSize = 11 // hexadecimal digits
)

// PortPrefix is what names of ports begin with that nobody has given: by it Calico's
// users know workloads' interfaces.
const PortPrefix = "cali"

// PortName is the port of a workload that nobody gave a name: Calico's name of the
// node's side, so that people find it.
func PortName(k Key) string {
	sum := sha1.Sum([]byte(k.Namespace + "." + k.Name))
	return PortPrefix + hex.EncodeToString(sum[:])[:portHashSize]
}

// Read takes an attachment as it was asked for, fills in what is left out and
// reports every fault.
func Read(m *agentv1.Attachment) (Attachment, error) {
	w := m.GetWorkload()
	a := Attachment{
		Key: Key{w.GetNamespace(), w.GetName()}, NetNS: m.GetNetns(), Device: m.GetDevice(), MAC: bytes.Clone(m.GetMac()),
		MTU: int(m.GetMtu()), Queues: int(m.GetQueues()), Port: m.GetPort(),
	}
	switch m.GetKind() {
	case agentv1.Attachment_KIND_TUN:
		a.Kind = TUN
		a.Device = cmp.Or(a.Device, tunDevice)
	case agentv1.Attachment_KIND_XSK:
		a.Kind = XSK
	}
	a.Port = cmp.Or(a.Port, PortName(a.Key))
	return a, a.Validate()
}

// Proto is the attachment as the contract has it.
func (a Attachment) Proto() *agentv1.Attachment {
	m := &agentv1.Attachment{
		Workload: &agentv1.Workload{Namespace: a.Key.Namespace, Name: a.Key.Name}, Kind: agentv1.Attachment_KIND_TUN,
		Netns: a.NetNS, Device: a.Device, Mac: a.MAC, Mtu: uint32(a.MTU), Queues: uint32(a.Queues), Port: a.Port,
	}
	if a.Kind == XSK {
		m.Kind = agentv1.Attachment_KIND_XSK
	}
	return m
}

// Validate reports every fault, not only the first.
func (a Attachment) Validate() error {
	var faults []error
	say := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, n := range []struct {
		field, text string
		most        int
	}{
		{"workload.namespace", a.Key.Namespace, maxName}, {"workload.name", a.Key.Name, maxName},
		{"device", a.Device, maxDevice}, {"port", a.Port, maxPort},
	} {
		if !plain(n.text, n.most) {
			say("%s is %.64q, want 1 to %d bytes without blanks or slashes", n.field, n.text, n.most)
		}
	}
	switch a.Kind {
	case TUN:
		if !filepath.IsAbs(a.NetNS) || len(a.NetNS) > maxPath || strings.ContainsRune(a.NetNS, 0) {
			say("netns is %.64q, want the absolute path of the workload's namespace", a.NetNS)
		}
		if len(a.MAC) > 0 {
			say("mac is set, want none: a TUN has no Ethernet address")
		}
	case XSK:
		if a.NetNS != "" {
			say("netns is %.64q, want none: the device of kind xsk is the node's side of the pair", a.NetNS)
		}
		if n := len(a.MAC); n != 0 && (n != 6 || a.MAC[0]&1 != 0) {
			say("mac is % x, want the 6 bytes of one station's address, or none", a.MAC[:min(n, 16)])
		}
	default:
		say("kind is missing, want tun or xsk")
	}
	if a.MTU != 0 && (a.MTU < minMTU || a.MTU > maxMTU) {
		say("mtu is %d, want %d to %d, or 0", a.MTU, minMTU, maxMTU)
	}
	if a.Queues < 0 || a.Queues > maxQueues {
		say("queues is %d, want at most %d", a.Queues, maxQueues)
	}
	return errors.Join(faults...)
}

// plain reports whether text can be a name.
func plain(text string, most int) bool {
	bad := func(r rune) bool { return r == '/' || !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	return text != "" && len(text) <= most && text != "." && text != ".." && !strings.ContainsFunc(text, bad)
}

// place is what only one attachment can have besides its port.
func (a Attachment) place() [2]string { return [2]string{a.NetNS, a.Device} }
