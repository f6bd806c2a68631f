package outage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"margay.dev/margay/internal/lab"
)

// HoldCommand is the argument by which a program that calls Hold is told to, with
// the three that Hold takes behind it.
const HoldCommand = "hold-session"

// held is the line by which who holds a session tells that it does.
const held = "held"

// Hold is a client of its own process, which can be killed: it sends the
// forwarder of a node, in a lab below base, the node's state, tells so in a line,
// and holds the session until its input ends.
func Hold(ctx context.Context, base, name, node string, in io.Reader, out io.Writer) error {
	l, err := lab.Open(base, name)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Feed(ctx, node); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, held); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// client is a process that holds a session.
type client struct {
	cmd *exec.Cmd
	in  io.Closer // its end ends the client, so that it does not outlive us
}

// startClient starts a client and waits until it holds its session.
func startClient(ctx context.Context, l *lab.Lab) (*client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, HoldCommand, filepath.Dir(l.Dir()), l.Topology().Name, node)
	var faults strings.Builder
	cmd.Stderr = &faults
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a client: %w", err)
	}
	c := &client{cmd, in}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != held {
		c.kill()
		return nil, fmt.Errorf("start a client: it says %q: %w: %s", line, errors.Join(err, context.Cause(ctx)), faults.String())
	}
	return c, nil
}

// kill ends it as kill -9 does.
func (c *client) kill() {
	_ = c.cmd.Process.Kill() // one that has ended already is what is wanted
	_ = c.cmd.Wait()
	_ = c.in.Close()
}

// killClients kills the client and starts another, again and again. For a while
// there is none.
func killClients(ctx context.Context, b *bed) (func(context.Context, int) error, func(), error) {
	b.lab.Disconnect(node)
	c, err := startClient(ctx, b.lab)
	if err != nil {
		return nil, nil, err
	}
	happen := func(ctx context.Context, _ int) (err error) {
		c.kill()
		time.Sleep(withoutClient)
		c, err = startClient(ctx, b.lab)
		return err
	}
	return happen, func() {
		if c != nil {
			c.kill()
		}
	}, nil
}
