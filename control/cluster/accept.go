package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// ErrBare says that a store holds nothing to follow.
var ErrBare = errors.New("the store holds no objects but what agents write themselves")

// Accept writes down that a store is the one that a node follows from now on, whatever
// it has followed before, and gives its identity. One that holds nothing yet is refused
// with ErrBare, unless empty says that this is meant: the node's policy would go.
func Accept(ctx context.Context, store datastore.Store, o Options, empty bool) (Identity, error) {
	l, err := store.List(ctx, datastore.Scope{})
	switch {
	case err != nil:
		return Identity{}, fmt.Errorf("accept store: %w", err)
	case bare(l) && !empty:
		return Identity{}, fmt.Errorf("accept store: %w: apply the objects first", ErrBare)
	}
	// The first object gives a store its name.
	if _, err := Inform(ctx, store, "", o.Version); err != nil {
		return Identity{}, fmt.Errorf("accept store: %w", err)
	}
	named, err := store.List(ctx, datastore.Scope{Kind: v3.KindClusterInformation})
	if err != nil {
		return Identity{}, fmt.Errorf("accept store: %w", err)
	}
	i := identityOf(named, o.Where)
	if i.Store == "" || l.Store != "" && i.Store != l.Store {
		return Identity{}, fmt.Errorf("accept store: %w: it has become another while it was looked at: try again", datastore.ErrUnavailable)
	}
	o.Log.Info("the store is accepted", "store", i.Store, "cluster", i.Cluster, "where", i.Where, "holds", counts(l))
	return i, Write(o.Path, i)
}

// counts says how many objects of which kinds a store holds.
func counts(l *datastore.Listing) string {
	of := map[string]int{}
	for _, o := range l.Objects {
		of[datastore.KeyOf(o).Kind]++
	}
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(of)) {
		all = append(all, fmt.Sprintf("%d %s", of[kind], kind))
	}
	if n := len(l.Refused); n > 0 {
		all = append(all, fmt.Sprintf("%d that cannot be used", n))
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
