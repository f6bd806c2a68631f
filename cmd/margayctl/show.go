//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/render"
)

// inspect is who answers.
type inspect = dataplanev1.InspectClient

func (c *ctl) show() *cobra.Command {
	show := &cobra.Command{
		Use:   "show",
		Short: "Show the live state of the forwarder",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.New("say what to show: status, nodes, ports, fib, neighbors, drops or workers")
		},
	}
	show.AddCommand(c.showStatus(), c.showNodes(), c.showPorts(), c.showFIB(), c.showNeighbors(), c.showDrops(), c.showWorkers())
	return show
}

// answer asks, then prints what came as a document, or by table.
func answer[T proto.Message](c *ctl, cmd *cobra.Command, question func(context.Context, inspect) (T, error), table func(io.Writer, T) error) error {
	var got T
	err := c.ask(cmd.Context(), func(ctx context.Context, client inspect) (err error) {
		got, err = question(ctx, client)
		return err
	})
	if err != nil {
		return err
	}
	if c.format != render.Text {
		return render.Document(c.out, c.format, got)
	}
	return table(c.out, got)
}

func (c *ctl) showStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Version, state in force, packet memory, and what is not as it should be", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.Status, error) {
				return i.GetStatus(ctx, &dataplanev1.StatusRequest{})
			}, statusTable)
		},
	}
}

func (c *ctl) showNodes() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "The stops of the packet graph: packets, vector sizes, time", Args: cobra.NoArgs,
		Long: `Nodes of the packet graph, all workers together.

PKTS/CALL is the mean vector: few when idle, up to 256 under load.
NS/PKT is sampled; SHARE is this node's part of the time spent in all of them.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.NodeList, error) {
				return i.ListNodes(ctx, &dataplanev1.ListNodesRequest{})
			}, nodeTable)
		},
	}
}

func (c *ctl) showPorts() *cobra.Command {
	var pause time.Duration
	cmd := &cobra.Command{
		Use: "ports [PORT...]", Short: "Ports and their traffic; named ones with every counter",
		Long: `Ports of the forwarder and what went through them.

With --rate it looks twice and shows what goes through them in a second; a
port that was made anew in between has no rate.`,
		Example: "  margayctl show ports --rate 1s",
		RunE: func(cmd *cobra.Command, names []string) error {
			switch {
			case pause > 0:
				return c.watchPorts(cmd.Context(), names, pause)
			case cmd.Flags().Changed("rate"):
				return fmt.Errorf("rate is %v, want more than 0: the time between two readings", pause)
			}
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.PortList, error) {
				return listPorts(ctx, i, names)
			}, func(w io.Writer, l *dataplanev1.PortList) error {
				if len(names) > 0 {
					return portDetails(w, l, nil)
				}
				return portTable(w, l)
			})
		},
	}
	cmd.Flags().DurationVar(&pause, "rate", 0, "show packets and bytes per second, from two readings so far apart")
	return cmd
}

// listPorts asks for the named ports, or for all.
func listPorts(ctx context.Context, i inspect, names []string) (*dataplanev1.PortList, error) {
	all, err := i.ListPorts(ctx, &dataplanev1.ListPortsRequest{})
	if err != nil {
		return nil, err
	}
	return pickPorts(all, names)
}

// pickPorts keeps the named ports in the order of their names; all if none is named.
func pickPorts(all *dataplanev1.PortList, names []string) (*dataplanev1.PortList, error) {
	if len(names) == 0 {
		return all, nil
	}
	picked := &dataplanev1.PortList{}
	for _, name := range names {
		found := false
		for _, p := range all.GetPorts() {
			if p.GetName() == name {
				picked.Ports, found = append(picked.Ports, p), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no port is called %q; margayctl show ports lists them", name)
		}
	}
	return picked, nil
}

func (c *ctl) showFIB() *cobra.Command {
	return &cobra.Command{
		Use: "fib [ADDRESS]", Short: "Routes in force; with an address, the one that decides for it", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &dataplanev1.ListRoutesRequest{}
			if len(args) == 1 {
				addr, err := netip.ParseAddr(args[0])
				if err != nil || addr.Zone() != "" {
					return fmt.Errorf("%q is no IPv4 or IPv6 address without a zone", args[0])
				}
				request.Covering = addr.Unmap().String()
			}
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.RouteList, error) {
				return allRoutes(ctx, i, request)
			}, func(w io.Writer, l *dataplanev1.RouteList) error {
				return routeTable(w, l, request.GetCovering())
			})
		},
	}
}

// allRoutes puts the chunks of an answer together.
func allRoutes(ctx context.Context, i inspect, request *dataplanev1.ListRoutesRequest) (*dataplanev1.RouteList, error) {
	all := &dataplanev1.RouteList{}
	stream, err := i.ListRoutes(ctx, request)
	return all, each(stream, err, func(chunk *dataplanev1.RouteList) { all.Routes = append(all.Routes, chunk.GetRoutes()...) })
}

func (c *ctl) showNeighbors() *cobra.Command {
	return &cobra.Command{
		Use: "neighbors", Aliases: []string{"neighbours"}, Short: "Link-layer addresses of next hops", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.NeighborList, error) {
				return i.ListNeighbors(ctx, &dataplanev1.ListNeighborsRequest{})
			}, neighborTable)
		},
	}
}

func (c *ctl) showDrops() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "drops", Short: "Dropped packets by reason, and whether every packet is accounted for", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.DropList, error) {
				l, err := i.ListDrops(ctx, &dataplanev1.ListDropsRequest{})
				if err != nil {
					return nil, err
				}
				l.Drops = seen(l.GetDrops())
				if all {
					l.Drops = complete(l.GetDrops())
				}
				return l, nil
			}, dropTable)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also the reasons for which nothing was dropped")
	return cmd
}

// seen keeps the reasons that dropped something.
func seen(drops []*dataplanev1.DropList_Drop) []*dataplanev1.DropList_Drop {
	var out []*dataplanev1.DropList_Drop
	for _, d := range drops {
		if d.GetPackets() > 0 {
			out = append(out, d)
		}
	}
	return out
}

// complete adds the reasons that dropped nothing, in the order in which a packet
// may meet them; reasons that this build does not know come last.
func complete(drops []*dataplanev1.DropList_Drop) []*dataplanev1.DropList_Drop {
	left := map[string]*dataplanev1.DropList_Drop{}
	for _, d := range drops {
		left[d.GetReason()] = d
	}
	var out []*dataplanev1.DropList_Drop
	for r := graph.NoReason + 1; int(r) < graph.Reasons; r++ {
		d := left[r.String()]
		if d == nil {
			d = &dataplanev1.DropList_Drop{Reason: r.String()}
		}
		out = append(out, d)
		delete(left, r.String())
	}
	for _, d := range drops {
		if left[d.GetReason()] != nil {
			out = append(out, d)
		}
	}
	return out
}

func (c *ctl) showWorkers() *cobra.Command {
	return &cobra.Command{
		Use: "workers", Short: "Workers: where they run, how busy they are", Args: cobra.NoArgs,
		Long: `Workers of the forwarder.

LOAD is the time spent in passes that moved packets, of all time; a worker
that only spins has none. BUSY is the share of passes that moved packets.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return answer(c, cmd, func(ctx context.Context, i inspect) (*dataplanev1.WorkerList, error) {
				return i.ListWorkers(ctx, &dataplanev1.ListWorkersRequest{})
			}, workerTable)
		},
	}
}
