//go:build linux

// Command margay-lab raises nodes and pods in network namespaces, has them talk,
// and takes them down again.
//
//	margay-lab up [FILE]                  raise a topology; without a file the demo's
//	margay-lab status                     what is up, and how it does
//	margay-lab exec POD -- COMMAND        run something inside a pod or node
//	margay-lab ping [FROM TO]             who reaches whom
//	margay-lab perf FROM TO               throughput, loss and round trips between two pods
//	margay-lab impair LINK --loss 1%      make an impaired link worse, or better
//	margay-lab stop|start NODE            end a node's forwarder, or agent, and start it again
//	margay-lab settle                     wait until every node is at what the lab's store says
//	margay-lab down                       leave nothing
//	margay-lab demo                       all of it once, with proof
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/render"
	"margay.dev/margay/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// program is one run of margay-lab.
type program struct {
	out, errOut io.Writer
	dir         string // of all labs
	name        string // of the lab meant; empty: the only one
	output      string
	format      render.Format
}

// run is the program apart from its process. A command that exec ran gives its
// own exit status.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	p := &program{out: out, errOut: errOut}
	root := p.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	}
	fmt.Fprintln(errOut, "margay-lab:", err)
	return 1
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "margay-lab",
		Short:         "Raise nodes and pods in network namespaces, and have them talk",
		Version:       version.Line("margay-lab"),
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) (err error) {
			p.format, err = render.ParseFormat(p.output)
			return err
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&p.dir, "dir", lab.DefaultDir, "folder where labs keep their state, logs and sockets")
	flags.StringVar(&p.name, "lab", os.Getenv("MARGAY_LAB"), "lab meant, where several are up (or MARGAY_LAB)")
	flags.StringVarP(&p.output, "output", "o", "table", "how to print: table, json or yaml")
	root.AddCommand(p.upCommand(), p.downCommand(), p.statusCommand(), p.execCommand(), p.pingCommand(), p.perfCommand(),
		p.impairCommand(), p.stopCommand(), p.startCommand(), p.settleCommand(), p.upgradeCommand(), p.topologyCommand(),
		p.demoCommand(), pumpCommand())
	return root
}

// which is the name of the lab that is meant.
func (p *program) which() (string, error) {
	if p.name != "" {
		return p.name, nil
	}
	names, err := lab.Names(p.dir)
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", errors.New("no lab is up: raise one with margay-lab up")
	case len(names) > 1:
		return "", fmt.Errorf("labs %v are up: say which by --lab", names)
	}
	return names[0], nil
}

// open finds the lab that is meant.
func (p *program) open() (*lab.Lab, error) {
	name, err := p.which()
	if err != nil {
		return nil, err
	}
	return lab.Open(p.dir, name)
}

// with runs f on the lab that is meant.
func (p *program) with(f func(*lab.Lab) error) error {
	l, err := p.open()
	if err != nil {
		return err
	}
	defer l.Close()
	return f(l)
}

// beside finds another program of ours: next to this one, or by PATH.
func beside(name string) string {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return name
}
