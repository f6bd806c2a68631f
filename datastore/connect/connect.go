// Package connect opens the store that a configuration names: what agent and tools
// have in common, so that the same words lead them to the same objects.
package connect

import (
	"errors"
	"fmt"

	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/etcd"
	"margay.dev/margay/datastore/file"
)

// Config says where the objects are: in an etcd, or in a folder. Neither means the
// etcd of this machine, at its Unix socket.
type Config struct {
	Etcd   *etcd.Config `json:"etcd,omitempty"`
	Folder *file.Config `json:"folder,omitempty"`
}

// Validate reports every fault, with the field's path before it.
func (c Config) Validate() error {
	var faults []error
	if c.Etcd != nil && c.Folder != nil {
		faults = append(faults, errors.New("etcd and folder are given, want one of them: objects are in one place"))
	}
	if c.Etcd != nil {
		if err := c.Etcd.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("etcd: %w", err))
		}
	}
	if c.Folder != nil {
		if err := c.Folder.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("folder: %w", err))
		}
	}
	return errors.Join(faults...)
}

// Where is the place in a word or two, for logs and errors.
func (c Config) Where() string {
	switch {
	case c.Folder != nil:
		return "folder " + c.Folder.Dir
	case c.Etcd != nil:
		return c.Etcd.Where()
	}
	return etcd.Config{}.Where()
}

// Open opens the store. It does not wait for an etcd to answer, but for one with
// users; it fails for a configuration that Validate has something against.
func Open(c Config) (datastore.Store, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	switch {
	case c.Folder != nil:
		return opened(file.Open(*c.Folder))
	case c.Etcd != nil:
		return opened(etcd.Open(*c.Etcd))
	}
	return opened(etcd.Open(etcd.Config{}))
}

// opened is a driver's store as anybody's: none where it failed.
func opened[S datastore.Store](s S, err error) (datastore.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}
