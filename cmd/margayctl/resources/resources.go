// Package resources is the part of margayctl that works on objects in a store, as
// users of calicoctl expect it: get, create, apply, replace, delete, patch, label,
// validate, convert, confirm, node and datastore, for every kind of api/v3, against an etcd or a
// folder.
//
//	manifests ► objects ► store ► a line for each ► a summary
//
// Each object is worked on by itself: what fails is told and the rest goes on.
package resources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"margay.dev/margay/datastore"
)

// ErrTold says that some objects failed, which was told of each already.
var ErrTold = errors.New("some objects failed")

// Tool is one run of the program, as far as this package needs it.
type Tool struct {
	In       io.Reader
	Out, Err io.Writer
	Env      func(string) string
	Now      func() time.Time

	where     place
	namespace string
	all       bool // namespaces
	timeout   time.Duration
}

// Commands are those of this package. They read no flags of their parents.
func (t *Tool) Commands() []*cobra.Command {
	return []*cobra.Command{
		t.get(), t.write("create"), t.write("apply"), t.write("replace"), t.remove(),
		t.patch(), t.label(), t.validate(), t.convert(), t.confirm(), t.node(), t.datastore(),
	}
}

// Stored makes a command one that works on a store: it gets the flags that say
// where the store is, and prints in no format but its own.
func (t *Tool) Stored(cmd *cobra.Command) *cobra.Command {
	t.alone(cmd)
	t.Placed(cmd, 30*time.Second)
	cmd.Flags().Bool("allow-version-mismatch", false, "as calicoctl has it: versions are not compared, an object that is not understood is refused by itself")
	return cmd
}

// Placed gives a command the flags that say where the store is, and how long to wait
// for it.
func (t *Tool) Placed(cmd *cobra.Command, wait time.Duration) {
	t.where.flags(cmd.Flags())
	cmd.Flags().DurationVar(&t.timeout, "timeout", wait, "how long to wait for the store, for all objects together")
}

// alone keeps a command from reading the flags of its parents; -o is refused where
// the command has none itself.
func (t *Tool) alone(cmd *cobra.Command) {
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if f := cmd.InheritedFlags().Lookup("output"); f != nil && f.Changed {
			return fmt.Errorf("%s prints in one format alone: leave -o out", cmd.CommandPath())
		}
		return nil
	}
}

// namespaced gives a command the flag of its namespace.
func (t *Tool) namespaced(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&t.namespace, "namespace", "n", "default", "namespace of objects that do not say theirs")
}

// With runs something with the store that flags, environment or file name.
func (t *Tool) With(ctx context.Context, do func(context.Context, datastore.Store) error) error {
	if t.timeout <= 0 {
		return fmt.Errorf("timeout is %v, want more than 0", t.timeout)
	}
	s, err := t.where.open(t.Env)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	return do(ctx, s)
}
