package datastore

import (
	"context"

	v3 "margay.dev/margay/api/v3"
)

// Revision is a state of a whole store: what List was true of, and what Watch goes
// on from. It means something to the store that gave it alone: keep it, compare it
// for equality, make nothing of it.
type Revision string

// Listing is what a store held at one revision, of every kind that was asked for.
type Listing struct {
	Objects  []v3.Object // the caller's own, defaulted and valid, in order of kind, namespace and name
	Refused  []Refusal   // what is there and cannot be used
	Revision Revision
	Store    string // which store it is: another one after it was lost and made anew
}

// Refusal is something in a store that is no object that this program can use:
// garbage, an object of a newer version, or one that is invalid.
type Refusal struct {
	Key   Key    // what it is, or would be; the zero value where nobody can tell
	Where string // where it lies: a key of etcd, a file and its document
	Err   error  // why, and what to do
}

// Type is what an Event tells.
type Type uint8

// The types of events. Watch hands out the first four, a Follower all but
// Bookmark.
const (
	Changed  Type = iota // Object is there now, new or changed
	Deleted              // nothing is at Key any more; at Where, if Key is the zero value
	Refusing             // what is at Key, or at Where, cannot be used: Err; what was there before is not taken back
	Bookmark             // everything until Revision was told
	Begin                // a listing begins: what is told until InSync makes whole what was told before
	InSync               // what was told is what the store holds, or has held a moment ago
	Lost                 // the store does not answer, or is not to be believed: Err. What was told stays; Begin follows when it is back
)

// Event is one thing that happened. Object is shared: who gets it does not change
// it.
type Event struct {
	Type     Type
	Key      Key
	Object   v3.Object // of Changed
	Where    string    // a key of etcd, a file and its document; only Refusing always has it
	Err      error     // of Refusing and Lost
	Revision Revision  // after it; not with Begin and Lost
}

// Precondition is what must be so of an object for it to be deleted; empty fields
// ask for nothing.
type Precondition struct{ UID, ResourceVersion string }

// Store keeps objects. It may be used by many goroutines at once. Every method
// ends with its context, and fails with an error that is one of those of this
// package (errors.Is); no method waits for ever for a store that is away.
//
// What is handed to a method is not changed and not kept; what it returns is the
// caller's own.
type Store interface {
	// Get gives the object with a key. What is there and cannot be used is
	// ErrInvalid, with the reason.
	Get(ctx context.Context, key Key) (v3.Object, error)

	// List gives what is in scope, all at one revision.
	List(ctx context.Context, scope Scope) (*Listing, error)

	// Watch tells what changes in scope after a revision, in order, until the
	// context ends or it fails: ErrCompacted if what came after the revision is no
	// longer known, or the store is another than the one that gave it, and then
	// only a listing helps; ErrUnavailable if the store does not answer.
	// The first event is a Bookmark of from: the watch stands. What changed
	// together, by one revision, is in one call; a call may hold several revisions,
	// and so a key more than once. Changes wait in memory while deliver runs: it
	// should be quick.
	Watch(ctx context.Context, scope Scope, from Revision, deliver func([]Event)) error

	// Create adds an object: ErrExists if there is one with its key. The
	// object's uid, creation time, generation, resource version and status are not
	// heeded.
	Create(ctx context.Context, o v3.Object) (v3.Object, error)

	// Update puts an object in the place of the one with its key: ErrNotFound if
	// there is none, ErrConflict if the object has a resource version and the
	// stored one another, or a uid and the stored one another. Without one it
	// replaces whatever is there, also what cannot be used. The stored status
	// stays.
	Update(ctx context.Context, o v3.Object) (v3.Object, error)

	// UpdateStatus puts an object's status in the place of the stored one's, and
	// nothing else; errors are those of Update.
	UpdateStatus(ctx context.Context, o v3.Object) (v3.Object, error)

	// Delete takes away the object with a key, also one that cannot be used:
	// ErrNotFound if there is none, ErrConflict if it is not as only says.
	Delete(ctx context.Context, key Key, only Precondition) error

	// Close gives back what the store holds. Watches end with ErrUnavailable, and
	// so does what is called later.
	Close() error
}
