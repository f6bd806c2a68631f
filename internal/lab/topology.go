package lab

import (
	_ "embed" // the demo's topology
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"margay.dev/margay/internal/lab/impair"
)

// demo is what Demo parses.
//
//go:embed topologies/demo.yaml
var demo string

// Kinds of pods' interfaces.
const (
	TUN = "tun" // a TUN device that the forwarder makes in the pod's namespace
	XSK = "xsk" // a veth pair whose node end is an AF_XDP port, all the forwarder's
)

// A Topology is what a lab consists of.
type Topology struct {
	Name  string   `json:"name"`  // of the lab; part of the namespaces' names
	Pools []Prefix `json:"pools"` // hold every address of pods and host ports
	Nodes []Node   `json:"nodes"`
	Links []Link   `json:"links,omitempty"`
	Pods  []Pod    `json:"pods,omitempty"`
	// Policies are objects of policy. In a file they may also be paths, relative to
	// the file's folder, of manifests and of folders of them.
	Policies []json.RawMessage `json:"policies,omitempty"`
}

// A Node is a host of its own: a namespace with a forwarder.
type Node struct {
	Name      string `json:"name"`
	Workers   int    `json:"workers,omitempty"`   // of the forwarder; 1 if not told
	Addresses []Addr `json:"addresses,omitempty"` // of the host port margay0, at most one per family
}

// A Link joins two nodes by a veth pair, whose ends are AF_XDP ports that the
// forwarders share with the nodes' kernels.
type Link struct {
	Name   string `json:"name"`
	MTU    int    `json:"mtu,omitempty"`    // 1500 if not told
	Queues int    `json:"queues,omitempty"` // of each end; the larger number of workers of the two nodes if not told
	Ends   []End  `json:"ends"`             // two
	// Impairment makes the link one of our bad wires, whose ways can be
	// changed while it is up; nil is a plain veth pair.
	Impairment *impair.Impairment `json:"impairment,omitempty"`
}

// An End is a node's side of a link.
type End struct {
	Node      string   `json:"node"`
	Device    string   `json:"device,omitempty"` // l- and the link's name if not told
	Addresses []Prefix `json:"addresses"`        // the node's, with the length of the link's prefix
}

