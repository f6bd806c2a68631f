// Package cluster is which cluster a node belongs to: the store that its agent
// believes, and the ClusterInformation in it that all agents share.
//
//	store ──► Trust.List ──► judged by what is on disk ──► Follower ► whoever acts
//	             ▲                    │ another, or made anew: ErrUnavailable, and
//	             │                    ▼ what was told stays in force
//	agent's own writes ──► Trust.Writer: refused while the store is not believed
//
// A node that follows a store keeps that store's name, and the cluster's, on disk. An
// agent that starts, or whose store comes back, believes only the store that it knows:
// one that was made anew and is empty, or half filled, or is another cluster's, would
// have it take away what protects the node. Accept is how people say that another
// store is the right one.
package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Identity tells a store from others.
type Identity struct {
	Store   string `json:"store"`             // as in datastore.Listing; "": not known yet
	Cluster string `json:"cluster,omitempty"` // clusterGUID of its ClusterInformation; "": it has none
	Where   string `json:"where,omitempty"`   // where it was, for people
}

// String is an identity for people.
func (i Identity) String() string {
	text := "store " + i.Store
	if i.Store == "" {
		text = "a store without a name, which has never had an object"
	}
	if i.Cluster != "" {
		text += " of cluster " + i.Cluster
	}
	if i.Where != "" {
		text += " (" + i.Where + ")"
	}
	return text
}

// maxRecord is how long the file of an identity may be, in bytes.
const maxRecord = 1 << 16

// Read reads the identity of the store that a node has followed; the zero value where
// the file is not there. It fails where the file cannot be read, or is no such thing.
func Read(path string) (Identity, error) {
	var i Identity
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return i, nil
	case err != nil:
		return i, fmt.Errorf("read which store the node follows: %w", err)
	case len(text) > maxRecord:
		return i, fmt.Errorf("read which store the node follows: %s has %d bytes, at most %d", path, len(text), maxRecord)
	}
	if err := json.Unmarshal(text, &i); err != nil || i.Store == "" {
		return Identity{}, fmt.Errorf("read which store the node follows: %s is not what an agent has written: %w", path, errors.Join(err, errNameless))
	}
	return i, nil
}

var errNameless = errors.New("want a JSON object with the store's name")

// Write puts an identity in the place of the former, all of it or nothing, also
// where the machine ends meanwhile.
func Write(path string, i Identity) error {
	text, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("write which store the node follows: %w", err)
	}
	if err := replace(path, append(text, '\n')); err != nil {
		return fmt.Errorf("write which store the node follows: %w", err)
	}
	return nil
}

// replace writes a file aside, waits for the disk, and puts it in place.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// identityOf is that of the store that a listing is of, which holds at least its
// ClusterInformation, if there is one.
func identityOf(l *datastore.Listing, where string) Identity {
	i := Identity{Store: l.Store, Where: where}
	for _, o := range l.Objects {
		if c, ok := o.(*v3.ClusterInformation); ok && c.Name == v3.Default {
			i.Cluster = c.Spec.ClusterGUID
		}
	}
	return i
}

// bare reports whether a store holds nothing but what agents themselves write into
// one.
func bare(l *datastore.Listing) bool {
	for _, o := range l.Objects {
		if k := datastore.KeyOf(o).Kind; k != v3.KindNode && k != v3.KindClusterInformation {
			return false
		}
	}
	return len(l.Refused) == 0
}
