//go:build linux

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	probeSize  = 64
	probeEvery = 5 * time.Millisecond
	probeWait  = time.Second // for one answer
)

// probe is a UDP echo and who asks it.
type probe struct{ echo, ask *net.UDPConn }

func (p Perf) openProbe() (*probe, error) {
	echo, err := listenUDP(p.To, p.Target)
	if err != nil {
		return nil, err
	}
	ask, err := dialUDP(p.From, p.Source, echo)
	if err != nil {
		echo.Close()
		return nil, err
	}
	return &probe{echo, ask}, nil
}

func (p *probe) close() {
	p.ask.Close()
	p.echo.Close()
}

// run asks one question at a time until d is over.
func (p *probe) run(ctx context.Context, d time.Duration) RTT {
	var wg sync.WaitGroup
	wg.Go(p.answer)
	defer wg.Wait()
	defer p.echo.SetReadDeadline(time.Unix(1, 0))
	var trips []time.Duration
	sent := 0
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; pause(ctx, probeEvery) {
		sent++
		if trip, err := p.trip(uint64(sent)); err == nil {
			trips = append(trips, trip)
		}
	}
	return summarize(sent, trips)
}

// trip asks once. Answers to earlier questions are passed over.
func (p *probe) trip(seq uint64) (time.Duration, error) {
	var b [probeSize]byte
	binary.BigEndian.PutUint64(b[:], seq)
	began := time.Now()
	_ = p.ask.SetReadDeadline(began.Add(probeWait))
	if _, err := p.ask.Write(b[:]); err != nil {
		return 0, err
	}
	for {
		n, err := p.ask.Read(b[:])
		if err != nil {
			return 0, err
		}
		if n == probeSize && binary.BigEndian.Uint64(b[:]) == seq {
			return time.Since(began), nil
		}
	}
}

func (p *probe) answer() {
	var b [probeSize]byte
	for {
		n, from, err := p.echo.ReadFromUDPAddrPort(b[:])
		if err != nil {
			var op net.Error
			if errors.As(err, &op) && op.Timeout() || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier answer
		}
		_, _ = p.echo.WriteToUDPAddrPort(b[:n], from)
	}
}
