//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/impair"
	"margay.dev/margay/internal/lab/load"
	"margay.dev/margay/internal/render"
)

func (p *program) execCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exec POD|NODE -- COMMAND [ARGUMENT...]",
		Short: "Run something inside a pod or node",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 || c.ArgsLenAtDash() > 1 {
				return errors.New("want a pod or node, -- and a command, as: margay-lab exec ann -- ping -c 3 10.77.2.10")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return p.with(func(l *lab.Lab) error {
				cmd, err := l.Command(context.WithoutCancel(c.Context()), args[0], args[1:]...) // it hears the signals itself
				if err != nil {
					return err
				}
				cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, p.out, p.errOut
				return cmd.Run()
			})
		},
	}
}

func (p *program) pingCommand() *cobra.Command {
	var six bool
	ping := load.Ping{}
	c := &cobra.Command{
		Use:   "ping [FROM TO]",
		Short: "Who reaches whom, or one pod another",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return errors.New("want two pods, or none for all of them")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return p.with(func(l *lab.Lab) error {
				if len(args) == 0 {
					return p.showMatrix(l, l.Matrix(c.Context(), ping))
				}
				six, err := family(six, l, args[0], args[1])
				if err != nil {
					return err
				}
				r := lab.Reach{From: args[0], To: args[1], IPv6: six}
				if r.Ping, err = l.Ping(c.Context(), args[0], args[1], six, ping); err != nil {
					return err
				}
				if r.Ping.Last != nil {
					r.Err = r.Ping.Last.Error()
				}
				return p.showReach(r)
			})
		},
	}
	c.Flags().BoolVarP(&six, "ipv6", "6", false, "by IPv6")
	c.Flags().IntVarP(&ping.Count, "count", "c", 3, "requests")
	c.Flags().DurationVar(&ping.Interval, "interval", 0, "between an answer and the next request")
	c.Flags().DurationVar(&ping.Timeout, "timeout", time.Second, "for each answer")
	c.Flags().IntVarP(&ping.Size, "size", "s", 56, "bytes of payload")
	return c
}

var errUnreached = errors.New("not every request was answered")

func (p *program) showReach(r lab.Reach) error {
	if p.format != render.Text {
		if err := p.document(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.out, "%s to %s: %d of %d answered; %s\n", r.From, r.To, r.Ping.Received, r.Ping.Sent, trips(r.Ping.RTT))
	}
	if !r.Ping.OK() {
		if r.Err != "" {
			return fmt.Errorf("%w: %s", errUnreached, r.Err)
		}
		return errUnreached
	}
	return nil
}

// showMatrix prints who reached whom: the median round trip by IPv4 and IPv6.
func (p *program) showMatrix(l *lab.Lab, all []lab.Reach) error {
	if p.format != render.Text {
		if err := p.document(all); err != nil {
			return err
		}
	} else if err := p.matrix(l, all); err != nil {
		return err
	}
	for _, r := range all {
		if !r.Ping.OK() {
			return errUnreached
		}
	}
	return nil
}

func (p *program) matrix(l *lab.Lab, all []lab.Reach) error {
	cells := map[[2]string]string{}
	for _, r := range all {
		cell := "-"
		if r.Ping.OK() {
			cell = micros(r.Ping.P50)
		} else if r.Ping.Received > 0 {
			cell = fmt.Sprintf("%d/%d", r.Ping.Received, r.Ping.Sent)
		}
		key := [2]string{r.From, r.To}
		if cells[key] != "" {
			cell = cells[key] + " / " + cell
		}
		cells[key] = cell
	}
	heads := []string{"FROM \\ TO"}
	for _, q := range l.Topology().Pods {
		heads = append(heads, ">"+q.Name+" v4/v6")
	}
	t := render.NewTable(heads...)
	for _, from := range l.Topology().Pods {
		row := []string{from.Name}
		for _, to := range l.Topology().Pods {
			row = append(row, cells[[2]string{from.Name, to.Name}])
		}
		t.Row(row...)
	}
	return t.Write(p.out)
}

func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }

func trips(r load.RTT) string {
	if r.Received == 0 {
		return "no round trip"
	}
	return fmt.Sprintf("round trip p50 %s, p90 %s, p99 %s, max %s", micros(r.P50), micros(r.P90), micros(r.P99), micros(r.Max))
}

// perfOut is what perf prints as a document.
type perfOut struct {
	From string `json:"from"`
	To   string `json:"to"`
	load.Result
}

