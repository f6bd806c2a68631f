package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/impair"
	"margay.dev/margay/internal/lab/policies"
	"margay.dev/margay/internal/lab/process"
)

// Options say how a lab is raised.
type Options struct {
	Dir       string   // where labs keep their state; empty: DefaultDir
	Forwarder string   // program of the forwarder, an absolute path
	Agent     string   // program of the agent, likewise; empty for none: then the lab itself feeds the forwarders
	Pump      []string // command that runs RunPump with what is appended; none: pumps run in this process, while the Lab is open
	Replace   bool     // take down a lab of the same name first
	// Step is told what happens, in words; nil for nobody.
	Step func(format string, args ...any)
	// Configure adds to a node's configuration file, as YAML keys of the
	// forwarder's; nil for nothing.
	Configure func(node string) map[string]any
}

func (o Options) step(format string, args ...any) {
	if o.Step != nil {
		o.Step(format, args...)
	}
}

// A Lab is one that is up. Its methods may be called by many goroutines at once.
type Lab struct {
	options Options
	dir     string // of this lab
	base    string

	mu      sync.Mutex // over all below
	record  *record
	spaces  map[string]*hostnet.Namespace // by name of node, pod or link
	streams map[string]*dataplane.Stream  // by node, of those that Up or Start made
	conns   map[string]*grpc.ClientConn   // by node, for Inspect
	pumps   []*pump                       // in this process

	policing sync.Mutex // over the making of streams, and all below
	driver   *policies.Driver
	recalled []byte                       // what policy was when driver was told
	fed      map[string]*dataplane.Stream // by node, those that have sent all that driver has calculated
}

// Open finds the lab called name below base, which somebody raised.
func Open(base, name string) (*Lab, error) {
	l := &Lab{base: base, dir: filepath.Join(base, name), options: Options{Dir: base}}
	var err error
	if l.record, err = read(l.dir); err != nil {
		return nil, err
	}
	if !l.record.Raised {
		return nil, fmt.Errorf("lab %s is half up: somebody raises it now, or a crash left it so; margay-lab down clears it", name)
	}
	l.options.Forwarder = l.record.Forwarder
	l.prepare()
	return l, nil
}

func (l *Lab) prepare() {
	l.spaces = map[string]*hostnet.Namespace{}
	l.streams = map[string]*dataplane.Stream{}
	l.conns = map[string]*grpc.ClientConn{}
}

// Topology is what the lab consists of.
func (l *Lab) Topology() *Topology { return &l.record.Topology }

// Dir is the folder of the lab's files: logs, sockets, state.
func (l *Lab) Dir() string { return l.dir }

// NodeDir is the folder of a node's files.
func (l *Lab) NodeDir(node string) string { return filepath.Join(l.dir, node) }

// Socket is where a node's forwarder listens.
func (l *Lab) Socket(node string) string { return filepath.Join(l.NodeDir(node), "forwarder.sock") }

// Log is where a node's forwarder logs.
func (l *Lab) Log(node string) string { return filepath.Join(l.NodeDir(node), "forwarder.log") }

// memoryDir is the folder of what must lie in memory, whatever the lab's own lies on.
func (t *Topology) memoryDir() string { return filepath.Join("/dev/shm", "mlab-"+t.Name) }

// NamespaceName is the name in /run/netns of a node, a pod or an impaired link.
func (t *Topology) NamespaceName(of string) string { return "mlab-" + t.Name + "-" + of }

// namespaces are the names of all that the topology needs.
func (t *Topology) namespaces() (out []string) {
	for _, n := range t.Nodes {
		out = append(out, t.NamespaceName(n.Name))
	}
	for _, p := range t.Pods {
		out = append(out, t.NamespaceName(p.Name))
	}
	for _, l := range t.Links {
		if l.Impairment != nil {
			out = append(out, t.NamespaceName(l.Name))
		}
	}
	return out
}

// Namespace is that of a node, a pod or an impaired link; it stays open until Close.
func (l *Lab) Namespace(of string) (*hostnet.Namespace, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ns := l.spaces[of]; ns != nil {
		return ns, nil
	}
	name := l.Topology().NamespaceName(of)
	if !slices.Contains(l.record.Namespaces, name) {
		return nil, fmt.Errorf("lab %s has no node or pod %q", l.Topology().Name, of)
	}
	path, err := hostnet.NamespacePath(name)
	if err != nil {
		return nil, err
	}
	ns, err := hostnet.OpenNamespace(path)
	if err != nil {
		return nil, err
	}
	l.spaces[of] = ns
	return ns, nil
}

// Stream is the stream that keeps a node's forwarder at its desired state; nil
// for a lab that somebody else raised.
func (l *Lab) Stream(node string) *dataplane.Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.streams[node]
}

// Close lets go of the lab, which stays up. Pumps of this process end.
func (l *Lab) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		s.Close()
	}
	for _, c := range l.conns {
		c.Close()
	}
	for _, p := range l.pumps {
		p.stop()
	}
	for _, ns := range l.spaces {
		ns.Close()
	}
	l.pumps = nil
	l.prepare()
}

// Down closes the lab and takes it down; it may have been taken down already.
func (l *Lab) Down() error {
	l.Close()
	err := Down(l.base, l.Topology().Name)
	if errors.Is(err, ErrNotUp) {
		return nil
	}
	return err
}

// save notes a process; nil forgets it. l.mu is held.
func (l *Lab) note(who string, p *process.Process) error {
	if p == nil {
		delete(l.record.Processes, who)
	} else {
		l.record.Processes[who] = p
	}
	return l.record.save(l.dir)
}

// pump is a wire's, in this process.
type pump struct {
	wire   *impair.Wire
	cancel context.CancelFunc
	done   chan struct{}
}

func (p *pump) stop() {
	p.cancel()
	<-p.done
	p.wire.Close()
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	return nil
}
