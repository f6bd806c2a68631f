package datastore

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"

	v3 "margay.dev/margay/api/v3"
)

// Key names an object. Namespace is "" for kinds that have none.
type Key struct{ Kind, Namespace, Name string }

// String is kind namespace/name, or kind name, as people read it.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Compare orders keys by kind, namespace and name.
func (k Key) Compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Kind, other.Kind), cmp.Compare(k.Namespace, other.Namespace), cmp.Compare(k.Name, other.Name))
}

// KeyOf is the key of an object; its kind is that of its Go type, whatever its
// TypeMeta says.
func KeyOf(o v3.Object) Key {
	return Key{reflect.TypeOf(o).Elem().Name(), o.GetNamespace(), o.GetName()}
}

// Namespaced reports whether objects of a kind belong to namespaces; ok is false
// for kinds that api/v3 has not.
func Namespaced(kind string) (namespaced, ok bool) {
	o := v3.New(kind)
	if o == nil {
		return false, false
	}
	o.Default(v3.ByPresence) // puts those that do into one
	return o.GetNamespace() != "", true
}

// Check fails with ErrInvalid where no object can have the key.
func (k Key) Check() error {
	spaced, ok := Namespaced(k.Kind)
	switch {
	case !ok:
		return fmt.Errorf("%w: kind %q is none of %s/%s: see the spelling, which minds capitals", ErrInvalid, k.Kind, v3.Group, v3.Version)
	case k.Name == "" || strings.ContainsRune(k.Name+k.Namespace, '/'):
		return fmt.Errorf("%w: %q in namespace %q is no name of an object", ErrInvalid, k.Name, k.Namespace)
	case spaced && k.Namespace == "":
		return fmt.Errorf("%w: %s %s needs a namespace: say which", ErrInvalid, k.Kind, k.Name)
	case !spaced && k.Namespace != "":
		return fmt.Errorf("%w: %s %s belongs to no namespace: take %q out", ErrInvalid, k.Kind, k.Name, k.Namespace)
	}
	return nil
}

// Scope is which objects are meant. The zero value means all; a namespace means
// those in it, and so none of kinds that have no namespaces.
type Scope struct{ Kind, Namespace string }

// Holds reports whether an object with the key is meant.
func (s Scope) Holds(k Key) bool {
	return (s.Kind == "" || s.Kind == k.Kind) && (s.Namespace == "" || s.Namespace == k.Namespace)
}
