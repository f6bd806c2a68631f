// Package contract is what every driver of package datastore must do: one suite,
// which each of them runs over a real store.
package contract

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Subject is an empty store, and hands that reach behind it.
type Subject struct {
	Store datastore.Store
	// Other opens the same store once more, as another process would.
	Other func() datastore.Store
	// Plant puts a text where the object with the key is kept, or would be, as
	// somebody might who is no Store.
	Plant func(key datastore.Key, text string)
	// Fill plants many, as somebody would who has many.
	Fill func(texts map[datastore.Key]string)
	// Forget makes the store forget how it came to what it holds.
	Forget func()
}

// patience is how long something may take that must happen. It is no claim of
// speed: a test that waits for it in vain fails.
const patience = 2 * time.Minute

// Run holds a driver against the contract; open gives a new, empty store for each
// part, and has it closed when the part ends.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, part := range map[string]func(*testing.T, Subject){
		"every kind is kept whole":                      everyKind,
		"what a writer says of itself is not believed":  noForgery,
		"create and update mind what is there":          createAndUpdate,
		"status is apart from the rest":                 status,
		"deletion minds what is there":                  deletion,
		"what is invalid is refused":                    invalid,
		"apply creates, changes, and leaves":            apply,
		"a scope is a scope":                            scopes,
		"a watch tells all, in order":                   watching,
		"a watch from before tells what happened since": watchFromBefore,
		"what was forgotten is listed anew":             forgotten,
		"garbage is kept out and told":                  garbage,
		"one of many writers wins":                      writers,
		"only what was seen is deleted":                 deleters,
		"what a model says, at random":                  random,
		"a follower sees what is there":                 following,
		"a store that was closed says so":               closed,
		"ten thousand objects at once":                  many,
	} {
		t.Run(name, func(t *testing.T) { part(t, open(t)) })
	}
}

// background is a context that ends with the test, or when patience does.
func background(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// set is a network set with addresses of both families.
func set(namespace, name string, n int) *v3.NetworkSet {
	s := &v3.NetworkSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	s.Spec.Nets = []string{fmt.Sprintf("10.0.%d.0/24", n%256), fmt.Sprintf("fd00:0:0:%x::/64", n)}
	return s
}

// tier is an object without a namespace, with a status.
func tier(name string, order float64) *v3.Tier {
	return &v3.Tier{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v3.TierSpec{Order: &order}}
}

// setKey is the key of a network set.
func setKey(namespace, name string) datastore.Key {
	return datastore.Key{Kind: v3.KindNetworkSet, Namespace: namespace, Name: name}
}

// must is what a call gave that may not fail.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// object is must for those.
func object(t *testing.T) func(v v3.Object, err error) v3.Object { return must[v3.Object](t) }

// listing is must for those.
func listing(t *testing.T) func(v *datastore.Listing, err error) *datastore.Listing {
	return must[*datastore.Listing](t)
}
