package v3_test

import (
	"encoding/json"
	"reflect"
	"testing"

	v3 "margay.dev/margay/api/v3"
)

// Whatever is read, nothing panics, and what is valid stays valid and the same
// when it is written down and read again; a second default changes nothing.
func FuzzManifest(f *testing.F) {
	_, documents := examples(f)
	for _, d := range documents {
		f.Add(d, false)
	}
	f.Add([]byte("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: default}\n--- \n- - {}"), true)
	f.Fuzz(func(t *testing.T, manifest []byte, presence bool) {
		if len(manifest) > 1<<16 {
			return
		}
		by := v3.ByLength
		if presence {
			by = v3.ByPresence
		}
		objects, err := v3.DecodeAll(manifest)
		if err != nil {
			return
		}
		for _, o := range objects {
			o.Default(by)
			again := o.DeepCopyObject().(v3.Object)
			again.Default(v3.ByPresence)
			if !reflect.DeepEqual(o, again) {
				t.Errorf("a second default made %#v of %#v", again, o)
			}
			if o.Validate() != nil {
				continue
			}
			text, err := json.Marshal(o)
			if err != nil {
				t.Fatalf("valid and cannot be written: %v", err)
			}
			back, err := v3.Decode(text)
			if err != nil {
				t.Fatalf("valid and cannot be read again: %v\n%s", err, text)
			}
			if faults := back.Validate(); faults != nil {
				t.Errorf("valid, and no more when read again: %v\n%s", faults.ToAggregate(), text)
			}
			if once, _ := json.Marshal(back); string(once) != string(text) {
				t.Errorf("%s\nhas become\n%s", text, once)
			}
		}
	})
}
