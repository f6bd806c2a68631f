package tcp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"margay.dev/margay/bench/stage"
)

const (
	longestPace = 60  // seconds; who started it may have died
	flowing     = 1e5 // octets at the server that show the stream to be there
	flowTime    = 10 * time.Second
)

var errEnded = errors.New("iperf3's paced stream has ended by itself")

// Paced is a stream of iperf3's that goes on at a steady rate until it is stopped.
type Paced struct {
	client, server *command
	cancel         context.CancelFunc
	ended          chan struct{} // closed when the client has ended
	err            error         // how it ended
}

// Pace starts one stream over p of at most rate bits of payload a second, which
// the client's kernel spreads evenly (SO_MAX_PACING_RATE), and returns when it
// flows. It lasts for a minute at most.
func Pace(ctx context.Context, p *stage.Path, ipv6 bool, rate float64) (*Paced, error) {
	ctx, cancel := context.WithCancel(ctx)
	server, err := serve(ctx, p, ipv6)
	if err != nil {
		cancel()
		return nil, err
	}
	b := &Paced{server: server, cancel: cancel, ended: make(chan struct{})}
	if err = listening(ctx, p.Server); err == nil {
		b.client, err = start(ctx, p.Client, "iperf3", "-c", p.Addr(ipv6).String(),
			"-t", strconv.Itoa(longestPace), "--fq-rate", strconv.FormatFloat(rate, 'f', 0, 64))
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, ignoreKilled(server.wait()))
	}
	go func() { b.err = b.client.wait(); close(b.ended) }()
	if err := b.flows(ctx, p); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

// flows waits until octets arrive.
func (b *Paced) flows(ctx context.Context, p *stage.Path) error {
	ctx, cancel := context.WithTimeout(ctx, flowTime)
	defer cancel()
	first, err := p.Received()
	for err == nil {
		var now uint64
		if now, err = p.Received(); err != nil || now-first >= flowing {
			return err
		}
		select {
		case <-b.ended:
			return nil // Stop says why
		case <-ctx.Done():
			return fmt.Errorf("wait for iperf3's stream to flow: %w", context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return err
}

// CPU is what iperf3 has taken at both ends.
func (b *Paced) CPU() (time.Duration, error) {
	client, err := stage.CPU(b.client.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	server, err := stage.CPU(b.server.cmd.Process.Pid)
	return client + server, err
}

// Stop ends the stream. That it had ended before is an error.
func (b *Paced) Stop() error {
	var early error
	select {
	case <-b.ended:
		early = errors.Join(errEnded, b.err)
	default:
	}
	b.cancel()
	<-b.ended
	_ = b.server.wait() // killed, or faster to see that the client is gone
	return early
}
