// Package pending undoes changes that nobody confirms. Who changes objects writes a
// v3.PendingChange first, with the objects as they were (Begin); he deletes it when
// he sees that all is well (Confirm). Agents wait for that (Keeper), and otherwise
// put the objects back (Undo), so that it happens also to who has locked himself
// out.
//
//	Begin ► objects change ► Made ► Confirm, or Undo when its time is over
//
// A change that ends half-way is undone as a whole one is. What others change
// meanwhile in the same objects is undone with it: two changes of one object are
// not both pending (Begin refuses the second). From when it begins to be undone a
// change cannot be confirmed any more, since half of it is not what anybody has
// confirmed; and whoever is still making it puts back what he made too late.
package pending

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Why a change cannot begin, and why it cannot go on or stand.
var (
	ErrPending = errors.New("it is in another change, which nobody has confirmed yet")
	ErrOver    = errors.New("its time is over, and it is undone")
)

// Undoing is the condition of a change that is being undone.
const Undoing = "Undoing"

// Change is one that has begun, for who makes it. The methods of a nil Change find
// nothing wrong.
type Change struct {
	store  datastore.Store
	record *v3.PendingChange
}

// Begin writes down how to undo a change of the objects with some keys, before it
// is made. It fails with ErrPending where one of them is in a pending change already.
func Begin(ctx context.Context, s datastore.Store, name string, within time.Duration, keys []datastore.Key) (*Change, error) {
	if err := free(ctx, s, keys, ""); err != nil {
		return nil, err
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
			return nil, fmt.Errorf("begin change: %w", err)
		}
		text, err := json.Marshal(bare(before))
		if err != nil {
			return nil, fmt.Errorf("begin change of %v: %w", k, err)
		}
		c.Spec.Before = append(c.Spec.Before, string(text))
	}
	o, err := s.Create(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("begin change: %w", err)
	}
	change := &Change{s, o.(*v3.PendingChange)}
	if err := free(ctx, s, keys, name); err != nil { // of two that begin at once none may overlook the other
		return nil, errors.Join(err, s.Delete(ctx, datastore.KeyOf(o), datastore.Precondition{UID: string(o.GetUID())}))
	}
	return change, nil
}

// free fails with ErrPending where an object with one of some keys is in a pending change,
// but for the caller's own.
func free(ctx context.Context, s datastore.Store, keys []datastore.Key, own string) error {
	others, err := all(ctx, s)
	if err != nil {
		return fmt.Errorf("begin change: %w", err)
	}
	for _, o := range others {
		if at := slices.IndexFunc(keys, func(k datastore.Key) bool { return concerns(o, k) }); at >= 0 && o.Name != own {
			return fmt.Errorf("begin change of %v: %w: confirm %s first, or wait", keys[at], ErrPending, o.Name)
		}
	}
	return nil
}

// Pending fails with ErrOver when the change must not go on: it is being undone, or
// was, or was confirmed before it was whole, which nobody can tell apart any more.
func (c *Change) Pending(ctx context.Context) error {
	if c == nil {
		return nil
	}
	now, err := current(ctx, c.store, c.record)
	if err == nil && (now == nil || undoing(now)) {
		err = ErrOver
	}
	if err != nil {
		return fmt.Errorf("change %s: %w", c.record.Name, err)
	}
	return nil
}

// Made says that all of the change is made, or as much as will be. If it was over
// before that, it puts everything back, also what was written behind the backs of
// those who have undone it, and fails with ErrOver.
func (c *Change) Made(ctx context.Context) error {
	err := c.Pending(ctx)
	if !errors.Is(err, ErrOver) {
		return err
	}
	return errors.Join(err, restore(ctx, c.store, c.record, func() (bool, error) { return true, nil }))
}

// current is a change as it is stored now; nil: it is gone.
func current(ctx context.Context, s datastore.Store, c *v3.PendingChange) (*v3.PendingChange, error) {
	o, err := s.Get(ctx, datastore.KeyOf(c))
	switch {
	case errors.Is(err, datastore.ErrNotFound), err == nil && o.GetUID() != c.UID:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return o.(*v3.PendingChange), nil
}

func undoing(c *v3.PendingChange) bool {
	return meta.IsStatusConditionTrue(c.Status.Conditions, Undoing)
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
// with ErrOver where it is being undone, and with datastore.ErrInvalid where there
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
	if err := confirm(ctx, s, datastore.Key{Kind: v3.KindPendingChange, Name: name}); err != nil {
		return "", fmt.Errorf("confirm change %s: %w", name, err)
	}
	return name, nil
}

// confirm deletes a change, unless it is being undone.
func confirm(ctx context.Context, s datastore.Store, key datastore.Key) error {
	for {
		o, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		if undoing(o.(*v3.PendingChange)) {
			return ErrOver
		}
		err = s.Delete(ctx, key, datastore.Precondition{UID: string(o.GetUID()), ResourceVersion: o.GetResourceVersion()})
		if !errors.Is(err, datastore.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// Undo puts back what was before a change, and deletes the change. It may be done
// by several at once, and again after it ended half-way; what is as before already
// is left alone. A change that was confirmed before is not undone, and one that has
// begun to be undone cannot be confirmed.
func Undo(ctx context.Context, s datastore.Store, c *v3.PendingChange) error {
	if there, err := claim(ctx, s, c); err != nil || !there {
		return err
	}
	there := func() (bool, error) {
		now, err := current(ctx, s, c)
		return now != nil, err
	}
	if err := restore(ctx, s, c, there); err != nil {
		return fmt.Errorf("undo change %s: %w", c.Name, err)
	}
	err := s.Delete(ctx, datastore.KeyOf(c), datastore.Precondition{UID: string(c.UID)})
	if errors.Is(err, datastore.ErrConflict) {
		return nil // it is gone, and there is another of its name
	}
	return gone(err)
}

// claim marks a change as one that is being undone, and reports whether it is there.
func claim(ctx context.Context, s datastore.Store, c *v3.PendingChange) (there bool, err error) {
	for {
		now, err := current(ctx, s, c)
		if err != nil || now == nil || undoing(now) {
			return now != nil, err
		}
		meta.SetStatusCondition(&now.Status.Conditions, metav1.Condition{
			Type: Undoing, Status: metav1.ConditionTrue, Reason: "NotConfirmed", Message: "nobody has confirmed it in time: what was before is put back",
		})
		_, err = s.UpdateStatus(ctx, now)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, datastore.ErrConflict) && ctx.Err() == nil, errors.Is(err, datastore.ErrNotFound):
			continue // somebody came between
		}
		return false, err
	}
}

// restore puts back what was before a change, each object while there says so: else
// somebody else has done it all, and what is there now is newer.
func restore(ctx context.Context, s datastore.Store, c *v3.PendingChange, there func() (bool, error)) error {
	var faults []error
	each := func(undo func() error) bool {
		is, err := there()
		if err == nil && !is {
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
	return errors.Join(faults...)
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
	if errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	return err
}
