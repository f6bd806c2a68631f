package file

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// item is an object and where it lies.
type item struct {
	key      datastore.Key
	path     string
	document int       // of its file, from 0
	written  v3.Object // what the file says, without status and version
	status   *record   // what was told of it
	object   v3.Object // written, with both
}

// where is what people call its place.
func (i item) where() string { return place(i.path, i.document) }

// place is a document of a file, as people count them.
func place(path string, document int) string { return fmt.Sprintf("%s, document %d", path, document+1) }

// manifest is what a file held when it was read.
type manifest struct {
	stamp   stamp
	items   []item
	refused []datastore.Refusal
	blind   bool   // some of what was refused has no name that could be read
	kept    []item // what it held before, and may hold still in what was refused
}

// read reads a file; before is what it was, or nil.
func read(before *manifest, st stamp, path string) *manifest {
	text, err := contents(path)
	if err != nil {
		return refuse(before, st, path, fmt.Errorf("read %s: %w: %w", path, datastore.ErrInvalid, err))
	}
	m := parse(path, text)
	m.stamp = st
	m.keep(before)
	return m
}

// refuse is a file that cannot be read.
func refuse(before *manifest, st stamp, path string, err error) *manifest {
	m := &manifest{stamp: st, blind: true, refused: []datastore.Refusal{{Where: path, Err: err}}}
	m.keep(before)
	return m
}

// keep keeps of what the file held before what it may still hold: what is named
// in what was refused, or, where the file is blind, everything.
func (m *manifest) keep(before *manifest) {
	if before == nil || len(m.refused) == 0 {
		return
	}
	for _, it := range slices.Concat(before.items, before.kept) {
		has := func(other item) bool { return other.key == it.key }
		named := slices.ContainsFunc(m.refused, func(r datastore.Refusal) bool { return r.Key == it.key })
		if !slices.ContainsFunc(m.items, has) && !slices.ContainsFunc(m.kept, has) && (m.blind || named) {
			m.kept = append(m.kept, it)
		}
	}
}

// parse takes a manifest apart; what cannot be used of it is refused, the rest
// goes on.
func parse(path string, text []byte) *manifest {
	m := &manifest{}
	for i, document := range v3.Documents(text) {
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		parts, err := v3.Split(document)
		if err != nil {
			m.blind = true
			m.refused = append(m.refused, datastore.Refusal{Where: place(path, i), Err: fmt.Errorf("%w: %w", datastore.ErrInvalid, err)})
			continue
		}
		for _, part := range parts {
			o, key, named, err := object(part)
			if err != nil {
				m.blind = m.blind || !named
				m.refused = append(m.refused, datastore.Refusal{Key: key, Where: place(path, i), Err: err})
				continue
			}
			m.items = append(m.items, item{key: key, path: path, document: i, written: o})
		}
	}
	return m
}

// object reads one object as the store keeps it. Where it cannot be used, named says
// whether it can be told which one it is, and key is that if it is one of ours.
func object(text []byte) (o v3.Object, key datastore.Key, named bool, err error) {
	key, named = keyIn(text)
	if o, err = v3.DecodeJSON(text); err != nil {
		return nil, key, named, fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
	}
	if o, err = datastore.Admit(o); err != nil {
		return nil, key, named, err
	}
	(&record{}).put(o)
	o.SetResourceVersion("")
	if o.GetUID() == "" {
		o.SetUID(uidOf(key))
	}
	o.SetGeneration(max(o.GetGeneration(), 1))
	_, err = datastore.Text(o)
	return o, key, true, err
}

// keyIn is the key of an object, of which anything else may be wrong; the zero
// value for one that is none of ours.
func keyIn(text []byte) (key datastore.Key, named bool) {
	var h struct {
		APIVersion, Kind string
		Metadata         struct{ Name, Namespace string }
	}
	if err := json.Unmarshal(text, &h); err != nil || h.Kind == "" || h.Metadata.Name == "" {
		return datastore.Key{}, false
	}
	key = datastore.Key{Kind: h.Kind, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}
	if spaced, ok := datastore.Namespaced(h.Kind); ok && spaced && key.Namespace == "" {
		key.Namespace = "default"
	}
	if h.APIVersion != v3.GroupVersion().String() || key.Check() != nil {
		return datastore.Key{}, true
	}
	return key, true
}

