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
	change, cmd := t.Change(&cobra.Command{
		Use: "diff -f FILE", Short: "Which connections of this node a change of objects would allow or deny", Args: cobra.NoArgs,
		Long: `Judge each connection that the forwarder knows by the objects in the store as they
are, and as they would be with those of some manifests (with --delete: without),
and print those whose verdict would change, with the rule that decides it then.
Nothing is changed.

Objects alone are read, in full for each connection: backends of services and
addresses of names are in none, and rules that ask for them match nothing here.`,
	})
	cmd.Flags().Uint32Var(&request.Limit, "limit", 1000, "at most so many connections; 0 for all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
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
		then := preview.NewWorld(after)
		if blind := then.Blind(); len(blind) > 0 {
			fmt.Fprintf(c.errOut, "margayctl: services and names of hosts are not known here, as in %s\n", strings.Join(blind, ", "))
		}
		turns, err := preview.Compare(preview.NewWorld(before), then, flows.GetFlows())
		if err != nil {
			return err
		}
		return preview.Table(c.out, turns, len(flows.GetFlows()))
	}
	return cmd
}
