package datastore

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v3 "margay.dev/margay/api/v3"
)

// MaxBytes is how long an object may be, as JSON: what etcd takes in one request,
// less some for what goes with it.
const MaxBytes = 1 << 20

// Admit gives an object as a store would keep it: a copy with its kind in it, with
// what Default fills in, without what only a store knows. It fails with an
// InvalidError for an object that Validate has something against, and with
// ErrInvalid for one without a name. Drivers call it; others may, to know before.
func Admit(o v3.Object) (v3.Object, error) {
	o = o.DeepCopyObject().(v3.Object)
	o.GetObjectKind().SetGroupVersionKind(v3.GroupVersion().WithKind(KeyOf(o).Kind))
	o.SetManagedFields(nil)
	o.SetSelfLink("")
	o.SetDeletionTimestamp(nil)
	o.SetDeletionGracePeriodSeconds(nil)
	o.SetGenerateName("")
	o.Default(v3.ByLength)
	key := KeyOf(o)
	if faults := o.Validate(); len(faults) > 0 {
		return nil, &InvalidError{key, faults}
	}
	return o, key.Check()
}

// Read takes what a store keeps at a key for an object: strictly, since a field
// that is not known may be what makes a rule narrower. It fails with ErrInvalid.
func Read(key Key, text []byte, resourceVersion string) (v3.Object, error) {
	if err := key.Check(); err != nil {
		return nil, err
	}
	if len(text) > 2*MaxBytes {
		return nil, fmt.Errorf("read %v: %w: it has %d bytes, at most %d: delete it, or make it shorter", key, ErrInvalid, len(text), 2*MaxBytes)
	}
	o, err := v3.DecodeJSON(text)
	if err != nil {
		return nil, fmt.Errorf("read %v: %w: %w: delete it, or write it anew; if a newer version wrote it, use that", key, ErrInvalid, err)
	}
	o.Default(v3.ByLength)
	if got := KeyOf(o); got != key {
		return nil, fmt.Errorf("read %v: %w: it says that it is %v: delete it", key, ErrInvalid, got)
	}
	if faults := o.Validate(); len(faults) > 0 {
		return nil, &InvalidError{key, faults}
	}
	o.SetResourceVersion(resourceVersion)
	return o, nil
}

// Text is an object as a store keeps it. It fails with ErrInvalid for one of more
// than MaxBytes.
func Text(o v3.Object) ([]byte, error) {
	o = o.DeepCopyObject().(v3.Object)
	o.SetResourceVersion("")
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("write %v: %w: %w", KeyOf(o), ErrInvalid, err)
	}
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("write %v: %w: it has %d bytes, at most %d: split it", KeyOf(o), ErrInvalid, len(text), MaxBytes)
	}
	return text, nil
}

// Begun makes an admitted object one that begins: with a uid, created now, and
// without status.
func Begun(o v3.Object, now time.Time) {
	o.SetUID(newUID())
	o.SetCreationTimestamp(metav1.NewTime(now.UTC().Truncate(time.Second))) // what its text can say
	o.SetGeneration(1)
	o.SetResourceVersion("")
	statusOf(o).SetZero()
}

// Replaced makes an admitted object one that takes the place of before: the same
// uid, creation time and status, and the next generation if it wants anything
// else. It fails with ErrConflict where the object is of another version, or uid.
func Replaced(o, before v3.Object) error {
	if err := conflict(KeyOf(o), before, Precondition{string(o.GetUID()), o.GetResourceVersion()}); err != nil {
		return err
	}
	o.SetUID(before.GetUID())
	o.SetCreationTimestamp(before.GetCreationTimestamp())
	o.SetResourceVersion(before.GetResourceVersion())
	statusOf(o).Set(statusOf(before.DeepCopyObject().(v3.Object)))
	o.SetGeneration(before.GetGeneration())
	if !equality.Semantic.DeepEqual(wanted(o), wanted(before)) {
		o.SetGeneration(before.GetGeneration() + 1)
	}
	return nil
}

// Judged is before with the status of o. It fails with ErrConflict as Replaced
// does.
func Judged(o, before v3.Object) (v3.Object, error) {
	key := KeyOf(o)
	status := statusOf(o.DeepCopyObject().(v3.Object))
	if err := conflict(key, before, Precondition{string(o.GetUID()), o.GetResourceVersion()}); err != nil {
		return nil, err
	}
	after := before.DeepCopyObject().(v3.Object)
	statusOf(after).Set(status)
	return after, nil
}

// Permits fails with ErrConflict where an object is not as a precondition says.
func (p Precondition) Permits(o v3.Object) error { return conflict(KeyOf(o), o, p) }

// conflict is Permits, of an object under a key.
func conflict(key Key, o v3.Object, want Precondition) error {
	if want.UID != "" && want.UID != string(o.GetUID()) {
		return fmt.Errorf("change %v: %w (its uid is %s, not %s: it was deleted and made anew)", key, ErrConflict, o.GetUID(), want.UID)
	}
	if want.ResourceVersion != "" && want.ResourceVersion != o.GetResourceVersion() {
		return fmt.Errorf("change %v: %w (its resourceVersion is %s, not %s)", key, ErrConflict, o.GetResourceVersion(), want.ResourceVersion)
	}
	return nil
}

// wanted is what of an object its generation counts: neither what describes it,
// nor what became of it.
func wanted(o v3.Object) v3.Object {
	o = o.DeepCopyObject().(v3.Object)
	reflect.ValueOf(o).Elem().FieldByName("ObjectMeta").SetZero()
	statusOf(o).SetZero()
	return o
}

// statusOf is an object's status, to be read and set; not valid for kinds that
// have none.
func statusOf(o v3.Object) reflect.Value { return reflect.ValueOf(o).Elem().FieldByName("Status") }

// newUID is a random UUID, of version 4 (RFC 9562, section 5.4).
func newUID() types.UID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, as it says
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}
