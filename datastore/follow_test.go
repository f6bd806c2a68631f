package datastore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// script is a store whose listings and watches are written down.
type script struct {
	datastore.Store
	lists   []func() (*datastore.Listing, error)
	watches []func(deliver func([]datastore.Event)) error
	end     context.CancelFunc
}

func (s *script) List(context.Context, datastore.Scope) (*datastore.Listing, error) {
	if len(s.lists) == 0 {
		s.end()
		return nil, datastore.ErrUnavailable
	}
	next := s.lists[0]
	s.lists = s.lists[1:]
	return next()
}

func (s *script) Watch(_ context.Context, _ datastore.Scope, _ datastore.Revision, deliver func([]datastore.Event)) error {
	next := s.watches[0]
	s.watches = s.watches[1:]
	return next(deliver)
}

// at is a tier at a version.
func at(name, version string) v3.Object {
	return &v3.Tier{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version}}
}

// key is that of a tier.
func key(name string) datastore.Key { return datastore.Key{Kind: v3.KindTier, Name: name} }

// holding is a listing.
func holding(store string, objects ...v3.Object) func() (*datastore.Listing, error) {
	return func() (*datastore.Listing, error) {
		return &datastore.Listing{Objects: objects, Store: store}, nil
	}
}

// refusing is a listing with something that cannot be used.
func refusing(store, name string, objects ...v3.Object) func() (*datastore.Listing, error) {
	return func() (*datastore.Listing, error) {
		return &datastore.Listing{Objects: objects, Store: store, Refused: []datastore.Refusal{{Key: key(name), Err: datastore.ErrInvalid}}}, nil
	}
}

// away is a store that does not answer.
func away() (*datastore.Listing, error) { return nil, datastore.ErrUnavailable }

// telling is a watch that tells, and ends.
func telling(err error, events ...datastore.Event) func(func([]datastore.Event)) error {
	return func(deliver func([]datastore.Event)) error {
		if len(events) > 0 {
			deliver(events)
		}
		return err
	}
}

// A follower makes one story of listings, watches and outages: only what is
// different is told, and nothing is taken away that is not gone.
func TestFollower(t *testing.T) {
	lost, compacted := telling(datastore.ErrUnavailable), telling(fmt.Errorf("x: %w", datastore.ErrCompacted))
	bookmark := datastore.Event{Type: datastore.Bookmark}
	tests := map[string]struct {
		lists   []func() (*datastore.Listing, error)
		watches []func(func([]datastore.Event)) error
		want    string
		pauses  string
	}{
		"a store that is away at first": {
			[]func() (*datastore.Listing, error){away, away, holding("s", at("a", "1"))},
			[]func(func([]datastore.Event)) error{lost},
			"lost, lost, begin a=1 sync, lost", "1 2 3",
		},
		"changes": {
			[]func() (*datastore.Listing, error){holding("s", at("a", "1"))},
			[]func(func([]datastore.Event)) error{telling(datastore.ErrUnavailable, bookmark, datastore.Event{Type: datastore.Changed, Key: key("b"), Object: at("b", "2")}, datastore.Event{Type: datastore.Deleted, Key: key("a")})},
			"begin a=1 sync, b=2 -a, lost", "1",
		},
		"what was missed in an outage": {
			[]func() (*datastore.Listing, error){holding("s", at("a", "1"), at("b", "1"), at("c", "1")), away, holding("s", at("a", "1"), at("b", "5"))},
			[]func(func([]datastore.Event)) error{lost, telling(datastore.ErrUnavailable, bookmark)},
			"begin a=1 b=1 c=1 sync, lost, lost, begin b=5 -c sync, lost", "1 2 1",
		},
		"a store that has forgotten is no outage": {
			[]func() (*datastore.Listing, error){holding("s", at("a", "1")), holding("s", at("a", "2"))},
			[]func(func([]datastore.Event)) error{compacted, lost},
			"begin a=1 sync, begin a=2 sync, lost", "1 2",
		},
		"all deleted in an outage": {
			[]func() (*datastore.Listing, error){holding("s", at("a", "1")), holding("s")},
			[]func(func([]datastore.Event)) error{lost, lost},
			"begin a=1 sync, lost, begin -a sync, lost", "1 2",
		},
		"a store that was made anew is not believed while it is empty": {
			[]func() (*datastore.Listing, error){holding("s", at("a", "1"), at("b", "1")), holding(""), holding("z"), holding("z", at("a", "1"))},
			[]func(func([]datastore.Event)) error{compacted, lost},
			"begin a=1 b=1 sync, lost, lost, begin a=1 -b sync, lost", "1 2 3 4",
		},
		"what cannot be used is not gone": {
			[]func() (*datastore.Listing, error){holding("s", at("a", "1"), at("b", "1")), refusing("s", "a", at("b", "1")), refusing("s", "b", at("a", "4")), holding("s", at("b", "1"))},
			[]func(func([]datastore.Event)) error{compacted, compacted, compacted, lost},
			"begin a=1 b=1 sync, begin !a sync, begin a=4 !b sync, begin b=1 -a sync, lost", "1 2 3 4",
		},
		"what could never be used, and is gone or mended": {
			[]func() (*datastore.Listing, error){refusing("s", "a", at("b", "1")), refusing("s", "c", at("b", "1")), holding("s", at("b", "1"), at("c", "1"))},
			[]func(func([]datastore.Event)) error{compacted, telling(datastore.ErrUnavailable, bookmark, datastore.Event{Type: datastore.Refusing, Key: key("b"), Err: datastore.ErrInvalid}), lost},
			"begin b=1 !a sync, begin !c -a sync, !b, lost, begin b=1 c=1 sync, lost", "1 1 2",
		},
		"what could never be used is told as gone": {
			[]func() (*datastore.Listing, error){refusing("s", "a"), holding("s")},
			[]func(func([]datastore.Event)) error{compacted, lost},
			"begin !a sync, begin -a sync, lost", "1 2",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			var told, pauses []string
			f := &datastore.Follower{
				Store:   &script{lists: tt.lists, watches: tt.watches, end: end},
				Deliver: func(events []datastore.Event) { told = append(told, story(events)) },
				Pause: func(ctx context.Context, failed int) error {
					pauses = append(pauses, fmt.Sprint(failed))
					return ctx.Err()
				},
			}
			if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
			if got := strings.Join(told, ", "); got != tt.want {
				t.Errorf("told\n%s\nwant\n%s", got, tt.want)
			}
			if got := strings.Join(pauses, " "); got != tt.pauses {
				t.Errorf("paused after failures %s, want %s", got, tt.pauses)
			}
		})
	}
}

// story is events in few letters.
func story(events []datastore.Event) string {
	var all []string
	for _, e := range events {
		switch e.Type {
		case datastore.Begin:
			all = append(all, "begin")
		case datastore.InSync:
			all = append(all, "sync")
		case datastore.Lost:
			all = append(all, "lost")
		case datastore.Changed:
			all = append(all, e.Key.Name+"="+e.Object.GetResourceVersion())
		case datastore.Deleted:
			all = append(all, "-"+e.Key.Name)
		case datastore.Refusing:
			all = append(all, "!"+e.Key.Name)
		default:
			all = append(all, "?")
		}
	}
	return strings.Join(all, " ")
}
