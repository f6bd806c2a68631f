package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"margay.dev/margay/control/hosts"
	"margay.dev/margay/dataplane/nft"
)

// kernel is the nftables of the machine, opened when it is wanted first: a machine
// without host endpoints needs none.
type kernel struct {
	log   *slog.Logger
	words *hosts.Words

	calls, refused atomic.Uint64

	mu    sync.Mutex
	table *nft.Table
	stop  func()
}

// Apply is as converge.Kernel has it.
func (k *kernel) Apply(c nft.Change) (err error) {
	k.calls.Add(1)
	defer func() {
		if err != nil {
			k.refused.Add(1)
		}
	}()
	table, err := k.open()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	if c.Whole && len(c.Desired.Endpoints) == 0 {
		return table.Remove()
	}
	return table.Apply(c)
}

// open opens the table, if it is not, and has it watched over.
func (k *kernel) open() (*nft.Table, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.table != nil {
		return k.table, nil
	}
	table, err := nft.Open(nft.Options{Comment: k.words.Comment, Prefix: k.words.Prefix, Repaired: func(err error) {
		k.log.Warn("somebody else has changed our nftables, which are written anew", "error", err)
	}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		table.Watch(ctx)
	}()
	k.table, k.stop = table, func() { cancel(); <-ended; table.Close() }
	return table, nil
}

// counts are what met each rule, by its id; none where there is no table.
func (k *kernel) counts() map[uint32]nft.Count {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.table == nil {
		return nil
	}
	counts, err := k.table.Counts()
	if err != nil && !errors.Is(err, nft.ErrNotWhole) {
		k.log.Warn("what met the rules of this host is not known", "error", err)
	}
	return counts
}

// close lets go of the kernel, which judges on by what it has.
func (k *kernel) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stop != nil {
		k.stop()
	}
}
