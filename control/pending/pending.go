// Package pending undoes changes that nobody confirms. Who changes objects writes a
// v3.PendingChange first, with the objects as they were (Begin); he deletes it when
// he sees that all is well (Confirm). Agents wait for that (Keeper), and otherwise
// put the objects back (Undo), so that it happens also to who has locked himself
// out.
//
//	Begin ► objects change ► Confirm, or Undo when its time is over
//
// A change that ends half-way is undone as a whole one is. What others change
// meanwhile in the same objects is undone with it: two changes of one object are
// not both pending (Begin refuses the second).
package pending

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// ErrPending is why a change cannot begin: one of its objects is in another.
var ErrPending = errors.New("it is in another change, which nobody has confirmed yet")

// Begin writes down how to undo a change of the objects with some keys, before it
// is made. It fails with ErrPending where one of them is in a pending change already.
func Begin(ctx context.Context, s datastore.Store, name string, within time.Duration, keys []datastore.Key) error {
	others, err := all(ctx, s)
	if err != nil {
		return fmt.Errorf("begin change: %w", err)
	}
	for _, o := range others {
		if at := slices.IndexFunc(keys, func(k datastore.Key) bool { return concerns(o, k) }); at >= 0 {
			return fmt.Errorf("begin change of %v: %w: confirm %s first, or wait", keys[at], ErrPending, o.Name)
		}
	}
	c := &v3.PendingChange{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec.Within.Duration = within
	for _, k := range keys {
		before, err := s.Get(ctx, k)
		switch {
		case errors.Is(err, datastore.ErrNotFound):
			c.Spec.Created = append(c.Spec.Created, v3.ObjectName(k))
			continue
		case err != nil:
			return fmt.Errorf("begin change: %w", err)
		}
		text, err := json.Marshal(bare(before))
		if err != nil {
			return fmt.Errorf("begin change of %v: %w", k, err)
		}
		c.Spec.Before = append(c.Spec.Before, string(text))
	}
	if _, err := s.Create(ctx, c); err != nil {
		return fmt.Errorf("begin change: %w", err)
	}
	return nil
}

// bare is an object without what the store alone says of it, so that it can be put
// back where it is gone, or has changed.
func bare(o v3.Object) v3.Object {
	o = o.DeepCopyObject().(v3.Object)
	o.SetResourceVersion("")
	o.SetUID("")
	o.SetGeneration(0)
	o.SetCreationTimestamp(metav1.Time{})
	*o.Conditions() = nil
	return o
}

// concerns reports whether a change is, among others, of the object with a key.
func concerns(c *v3.PendingChange, k datastore.Key) bool {
	return slices.Contains(c.Spec.Created, v3.ObjectName(k)) || slices.ContainsFunc(c.Spec.Before, func(text string) bool {
		o, err := v3.DecodeJSON([]byte(text))
		return err == nil && datastore.KeyOf(o) == k
	})
}

// all are the changes that are pending.
func all(ctx context.Context, s datastore.Store) ([]*v3.PendingChange, error) {
	l, err := s.List(ctx, datastore.Scope{Kind: v3.KindPendingChange})
	if err != nil {
		return nil, err
	}
	var changes []*v3.PendingChange
	for _, o := range l.Objects {
		changes = append(changes, o.(*v3.PendingChange))
	}
	return changes, nil
}

// Confirm has a change stand, and gives its name; without one it means the only
// change that is pending. It fails with datastore.ErrNotFound where there is none,
// because its time is over for instance, and with datastore.ErrInvalid where there
// are several to choose from.
func Confirm(ctx context.Context, s datastore.Store, name string) (string, error) {
	if name == "" {
		changes, err := all(ctx, s)
		switch {
		case err != nil:
			return "", fmt.Errorf("confirm change: %w", err)
		case len(changes) == 0:
			return "", fmt.Errorf("confirm change: %w that is pending: its time is over, or it was confirmed", datastore.ErrNotFound)
		case len(changes) > 1:
			return "", fmt.Errorf("confirm change: %w: %d are pending: say which", datastore.ErrInvalid, len(changes))
		}
		name = changes[0].Name
	}
	if err := s.Delete(ctx, datastore.Key{Kind: v3.KindPendingChange, Name: name}, datastore.Precondition{}); err != nil {
		return "", fmt.Errorf("confirm change %s: %w", name, err)
	}
	return name, nil
}

// Undo puts back what was before a change, and deletes the change. It may be done
// by several at once, and again after it ended half-way; what is as before already
// is left alone. A change that was confirmed meanwhile is not undone any further.
func Undo(ctx context.Context, s datastore.Store, c *v3.PendingChange) error {
	key := datastore.KeyOf(c)
	var faults []error
	each := func(undo func() error) bool {
		now, err := s.Get(ctx, key)
		if errors.Is(err, datastore.ErrNotFound) || err == nil && now.GetUID() != c.UID {
			return false
		}
		if err == nil {
			err = undo()
		}
		if err != nil {
			faults = append(faults, err)
		}
		return ctx.Err() == nil
	}
	for _, text := range c.Spec.Before {
		if !each(func() error { return putBack(ctx, s, text) }) {
			return errors.Join(faults...)
		}
	}
	for _, name := range slices.Backward(c.Spec.Created) {
		if !each(func() error { return gone(s.Delete(ctx, datastore.Key(name), datastore.Precondition{})) }) {
			return errors.Join(faults...)
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("undo change %s: %w", c.Name, errors.Join(faults...))
	}
	return gone(s.Delete(ctx, key, datastore.Precondition{UID: string(c.UID)}))
}

// putBack makes an object what it was.
func putBack(ctx context.Context, s datastore.Store, text string) error {
	before, err := v3.DecodeJSON([]byte(text))
	if err != nil {
		return err
	}
	_, _, err = datastore.Apply(ctx, s, before)
	return err
}

// gone has nothing against what is not there.
func gone(err error) error {
	if errors.Is(err, datastore.ErrNotFound) || errors.Is(err, datastore.ErrConflict) {
		return nil
	}
	return err
}
