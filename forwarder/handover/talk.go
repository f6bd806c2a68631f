package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"margay.dev/margay/internal/mem"
)

// talk is the giver's side of one hand-over.
type talk struct {
	*conn
	g     Giver
	log   *slog.Logger
	lim   limits
	taker life
	heard chan heard // what the taker says, as it comes
}

// heard is one message of the taker, or what ended its listening.
type heard struct {
	m   message
	err error
}

// want is an error unless the taker said what is due.
func (h heard) want(due kind) error {
	if h.err != nil {
		return h.err
	}
	return h.m.want(due)
}

// run takes one taker through all steps. When it returns nil, the taker runs
// and waits for the last word; otherwise the giver is in charge, and has been
// told to resume where it had prepared.
func (t *talk) run(ctx context.Context, mine bool) error {
	if err := t.greet(ctx); err != nil {
		t.refuse(err)
		return err
	}
	t.taker.mine = mine
	ears, deaf := context.WithCancel(context.WithoutCancel(ctx)) // what comes after go is heard also when ctx ends
	defer deaf()
	_ = t.SetReadDeadline(time.Time{}) // limits are await's from here on
	go t.listen(ears)
	b, err := t.prepare(ctx)
	if err != nil {
		t.refuse(err)
		return err
	}
	touched, err := t.hand(ctx, b)
	if err != nil {
		if !touched {
			err = t.reason(ctx, err)
		}
		t.takeBack(touched, err)
	}
	return err
}

// reason is why a hand-over ends with err: because this forwarder does, or
// because of what the taker said before it went.
func (t *talk) reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errGone) {
		select {
		case h := <-t.heard:
			if e := h.want(""); errors.Is(e, errAbort) {
				return e
			}
		case <-time.After(t.lim.step):
		}
	}
	return err
}

// greet hears who the taker is, and answers if it fits.
func (t *talk) greet(ctx context.Context) error {
	defer bound(ctx, t.lim.answer, t.SetDeadline)()
	m, fds, err := t.recv(1)
	if err != nil {
		return err
	}
	if err := m.want(hello); err != nil {
		closeAll(fds)
		return err
	}
	if t.taker, err = watch(fds); err != nil {
		return err
	}
	ours := t.g.Facts()
	agreed, err := agree("hand-over", span{ours.Program, Version, MinVersion}, span{m.Facts.Program, m.Version, m.MinVersion})
	if err := errors.Join(err, check(ours, *m.Facts)); err != nil {
		return err
	}
	t.log.Info("hand-over begins", "taker", cut(m.Facts.Program, 200), "version", agreed)
	me, err := myself()
	if err != nil {
		return err
	}
	defer closeAll([]int{me})
	return t.send(message{Kind: welcome, Version: agreed, Facts: &ours}, me)
}

