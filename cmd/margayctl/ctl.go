//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/cmd/margayctl/resources"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/doctor"
	"margay.dev/margay/internal/render"
	"margay.dev/margay/internal/version"
)

// The exit statuses.
const (
	statusDone = iota
	statusFault
	statusUsage
	statusUnreachable
)

// socketVariable overrides the default socket.
const socketVariable = "MARGAY_SOCKET"

// ctl is one run of the program.
type ctl struct {
	in          io.Reader
	out, errOut io.Writer
	env         func(string) string
	diagnose    func(context.Context, doctor.Options) ([]doctor.Finding, error)
	now         func() time.Time
	terminal    bool // somebody watches out

	socket  string
	output  string
	timeout time.Duration
	format  render.Format
	wide    bool // a table with more columns
	skewed  bool // it was told that the forwarder speaks another version of the contract
}

// errFault says that the doctor found a fault, which its table has told already.
var errFault = errors.New("a fault was found")

// unreachable is an error of asking the forwarder.
type unreachable struct{ err error }

func (u unreachable) Error() string { return u.err.Error() }
func (u unreachable) Unwrap() error { return u.err }

// unkept is an error of writing what the forwarder sent.
type unkept struct{ err error }

func (u unkept) Error() string { return u.err.Error() }
func (u unkept) Unwrap() error { return u.err }

func (c *ctl) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	root.SetOut(c.out)
	root.SetErr(c.errOut)
	err := root.ExecuteContext(ctx)
	var u unreachable
	var k unkept
	switch {
	case err == nil:
		return statusDone
	case errors.Is(err, errFault), errors.Is(err, resources.ErrTold):
		return statusFault
	case errors.Is(err, datastore.ErrUnavailable):
		fmt.Fprintf(c.errOut, "margayctl: %v\n", err)
		return statusUnreachable
	case isRefusal(err):
		fmt.Fprintf(c.errOut, "margayctl: %v\n", err)
		return statusFault
	case errors.As(err, &k):
		fmt.Fprintf(c.errOut, "margayctl: %v\n", err)
		return statusFault
	case errors.As(err, &u):
		fmt.Fprintf(c.errOut, "margayctl: %v\n", err)
		return statusUnreachable
	}
	fmt.Fprintf(c.errOut, "margayctl: %v\nTry margayctl --help.\n", err)
	return statusUsage
}

func (c *ctl) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "margayctl",
		Short: "Work on objects in the store, and look at the forwarder of this node",
		Long: `margayctl works on the objects of a cluster, in an etcd or a folder: policies,
tiers, endpoints, sets and settings. It shows what the forwarder of this node
makes of them, and finds out what keeps it from doing it well.

Exit status: 0 done; 1 the doctor found a fault, a file could not be written, or
an object failed; 2 the command line is wrong; 3 the forwarder or the store could not be asked.`,
		Version:           version.Line("margayctl"),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: c.prepare,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	socket := c.env(socketVariable)
	if socket == "" {
		socket = dataplanev1.DefaultSocket
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", socket, "Unix socket of the forwarder; "+socketVariable+" sets it too")
	flags.StringVarP(&c.output, "output", "o", string(render.Text), "table, json or yaml; numbers of 64 bits are strings in the latter two")
	flags.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long to wait for the forwarder")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(c.show(), c.flows(), c.policy(), c.top(), c.trace(), c.capture(), c.why(), c.doctor(), c.version())
	root.AddCommand(c.objects().Commands()...)
	return root
}

// wideToo marks commands whose table can be wide.
const wideToo = "wide"

// prepare reads the flags that every command has.
func (c *ctl) prepare(cmd *cobra.Command, _ []string) (err error) {
	if c.timeout <= 0 {
		return fmt.Errorf("timeout is %v, want more than 0", c.timeout)
	}
	if _, ok := cmd.Annotations[wideToo]; ok && c.output == "wide" {
		c.format, c.wide = render.Text, true
		return nil
	}
	c.format, err = render.ParseFormat(c.output)
	return err
}
