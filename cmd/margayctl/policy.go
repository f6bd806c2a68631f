//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/cmd/margayctl/verdicts"
)

func (c *ctl) policy() *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "What judges the endpoints of this node", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to do: list, show ENDPOINT, or diff -f FILE")
		},
	}
	cmd.AddCommand(c.policyList(), c.policyShow(), c.policyDiff())
	return cmd
}

func (c *ctl) policyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Endpoints: whether they are judged, and by how much", Args: cobra.NoArgs,
		Long: `Endpoints of the forwarder, and the state of their policy.

RULES are those of both directions and families, as they were compiled: a rule
counts once for each family, and for each port that a name stands for. FLOWS are
connections that the endpoint is charged with.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.PolicyList, error) {
				return i.ListPolicies(ctx, &dataplanev1.ListPoliciesRequest{})
			}, verdicts.Endpoints)
		},
	}
}

func (c *ctl) policyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ENDPOINT", Short: "The tiers, policies and rules of one endpoint, in the order in which they are asked", Args: oneEndpoint,
		Long: `What judges an endpoint, as it is in force: of both directions the tiers with
their policies and rules, in the order in which they are asked, what becomes of
the rest, and which sets of addresses the endpoint itself is in.

ENDPOINT is its id, what its id alone ends in behind a slash, its pod, or its port.
PACKETS and BYTES are of the packets that a rule has decided: of connections that
it allowed the first, of what it denied each. Packets of known connections are
in margayctl flows. What is staged stands by itself: it decides nothing, and its
packets are those that it would decide.`,
		Example: "  margayctl policy show ann",
		RunE: func(cmd *cobra.Command, args []string) error {
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.EndpointPolicy, error) {
				return wholePolicy(ctx, i, args[0])
			}, verdicts.Policy)
		},
	}
}

func oneEndpoint(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d endpoints are named, want one; margayctl policy list lists them", len(args))
	}
	return nil
}

// wholePolicy puts the chunks of an answer together.
func wholePolicy(ctx context.Context, i inspect, endpoint string) (all *dataplanev1.EndpointPolicy, err error) {
	stream, err := i.ShowPolicy(ctx, &dataplanev1.ShowPolicyRequest{Endpoint: endpoint})
	err = each(stream, err, func(chunk *dataplanev1.EndpointPolicy) { all = verdicts.Join(all, chunk) })
	return all, err
}
