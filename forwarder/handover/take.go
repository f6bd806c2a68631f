package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/forwarder/socket"
	"margay.dev/margay/internal/mem"
)

// Taking is the taker's side of a hand-over that was offered. Its methods are
// called in the order Ready, Applied, Running, by one goroutine; after an error
// of any of them, or instead of the next, Abort ends it, and the giver is in
// charge or dead.
type Taking struct {
	*conn
	lim    limits
	giver  life
	alone  bool
	mapped [][]byte // image and flight, to be unmapped
}

// Take asks the forwarder at path to hand over, and returns with everything
// that it has to give while packets still move: before Ready, none of it is to
// be touched. It takes minutes where tables are large.
func Take(ctx context.Context, path string, mine Facts) (*Taking, Bundle, error) {
	return take(ctx, path, mine, usual())
}

func take(ctx context.Context, path string, mine Facts, lim limits) (*Taking, Bundle, error) {
	c, err := dial(ctx, path)
	if err != nil {
		return nil, Bundle{}, fmt.Errorf("take over at %s: %w", path, err)
	}
	t := &Taking{conn: newConn(c), lim: lim, giver: life{fd: -1}}
	if _, err = socket.Peer(c); err == nil {
		err = t.greet(ctx, mine)
	}
	var b Bundle
	if err == nil {
		b, err = t.receive(ctx)
	}
	if err != nil {
		t.Abort(err)
		return nil, Bundle{}, fmt.Errorf("take over at %s: %w", path, err)
	}
	return t, b, nil
}

