package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"margay.dev/margay/control/agent"
	"margay.dev/margay/control/cluster"
	"margay.dev/margay/datastore/connect"
)

// acceptTime is how long a store may take to be listed.
const acceptTime = time.Minute

// accept has the node follow another store than it has followed.
func accept() *cobra.Command {
	var path, stateDir string
	var empty bool
	c := &cobra.Command{
		Use:   "accept",
		Short: "Have this node follow the store that is configured, though it is another one than before",
		Long: "An agent does not believe a store that is another one than its node has followed: one that was made\n" +
			"anew and is not filled yet would have it take away what protects the node. This says that the store of\n" +
			"the configuration holds all that it should. The agent need not be stopped: it looks again within ten\n" +
			"seconds. To be said on every node.",
		Args: cobra.NoArgs,
	}
	flags := c.Flags()
	flags.StringVarP(&path, "config", "c", "", "configuration file of the agent (YAML); none for the defaults")
	flags.StringVar(&stateDir, "state-dir", agent.DefaultConfig().StateDir, "the agent's state folder, where a flag of it says so")
	flags.BoolVar(&empty, "empty", false, "accept a store that holds nothing: the node's policy goes")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		cfg, err := agent.LoadConfig(path)
		if err != nil {
			return err
		}
		if flags.Changed("state-dir") {
			cfg.StateDir = stateDir
		}
		if err := errors.Join(cfg.Validate(), os.MkdirAll(cfg.StateDir, 0o700)); err != nil {
			return err
		}
		store, err := connect.Open(cfg.Store)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		ctx, cancel := context.WithTimeout(c.Context(), acceptTime)
		defer cancel()
		is, err := cluster.Accept(ctx, store, cfg.Trust(cfg.Log.Logger(os.Stderr)), empty)
		if errors.Is(err, cluster.ErrBare) {
			return fmt.Errorf("%w, or say --empty if nothing is to be in force", err)
		}
		if err == nil {
			_, err = fmt.Fprintln(c.OutOrStdout(), "this node follows", is)
		}
		return err
	}
	return c
}
