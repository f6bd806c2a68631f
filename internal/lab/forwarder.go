package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"sigs.k8s.io/yaml"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/config"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/process"
	"margay.dev/margay/internal/version"
)

// settleTime is how long ports may take to be in force after the state was taken.
const settleTime = 10 * time.Second

// StartForwarder starts the forwarder of a node and returns when it has taken
// the node's desired state and every port is in force.
func (l *Lab) StartForwarder(ctx context.Context, node string) error {
	if err := l.Launch(node); err != nil {
		return err
	}
	if err := l.Feed(ctx, node); err != nil {
		return fmt.Errorf("%w\n\tlog of %s's forwarder:\n\t%s", err, node, process.Tail(l.Log(node)))
	}
	return nil
}

// Launch starts the forwarder's process and sends it nothing: it restores what
// it had acknowledged.
func (l *Lab) Launch(node string) error {
	if l.Running(node) {
		return fmt.Errorf("the forwarder of node %s runs already", node)
	}
	p, err := l.spawn(node)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.note(node, p)
}

// spawn starts a process of the node's forwarder.
func (l *Lab) spawn(node string, flags ...string) (*process.Process, error) {
	ns, err := l.Namespace(node)
	if err != nil {
		return nil, err
	}
	file, err := l.configure(node)
	if err != nil {
		return nil, err
	}
	return process.Start(ns, l.Log(node), append([]string{l.options.Forwarder, "--config", file}, flags...)...)
}

// configure writes a node's configuration file.
func (l *Lab) configure(node string) (path string, err error) {
	n := l.Topology().Node(node)
	if n == nil {
		return "", fmt.Errorf("lab %s has no node %q", l.Topology().Name, node)
	}
	path = filepath.Join(l.NodeDir(node), "forwarder.yaml")
	if l.options.Configure == nil && exists(path) { // opened after it was raised: as it was
		return path, nil
	}
	c := map[string]any{
		"node": node, "workers": n.Workers, "socket": l.Socket(node), "stateDir": filepath.Join(l.NodeDir(node), "state"),
		"flowsFile": filepath.Join(l.Topology().memoryDir(), node),
	}
	if l.options.Configure != nil {
		for k, v := range l.options.Configure(node) {
			c[k] = v
		}
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	whole := config.Default()
	if err := errors.Join(config.Parse(b, &whole), whole.Validate()); err != nil {
		return "", fmt.Errorf("configure the forwarder of %s: %w", node, err)
	}
	if err := os.MkdirAll(l.NodeDir(node), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, b, 0o600)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Feed connects to a node's forwarder, sends the node's desired state, policy with
// it, and waits until all of it is in force.
func (l *Lab) Feed(ctx context.Context, node string) error {
	if l.HasAgents() { // it does, whenever there is a forwarder
		return l.settle(ctx, node)
	}
	p, err := l.snapshot(ctx, node)
	if err != nil {
		return err
	}
	if err := l.await(ctx, p); err != nil {
		return fmt.Errorf("send node %s its desired state: %w", node, err)
	}
	return l.AwaitPorts(ctx, node)
}

// connect is the stream to a node's forwarder, made if there is none. l.policing
// is held, so that nobody else makes one.
func (l *Lab) connect(ctx context.Context, node string) (*dataplane.Stream, error) {
	if s := l.Stream(node); s != nil {
		return s, nil
	}
	s, err := l.dial(ctx, node)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.streams[node] = s
	}
	return s, err
}

// bare is the state of a node but for policy.
func (l *Lab) bare(node string) (dataplane.State, error) {
	macs, err := l.podMACs(node)
	if err != nil {
		return dataplane.State{}, err
	}
	path := func(pod string) string {
		p, _ := hostnet.NamespacePath(l.Topology().NamespaceName(pod)) // a name of ours is a file name
		return p
	}
	return l.Topology().DesiredState(node, path, macs), nil
}

// dial waits for the forwarder's socket while its process lives.
func (l *Lab) dial(ctx context.Context, node string) (*dataplane.Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			if !l.Running(node) {
				cancel(process.ErrEnded)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	defer func() { cancel(nil); <-watched }()
	s, err := dataplane.Dial(ctx, l.Socket(node), dataplane.Options{Client: version.Line("margay-lab")})
	if errors.Is(err, process.ErrEnded) {
		return nil, fmt.Errorf("start the forwarder of %s: %w", node, process.ErrEnded)
	}
	return s, err
}

// AwaitPorts waits until a node's forwarder has no condition that is not well.
func (l *Lab) AwaitPorts(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	inspect, err := l.Inspect(node)
	if err != nil {
		return err
	}
	for {
		s, err := inspect.GetStatus(ctx, &v1.StatusRequest{}, grpc.WaitForReady(true))
		if err == nil && len(s.GetConditions()) == 0 {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
			continue
		case <-ctx.Done():
		}
		var faults []string
		for _, c := range s.GetConditions() {
			faults = append(faults, c.GetObject()+": "+c.GetMessage())
		}
		return errors.Join(fmt.Errorf("node %s is not in force within %v: %s", node, settleTime, strings.Join(faults, "\n\t")), err)
	}
}

// Inspect asks a node's forwarder. The connection stands until Close.
func (l *Lab) Inspect(node string) (v1.InspectClient, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conns[node]
	if c == nil {
		var err error
		if c, err = dataplane.Connect(l.Socket(node)); err != nil {
			return nil, err
		}
		l.conns[node] = c
	}
	return v1.NewInspectClient(c), nil
}

// Running tells whether the node's forwarder runs.
func (l *Lab) Running(node string) bool { return l.processOf(node).Alive() }

// PID is the process id of the node's forwarder, 0 if it does not run.
func (l *Lab) PID(node string) int {
	if p := l.processOf(node); p.Alive() {
		return p.PID
	}
	return 0
}

func (l *Lab) processOf(node string) *process.Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record.Processes[node]
}

// StopForwarder ends a node's forwarder, by asking, or at once as kill -9 does.
// Its stream, if there is one, ends too.
func (l *Lab) StopForwarder(node string, atOnce bool) error {
	p := l.processOf(node)
	if !p.Alive() {
		return fmt.Errorf("the forwarder of node %s does not run", node)
	}
	l.Disconnect(node)
	if atOnce {
		p.Signal(9)
	}
	if err := p.Stop(patience); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.note(node, nil)
}

// Disconnect ends the stream to a node's forwarder, which keeps its state.
func (l *Lab) Disconnect(node string) {
	l.mu.Lock()
	s := l.streams[node]
	delete(l.streams, node)
	l.mu.Unlock()
	if s != nil {
		s.Close()
	}
}
