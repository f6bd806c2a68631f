package resources

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// Change is what manifests would make of a store.
type Change struct {
	t      *Tool
	m      manifests
	remove bool
}

// Change gives a command the flags for one, and makes it one that works on a store.
func (t *Tool) Change(cmd *cobra.Command) (*Change, *cobra.Command) {
	c := &Change{t: t}
	t.Stored(cmd)
	c.m.flags(cmd)
	t.namespaced(cmd)
	cmd.Flags().BoolVar(&c.remove, "delete", false, "the objects of the manifests would be deleted")
	return c, cmd
}

// Objects are those of the store, and what they would be after the change. It
// changes nothing, and fails as apply does.
func (c *Change) Objects(ctx context.Context) (before, after []v3.Object, err error) {
	documents, err := c.t.read(&c.m)
	if err != nil {
		return nil, nil, err
	}
	if err := c.t.judge(documents); err != nil {
		return nil, nil, err
	}
	err = c.t.With(ctx, func(ctx context.Context, s datastore.Store) error {
		l, err := s.List(ctx, datastore.Scope{})
		if err == nil {
			before = l.Objects
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	keys := keysOf(documents)
	after = slices.DeleteFunc(slices.Clone(before), func(o v3.Object) bool { return slices.Contains(keys, datastore.KeyOf(o)) })
	for _, d := range documents {
		o, err := datastore.Admit(d.object)
		if err != nil {
			return nil, nil, err
		}
		if !c.remove {
			after = append(after, o)
		}
	}
	return before, after, nil
}
