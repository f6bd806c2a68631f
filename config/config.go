// Package config is the forwarder's configuration file: typed, strict, and
// wrong in all its ways at once.
//
// A file is YAML over the defaults. A key that is not known is refused, so that
// a misspelt one does not pass for a default; every fault is told, not only the
// first.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	pb "margay.dev/margay/api/dataplane/v1"
)

// When idle workers sleep.
const (
	BusyPollNever  = "never"  // spin a little, then wait for the kernel
	BusyPollAlways = "always" // never sleep: for CPUs that do nothing else
)

// What becomes of connections when policy changes.
const (
	EstablishedRejudged = "rejudge" // they are judged by it at their next packet
	EstablishedKept     = "keep"    // those that were allowed go on until they end, as with Calico
)

// HandOverSuffix stands behind Socket in the name of the socket for hand-overs.
const HandOverSuffix = ".handover"

// FlowsSuffix stands behind Socket in the name of the file of connections, where
// FlowsFile gives none.
const FlowsSuffix = ".flows"

// longestSocket leaves room for the suffix in a Unix socket's path of 107 bytes.
const longestSocket = 107 - len(HandOverSuffix)

// Forwarder is the configuration of margay-forwarder.
type Forwarder struct {
	// Node is the node's name in logs and metrics; the host's name by default.
	Node string `json:"node"`
	// Workers is how many poll-mode workers there are, each a thread.
	Workers int `json:"workers"`
	// CPUs are those that workers are pinned to, one each; none leaves it to the kernel.
	CPUs []int `json:"cpus"`
	// BusyPoll says whether idle workers sleep: "never" polls busily only
	// while packets come, "always" takes the CPUs whole.
	BusyPoll string `json:"busyPoll"`
	// Spin is how long an idle worker looks before it sleeps, as "30us".
	Spin Duration `json:"spin"`
	// Burst is how many packets a worker takes from a queue before it turns
	// to the next, so that one flood does not starve the others.
	Burst int `json:"burst"`
	// Frames are packet buffers of 4 KiB, shared by all AF_XDP ports. Each of
	// their queues keeps 2048 to receive into, or what can be spared; a port
	// that gets fewer, or none, says how many frames would be enough.
	Frames int `json:"frames"`
	// Supers are packet buffers of 68 KiB, for what TUN devices deliver.
	Supers int `json:"supers"`
	// Flows is the memory for connections of endpoints that have policy, in MiB:
	// one holds some 3,600.
	Flows int `json:"flows"`
	// Established says what becomes of allowed connections when policy changes:
	// "rejudge" judges them by it, "keep" lets them go on until they end.
	Established string `json:"established"`
	// FlowsFile is a file on a tmpfs in which connections outlive the process, so
	// that those under way go on with the next forwarder; its folder is made 0700.
	// Empty is FlowsSuffix behind Socket. On a disk they end with the process.
	FlowsFile string `json:"flowsFile"`
	// Socket is where clients and tools connect; its folder is made 0700. The
	// next forwarder connects to HandOverSuffix behind it.
	Socket string `json:"socket"`
	// StateDir holds the acknowledged state and the journal of host settings.
	StateDir string `json:"stateDir"`
	// Metrics is the loopback address of metrics, health and pprof; empty for none.
	Metrics string `json:"metrics"`
	// Log says what is logged and how.
	Log PacketLog `json:"log"`
}

// Log says what is logged and how.
type Log struct {
	Format string `json:"format"` // text or json
	Level  string `json:"level"`  // debug, info, warn or error
}

// PacketLog is Log of who writes packets down, too.
type PacketLog struct {
	Log
	// RuleBurst is how many packets a worker writes down at once for each rule with action
	// Log, RuleEvery the time that passes for each one more, as "1s"; 0s: all of them.
	RuleBurst int      `json:"ruleBurst"`
	RuleEvery Duration `json:"ruleEvery"`
}

// Duration is a time.Duration written as "30us" or "5s".
type Duration time.Duration

