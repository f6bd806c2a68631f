package handover

import (
	"errors"
	"fmt"
)

const restart = "stop the running forwarder and start the new one without --take-over"

// span is the versions of something that one side understands.
type span struct {
	who            string
	newest, oldest uint32
}

// agree finds the newest version of what that both sides understand.
func agree(what string, giver, taker span) (uint32, error) {
	for _, s := range []span{giver, taker} {
		if s.newest == 0 || s.oldest > s.newest {
			return 0, fmt.Errorf("%s: versions %d to %d are none", what, s.oldest, s.newest)
		}
	}
	agreed := min(giver.newest, taker.newest)
	older, advice := giver, restart
	if taker.newest < giver.newest {
		older, advice = taker, "take a newer one to upgrade to, or "+restart
	}
	if agreed < giver.oldest || agreed < taker.oldest {
		return 0, fmt.Errorf("%s: the running forwarder (%.100q) speaks versions %d to %d, the new one (%.100q) %d to %d; %.100q is the older: %s",
			what, giver.who, giver.oldest, giver.newest, taker.who, taker.oldest, taker.newest, older.who, advice)
	}
	return agreed, nil
}

// check tells everything that keeps taker from going on where giver stopped.
func check(giver, taker Facts) error {
	_, err := agree("dataplane contract",
		span{giver.Program, giver.Contract, giver.MinContract}, span{taker.Program, taker.Contract, taker.MinContract})
	errs := []error{err}
	for _, f := range []struct {
		what         string
		giver, taker int64
	}{
		{"the layout version of frame memory", int64(giver.Arena), int64(taker.Arena)},
		{"the number of workers", int64(giver.Workers), int64(taker.Workers)},
		{"the number of frames", int64(giver.Frames), int64(taker.Frames)},
		{"the number of superpacket buffers", int64(giver.Supers), int64(taker.Supers)},
	} {
		if f.giver != f.taker {
			errs = append(errs, fmt.Errorf("%s is %d in the running forwarder and %d in the new one, want equal: give the new one the same, or %s",
				f.what, f.giver, f.taker, restart))
		}
	}
	return errors.Join(errs...)
}
