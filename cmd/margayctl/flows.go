//go:build linux

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/cmd/margayctl/verdicts"
)

func (c *ctl) flows() *cobra.Command {
	request := &dataplanev1.ListFlowsRequest{}
	var protocol string
	var denied, summary bool
	cmd := &cobra.Command{
		Use: "flows", Short: "Connections that are known, and which rules have let them pass", Args: cobra.NoArgs,
		Annotations: map[string]string{wideToo: ""},
		Long: `Flows are the connections of endpoints that have policy: TCP by its states, all
else by addresses and ports.

SOURCE is who has opened it. PACKETS and BYTES are those of its packets and of
the replies. RULE is the rule that decided at each end that is judged, as policy
and place in it; of what is denied, that which denies it. AGE is since it was
opened, IDLE since its latest packet. -o wide says more: whose ends they are, by
which ports packets leave, and what the rules say.

With --summary: how full the table of connections is, who fills it, and which
packets it has refused.`,
		Example: `  margayctl flows --endpoint ann --port 443
  margayctl flows --host 10.1.0.0/16 --denied -o wide
  margayctl flows --summary`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if summary {
				return c.summary(cmd)
			}
			if protocol != "" {
				if request.Protocol, err = verdicts.Protocol(protocol); err != nil {
					return err
				}
			}
			if denied {
				request.Verdict = dataplanev1.ListFlowsRequest_VERDICT_DENIED
			}
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.FlowList, error) {
				return allFlows(ctx, i, request)
			}, func(w io.Writer, l *dataplanev1.FlowList) error { return verdicts.Flows(w, l, c.wide) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Endpoint, "endpoint", "", "of one endpoint, by its id, or what its id alone ends in behind a slash")
	flags.StringVar(&request.Address, "host", "", "at an address, or in a prefix")
	flags.Uint32Var(&request.Port, "port", 0, "from or to a port, 1 to 65535")
	flags.StringVar(&protocol, "proto", "", "of a protocol: tcp, udp, sctp, icmp, icmp6 or a number")
	flags.BoolVar(&denied, "denied", false, "that policy denies now: it has changed since they were opened")
	flags.Uint32Var(&request.Limit, "limit", 1000, "at most so many; 0 for all")
	flags.BoolVar(&summary, "summary", false, "how full the table of connections is")
	return cmd
}

// allFlows puts the chunks of an answer together.
func allFlows(ctx context.Context, i inspect, request *dataplanev1.ListFlowsRequest) (*dataplanev1.FlowList, error) {
	all := &dataplanev1.FlowList{}
	stream, err := i.ListFlows(ctx, request)
	return all, each(stream, err, func(chunk *dataplanev1.FlowList) {
		all.Flows, all.More = append(all.Flows, chunk.GetFlows()...), chunk.GetMore()
	})
}

// summary is of all flows, so that no filter goes with it.
func (c *ctl) summary(cmd *cobra.Command) error {
	for _, name := range []string{"endpoint", "host", "port", "proto", "denied", "limit"} {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("--summary is of all flows: leave --%s out", name)
		}
	}
	return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.FlowSummary, error) {
		return i.SummarizeFlows(ctx, &dataplanev1.SummarizeFlowsRequest{})
	}, verdicts.Summary)
}
