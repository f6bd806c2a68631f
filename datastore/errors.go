package datastore

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What a store fails with; ask with errors.Is. The text of an error says what
// happened to which object, and what to do.
var (
	ErrExists      = errors.New("it exists already")
	ErrNotFound    = errors.New("there is none")
	ErrConflict    = errors.New("it has changed meanwhile: read it again, and repeat the change")
	ErrInvalid     = errors.New("invalid")
	ErrCompacted   = errors.New("the store has forgotten what changed since: list anew")
	ErrUnavailable = errors.New("the store cannot be used")
	ErrDenied      = errors.New("the store does not allow it: see user, certificate and roles")
)

// InvalidError is an ErrInvalid that lists what is wrong with an object.
type InvalidError struct {
	Key    Key
	Faults field.ErrorList
}

// Error lists every fault.
func (e *InvalidError) Error() string {
	return fmt.Sprintf("%v is invalid: %v", e.Key, e.Faults.ToAggregate())
}

// Is makes it an ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }
