package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// maxMessage is the largest message in bytes; what is larger goes in a memfd.
const maxMessage = 32 << 10

// maxText is the longest text in bytes: in JSON it may grow sixfold.
const maxText = 4000

// kind names a message, in the order in which a hand-over has them.
type kind string

const (
	hello   kind = "hello"   // taker: its versions and facts, and a pidfd of itself
	welcome kind = "welcome" // giver: the version agreed, its facts, and a pidfd of itself
	offer   kind = "offer"   // giver: the image in a memfd, and how many descriptors follow
	batch   kind = "batch"   // giver: some of the descriptors
	ready   kind = "ready"   // taker: all is built
	flight  kind = "flight"  // giver: workers stand; what moved meanwhile, in a memfd
	applied kind = "applied" // taker: the flight is in its tables
	start   kind = "go"      // giver: from here it touches nothing
	running kind = "running" // taker: its workers run
	done    kind = "done"    // giver: it ends
	refusal kind = "refusal" // giver, at any time: it stays in charge, and why
	abort   kind = "abort"   // taker, at any time: it gives up, and why
)

// message is one packet of the conversation: JSON, so that a field which one
// side does not know is passed over. hello and refusal stay as they are in all
// versions, since with them versions are agreed.
type message struct {
	Kind       kind   `json:"kind"`
	Version    uint32 `json:"version,omitempty"`
	MinVersion uint32 `json:"min_version,omitempty"`
	Facts      *Facts `json:"facts,omitempty"`
	Bytes      int64  `json:"bytes,omitempty"` // size of the memfd that comes along
	FDs        int    `json:"fds,omitempty"`   // how many descriptors follow
	Busy       bool   `json:"busy,omitempty"`  // the refusal is because another taker is being served
	Text       string `json:"text,omitempty"`
}

// encode writes m with its texts cut to what fits.
func (m message) encode() ([]byte, error) {
	m.Text = cut(m.Text, maxText)
	if m.Facts != nil {
		f := *m.Facts
		f.Program = cut(f.Program, 200)
		m.Facts = &f
	}
	return json.Marshal(m)
}

func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most] + " ..."
	}
	return strings.ToValidUTF8(s, "?")
}

// decode reads a message and refuses one that is none, or whose numbers cannot be.
func decode(b []byte) (message, error) {
	if len(b) > maxMessage {
		return message{}, fmt.Errorf("a message has %d bytes, want at most %d", len(b), maxMessage)
	}
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return message{}, fmt.Errorf("read a message of %d bytes: %w", len(b), err)
	}
	switch {
	case m.Kind == "":
		return message{}, errors.New("a message is of no kind")
	case m.FDs < 0 || m.FDs > MaxFDs:
		return message{}, fmt.Errorf("%.20q announces %d descriptors, want 0 to %d", m.Kind, m.FDs, MaxFDs)
	case m.Bytes < 0:
		return message{}, fmt.Errorf("%.20q announces %d bytes", m.Kind, m.Bytes)
	case (m.Kind == hello || m.Kind == welcome) && m.Facts == nil:
		return message{}, fmt.Errorf("%s without facts", m.Kind)
	}
	return m, nil
}

// want is an error unless m is what is due.
func (m message) want(due kind) error {
	switch {
	case m.Kind == due:
		return nil
	case m.Kind == refusal && m.Busy:
		return ErrBusy
	case m.Kind == refusal:
		return fmt.Errorf("%w: %s", ErrRefused, cut(m.Text, maxText))
	case m.Kind == abort:
		return fmt.Errorf("%w: %s", errAbort, cut(m.Text, maxText))
	}
	return fmt.Errorf("the other side said %.20q where %q is due", m.Kind, due)
}

// errAbort says that the taker itself gave up, so moves nothing any more.
var errAbort = errors.New("the taker gave up")