// uidOf is the uid of an object that nobody gave one: a UUID of version 8 (RFC 9562,
// section 5.8) that follows from its name.
func uidOf(key datastore.Key) types.UID {
	b := sha256.Sum256([]byte(key.Kind + "/" + key.Namespace + "/" + key.Name))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}

// view is what the whole folder holds.
type view struct {
	items   map[datastore.Key]item
	refused []datastore.Refusal
}

// look puts files together, by path: of objects of the same name the first counts.
// What a file has kept counts where no file says anything else. What is as it was
// before is not made anew.
func look(files map[string]*manifest, status map[string]*record, before view) view {
	v := view{items: make(map[datastore.Key]item)}
	paths := slices.Sorted(maps.Keys(files))
	for _, path := range paths {
		m := files[path]
		v.refused = append(v.refused, m.refused...)
		for _, it := range m.items {
			if first, ok := v.items[it.key]; ok {
				v.refused = append(v.refused, datastore.Refusal{Key: it.key, Where: it.where(),
					Err: fmt.Errorf("%w: %v is in %s already, and that counts: delete one of them", datastore.ErrInvalid, it.key, first.where())})
				continue
			}
			v.items[it.key] = it
		}
	}
	for _, path := range paths {
		for _, it := range files[path].kept {
			if _, ok := v.items[it.key]; !ok {
				v.items[it.key] = it
			}
		}
	}
	for key, it := range v.items {
		it.status = status[statusName(key)]
		if old := before.items[key]; old.written == it.written && old.status == it.status {
			it.object = old.object
		} else {
			it.object = dressed(it.written, it.status)
		}
		v.items[key] = it
	}
	return v
}

// dressed is an object with its status and its version.
func dressed(o v3.Object, r *record) v3.Object {
	o = o.DeepCopyObject().(v3.Object)
	r.put(o)
	text, err := datastore.Text(o)
	if err != nil { // its status is too long: it does without
		o = o.DeepCopyObject().(v3.Object)
		(&record{}).put(o)
	}
	sum := sha256.Sum256(text)
	o.SetResourceVersion(fmt.Sprintf("%x", sum[:8]))
	return o
}

// to are the events between a view and the next.
func (v view) to(next view) []datastore.Event {
	var events []datastore.Event
	words := func(r datastore.Refusal) string { return r.Key.String() + "\x00" + r.Where + "\x00" + r.Err.Error() }
	was, is := make(map[string]bool), make(map[string]bool)
	had, named := make(map[datastore.Key]bool), make(map[datastore.Key]bool)
	for _, r := range v.refused {
		was[words(r)], had[r.Key] = true, true
	}
	for _, r := range next.refused {
		is[r.Where], named[r.Key] = true, true
		if !was[words(r)] {
			events = append(events, datastore.Event{Type: datastore.Refusing, Key: r.Key, Where: r.Where, Err: r.Err})
		}
	}
	for key, it := range next.items {
		mended := had[key] && !named[key] // also to what it was before it could not be used
		if before, ok := v.items[key]; !ok || mended || before.object.GetResourceVersion() != it.object.GetResourceVersion() {
			events = append(events, datastore.Event{Type: datastore.Changed, Key: key, Object: it.object, Where: it.where()})
		}
	}
	gone := func(key datastore.Key, where string) {
		events = append(events, datastore.Event{Type: datastore.Deleted, Key: key, Where: where})
	}
	for key, it := range v.items {
		if _, ok := next.items[key]; !ok {
			gone(key, it.where())
		}
	}
	for _, r := range v.refused {
		_, had := v.items[r.Key]
		_, has := next.items[r.Key]
		switch {
		case r.Key == datastore.Key{} && !is[r.Where], r.Key != datastore.Key{} && !had && !has && !named[r.Key]:
			gone(r.Key, r.Where)
		}
	}
	slices.SortStableFunc(events, func(a, b datastore.Event) int { return a.Key.Compare(b.Key) })
	return events
}
