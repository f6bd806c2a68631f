package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// How a listing is taken: in pages, so that neither side holds more than one
// twice, and anew if etcd compacts away the revision that it is of.
const (
	pageSize  = 512
	listTries = 3
)

// Get is as Store says.
func (s *Store) Get(ctx context.Context, key datastore.Key) (v3.Object, error) {
	kv, err := s.get(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	o, refused := s.read(kv)
	if refused != nil {
		return nil, fmt.Errorf("get: %w", refused.Err)
	}
	return o, nil
}

// get gives what is at a key, whatever it is.
func (s *Store) get(ctx context.Context, op string, key datastore.Key) (*mvccpb.KeyValue, error) {
	what := fmt.Sprintf("%s %v", op, key)
	if err := key.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	ask, cancel := s.within(ctx)
	defer cancel()
	r, err := s.client.Get(ask, s.path(key))
	if err != nil {
		return nil, s.fail(ctx, what, err)
	}
	if len(r.Kvs) == 0 {
		return nil, fmt.Errorf("%s: %w", what, datastore.ErrNotFound)
	}
	return r.Kvs[0], nil
}

// List is as Store says.
func (s *Store) List(ctx context.Context, scope datastore.Scope) (l *datastore.Listing, err error) {
	for range listTries {
		l, err = s.list(ctx, scope)
		if !errors.Is(err, datastore.ErrCompacted) {
			return l, err
		}
	}
	return nil, fmt.Errorf("%w: it compacts faster than it is listed: %w", datastore.ErrUnavailable, err)
}

// list takes one listing, page by page.
func (s *Store) list(ctx context.Context, scope datastore.Scope) (*datastore.Listing, error) {
	at, name, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	l := &datastore.Listing{Revision: revision(at, name), Store: name}
	from := s.below(scope)
	end := clientv3.GetPrefixRangeEnd(from)
	for more := true; more; {
		var kvs []*mvccpb.KeyValue
		if kvs, more, err = s.page(ctx, from, end, at); err != nil {
			return nil, err
		}
		for _, kv := range kvs {
			from = string(kv.Key) + "\x00"
			switch o, refused := s.read(kv); {
			case refused != nil && (refused.Key == datastore.Key{} || scope.Holds(refused.Key)):
				l.Refused = append(l.Refused, *refused)
			case refused == nil && scope.Holds(datastore.KeyOf(o)):
				l.Objects = append(l.Objects, o)
			}
		}
	}
	slices.SortFunc(l.Objects, func(a, b v3.Object) int { return datastore.KeyOf(a).Compare(datastore.KeyOf(b)) })
	return l, nil
}

// page gives some of what a range held at a revision, and whether there is more.
func (s *Store) page(ctx context.Context, from, end string, at int64) ([]*mvccpb.KeyValue, bool, error) {
	ask, cancel := s.within(ctx)
	defer cancel()
	r, err := s.client.Get(ask, from, clientv3.WithRange(end), clientv3.WithRev(at), clientv3.WithLimit(pageSize))
	if err != nil {
		return nil, false, s.fail(ctx, "list "+from, err)
	}
	return r.Kvs, r.More && len(r.Kvs) > 0, nil
}

// now asks for the revision and the name of the store; the name is empty before
// its first object.
func (s *Store) now(ctx context.Context) (at int64, name string, err error) {
	ask, cancel := s.within(ctx)
	defer cancel()
	r, err := s.client.Get(ask, s.name)
	if err != nil {
		return 0, "", s.fail(ctx, "ask etcd for its revision", err)
	}
	if len(r.Kvs) > 0 {
		name = strings.ToValidUTF8(string(r.Kvs[0].Value), "?")
	}
	return r.Header.Revision, name, nil
}
