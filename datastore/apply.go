package datastore

import (
	"context"
	"errors"
	"fmt"

	v3 "margay.dev/margay/api/v3"
)

// Outcome is what became of an object that was applied.
type Outcome string

// The outcomes of Apply.
const (
	Created    Outcome = "created"
	Configured Outcome = "configured"
	Unchanged  Outcome = "unchanged"
)

// applyTries bounds how often Apply goes between creating and replacing while
// somebody else deletes and creates the same object.
const applyTries = 8

// Apply creates an object, or puts it in the place of the one with its key; it
// fails as Create and Update do, also with ErrConflict where the object has a
// resource version that is not the stored one's, or that of an object that is gone.
func Apply(ctx context.Context, s Store, o v3.Object) (v3.Object, Outcome, error) {
	key := KeyOf(o)
	for range applyTries {
		before, err := s.Get(ctx, key)
		missing := errors.Is(err, ErrNotFound)
		switch {
		case err != nil && !missing && !errors.Is(err, ErrInvalid):
			return nil, "", err
		case missing && o.GetResourceVersion() != "":
			return nil, "", fmt.Errorf("apply %v: %w: it was deleted; take its resourceVersion out to create it", key, ErrConflict)
		case missing:
			after, err := s.Create(ctx, o)
			if errors.Is(err, ErrExists) {
				continue
			}
			return after, Created, err
		}
		after, err := s.Update(ctx, o)
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case err != nil:
			return nil, "", err
		case before != nil && before.GetResourceVersion() == after.GetResourceVersion():
			return after, Unchanged, nil
		}
		return after, Configured, nil
	}
	return nil, "", fmt.Errorf("apply %v: %w", key, ErrConflict)
}
