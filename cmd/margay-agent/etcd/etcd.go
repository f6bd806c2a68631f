// Package etcd is the command that runs the store of a machine or a lab that has
// none: an etcd within the process.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"margay.dev/margay/datastore/embedded"
)

// Command serves until it is told to stop, by SIGTERM or SIGINT.
func Command() *cobra.Command {
	cfg := embedded.Default()
	var level slog.Level
	c := &cobra.Command{
		Use:   "etcd",
		Short: "Keep the objects of this machine, or of a lab, where there is no etcd",
		Long: "Run an etcd of one member in this process, for agents and tools that are told no other place to look\n" +
			"for objects. Its data outlives it. When it can be read and written it prints a line with the\n" +
			"addresses to standard output, and tells systemd.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return run(c.Context(), cfg, c.OutOrStdout())
		},
	}
	flags := c.Flags()
	flags.StringVar(&cfg.Name, "name", cfg.Name, "the server's name, in its data and log")
	flags.StringVar(&cfg.Dir, "data-dir", cfg.Dir, "folder of the data, for its user alone")
	flags.StringSliceVar(&cfg.Listen, "listen", cfg.Listen, "where clients reach it: unix:///PATH, https://IP:PORT, or http://IP:PORT on loopback")
	flags.StringVar(&cfg.CertFile, "cert", "", "certificate of the server (PEM), for https")
	flags.StringVar(&cfg.KeyFile, "key", "", "its private key (PEM)")
	flags.StringVar(&cfg.ClientCAFile, "client-ca", "", "authorities of the certificates that clients must have (PEM), for https")
	flags.IntVar(&cfg.Quota, "quota", cfg.Quota, "data it takes before it refuses to be written to, in MiB")
	flags.DurationVar(&cfg.Keep, "keep", cfg.Keep, "for how long it knows what changed; who was away for longer lists anew")
	flags.TextVar(&level, "log-level", slog.LevelWarn, "debug, info, warn or error")
	return c
}

// run is the server's life.
func run(ctx context.Context, cfg embedded.Config, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	s, err := embedded.Start(ctx, cfg)
	if err != nil {
		return err
	}
	for _, at := range cfg.Listen {
		if _, err := fmt.Fprintln(out, "ready at", at); err != nil {
			cfg.Log.Warn("nobody reads that it is ready", slog.Any("error", err))
		}
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		cfg.Log.Warn("systemd does not take that it is ready", slog.Any("error", err))
	}
	return errors.Join(s.Run(ctx), s.Close())
}
