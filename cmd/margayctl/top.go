//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/render"
)

// clearScreen puts the cursor in the corner and blanks what follows it.
const clearScreen = "\x1b[H\x1b[2J"

func (c *ctl) top() *cobra.Command {
	var interval time.Duration
	var readings int
	cmd := &cobra.Command{
		Use: "top", Short: "Live: traffic, cost by node, workers, ports and drops", Args: cobra.NoArgs,
		Long: `What the forwarder does now: each reading shows what happened since the one
before it. It goes on until it is interrupted, also while the forwarder restarts.

MPPS are millions of packets per second, in wire segments. PKTS/CALL is the mean
vector. NS/PKT is sampled; SHARE is the node's part of the time spent in all of
them, and nodes are sorted by it. BUSY is the share of a worker's time that went
into passes that moved packets.

On a terminal a reading takes the place of the one before it. With -o json or
yaml each reading is a document of its own.`,
		Example: "  margayctl top --interval 2s\n  margayctl top -n 1 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case interval <= 0:
				return fmt.Errorf("interval is %v, want more than 0: the time between two readings", interval)
			case readings < 0:
				return fmt.Errorf("n is %d, want the number of readings to show, or 0 for no end", readings)
			}
			return c.watch(cmd.Context(), interval, readings)
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two readings")
	cmd.Flags().IntVarP(&readings, "readings", "n", 0, "end after so many readings; 0 goes on until interrupted")
	return cmd
}

// watch shows n glances at the forwarder, interval apart; 0 for no end. A
// forwarder that never answered is an error, one that went away is shown as such.
func (c *ctl) watch(ctx context.Context, interval time.Duration, n int) error {
	before, err := c.read(ctx)
	if err != nil {
		return err
	}
	for shown := 0; n == 0 || shown < n; shown++ {
		select {
		case <-ctx.Done():
			return nil // the way to end it
		case <-time.After(interval):
		}
		now, err := c.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var g glance
		if err != nil {
			g = glance{at: c.now(), trouble: err}
		} else {
			g, before = compare(before, now), now
		}
		if err := c.showGlance(g); err != nil {
			return err
		}
	}
	return nil
}

// reading is what the forwarder had counted at one moment.
type reading struct {
	at      time.Time
	status  *dataplanev1.Status
	nodes   *dataplanev1.NodeList
	ports   *dataplanev1.PortList
	workers *dataplanev1.WorkerList
	drops   *dataplanev1.DropList
}

// read asks for all that a reading has. The time is that of the middle of it.
func (c *ctl) read(ctx context.Context) (reading, error) {
	var r reading
	err := c.ask(ctx, func(ctx context.Context, i inspect) (err error) {
		if r.status, err = i.GetStatus(ctx, &dataplanev1.StatusRequest{}); err != nil {
			return err
		}
		if r.nodes, err = i.ListNodes(ctx, &dataplanev1.ListNodesRequest{}); err != nil {
			return err
		}
		if r.workers, err = i.ListWorkers(ctx, &dataplanev1.ListWorkersRequest{}); err != nil {
			return err
		}
		r.at = c.now()
		if r.drops, err = i.ListDrops(ctx, &dataplanev1.ListDropsRequest{}); err != nil {
			return err
		}
		r.ports, err = i.ListPorts(ctx, &dataplanev1.ListPortsRequest{})
		return err
	})
	return r, err
}

// showGlance prints one, at once, so that a screen does not flicker.
func (c *ctl) showGlance(g glance) error {
	var b bytes.Buffer
	switch c.format {
	case render.Text:
		if c.terminal {
			b.WriteString(clearScreen)
		}
		if err := glanceTable(&b, g); err != nil {
			return err
		}
		if !c.terminal {
			b.WriteByte('\n')
		}
	default:
		if c.format == render.YAML {
			b.WriteString("---\n")
		}
		doc, err := g.document()
		if err != nil {
			return fmt.Errorf("write a reading: %w", err)
		}
		if err := render.Document(&b, c.format, doc); err != nil {
			return err
		}
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// isTerminal tells whether somebody watches what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
