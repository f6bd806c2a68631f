package tcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"margay.dev/margay/bench/stage"
	"margay.dev/margay/internal/hostnet"
)

// Installed is an error that says what to do where iperf3 is not.
func Installed() error {
	if _, err := exec.LookPath("iperf3"); err != nil {
		return errors.New("iperf3 is not installed: apt-get install iperf3")
	}
	return nil
}

// Sample is one run of iperf3 over a path.
type Sample struct {
	Gbit  float64 // Gbit/s that the server received
	CPUGB float64 // CPU seconds of client, server and whatever is between, per GB
	Other float64 // share of the machine's CPU time that others took meanwhile
}

// Measure runs iperf3 over p for some seconds, as fast as it goes.
func Measure(ctx context.Context, p *stage.Path, what Case, seconds int) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+15*time.Second)
	defer cancel()
	server, err := serve(ctx, p, what.IPv6)
	if err != nil {
		return Sample{}, err
	}
	s, err := drive(ctx, p, what, seconds, server)
	if err != nil {
		cancel()
		return Sample{}, errors.Join(err, ignoreKilled(server.wait()))
	}
	return s, nil
}

// serve starts iperf3 at the server's end, for one run.
func serve(ctx context.Context, p *stage.Path, ipv6 bool) (*command, error) {
	return start(ctx, p.Server, "iperf3", "-s", "-1", "-J", "-B", p.Addr(ipv6).String())
}

func drive(ctx context.Context, p *stage.Path, what Case, seconds int, server *command) (Sample, error) {
	if err := listening(ctx, p.Server); err != nil {
		return Sample{}, err
	}
	before, err := read(p)
	if err != nil {
		return Sample{}, err
	}
	client, err := start(ctx, p.Client, "iperf3", "-c", p.Addr(what.IPv6).String(), "-J",
		"-t", strconv.Itoa(seconds), "-P", strconv.Itoa(what.Streams))
	if err != nil {
		return Sample{}, err
	}
	if err := errors.Join(client.wait(), server.wait()); err != nil {
		return Sample{}, err
	}
	after, err := read(p)
	if err != nil {
		return Sample{}, err
	}
	bits, octets, err := received(client.out.Bytes())
	if err != nil {
		return Sample{}, err
	}
	took := client.cpu() + server.cpu() + after.between - before.between
	return Sample{
		Gbit:  bits / 1e9,
		CPUGB: took.Seconds() / (octets / 1e9),
		Other: stage.Others(after.busy-before.busy, took, after.at.Sub(before.at)),
	}, nil
}

// reading is the CPU time taken up to a moment.
type reading struct {
	at            time.Time
	busy, between time.Duration
}

func read(p *stage.Path) (r reading, err error) {
	r.at = time.Now()
	if r.busy, err = stage.Busy(); err == nil && p.CPU != nil {
		r.between, err = p.CPU()
	}
	return r, err
}

// listening waits until the socket of iperf3's server is there.
func listening(ctx context.Context, server *hostnet.Namespace) error {
	for {
		var out string
		err := server.Do(func() error {
			b, err := exec.CommandContext(ctx, "ss", "-Hltn", "sport = :5201").Output()
			out = string(b)
			return err
		})
		if err != nil || strings.TrimSpace(out) != "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for iperf3 to listen: %w", context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// received reads what the server got from the client's report.
func received(report []byte) (bitsPerSecond, octets float64, err error) {
	var r struct {
		Error string
		End   struct {
			Received struct {
				Bits  float64 `json:"bits_per_second"`
				Bytes float64
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(report, &r); err != nil {
		return 0, 0, fmt.Errorf("read iperf3's report: %w", err)
	}
	if r.Error != "" {
		return 0, 0, fmt.Errorf("iperf3: %s", r.Error)
	}
	if r.End.Received.Bytes == 0 {
		return 0, 0, errors.New("iperf3: nothing arrived")
	}
	return r.End.Received.Bits, r.End.Received.Bytes, nil
}

// command is a program that runs in a namespace.
type command struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func start(ctx context.Context, ns *hostnet.Namespace, argv ...string) (*command, error) {
	c := &command{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	if err := ns.Do(c.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return c, nil
}

func (c *command) wait() error {
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %.300s", strings.Join(c.cmd.Args, " "), err, c.out.String())
	}
	return nil
}

// ignoreKilled leaves out the end of a server that was killed because the client failed.
func ignoreKilled(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return nil
	}
	return err
}

func (c *command) cpu() time.Duration {
	return c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
}
