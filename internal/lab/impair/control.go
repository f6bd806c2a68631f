//go:build linux

package impair

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// request is one line to a wire's control socket; a Status or a fault answers.
type request struct {
	AtoB *Impairment `json:"a_to_b,omitempty"` // nil leaves the direction as it is
	BtoA *Impairment `json:"b_to_a,omitempty"`
}

type reply struct {
	Status Status `json:"status"`
	Fault  string `json:"fault,omitempty"`
}

// Serve pumps the wire and answers at a Unix socket until ctx ends.
func (w *Wire) Serve(ctx context.Context, socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for changes of the wire: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { w.answer(c) })
		}
	})
	err = w.Run(ctx)
	cancel()
	l.Close()
	wg.Wait()
	return err
}

// answer serves one request.
func (w *Wire) answer(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	var r request
	var out reply
	err := json.NewDecoder(c).Decode(&r)
	if err == nil {
		err = w.Set(r.AtoB, r.BtoA)
	}
	if err != nil {
		out.Fault = err.Error()
	}
	out.Status = w.Status()
	_ = json.NewEncoder(c).Encode(out)
}

// Control changes a wire that serves at socket (nil leaves a direction as it
// is) and returns how it is then.
func Control(ctx context.Context, socket string, aToB, bToA *Impairment) (Status, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return Status{}, fmt.Errorf("reach the wire's pump: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var out reply
	if err := json.NewEncoder(c).Encode(request{aToB, bToA}); err != nil {
		return Status{}, fmt.Errorf("ask the wire's pump: %w", err)
	}
	if err := json.NewDecoder(c).Decode(&out); err != nil {
		return Status{}, fmt.Errorf("hear from the wire's pump: %w", err)
	}
	if out.Fault != "" {
		return out.Status, errors.New(out.Fault)
	}
	return out.Status, nil
}