func (p *program) perfCommand() *cobra.Command {
	var six bool
	var rate impair.BitRate
	var seconds float64
	perf := load.Perf{}
	c := &cobra.Command{
		Use:   "perf FROM TO",
		Short: "Throughput, rate, loss and round trips between two pods' kernels",
		Long: `perf loads the way between two pods through their kernels' sockets, and asks UDP
echoes for round trips meanwhile. Of the datagrams lost it tells which share the
sender's own transmit queue and the receiver's own socket had no room for; the
rest was lost on the way.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return p.with(func(l *lab.Lab) error {
				six, err := family(six, l, args[0], args[1])
				if err != nil {
					return err
				}
				perf.Rate, perf.Duration = uint64(rate), time.Duration(seconds*float64(time.Second))
				r, err := l.Perf(c.Context(), args[0], args[1], six, perf)
				if err != nil {
					return err
				}
				out := perfOut{args[0], args[1], r}
				if p.format != render.Text {
					return p.document(out)
				}
				return p.showPerf(out)
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&perf.UDP, "udp", false, "datagrams instead of TCP")
	f.BoolVarP(&six, "ipv6", "6", false, "by IPv6")
	f.IntVar(&perf.Streams, "streams", 1, "side by side")
	f.IntVar(&perf.Size, "size", 0, "bytes of a write or datagram; 0: 128 KiB, or what fits the MTU")
	f.Float64Var(&seconds, "seconds", 5, "how long")
	f.Var(&rate, "rate", "payload that UDP offers, as 100mbit; none: as much as goes")
	return c
}

func (p *program) showPerf(rs ...perfOut) error {
	t := render.NewTable("FROM", "TO", "PROTO", ">STREAMS", ">SIZE", ">GBIT/S", ">KPKT/S", ">LOSS", ">IN TX QUEUE", ">IN SOCKET", ">RETRANS", ">P50", ">P99", ">MAX")
	for _, r := range rs {
		rate, loss, queue, socket, again := "", "", "", "", fmt.Sprint(r.Retransmits)
		if r.Sent > 0 {
			share := func(n uint64) string { return render.Percent(float64(n) / float64(r.Sent)) }
			rate, loss, again = fmt.Sprintf("%.0f", r.MpktPerS*1e3), render.Percent(r.Loss), ""
			queue, socket = share(r.LostSending), share(r.LostReceiving)
		}
		t.Row(r.From, r.To, r.Proto, fmt.Sprint(r.Streams), fmt.Sprint(r.Size), fmt.Sprintf("%.3f", r.GbitPerS), rate, loss, queue, socket, again,
			micros(r.RTT.P50), micros(r.RTT.P99), micros(r.RTT.Max))
	}
	return t.Write(p.out)
}

func (p *program) impairCommand() *cobra.Command {
	var is impair.Impairment
	var direction string
	var clear bool
	c := &cobra.Command{
		Use:   "impair LINK",
		Short: "Make an impaired link worse or better; without flags tell how it is",
		Long: `impair sets how an impaired link treats frames; what is not named is set back to
good. A link is impaired if its topology says so ("impairment: {}" is a good one
that can be made worse). Without flags it tells how the link is and has been.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			there, back, err := directions(direction, &is)
			if err != nil {
				return err
			}
			asked := clear
			for _, name := range []string{"loss", "duplicate", "delay", "jitter", "reorder", "rate", "limit", "partition"} {
				asked = asked || c.Flags().Changed(name)
			}
			if !asked {
				there, back = nil, nil
			}
			return p.with(func(l *lab.Lab) error {
				s, err := l.Impair(c.Context(), args[0], there, back)
				if err != nil {
					return err
				}
				return p.showWire(l.Topology().Link(args[0]), s)
			})
		},
	}
	f := c.Flags()
	f.Var(&is.Loss, "loss", "share of frames lost, as 1%")
	f.Var(&is.Duplicate, "duplicate", "share of frames doubled")
	f.Var(&is.Delay, "delay", "as 10ms")
	f.Var(&is.Jitter, "jitter", "by which delays vary")
	f.Var(&is.Reorder, "reorder", "share of frames that skip the delay")
	f.Var(&is.Rate, "rate", "of the wire, as 100mbit")
	f.IntVar(&is.Limit, "limit", 0, "frames that may wait; 0: 1000")
	f.BoolVar(&is.Partition, "partition", false, "cut it")
	f.BoolVar(&clear, "clear", false, "make it good")
	f.StringVar(&direction, "direction", "both", "there (from the first end), back, or both")
	return c
}

func directions(word string, is *impair.Impairment) (there, back *impair.Impairment, err error) {
	switch word {
	case "both":
		return is, is, nil
	case "there":
		return is, nil, nil
	case "back":
		return nil, is, nil
	}
	return nil, nil, fmt.Errorf("direction is %q, want there, back or both", word)
}

func (p *program) showWire(k *lab.Link, s impair.Status) error {
	if p.format != render.Text {
		return p.document(s)
	}
	t := render.NewTable("FROM", "TO", "IMPAIRMENT", ">OFFERED", ">DELIVERED", ">LOST", ">CUT", ">DOUBLED", ">REORDERED", ">OVERFLOWED", ">WAITING")
	row := func(from, to string, is impair.Impairment, c impair.Counters) {
		n := func(v uint64) string { return fmt.Sprint(v) }
		t.Row(from, to, is.String(), n(c.Offered), n(c.Delivered), n(c.Lost), n(c.Cut), n(c.Duplicated), n(c.Reordered), n(c.Overflowed), n(c.Waiting))
	}
	row(k.Ends[0].Node, k.Ends[1].Node, s.AtoB, s.CountAB)
	row(k.Ends[1].Node, k.Ends[0].Node, s.BtoA, s.CountBA)
	return t.Write(p.out)
}
