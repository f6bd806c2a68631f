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
	var forwarder, agent string
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
			l, err := p.raise(c, t, forwarder, agent, replace)
			if err != nil {
				return err
			}
			defer l.Close()
			if p.format == "table" {
				fmt.Fprintf(p.out, "lab %s is up: %d nodes, %d pods; logs are below %s\n", t.Name, len(t.Nodes), len(t.Pods), l.Dir())
				fmt.Fprintf(p.out, "its store, for margayctl: export ETCD_ENDPOINTS=%s\n\n", l.StoreEndpoint())
			}
			return p.showStatus(c.Context(), l)
		},
	}
	addPrograms(c, &forwarder, &agent)
	c.Flags().BoolVar(&replace, "replace", false, "take a lab of the same name down first")
	return c
}

func addPrograms(c *cobra.Command, forwarder, agent *string) {
	c.Flags().StringVar(forwarder, "forwarder", beside("margay-forwarder"), "program of the forwarder")
	c.Flags().StringVar(agent, "agent", beside("margay-agent"), "program of the agent, and of the lab's etcd")
}

// found is the whole path of a program that a flag names.
func found(flag, path string) (string, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("find the %s: %w (build it with make build, or name it by --%s)", flag, err, flag)
	}
	return path, nil
}

// raise brings a topology up, and says on the error output what it does.
func (p *program) raise(c *cobra.Command, t lab.Topology, forwarder, agent string, replace bool) (*lab.Lab, error) {
	forwarder, err := found("forwarder", forwarder)
	if err != nil {
		return nil, err
	}
	if agent, err = found("agent", agent); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := contextWithin(c.Context(), raiseTime, "the lab did not come up")
	defer cancel()
	return lab.Up(ctx, t, lab.Options{
		Dir: p.dir, Forwarder: forwarder, Agent: agent, Pump: []string{self, pumpName}, Replace: replace,
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
	var which parts
	var kill bool
	c := &cobra.Command{
		Use:   "stop [NODE]",
		Short: "End a node's forwarder or agent, or the lab's etcd",
		Args:  which.args,
		RunE: func(_ *cobra.Command, args []string) error {
			return p.with(func(l *lab.Lab) error {
				switch {
				case which.store:
					return l.StopStore(kill)
				case which.agent:
					return l.StopAgent(args[0], kill)
				}
				return l.StopForwarder(args[0], kill)
			})
		},
	}
	which.flags(c)
	c.Flags().BoolVar(&kill, "kill", false, "as kill -9 does, without asking")
	return c
}

func (p *program) startCommand() *cobra.Command {
	var which parts
	var alone bool
	c := &cobra.Command{
		Use:   "start [NODE]",
		Short: "Start a node's forwarder or agent again, or the lab's etcd",
		Args:  which.args,
		RunE: func(c *cobra.Command, args []string) error {
			return p.with(func(l *lab.Lab) error {
				ctx, cancel := contextWithin(c.Context(), raiseTime, "it did not come up")
				defer cancel()
				switch {
				case which.store:
					return l.StartStore(ctx)
				case which.agent && alone:
					return l.LaunchAgent(args[0])
				case which.agent:
					return l.StartAgent(ctx, args[0])
				case alone:
					return l.Launch(args[0])
				}
				return l.StartForwarder(ctx, args[0])
			})
		},
	}
	which.flags(c)
	c.Flags().BoolVar(&alone, "alone", false, "do not wait until it is at what the store says")
	return c
}

// parts are what of a lab a command means.
type parts struct{ agent, store bool }

func (w *parts) flags(c *cobra.Command) {
	c.Flags().BoolVar(&w.agent, "agent", false, "the node's agent, not its forwarder")
	c.Flags().BoolVar(&w.store, "store", false, "the lab's etcd; no node is named")
}

func (w *parts) args(_ *cobra.Command, args []string) error {
	switch {
	case w.store && (len(args) > 0 || w.agent):
		return errors.New("--store stands alone: the lab has one etcd, which is of no node")
	case !w.store && len(args) != 1:
		return fmt.Errorf("%d nodes are named, want one", len(args))
	}
	return nil
}

func (p *program) settleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "settle",
		Short: "Wait until every node is at what the lab's store says",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return p.with(func(l *lab.Lab) error { return l.Settle(c.Context()) })
		},
	}
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
