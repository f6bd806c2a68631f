package resources

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"margay.dev/margay/control/pending"
	"margay.dev/margay/datastore"
)

// tally is what became of the objects of a command.
type tally struct {
	t      *Tool
	past   string         // created, applied
	done   map[string]int // by kind
	failed int
	lost   error // the store could not be used, or the change may not go on: what came after was not tried
}

func (t *Tool) tally(past string) *tally { return &tally{t: t, past: past, done: make(map[string]int)} }

// told notes and tells what became of an object; what is nothing but outcome
// where err is nil.
func (y *tally) told(kind, name, outcome string, err error) {
	if err != nil {
		y.failed++
		fmt.Fprintln(y.t.Err, about(name, err))
		if errors.Is(err, datastore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, pending.ErrOver) {
			y.lost = err
		}
		return
	}
	y.done[kind]++
	fmt.Fprintf(y.t.Out, "%s %s\n", name, outcome)
}

// end tells the sum, as calicoctl does; over is why nothing of it holds, though it
// was made.
func (y *tally) end(over error) error {
	if over != nil {
		return over
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(y.done)) {
		parts = append(parts, fmt.Sprintf("%d '%s' resource(s)", y.done[kind], kind))
	}
	sum := strings.Join(parts, ", ")
	if y.failed == 0 {
		if sum != "" {
			fmt.Fprintf(y.t.Out, "Successfully %s %s\n", y.past, sum)
		}
		return nil
	}
	if sum == "" {
		sum = "nothing"
	}
	fmt.Fprintf(y.t.Err, "%s %s, %d failed\n", strings.ToUpper(y.past[:1])+y.past[1:], sum, y.failed)
	if y.lost != nil {
		return y.lost
	}
	return ErrTold
}

// about is an error with the name of the object before it, where it does not say it.
func about(name string, err error) string {
	if strings.Contains(err.Error(), name) {
		return err.Error()
	}
	return name + ": " + err.Error()
}
