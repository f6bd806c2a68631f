// Package handover is the conversation by which a running forwarder, the giver,
// hands everything over to a new one on the same host, the taker.
//
// It knows nothing of ports or tables: an image of opaque bytes and descriptors
// go from one to the other, in an order that leaves exactly one of the two in
// charge whoever of them dies or falls silent, and whenever. docs/HANDOVER.md
// shows the order and what follows from each failure.
package handover

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"margay.dev/margay/forwarder/socket"
)

// Versions of the conversation that this package speaks.
const (
	Version    = 1
	MinVersion = 1
)

// How long each side waits for the other. The taker, which is not in charge,
// waits a little longer than the giver, so that it hears the giver's reason.
const (
	// AnswerLimit is for the first words, and for each message of the offer.
	AnswerLimit = 5 * time.Second
	// PrepareLimit is for Giver.Prepare: tables may be large.
	PrepareLimit = 5 * time.Minute
	// BuildLimit is for the taker, from the offer until it is ready.
	BuildLimit = 5 * time.Minute
	// StepLimit is for each step while no packet moves: freezing, applying the
	// flight, starting.
	StepLimit = time.Second
)

// MaxFDs is the largest number of descriptors that one hand-over may have.
const MaxFDs = 1 << 17

// Errors of Take that a caller may want to tell apart.
var (
	// ErrNobody says that no forwarder listens at the socket.
	ErrNobody = errors.New("no forwarder runs there: start without --take-over")
	// ErrRefused comes with the giver's own words. The giver is still in charge.
	ErrRefused = errors.New("the running forwarder refuses")
	// ErrBusy says that another taker is being served. The giver is still in charge.
	ErrBusy = errors.New("a hand-over is under way: wait for its end")
)

// Facts is what both sides must agree on. The versions are agreed by range,
// everything else but Program must be equal.
type Facts struct {
	Program     string `json:"program"`      // name and version, for people
	Contract    uint32 `json:"contract"`     // the newest version of the dataplane contract
	MinContract uint32 `json:"min_contract"` // the oldest
	Arena       uint32 `json:"arena"`        // layout version of the memory of frames
	Workers     int    `json:"workers"`
	Frames      int    `json:"frames"`
	Supers      int    `json:"supers"`
}

// Bundle is what is handed over before packets stop.
type Bundle struct {
	// Image is opaque here, and may be hundreds of MiB. At the taker it is memory
	// that can only be read, valid until Running or Abort: what is to stay is copied.
	Image []byte
	// FDs are descriptors, in the order by which the image numbers them. At the
	// taker they are new, close on exec, and the receiver's to close.
	FDs []int
}

// Giver is the running forwarder. One hand-over calls its methods one at a time;
// after a Prepare that succeeded, exactly one of Resume and Done is called.
type Giver interface {
	// Facts tells what a taker must agree with.
	Facts() Facts
	// Prepare gathers what is handed over. Changes wait from here on, forwarding
	// goes on. The giver still owns the descriptors and keeps them open until
	// Resume or Done. Where it fails it has undone what it did, and Resume is not
	// called; the taker is told the error. ctx ends when the taker is gone.
	Prepare(ctx context.Context) (Bundle, error)
	// Freeze stops the workers and tells what moved since Prepare. Where it
	// fails, Resume is called. ctx ends when the taker is gone, or after StepLimit.
	Freeze(ctx context.Context) (flight []byte, err error)
	// Resume goes on as if nothing had been: the hand-over failed, for the reason
	// why. It may be called before Freeze. touched says that the taker had been
	// told to go and may have moved packets; it moves none any more.
	Resume(touched bool, why error)
	// Done says that the taker runs: the giver touches nothing any more, and ends.
	Done()
}

// Listen opens the socket at which takers are waited for: of packets, mode 0600,
// in a folder that is made 0700 where there is none. A socket that a dead
// forwarder left is replaced; one that somebody answers at is an error.
func Listen(path string) (*net.UnixListener, error) { return socket.Listen("unixpacket", path) }

// limits are how long to wait; a test has other ones.
type limits struct {
	answer, prepare, build, step time.Duration
	progress                     time.Duration // from one line in the log to the next
}

func usual() limits {
	return limits{answer: AnswerLimit, prepare: PrepareLimit, build: BuildLimit, step: StepLimit, progress: 10 * time.Second}
}

// Serve waits at l for takers and hands over to the first that comes through to
// the end, then returns nil; of two at a time the second is refused. A taker
// that fails is logged, and the next waited for. When ctx ends, so does a
// hand-over that is under way, by Resume, and Serve returns ctx's cause.
//
// Serve owns l and closes it, before Done is called. It takes the socket's name
// away, but not when it handed over: l's descriptor may be one of the bundle,
// and so the socket the taker's.
func Serve(ctx context.Context, l *net.UnixListener, g Giver, log *slog.Logger) error {
	return serve(ctx, l, g, log, usual())
}
