//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/cmd/margayctl/preview"
	"margay.dev/margay/cmd/margayctl/resources"
	"margay.dev/margay/control/pending"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/render"
)

// objects is the part of the program that works on a store.
func (c *ctl) objects() *resources.Tool {
	return &resources.Tool{In: c.in, Out: c.out, Err: c.errOut, Env: c.env, Now: c.now}
}

// isRefusal reports whether a store has refused to do what it was asked.
func isRefusal(err error) bool {
	for _, refusal := range []error{
		datastore.ErrExists, datastore.ErrNotFound, datastore.ErrConflict, datastore.ErrInvalid, datastore.ErrDenied, pending.ErrPending,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// policyDiff says which connections a change would turn.
func (c *ctl) policyDiff() *cobra.Command {
	t := c.objects()
	request := &dataplanev1.ListFlowsRequest{}
	var output, agent string
	change, cmd := t.Change(&cobra.Command{
		Use: "diff -f FILE", Short: "Which connections of this node a change of objects would allow or deny", Args: cobra.NoArgs,
		Long: `Judge each connection that the forwarder knows by the objects in the store as they
are, and as they would be with those of some manifests (with --delete: without),
and print those whose verdict would change, with the rule that decides it then.
Nothing is changed.

Objects are read in full for each connection. Addresses of names of hosts are those
that this node's agent has learned: a name that no object asks for yet has none. Of
services no agent knows the backends without Kubernetes. Rules that ask for what is
not known match nothing, here and in the forwarder; a line says which objects do.`,
	})
	f := cmd.Flags()
	f.Uint32Var(&request.Limit, "limit", 1000, "at most so many connections; 0 for all")
	f.StringVarP(&output, "output", "o", string(render.Text), "table, json or yaml")
	f.StringVar(&agent, "agent-socket", c.agentSocket(), "Unix socket of the agent; "+agentSocketVariable+" sets it too")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := render.ParseFormat(output)
		if err != nil {
			return err
		}
		before, after, err := change.Objects(cmd.Context())
		if err != nil {
			return err
		}
		flows := &dataplanev1.FlowList{}
		if err := c.ask(cmd.Context(), func(ctx context.Context, i dataplanev1.InspectClient) (err error) {
			flows, err = allFlows(ctx, i, request)
			return err
		}); err != nil {
			return err
		}
		names := c.learned(cmd.Context(), agent, after)
		then := preview.NewWorld(after, names)
		blind := then.Blind()
		if len(blind) > 0 {
			fmt.Fprintf(c.errOut, "margayctl: nobody knows the services or names of hosts, or not all, that these ask for: %s\n", strings.Join(blind, ", "))
		}
		turns, err := preview.Compare(preview.NewWorld(before, names), then, flows.GetFlows())
		if err != nil {
			return err
		}
		return preview.NewReport(turns, len(flows.GetFlows()), blind).Write(c.out, format)
	}
	return cmd
}
