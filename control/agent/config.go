package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	agentv1 "margay.dev/margay/api/agent/v1"
	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/api/v3/fabric"
	"margay.dev/margay/api/v3/felix"
	"margay.dev/margay/config"
	"margay.dev/margay/control/nodes"
	"margay.dev/margay/datastore/connect"
)

// Config is the configuration of margay-agent.
type Config struct {
	// Node is the node's name in the store; the host's name by default.
	Node string `json:"node"`
	// Store is where the objects are; nothing is the etcd of this machine.
	Store connect.Config `json:"store"`
	// Forwarder is the Unix socket of the node's forwarder.
	Forwarder string `json:"forwarder"`
	// Socket is where workloads are attached; its folder is made 0700.
	Socket string `json:"socket"`
	// StateDir is the folder of the attachments and of addresses of names. One agent
	// uses it at a time.
	StateDir string `json:"stateDir"`
	// Metrics is the loopback address of metrics, health and readiness; empty for none.
	Metrics string `json:"metrics"`
	// Uplinks are the devices by which other nodes are reached.
	Uplinks []Uplink `json:"uplinks"`
	// HostPort is the node's own way in and out.
	HostPort HostPort `json:"hostPort"`
	// Address says by which addresses other nodes reach this one.
	Address Address `json:"address"`
	// Names says for how long names of hosts keep the addresses that endpoints were told.
	Names Names `json:"names"`
	// Felix is settings above those of every FelixConfiguration in the store.
	Felix *felix.Settings `json:"felix,omitempty"`
	// Log says what is logged and how.
	Log config.Log `json:"log"`
}

// Uplink is a device by which other nodes are reached, shared with the kernel.
type Uplink struct {
	Device string `json:"device"`
	// Port is its name in the forwarder; the device's where it is left out.
	Port string `json:"port,omitempty"`
	// MTU is of IP, in bytes; 0: the device's.
	MTU int `json:"mtu,omitempty"`
	// Queues are how many are used; 0: all.
	Queues int `json:"queues,omitempty"`
}

// HostPort is the node's own way in and out.
type HostPort struct {
	// Device is its name.
	Device string `json:"device"`
	// MTU is of IP, in bytes; 0: 1500.
	MTU int `json:"mtu,omitempty"`
	// Addresses are put on it, at most one of each family: those that workloads see
	// the node by.
	Addresses []string `json:"addresses"`
}

// Names says for how long names of hosts keep the addresses that endpoints were told.
type Names struct {
	// Grace is how much longer than the answer says, 0 to 24h.
	Grace metav1.Duration `json:"grace"`
}

// Address says by which addresses other nodes reach this one.
type Address struct {
	// IPv4 and IPv6 are "autodetect", "none", an address, or "": as the Node in the
	// store says.
	IPv4 string `json:"ipv4"`
	IPv6 string `json:"ipv6"`
	// IPv4Method and IPv6Method are how one is found.
	IPv4Method string `json:"ipv4Method"`
	IPv6Method string `json:"ipv6Method"`
	// ASNumber is the node's own, if it has one.
	ASNumber *fabric.ASNumber `json:"asNumber,omitempty"`
}

// hostDevice is the name of the host port where none is given.
const hostDevice = "margay0"

// DefaultConfig is good for a machine with an etcd of its own.
func DefaultConfig() Config {
	node, err := os.Hostname()
	return Config{
		Node: cmp.Or(map[bool]string{true: node}[err == nil], "localhost"), Forwarder: dataplanev1.DefaultSocket, Socket: agentv1.DefaultSocket,
		StateDir: "/var/lib/margay-agent", Metrics: "127.0.0.1:9091", Uplinks: []Uplink{}, HostPort: HostPort{Device: hostDevice, Addresses: []string{}},
		Address: Address{IPv4: nodes.Autodetect, IPv4Method: nodes.FirstFound, IPv6: nodes.None, IPv6Method: nodes.FirstFound},
		Names:   Names{Grace: metav1.Duration{Duration: 5 * time.Minute}},
		Log:     config.Log{Format: "text", Level: "info"},
	}
}