func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	ctx, stop := context.WithTimeout(ctx, AnswerLimit)
	defer stop()
	c, err := new(net.Dialer).DialContext(ctx, "unixpacket", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("%w (%w)", ErrNobody, err)
	case err != nil:
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// greet tells who we are and hears who the giver is.
func (t *Taking) greet(ctx context.Context, mine Facts) error {
	defer bound(ctx, t.lim.answer, t.SetDeadline)()
	me, err := myself()
	if err != nil {
		return err
	}
	err = t.send(message{Kind: hello, Version: Version, MinVersion: MinVersion, Facts: &mine}, me)
	closeAll([]int{me})
	if err != nil {
		return t.reason(err)
	}
	m, fds, err := t.expect(welcome, 1)
	if err != nil {
		return err
	}
	if t.giver, err = watch(fds); err != nil {
		return err
	}
	if m.Version < MinVersion || m.Version > Version {
		return fmt.Errorf("the running forwarder (%.100q) chose version %d of the hand-over, want %d to %d: %s",
			m.Facts.Program, m.Version, MinVersion, Version, restart)
	}
	return check(*m.Facts, mine)
}

// receive takes the offer. On an error all descriptors are closed.
func (t *Taking) receive(ctx context.Context) (Bundle, error) {
	// A giver that gives up says so a moment after its own limit.
	image, m, err := t.sealed(ctx, offer, t.lim.prepare+t.lim.answer)
	if err != nil {
		return Bundle{}, err
	}
	b := Bundle{Image: image}
	for len(b.FDs) < m.FDs {
		free := bound(ctx, t.lim.answer, t.SetDeadline)
		_, fds, err := t.expect(batch, kernelFDs)
		free()
		b.FDs = append(b.FDs, fds...)
		if err == nil && (len(fds) == 0 || len(b.FDs) > m.FDs) {
			err = fmt.Errorf("a batch of %d descriptors makes %d, want at least one in each and %d in all", len(fds), len(b.FDs), m.FDs)
		}
		if err != nil {
			closeAll(b.FDs)
			return Bundle{}, err
		}
	}
	return b, nil
}

// expect hears what is due, within the bound that is set.
func (t *Taking) expect(due kind, most int) (message, []int, error) {
	m, fds, err := t.recv(most)
	if err == nil {
		err = m.want(due)
	}
	if err != nil {
		closeAll(fds)
		return message{}, nil, fmt.Errorf("wait for %q: %w", due, err)
	}
	return m, fds, nil
}

// reason is why the giver hung up, where it said so before.
func (t *Taking) reason(err error) error {
	if !errors.Is(err, errGone) {
		return err
	}
	if m, fds, e := t.recv(kernelFDs); e == nil {
		closeAll(fds)
		if e := m.want(""); errors.Is(e, ErrRefused) || errors.Is(e, ErrBusy) {
			return e
		}
	}
	return err
}

// sealed hears what is due with a memfd beside it, and maps that.
func (t *Taking) sealed(ctx context.Context, due kind, limit time.Duration) ([]byte, message, error) {
	free := bound(ctx, limit, t.SetDeadline)
	m, fds, err := t.expect(due, 1)
	free()
	if err != nil {
		return nil, m, err
	}
	defer closeAll(fds)
	if len(fds) != 1 {
		return nil, m, fmt.Errorf("%q comes without its memory", due)
	}
	data, err := mem.MapSealed(fds[0])
	if err != nil {
		return nil, m, fmt.Errorf("%q: %w", due, err)
	}
	t.mapped = append(t.mapped, data)
	if int64(len(data)) != m.Bytes {
		return nil, m, fmt.Errorf("%q comes with %d bytes, and announces %d", due, len(data), m.Bytes)
	}
	return data, m, nil
}

// Ready says that everything is built. The giver's workers stop, and flight is
// what moved since Take: memory that can only be read, valid until Running or
// Abort. Packets stand from here on, so Applied must follow within StepLimit.
func (t *Taking) Ready(ctx context.Context) (moved []byte, err error) {
	if err := t.say(ctx, ready); err != nil {
		return nil, t.hint(err)
	}
	moved, _, err = t.sealed(ctx, flight, 3*t.lim.step) // to freeze, and to send it
	return moved, t.hint(err)
}

// Applied says that the flight is in force, and waits for the giver's word to
// go. Where it returns nil the workers start at once, Running follows within
// StepLimit, and Alone tells whether the giver gave its word or died.
func (t *Taking) Applied(ctx context.Context) error {
	err := t.say(ctx, applied)
	if err == nil {
		free := bound(ctx, 2*t.lim.step, t.SetDeadline)
		_, _, err = t.expect(start, 0)
		free()
	}
	return t.unlessAlone(err)
}

// Alone tells whether the giver is known to have died after it sent the flight.
// Nobody else drives then, and the taker went on without its word.
func (t *Taking) Alone() bool { return t.alone }

// Running says that the workers run, and ends the conversation. On an error the
// giver has taken everything back: the workers must stop at once. When it
// returns nil the giver listens at its socket no more.
func (t *Taking) Running() error {
	ctx := context.Background()
	err := t.say(ctx, running)
	if err == nil {
		free := bound(ctx, 3*t.lim.step, t.SetDeadline)
		_, _, err = t.expect(done, 0)
		free()
	}
	if errors.Is(err, ErrRefused) {
		return err
	}
	// A silent giver touches nothing: it was told, and ends whoever it takes
	// something back from.
	_ = t.unlessAlone(err)
	t.hangUp()
	return nil
}

// Abort ends a hand-over and tells the giver why, which logs it and goes on.
// What the taker started must have stopped before. It may be called again.
func (t *Taking) Abort(why error) {
	_ = t.SetDeadline(time.Now().Add(t.lim.step))
	_ = t.send(message{Kind: abort, Text: why.Error()}) // it may be gone
	t.hangUp()
}

// hangUp gives back what the conversation held.
func (t *Taking) hangUp() {
	_ = t.Close()
	t.giver.close()
	t.giver.fd = -1
	for _, data := range t.mapped {
		_ = mem.Unmap(data) // it was mapped by us
	}
	t.mapped = nil
}

// say tells the giver how far we are, or why that cannot be said.
func (t *Taking) say(ctx context.Context, k kind) error {
	defer bound(ctx, t.lim.step, t.SetDeadline)()
	return t.reason(t.send(message{Kind: k}))
}

// unlessAlone is err, or nil where its cause is the giver's death: a process
// closes its connections a moment before it has ended.
func (t *Taking) unlessAlone(err error) error {
	if err == nil || errors.Is(err, ErrRefused) {
		return err
	}
	var wait time.Duration
	if errors.Is(err, errGone) {
		wait = t.lim.step
	}
	t.alone = t.giver.over(wait)
	if t.alone {
		return nil
	}
	return err
}

// hint says what to do where the giver died with everything that moved.
func (t *Taking) hint(err error) error {
	if errors.Is(err, errGone) {
		return fmt.Errorf("%w: the running forwarder died, or gave up, before it let go: start without --take-over where none runs", err)
	}
	return err
}