// A Pod is a namespace with one interface, eth0, that leads to a node's forwarder.
type Pod struct {
	Name      string `json:"name"`
	Node      string `json:"node"`
	Addresses []Addr `json:"addresses"`
	Port      string `json:"port,omitempty"`   // TUN or XSK; TUN if not told
	Queues    int    `json:"queues,omitempty"` // the node's number of workers if not told
	MTU       int    `json:"mtu,omitempty"`    // 1500 if not told
	// Namespace and Labels are what policy knows the pod by: Kubernetes' namespace,
	// "default" if not told, and labels, to which pod and the pod's name are added.
	Namespace string            `json:"namespace,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Addr is an address in a topology file. A text that is none is kept, so that
// Validate can tell all faults of a file at once.
type Addr struct {
	netip.Addr
	text string
}

// UnmarshalText keeps what is not an address for Validate.
func (a *Addr) UnmarshalText(b []byte) error {
	a.text = string(b)
	a.Addr, _ = netip.ParseAddr(a.text)
	return nil
}

// Prefix is a prefix in a topology file, as Addr is an address.
type Prefix struct {
	netip.Prefix
	text string
}

// UnmarshalText keeps what is not a prefix for Validate.
func (p *Prefix) UnmarshalText(b []byte) error {
	p.text = string(b)
	p.Prefix, _ = netip.ParsePrefix(p.text)
	return nil
}

// Demo is the topology of the demo.
func Demo() (Topology, error) { return Parse([]byte(demo)) }

// DemoText is the file of the demo's topology.
func DemoText() string { return demo }

// Load reads a topology file.
func Load(path string) (Topology, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Topology{}, fmt.Errorf("read topology: %w", err)
	}
	t, err := parse(b, filepath.Dir(path))
	if err != nil {
		return Topology{}, fmt.Errorf("read topology %s: %w", path, err)
	}
	return t, nil
}

// Parse reads a topology, fills in what it does not tell and reports every
// fault. Unknown keys are faults. Paths in it are relative to the working folder.
func Parse(b []byte) (Topology, error) { return parse(b, ".") }

func parse(b []byte, dir string) (Topology, error) {
	var tree any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		return Topology{}, err
	}
	if err := errors.Join(unquoted("", tree)...); err != nil {
		return Topology{}, err
	}
	var t Topology
	if err := yaml.UnmarshalStrict(b, &t); err != nil {
		return Topology{}, err
	}
	t.fill()
	if err := errors.Join(t.readPolicies(dir), t.Validate()); err != nil {
		return Topology{}, err
	}
	return t, nil
}

// unquoted finds names that YAML takes for something else than text. Reading
// them into strings would rename a node n to "false", and 010 to "8".
func unquoted(path string, v any) (errs []error) {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			errs = append(errs, unquoted(fmt.Sprintf("%s[%d]", path, i), item)...)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			errs = append(errs, unquoted(strings.TrimPrefix(path+"."+key, "."), v[key])...)
		}
	case bool, float64:
		key := path[strings.LastIndex(path, ".")+1:]
		if slices.Contains([]string{"name", "node", "device", "namespace"}, key) || strings.Contains(path, ".labels.") {
			errs = append(errs, fmt.Errorf("%s is %v to YAML, which takes a bare n, no, off, y, yes or on for a boolean and 1, 010 or 1e3 for a number: put it in quotes", path, v))
		}
	}
	return errs
}

// fill puts the defaults in.
func (t *Topology) fill() {
	for i := range t.Nodes {
		def(&t.Nodes[i].Workers, 1)
	}
	for i := range t.Links {
		l := &t.Links[i]
		def(&l.MTU, 1500)
		most := 1
		for j := range l.Ends {
			if l.Ends[j].Device == "" {
				l.Ends[j].Device = "l-" + l.Name
			}
			if n := t.Node(l.Ends[j].Node); n != nil {
				most = max(most, n.Workers)
			}
		}
		def(&l.Queues, most)
	}
	for i := range t.Pods {
		p := &t.Pods[i]
		def(&p.MTU, 1500)
		if p.Port == "" {
			p.Port = TUN
		}
		if p.Namespace == "" {
			p.Namespace = "default"
		}
		if n := t.Node(p.Node); n != nil {
			def(&p.Queues, n.Workers)
		}
	}
}

func def(v *int, to int) {
	if *v == 0 {
		*v = to
	}
}

// Node is the node of that name, or nil.
func (t *Topology) Node(name string) *Node {
	for i := range t.Nodes {
		if t.Nodes[i].Name == name {
			return &t.Nodes[i]
		}
	}
	return nil
}

// Pod is the pod of that name, or nil.
func (t *Topology) Pod(name string) *Pod {
	for i := range t.Pods {
		if t.Pods[i].Name == name {
			return &t.Pods[i]
		}
	}
	return nil
}

// Link is the link of that name, or nil.
func (t *Topology) Link(name string) *Link {
	for i := range t.Links {
		if t.Links[i].Name == name {
			return &t.Links[i]
		}
	}
	return nil
}

// Addr is the pod's address of a family.
func (p *Pod) Addr(six bool) (netip.Addr, bool) { return pick(p.Addresses, six) }

// Addr is the address of a family on the node's host port.
func (n *Node) Addr(six bool) (netip.Addr, bool) { return pick(n.Addresses, six) }

func pick(list []Addr, six bool) (netip.Addr, bool) {
	for _, a := range list {
		if a.Is6() == six {
			return a.Addr, true
		}
	}
	return netip.Addr{}, false
}

// errNoPod says which pods there are.
func (t *Topology) errNoPod(name string) error {
	names := make([]string, len(t.Pods))
	for i, p := range t.Pods {
		names[i] = p.Name
	}
	return fmt.Errorf("there is no pod %q: lab %s has %v", name, t.Name, names)
}

var errNotRoot = errors.New("a lab makes network namespaces and devices: run this as root")

// Path is the nodes that packets between two nodes pass, both of them included;
// nil if there is no way.
func (t *Topology) Path(from, to string) []string {
	path := []string{from}
	for at := from; at != to; {
		link, end := t.towards(at, to)
		if link == nil {
			return nil
		}
		at = link.Ends[1-end].Node
		path = append(path, at)
	}
	return path
}