// LoadConfig reads the file at path over the defaults; the empty path is the
// defaults alone. It does not validate: flags may still be laid over it.
func LoadConfig(path string) (Config, error) {
	c := DefaultConfig()
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if err == nil {
		err = ParseConfig(b, &c)
	}
	if err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// ParseConfig reads YAML over what c holds. An unknown or doubled key is refused.
func ParseConfig(b []byte, c *Config) error { return yaml.UnmarshalStrict(b, c) }

// Validate reports every fault, not only the first.
func (c Config) Validate() error {
	var errs []error
	bad := func(path string, v any, want string) {
		errs = append(errs, &config.FieldError{Path: path, Value: v, Want: want})
	}
	if c.Node == "" || c.Node != strings.ToLower(c.Node) || strings.ContainsAny(c.Node, "/ ") {
		bad("node", fmt.Sprintf("%q", c.Node), "a name in small letters")
	}
	for path, text := range map[string]string{"forwarder": c.Forwarder, "socket": c.Socket} {
		if !filepath.IsAbs(text) || len(text) > longestSocket {
			bad(path, fmt.Sprintf("%q", text), fmt.Sprintf("an absolute path of at most %d bytes", longestSocket))
		}
	}
	if !filepath.IsAbs(c.StateDir) {
		bad("stateDir", fmt.Sprintf("%q", c.StateDir), "an absolute path")
	}
	if c.Metrics != "" && !loopback(c.Metrics) {
		bad("metrics", fmt.Sprintf("%q", c.Metrics), "a loopback address with port, or nothing: it is not for the network")
	}
	if err := c.Store.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("store: %w", err))
	}
	if g := c.Names.Grace.Duration; g < 0 || g > 24*time.Hour {
		bad("names.grace", g.String(), "0s to 24h")
	}
	c.validateDevices(bad)
	c.Address.validate(bad)
	if c.Felix != nil {
		for _, fault := range c.Felix.Validate(field.NewPath("felix")) {
			errs = append(errs, fault)
		}
	}
	if err := c.Log.Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// longestSocket is how long a Unix socket's path may be.
const longestSocket = 107

func loopback(text string) bool {
	host, _, err := net.SplitHostPort(text)
	addr, _ := netip.ParseAddr(host)
	return err == nil && (host == "localhost" || addr.IsLoopback())
}

func (c Config) validateDevices(bad func(string, any, string)) {
	device := func(path, name string) {
		if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n") || name == "." || name == ".." {
			bad(path, fmt.Sprintf("%q", name), "the name of a network device")
		}
	}
	mtu := func(path string, n int) {
		if n != 0 && (n < 576 || n > 65535) {
			bad(path, n, "576 to 65535, or 0")
		}
	}
	seen := map[string]bool{c.HostPort.Device: true}
	device("hostPort.device", c.HostPort.Device)
	mtu("hostPort.mtu", c.HostPort.MTU)
	for i, u := range c.Uplinks {
		path := fmt.Sprintf("uplinks[%d].", i)
		device(path+"device", u.Device)
		mtu(path+"mtu", u.MTU)
		if u.Queues < 0 || u.Queues > 256 {
			bad(path+"queues", u.Queues, "0 to 256")
		}
		if name := u.port(); len(name) > 32 || strings.ContainsAny(name, "/ \t\n") {
			bad(path+"port", fmt.Sprintf("%q", name), "a name of at most 32 bytes")
		}
		for _, name := range []string{u.Device, "port " + u.port()} {
			if seen[name] {
				bad(path+"device", fmt.Sprintf("%q", u.Device), "a device and a port that no other has")
			}
			seen[name] = true
		}
	}
	families := map[bool]bool{}
	for i, text := range c.HostPort.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() || families[a.Is6()] {
			bad(fmt.Sprintf("hostPort.addresses[%d]", i), fmt.Sprintf("%q", text), "an address, one of each family")
		}
		families[a.Is6()] = true
	}
}

func (a Address) validate(bad func(string, any, string)) {
	for _, f := range []struct {
		path, said, method string
		six                bool
	}{{"address.ipv4", a.IPv4, a.IPv4Method, false}, {"address.ipv6", a.IPv6, a.IPv6Method, true}} {
		if _, err := nodes.ParseMethod(f.method); err != nil {
			bad(f.path+"Method", fmt.Sprintf("%q", f.method), err.Error())
		}
		if f.said == nodes.Autodetect || f.said == nodes.None || f.said == nodes.Keep {
			continue
		}
		p, err := netip.ParsePrefix(f.said)
		if err != nil {
			addr, _ := netip.ParseAddr(f.said)
			p = netip.PrefixFrom(addr, max(addr.BitLen(), 0))
		}
		if !p.IsValid() || p.Addr().Is6() != f.six || p.Addr().Zone() != "" {
			bad(f.path, fmt.Sprintf("%q", f.said), "autodetect, none, an address of the family, or nothing: as the Node says")
		}
	}
}

func (u Uplink) port() string { return cmp.Or(u.Port, u.Device) }

// startTime is how long things may take to begin that are not waited for elsewhere.
const startTime = 10 * time.Second
