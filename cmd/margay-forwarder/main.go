// Margay-forwarder is the packet process of a node: it forwards by the state
// that a client sends it over a Unix socket, and goes on when the client is gone.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"margay.dev/margay/config"
	"margay.dev/margay/forwarder"
	"margay.dev/margay/internal/version"
)

func main() {
	if err := command().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "margay-forwarder:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var path string
	var check, takeOver bool
	c := &cobra.Command{
		Use:           "margay-forwarder",
		Short:         "Forward packets between pods, devices and the node",
		Version:       version.Line("margay-forwarder"),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.SetVersionTemplate("{{.Version}}\n")
	c.AddCommand(uninstall())
	flags := c.Flags()
	over := config.Default() // what flags say, where they are given
	flags.StringVarP(&path, "config", "c", "", "configuration file (YAML); none for the defaults")
	flags.BoolVar(&check, "check", false, "check the configuration and exit")
	flags.BoolVar(&takeOver, "take-over", false, "take over from the forwarder that runs at the same socket, which then ends")
	flags.StringVar(&over.Socket, "socket", over.Socket, "Unix socket for clients and tools")
	flags.StringVar(&over.StateDir, "state-dir", over.StateDir, "folder of the acknowledged state and the journal")
	flags.StringVar(&over.Metrics, "metrics", over.Metrics, "loopback address of metrics, health and pprof; empty for none")
	flags.IntVar(&over.Workers, "workers", over.Workers, "poll-mode workers")
	flags.StringVar(&over.Log.Level, "log-level", over.Log.Level, "debug, info, warn or error")
	flags.StringVar(&over.Log.Format, "log-format", over.Log.Format, "text or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(path)
		if err != nil {
			return err
		}
		for name, set := range map[string]func(){
			"socket":     func() { cfg.Socket = over.Socket },
			"state-dir":  func() { cfg.StateDir = over.StateDir },
			"metrics":    func() { cfg.Metrics = over.Metrics },
			"workers":    func() { cfg.Workers = over.Workers },
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
		return run(c.Context(), cfg, takeOver)
	}
	return c
}

// uninstall takes away what outlives the forwarder on purpose.
func uninstall() *cobra.Command {
	dir := config.Default().StateDir
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the host port, its routes and every changed setting away",
		Long: "Put back everything on this host that a forwarder has changed, also what stays on purpose when it\n" +
			"stops: the host port, its addresses and routes, and the blackhole routes behind the pods' prefixes.\n" +
			"The forwarder must not run.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return forwarder.Uninstall(c.Context(), dir, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&dir, "state-dir", dir, "folder of the acknowledged state and the journal")
	return c
}

// run is the daemon's life, until a signal or a hand-over ends it.
func run(ctx context.Context, cfg config.Forwarder, takeOver bool) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	begin := forwarder.New
	if takeOver {
		begin = forwarder.TakeOver
	}
	d, err := begin(ctx, cfg, cfg.Log.Logger(os.Stderr))
	if err != nil {
		return err
	}
	return d.Run(ctx)
}
