package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// changeTries bounds how often a change that minds no version is begun anew since
// others change the same object.
const changeTries = 16

// Create is as Store says.
func (s *Store) Create(ctx context.Context, o v3.Object) (v3.Object, error) {
	o, err := datastore.Admit(o)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	datastore.Begun(o, time.Now())
	key := datastore.KeyOf(o)
	return s.put(ctx, "create", o, clientv3.Compare(clientv3.CreateRevision(s.path(key)), "=", 0), datastore.ErrExists)
}

// Update is as Store says.
func (s *Store) Update(ctx context.Context, o v3.Object) (v3.Object, error) {
	o, err := datastore.Admit(o)
	if err != nil {
		return nil, fmt.Errorf("replace: %w", err)
	}
	return s.change(ctx, "replace", o, func(before v3.Object, usable bool) (v3.Object, error) {
		after := o.DeepCopyObject().(v3.Object)
		if !usable {
			if err := (datastore.Precondition{UID: string(o.GetUID()), ResourceVersion: o.GetResourceVersion()}).Permits(before); err != nil {
				return nil, err
			}
			datastore.Begun(after, time.Now())
			return after, nil
		}
		return after, datastore.Replaced(after, before)
	})
}

// UpdateStatus is as Store says.
func (s *Store) UpdateStatus(ctx context.Context, o v3.Object) (v3.Object, error) {
	return s.change(ctx, "write status of", o, func(before v3.Object, usable bool) (v3.Object, error) {
		if !usable {
			return nil, fmt.Errorf("write status of %v: %w: what is stored cannot be used", datastore.KeyOf(o), datastore.ErrInvalid)
		}
		return datastore.Judged(o, before)
	})
}

// change puts what next makes of the stored object in its place, and begins anew
// where somebody else was faster and o minds no version.
func (s *Store) change(ctx context.Context, op string, o v3.Object, next func(before v3.Object, usable bool) (v3.Object, error)) (v3.Object, error) {
	key := datastore.KeyOf(o)
	for range changeTries {
		kv, err := s.get(ctx, op, key)
		if err != nil {
			return nil, err
		}
		after, err := next(s.stored(key, kv))
		if err != nil {
			return nil, err
		}
		if text, err := datastore.Text(after); err == nil && string(text) == string(kv.Value) {
			return after, nil // no change is no write
		}
		after, err = s.put(ctx, op, after, clientv3.Compare(clientv3.ModRevision(s.path(key)), "=", kv.ModRevision), datastore.ErrConflict)
		if !errors.Is(err, datastore.ErrConflict) || o.GetResourceVersion() != "" {
			return after, err
		}
	}
	return nil, fmt.Errorf("%s %v: %w (others changed it %d times)", op, key, datastore.ErrConflict, changeTries)
}

// stored is the object at a key; one that cannot be used has nothing but its name
// and version.
func (s *Store) stored(key datastore.Key, kv *mvccpb.KeyValue) (o v3.Object, usable bool) {
	o, refused := s.read(kv)
	if refused == nil {
		return o, true
	}
	o = v3.New(key.Kind)
	o.SetNamespace(key.Namespace)
	o.SetName(key.Name)
	o.SetResourceVersion(version(kv.ModRevision))
	return o, false
}

// put writes an object if a comparison holds, and else fails with otherwise. The
// first object of a store gives it a name too.
func (s *Store) put(ctx context.Context, op string, o v3.Object, holds clientv3.Cmp, otherwise error) (v3.Object, error) {
	key := datastore.KeyOf(o)
	text, err := datastore.Text(o)
	if err != nil {
		return nil, err
	}
	ask, cancel := s.within(ctx)
	defer cancel()
	r, err := s.client.Txn(ask).If(holds).Then(
		clientv3.OpPut(s.path(key), string(text)),
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.name), "=", 0)}, []clientv3.Op{clientv3.OpPut(s.name, rand.Text())}, nil),
	).Commit()
	if err != nil {
		return nil, s.fail(ctx, fmt.Sprintf("%s %v", op, key), err)
	}
	if !r.Succeeded {
		return nil, fmt.Errorf("%s %v: %w", op, key, otherwise)
	}
	o.SetResourceVersion(version(r.Header.Revision))
	return o, nil
}

// Delete is as Store says.
func (s *Store) Delete(ctx context.Context, key datastore.Key, only datastore.Precondition) error {
	for range changeTries {
		kv, err := s.get(ctx, "delete", key)
		if err != nil {
			return err
		}
		before, _ := s.stored(key, kv)
		if err := only.Permits(before); err != nil {
			return err
		}
		ask, cancel := s.within(ctx)
		r, err := s.client.Txn(ask).If(clientv3.Compare(clientv3.ModRevision(s.path(key)), "=", kv.ModRevision)).Then(clientv3.OpDelete(s.path(key))).Commit()
		cancel()
		if err != nil {
			return s.fail(ctx, fmt.Sprintf("delete %v", key), err)
		}
		if r.Succeeded {
			return nil
		}
	}
	return fmt.Errorf("delete %v: %w (others changed it %d times)", key, datastore.ErrConflict, changeTries)
}
