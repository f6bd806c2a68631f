// Margay-agent decides for a node: it follows the objects of a store and keeps the
// node's forwarder at what comes of them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"margay.dev/margay/cmd/margay-agent/etcd"
	"margay.dev/margay/control/agent"
	"margay.dev/margay/internal/version"
)

func main() {
	if err := command().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "margay-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	c := &cobra.Command{
		Use:           "margay-agent",
		Short:         "Keep this node at what the objects of a store say",
		Version:       version.Line("margay-agent"),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.SetVersionTemplate("{{.Version}}\n")
	c.AddCommand(run(), accept(), etcd.Command())
	return c
}

// run is the agent itself.
func run() *cobra.Command {
	var path string
	var check bool
	over := agent.DefaultConfig() // what flags say, where they are given
	c := &cobra.Command{
		Use:   "run",
		Short: "Follow the store and keep the forwarder at what it says, until a signal",
		Args:  cobra.NoArgs,
	}
	flags := c.Flags()
	flags.StringVarP(&path, "config", "c", "", "configuration file (YAML); none for the defaults")
	flags.BoolVar(&check, "check", false, "check the configuration and exit")
	flags.StringVar(&over.Node, "node", over.Node, "the node's name in the store")
	flags.StringVar(&over.Forwarder, "forwarder", over.Forwarder, "Unix socket of the node's forwarder")
	flags.StringVar(&over.Socket, "socket", over.Socket, "Unix socket where workloads are attached")
	flags.StringVar(&over.StateDir, "state-dir", over.StateDir, "folder of the attachments")
	flags.StringVar(&over.Metrics, "metrics", over.Metrics, "loopback address of metrics and health; empty for none")
	flags.StringVar(&over.Log.Level, "log-level", over.Log.Level, "debug, info, warn or error")
	flags.StringVar(&over.Log.Format, "log-format", over.Log.Format, "text or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := agent.LoadConfig(path)
		if err != nil {
			return err
		}
		for name, set := range map[string]func(){
			"node":       func() { cfg.Node = over.Node },
			"forwarder":  func() { cfg.Forwarder = over.Forwarder },
			"socket":     func() { cfg.Socket = over.Socket },
			"state-dir":  func() { cfg.StateDir = over.StateDir },
			"metrics":    func() { cfg.Metrics = over.Metrics },
			"log-level":  func() { cfg.Log.Level = over.Log.Level },
			"log-format": func() { cfg.Log.Format = over.Log.Format },
		} {
			if flags.Changed(name) {
				set()
			}
		}
		if err := cfg.Validate(); err != nil || check {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		a, err := agent.New(cfg, cfg.Log.Logger(os.Stderr))
		if err != nil {
			return err
		}
		return a.Run(ctx)
	}
	return c
}
