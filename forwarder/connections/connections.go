// Package connections keeps the table of connections where it outlives the process:
// in a file on a tmpfs, from which the next forwarder goes on, and in memory that
// can be handed over to one that takes over.
package connections

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/internal/mem"
)

// maxEndpoints is how many endpoints flows can be charged to: one for each port.
const maxEndpoints = 4096

// Config says where connections are kept.
type Config struct {
	File    string // on a tmpfs; empty: they end with the process
	Bytes   int    // at least flow.MinBytes are taken
	Workers int
	Log     *slog.Logger
}

// Store is a table and the memory that it lies in.
type Store struct {
	Table  *flow.Table
	region *mem.Region
}

// Open goes on with the connections of a process that has ended, wherever it was
// then, or makes a table for new ones. What cannot be kept or used is told in the log.
func Open(cfg Config) (*Store, error) {
	region, kept, err := cfg.region()
	if err != nil {
		return nil, fmt.Errorf("take memory for connections: %w", err)
	}
	var table *flow.Table
	if kept {
		if table, err = attach(region.Payload(), cfg.Workers); err == nil {
			cfg.Log.Info("connections of a former run are judged anew, each at its next packet", "connections", table.Rebuild())
		} else {
			cfg.Log.Warn("connections of a former run cannot be used, and are forgotten: those that are under way are refused", "file", cfg.File, "error", err)
			clear(region.Payload())
		}
	}
	if table == nil {
		table, err = flow.New(region.Payload(), flow.Config{Workers: cfg.Workers, Endpoints: maxEndpoints, Timeouts: flow.DefaultTimeouts()})
		if err != nil {
			return nil, errors.Join(err, region.Close())
		}
	}
	return &Store{table, region}, nil
}

// Take goes on with the table of a process that hands it over by its descriptor,
// which is the store's, and closed on an error. That process must have stopped
// between two vectors before packets are looked up here.
func Take(fd, workers int) (*Store, error) {
	region, err := mem.Attach(fd, mem.KindFlows, flow.LayoutVersion)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	table, err := attach(region.Payload(), workers)
	if err != nil {
		return nil, errors.Join(err, region.Close())
	}
	return &Store{table, region}, nil
}

// attach refuses the table of a forwarder with other workers: each has a place in it.
func attach(memory []byte, workers int) (*flow.Table, error) {
	table, err := flow.Attach(memory)
	if err == nil && table.Workers() != workers {
		return nil, fmt.Errorf("the table of connections is for %d workers, and this configuration has %d", table.Workers(), workers)
	}
	return table, err
}

// region is the memory, and whether a former run's connections are in it.
func (c *Config) region() (region *mem.Region, kept bool, err error) {
	size := max(c.Bytes, flow.MinBytes)
	if c.File != "" {
		region, kept, err = mem.Keep(c.File, mem.KindFlows, flow.LayoutVersion, size)
		if !errors.Is(err, mem.ErrNotMemory) {
			return region, kept, err
		}
		c.Log.Warn("connections will be forgotten when this process ends: name a file on a tmpfs as flowsFile", "error", err)
	}
	region, err = mem.Create("margay-flows", mem.KindFlows, flow.LayoutVersion, size)
	return region, false, err
}

// FD is the descriptor of the memory, to be handed over; the store keeps owning it.
func (s *Store) FD() int { return s.region.FD() }

// Close gives the memory back. In a file the connections stay.
func (s *Store) Close() error { return s.region.Close() }

// Now is the clock that connections age by: the workers', but from a beginning that
// is the same for every process until the machine starts anew.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0 // it cannot fail: every kernel has the clock, and t is ours
	}
	return time.Duration(t.Nano())
}