// UnmarshalJSON reads a duration as Go writes it.
func (d *Duration) UnmarshalJSON(b []byte) error {
	v, err := time.ParseDuration(strings.Trim(string(b), `"`))
	if err != nil || len(b) == 0 || b[0] != '"' {
		return fmt.Errorf("duration is %s, want one as \"30us\" or \"5s\"", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON writes a duration as Go does.
func (d Duration) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%q", time.Duration(d)), nil
}

// Default is good for a machine of two cores: one worker for each but one, 64
// MiB of frames, and sleep soon after the last packet.
func Default() Forwarder {
	node, err := os.Hostname()
	if err != nil {
		node = "localhost"
	}
	return Forwarder{
		Node: node, Workers: max(1, runtime.NumCPU()-1), BusyPoll: BusyPollNever, Spin: Duration(30 * time.Microsecond),
		Burst: 64, Frames: 16384, Supers: 384, Flows: 64, Established: EstablishedRejudged,
		Socket: pb.DefaultSocket, StateDir: "/var/lib/margay", Metrics: "127.0.0.1:9479",
		Log: PacketLog{Log: Log{Format: "text", Level: "info"}, RuleBurst: 10, RuleEvery: Duration(time.Second)},
	}
}

// FlowsPath is where connections are kept.
func (c Forwarder) FlowsPath() string {
	if c.FlowsFile != "" {
		return c.FlowsFile
	}
	return c.Socket + FlowsSuffix
}

// Load reads the file at path over the defaults; the empty path is the defaults
// alone. It does not validate: flags may still be laid over it.
func Load(path string) (Forwarder, error) {
	c := Default()
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := Parse(b, &c); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse reads YAML over what c holds. An unknown or doubled key is refused.
func Parse(b []byte, c *Forwarder) error { return yaml.UnmarshalStrict(b, c) }

// FieldError says what is wrong with one field.
type FieldError struct {
	Path  string // as "log.level"
	Value any
	Want  string
}

// Error tells field, value and what was wanted.
func (e *FieldError) Error() string { return fmt.Sprintf("%s is %v, want %s", e.Path, e.Value, e.Want) }

// Validate reports every fault, not only the first.
func (c Forwarder) Validate() error {
	var errs []error
	bad := func(path string, v any, want string) { errs = append(errs, &FieldError{path, v, want}) }
	between := func(path string, v, low, high int) {
		if v < low || v > high {
			bad(path, v, fmt.Sprintf("%d to %d", low, high))
		}
	}
	between("workers", c.Workers, 1, 256)
	between("burst", c.Burst, 1, 256)
	between("frames", c.Frames, 64, 1<<19)
	between("supers", c.Supers, 0, 1<<14)
	between("flows", c.Flows, 2, 1<<16)
	if c.Node == "" {
		bad("node", `""`, "a name")
	}
	if c.BusyPoll != BusyPollNever && c.BusyPoll != BusyPollAlways {
		bad("busyPoll", fmt.Sprintf("%q", c.BusyPoll), "never or always")
	}
	if c.Established != EstablishedRejudged && c.Established != EstablishedKept {
		bad("established", fmt.Sprintf("%q", c.Established), "rejudge or keep")
	}
	if d := time.Duration(c.Spin); d < 0 || d > time.Second {
		bad("spin", d, "0s to 1s")
	}
	c.validateCPUs(bad)
	c.validatePlaces(bad)
	c.Log.validate(bad)
	return errors.Join(errs...)
}

func (c Forwarder) validateCPUs(bad func(string, any, string)) {
	if len(c.CPUs) != 0 && len(c.CPUs) != c.Workers {
		bad("cpus", c.CPUs, fmt.Sprintf("one for each of %d workers, or none", c.Workers))
	}
	seen := map[int]bool{}
	for i, cpu := range c.CPUs {
		if cpu < 0 || cpu > 4095 || seen[cpu] {
			bad(fmt.Sprintf("cpus[%d]", i), cpu, "a CPU that no other worker has")
		}
		seen[cpu] = true
	}
}

func (c Forwarder) validatePlaces(bad func(string, any, string)) {
	if !filepath.IsAbs(c.Socket) || len(c.Socket) > longestSocket {
		bad("socket", fmt.Sprintf("%q", c.Socket), fmt.Sprintf("an absolute path of at most %d bytes", longestSocket))
	}
	if c.FlowsFile != "" && !filepath.IsAbs(c.FlowsFile) {
		bad("flowsFile", fmt.Sprintf("%q", c.FlowsFile), "an absolute path, or nothing: beside the socket")
	}
	if !filepath.IsAbs(c.StateDir) {
		bad("stateDir", fmt.Sprintf("%q", c.StateDir), "an absolute path")
	}
	if c.Metrics == "" {
		return
	}
	host, _, err := net.SplitHostPort(c.Metrics)
	addr, _ := netip.ParseAddr(host)
	if err != nil || host != "localhost" && !addr.IsLoopback() {
		bad("metrics", fmt.Sprintf("%q", c.Metrics), "a loopback address with port, or nothing: pprof is not for the network")
	}
}

// Validate reports every fault of what stands under log.
func (l Log) Validate() error {
	var errs []error
	l.validate(func(path string, v any, want string) { errs = append(errs, &FieldError{path, v, want}) })
	return errors.Join(errs...)
}

func (l Log) validate(bad func(string, any, string)) {
	if l.Format != "text" && l.Format != "json" {
		bad("log.format", fmt.Sprintf("%q", l.Format), "text or json")
	}
	if _, err := l.level(); err != nil {
		bad("log.level", fmt.Sprintf("%q", l.Level), "debug, info, warn or error")
	}
}

func (l PacketLog) validate(bad func(string, any, string)) {
	l.Log.validate(bad)
	if l.RuleBurst < 1 || l.RuleBurst > 10_000 {
		bad("log.ruleBurst", l.RuleBurst, "1 to 10000")
	}
	if d := time.Duration(l.RuleEvery); d < 0 || d > time.Hour {
		bad("log.ruleEvery", d, "0s to 1h0m0s")
	}
}

func (l Log) level() (level slog.Level, err error) {
	switch l.Level {
	case "debug", "info", "warn", "error":
		err = level.UnmarshalText([]byte(l.Level))
	default:
		err = errors.New("unknown level")
	}
	return level, err
}

// Logger makes the logger that l describes, which must be valid.
func (l Log) Logger(w *os.File) *slog.Logger {
	level, _ := l.level() // Validate has seen it
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
