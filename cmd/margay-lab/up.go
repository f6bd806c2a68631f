//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"margay.dev/margay/internal/lab"
)

// raiseTime is how long a lab may take to come up.
const raiseTime = time.Minute

func (p *program) upCommand() *cobra.Command {
	var forwarder string
	var replace bool
	c := &cobra.Command{
		Use:   "up [FILE]",
		Short: "Raise the topology of a file, or the demo's",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			t, err := lab.Demo()
			if len(args) == 1 {
				t, err = lab.Load(args[0])
			}
			if err != nil {
				return err
			}
			if p.name != "" {
				t.Name = p.name
			}
			l, err := p.raise(c, t, forwarder, replace)
			if err != nil {
				return err
			}
			defer l.Close()
			if p.format == "table" {
				fmt.Fprintf(p.out, "lab %s is up: %d nodes, %d pods; logs are below %s\n", t.Name, len(t.Nodes), len(t.Pods), l.Dir())
			}
			return p.showStatus(c.Context(), l)
		},
	}
	addForwarder(c, &forwarder)
	c.Flags().BoolVar(&replace, "replace", false, "take a lab of the same name down first")
	return c
}

func addForwarder(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "forwarder", beside("margay-forwarder"), "program of the forwarder")
}

// raise brings a topology up, and says on the error output what it does.
func (p *program) raise(c *cobra.Command, t lab.Topology, forwarder string, replace bool) (*lab.Lab, error) {
	path, err := filepath.Abs(forwarder)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("find the forwarder: %w (build it with make build, or name it by --forwarder)", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := contextWithin(c.Context(), raiseTime, "the lab did not come up")
	defer cancel()
	return lab.Up(ctx, t, lab.Options{
		Dir: p.dir, Forwarder: path, Pump: []string{self, pumpName}, Replace: replace,
		Step: func(format string, args ...any) { fmt.Fprintf(p.errOut, "  "+format+"\n", args...) },
	})
}

func (p *program) downCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "down",
		Short: "Take the lab down and leave nothing, also after a crash",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			names, err := lab.Names(p.dir)
			if err != nil {
				return err
			}
			if !all {
				if p.name == "" && len(names) == 0 {
					fmt.Fprintln(p.out, "no lab is up")
					return nil
				}
				name, err := p.which()
				if err != nil {
					return err
				}
				names = []string{name}
			}
			for _, name := range names {
				err := lab.Down(p.dir, name)
				switch {
				case errors.Is(err, lab.ErrNotUp):
					fmt.Fprintf(p.out, "lab %s is not up\n", name)
				case err != nil:
					return err
				default:
					fmt.Fprintf(p.out, "lab %s is down\n", name)
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every lab")
	return c
}

func (p *program) stopCommand() *cobra.Command {
	var kill bool
	c := &cobra.Command{
		Use:   "stop NODE",
		Short: "End a node's forwarder",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.with(func(l *lab.Lab) error { return l.StopForwarder(args[0], kill) })
		},
	}
	c.Flags().BoolVar(&kill, "kill", false, "as kill -9 does, without asking")
	return c
}

func (p *program) startCommand() *cobra.Command {
	var alone bool
	c := &cobra.Command{
		Use:   "start NODE",
		Short: "Start a node's forwarder again",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return p.with(func(l *lab.Lab) error {
				if alone {
					return l.Launch(args[0])
				}
				ctx, cancel := contextWithin(c.Context(), raiseTime, "the forwarder did not come up")
				defer cancel()
				return l.StartForwarder(ctx, args[0])
			})
		},
	}
	c.Flags().BoolVar(&alone, "alone", false, "send it nothing: it goes by the state it kept")
	return c
}

func (p *program) upgradeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "upgrade NODE",
		Short: "Have a new forwarder take over from a node's, under whatever traffic there is",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return p.with(func(l *lab.Lab) error {
				ctx, cancel := contextWithin(c.Context(), raiseTime, "the new forwarder did not take over")
				defer cancel()
				return l.TakeOver(ctx, args[0])
			})
		},
	}
}

func (p *program) topologyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "topology",
		Short: "Print the demo's topology file, to begin one of your own",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(p.out, lab.DemoText())
			return err
		},
	}
}

// pumpName is the hidden command that a lab runs for each impaired link.
const pumpName = "pump"

func pumpCommand() *cobra.Command {
	return &cobra.Command{
		Use:    pumpName + " CONFIG",
		Short:  "Be the wire of an impaired link",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(c *cobra.Command, args []string) error { return lab.RunPump(c.Context(), args[0]) },
	}
}
