package plane

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// A pass that is due while an offer waits for its turn behind a commit must not
// wait for as long as the hand-over takes, which may end with this process.
func TestPassesDoNotWaitForAnOfferThatCameFirst(t *testing.T) {
	p, err := New(Config{Workers: 1, Frames: 4096, Supers: 64, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- p.Run(ctx) }()
	p.turn.Lock() // as a commit does
	offered := make(chan error, 1)
	go func() {
		_, _, err := p.Offer()
		offered <- err
	}()
	time.Sleep(50 * time.Millisecond) // until it waits
	p.kick()
	time.Sleep(50 * time.Millisecond)
	p.turn.Unlock()
	if err := <-offered; err != nil {
		t.Fatal(err)
	}
	if _, err := p.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Cede()
	end()
	select {
	case <-ran:
	case <-time.After(10 * time.Second):
		t.Fatal("the dataplane was ceded, and its passes do not end")
	}
	if err := p.Forsake(); err != nil {
		t.Error(err)
	}
}