// listen hears the taker until it is gone or says nonsense, or ctx ends. It
// has no descriptors to send: any are closed.
func (t *talk) listen(ctx context.Context) {
	defer close(t.heard)
	for {
		m, _, err := t.recv(0)
		select {
		case t.heard <- heard{m, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// prepare has the giver gather everything. On an error nothing has to be resumed.
func (t *talk) prepare(ctx context.Context) (b Bundle, err error) {
	var failed error
	spoke := t.during(ctx, "prepare", t.lim.prepare, func(ctx context.Context) {
		b, failed = t.g.Prepare(ctx)
	})
	if failed != nil {
		return Bundle{}, errors.Join(failed, spoke)
	}
	if spoke != nil {
		t.g.Resume(false, spoke)
		return Bundle{}, spoke
	}
	return b, nil
}

// hand goes from a prepared bundle to a taker that runs. touched tells whether
// it had been told to go when it failed.
func (t *talk) hand(ctx context.Context, b Bundle) (touched bool, err error) {
	begun := time.Now()
	if err := t.offer(ctx, b); err != nil {
		return false, err
	}
	t.log.Info("hand-over: all is offered", "image_bytes", len(b.Image), "descriptors", len(b.FDs), "took", time.Since(begun))
	if err := t.await(ctx, ready, t.lim.build); err != nil {
		return false, err
	}
	stood := time.Now()
	var moved []byte
	var failed error
	spoke := t.during(ctx, "freeze", t.lim.step, func(ctx context.Context) { moved, failed = t.g.Freeze(ctx) })
	if err := errors.Join(failed, spoke); err != nil {
		return false, fmt.Errorf("freeze: %w", err)
	}
	if err := t.sendSealed(ctx, message{Kind: flight}, moved, t.lim.step); err != nil {
		return false, err
	}
	if err := t.await(ctx, applied, t.lim.step); err != nil {
		return false, err
	}
	_ = t.SetWriteDeadline(time.Now().Add(t.lim.step))
	if err := t.send(message{Kind: start}); err != nil {
		return false, err
	}
	// No end of ctx from here on: the taker may be moving packets already.
	if err := t.await(context.WithoutCancel(ctx), running, t.lim.step); err != nil {
		return true, err
	}
	t.log.Info("handed over", "flight_bytes", len(moved), "stood", time.Since(stood))
	return true, nil
}

// offer sends the image and all descriptors.
func (t *talk) offer(ctx context.Context, b Bundle) error {
	if len(b.FDs) > MaxFDs {
		return fmt.Errorf("offer %d descriptors, want at most %d: %s", len(b.FDs), MaxFDs, restart)
	}
	if err := t.sendSealed(ctx, message{Kind: offer, FDs: len(b.FDs)}, b.Image, t.lim.answer); err != nil {
		return err
	}
	for rest := b.FDs; len(rest) > 0; {
		n := min(len(rest), batchFDs)
		free := bound(ctx, t.lim.answer, t.SetWriteDeadline)
		err := t.send(message{Kind: batch}, rest[:n]...)
		free()
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// sendSealed says m with data beside it.
func (t *talk) sendSealed(ctx context.Context, m message, data []byte, limit time.Duration) error {
	fd, err := mem.Seal("margay-handover-"+string(m.Kind), data)
	if err != nil {
		return err
	}
	defer closeAll([]int{fd})
	defer bound(ctx, limit, t.SetWriteDeadline)()
	m.Bytes = int64(len(data))
	return t.send(m, fd)
}

// during runs step, whose context ends after limit, and also when the taker
// says anything meanwhile: it is not its turn, so it gives up or talks nonsense.
func (t *talk) during(ctx context.Context, what string, limit time.Duration, step func(context.Context)) (spoke error) {
	ctx, free := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s took longer than %v", what, limit))
	defer free()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		step(ctx)
	}()
	begun, tick, ears := time.Now(), time.NewTicker(t.lim.progress), t.heard
	defer tick.Stop()
	for {
		select {
		case <-returned:
			return spoke
		case h := <-ears:
			spoke, ears = h.want(""), nil
			end(spoke)
		case <-tick.C:
			t.log.Info("hand-over goes on", "step", what, "for", time.Since(begun))
		}
	}
}

// await waits up to limit for the taker to say what is due.
func (t *talk) await(ctx context.Context, due kind, limit time.Duration) error {
	begun, tick, late := time.Now(), time.NewTicker(t.lim.progress), time.NewTimer(limit)
	defer tick.Stop()
	defer late.Stop()
	for {
		select {
		case h := <-t.heard:
			return h.want(due)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			t.log.Info("hand-over goes on", "waits_for", due, "for", time.Since(begun))
		case <-late.C:
			select {
			case h := <-t.heard: // both came at once
				return h.want(due)
			default:
				return fmt.Errorf("the taker did not say %q within %v", due, limit)
			}
		}
	}
}

// takeBack puts the giver in charge again. A taker that was told to go, and did
// not say itself that it gave up, is ended first: two must never move the same
// packets.
func (t *talk) takeBack(touched bool, why error) {
	if touched && !errors.Is(why, errAbort) {
		if err := t.taker.end(t.lim.step); err != nil {
			t.log.Error("the taker may still run: end it by hand", "error", err)
		}
	}
	t.g.Resume(touched, why)
	t.refuse(why)
}

// refuse tells the taker why, if it is there to hear it.
func (t *talk) refuse(why error) {
	_ = t.SetWriteDeadline(time.Now().Add(t.lim.step))
	_ = t.send(message{Kind: refusal, Text: why.Error()})
}
