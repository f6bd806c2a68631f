//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/filter"
	"margay.dev/margay/internal/render"
)

func (c *ctl) trace() *cobra.Command {
	request := &dataplanev1.TraceRequest{}
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "trace", Short: "Follow packets from stop to stop: what each decided, why, what it cost", Args: cobra.NoArgs,
		Long: `Trace follows the next packets that a filter picks as they come in, and tells
each one's way when it has ended: every stop with the way out that it chose,
its share of the stop's time, the route that decided, and the reason of a drop.

The route is looked up again when the packet is told; if the table has changed
since, that is said. While a trace runs, workers read the clock at every stop
and look at every packet: expect them to be slower.`,
		Example: `  margayctl trace --filter 'icmp and host 10.1.0.2'
  margayctl trace --filter 'on uplink and tcp port 443' -n 3 --timeout 1m
  margayctl trace --made -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit <= 0 {
				return fmt.Errorf("timeout is %v, want more than 0", limit)
			}
			if _, err := filter.Parse(request.GetFilter()); err != nil {
				return err
			}
			request.TimeoutMs = milliseconds(limit)
			return c.askFor(cmd.Context(), limit, func(ctx context.Context, i inspect) error {
				return c.tell(ctx, i, request, limit)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&request.Filter, "filter", "f", "", "packets to follow; none for every packet")
	flags.Uint32VarP(&request.Count, "count", "n", 1, "packets to follow, 1 to 1000")
	flags.BoolVar(&request.Made, "made", false, "also packets that the forwarder makes: ICMP errors, ARP, fragments")
	flags.DurationVar(&limit, "timeout", 30*time.Second, "how long to wait for them, at most 10m")
	return cmd
}

// milliseconds is d for a request, never 0: the forwarder says what is too much.
func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 1), 1<<32-1))
}

// tell prints packets as they end; as a document, all of them at once.
func (c *ctl) tell(ctx context.Context, i inspect, request *dataplanev1.TraceRequest, limit time.Duration) error {
	stream, err := i.Trace(ctx, request)
	if err != nil {
		return err
	}
	all := &dataplanev1.TracedPackets{}
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		all.Packets = append(all.Packets, p)
		if c.format == render.Text {
			if err := story(c.out, len(all.Packets), p); err != nil {
				return err
			}
		}
	}
	if c.format != render.Text {
		return render.Document(c.out, c.format, all)
	}
	if len(all.Packets) == 0 {
		_, err = fmt.Fprintf(c.out, "no packet that the filter picks came in within %v\n", limit)
	}
	return err
}
