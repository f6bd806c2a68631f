// Package stage raises what the scenarios with real processes play on, and reads
// what those processes take of the machine.
package stage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/lab"
)

// dir is where labs of benchmarks keep their state, apart from those of people.
// The process id of who raised one ends its name, to base 36 since names are short.
const dir = "/run/margay-bench"

// Raise raises a lab of a topology (a file's text, its name left out) for this
// process, under the forwarder program given. Of its name, at most six letters are
// the caller's. Labs of runs that were killed are
// taken down first.
func Raise(ctx context.Context, name, topology, forwarder string) (*lab.Lab, error) {
	return RaiseWith(ctx, name, topology, forwarder, nil)
}

// RaiseWith is Raise with settings of the forwarder's own, as keys of its
// configuration file.
func RaiseWith(ctx context.Context, name, topology, forwarder string, settings map[string]any) (*lab.Lab, error) {
	return raise(ctx, name, topology, lab.Options{Forwarder: forwarder, Configure: func(string) map[string]any {
		c := map[string]any{"metrics": ""}
		maps.Copy(c, settings)
		return c
	}})
}

// RaiseAgents is Raise with an etcd, and the agent that lies beside the forwarder in
// each node.
func RaiseAgents(ctx context.Context, name, topology, forwarder string) (*lab.Lab, error) {
	return raise(ctx, name, topology, lab.Options{
		Forwarder: forwarder, Agent: filepath.Join(filepath.Dir(forwarder), "margay-agent"),
		Configure: func(string) map[string]any { return map[string]any{"metrics": ""} },
	})
}

func raise(ctx context.Context, name, topology string, o lab.Options) (*lab.Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("this needs root: it makes network namespaces")
	}
	for what, path := range map[string]*string{"forwarder": &o.Forwarder, "agent": &o.Agent} {
		if *path == "" {
			continue
		}
		whole, err := filepath.Abs(*path)
		if err == nil {
			_, err = os.Stat(whole)
		}
		if err != nil {
			return nil, fmt.Errorf("find the %s: %w (make build, or name the forwarder by --forwarder: the others lie beside it)", what, err)
		}
		*path = whole
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	t, err := lab.Parse(fmt.Appendf(nil, "name: %s-%s\n%s", name, strconv.FormatInt(int64(os.Getpid()), 36), topology))
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	return lab.Up(ctx, t, o)
}

// sweep takes down labs of ours whose raiser is gone.
func sweep() error {
	names, err := lab.Names(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		pid, err := strconv.ParseInt(name[strings.LastIndexByte(name, '-')+1:], 36, 32)
		if err == nil && unix.Kill(int(pid), 0) == nil {
			continue
		}
		if err := lab.Down(dir, name); err != nil && !errors.Is(err, lab.ErrNotUp) {
			errs = append(errs, fmt.Errorf("clear what an earlier run left: %w", err))
		}
	}
	return errors.Join(errs...)
}
