package resources

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// datastore is the command for a store as a whole.
func (t *Tool) datastore() *cobra.Command {
	cmd := &cobra.Command{Use: "datastore", Short: "The store as a whole", Args: cobra.NoArgs}
	migrate := &cobra.Command{
		Use: "migrate", Short: "Move all objects from one store to another", Args: cobra.NoArgs,
		Long: `Move all objects from one store to another, an etcd or a folder:

  margayctl datastore migrate lock                   agents keep what they have from here on
  margayctl datastore migrate export > objects.yaml
  margayctl datastore migrate import -f objects.yaml --etcd-endpoints ...
  (on each node: name the new store in the agent's file, margay-agent accept --config
  FILE, and restart the agent)
  margayctl datastore migrate unlock --etcd-endpoints ...

The new store is locked like the old one until it is unlocked. Ids, times and
conditions of objects are made anew there; the cluster keeps its id.`,
	}
	t.alone(cmd)
	migrate.AddCommand(t.lock("lock", false), t.lock("unlock", true), t.export(), t.imported())
	cmd.AddCommand(migrate)
	return cmd
}

// lock is lock or unlock: agents change nothing while a store is not ready.
func (t *Tool) lock(name string, ready bool) *cobra.Command {
	short := "Have agents keep what they have, whatever changes in the store"
	if ready {
		short = "Have agents put in force what the store says"
	}
	return t.Stored(&cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error {
				if err := setReady(ctx, s, ready); err != nil {
					return err
				}
				_, err := fmt.Fprintf(t.Out, "The store is %sed\n", name)
				return err
			})
		},
	})
}

// information is the ClusterInformation of a store, or a new one, and whether it was
// there.
func information(ctx context.Context, s datastore.Store) (c *v3.ClusterInformation, there bool, err error) {
	o, err := s.Get(ctx, datastore.Key{Kind: v3.KindClusterInformation, Name: clusterName})
	if errors.Is(err, datastore.ErrNotFound) {
		c = &v3.ClusterInformation{}
		c.Name = clusterName
		return c, false, nil
	}
	c, _ = o.(*v3.ClusterInformation)
	return c, err == nil, err
}

// setReady says in a store whether agents may do what it says.
func setReady(ctx context.Context, s datastore.Store, ready bool) error {
	for range changeTries {
		c, there, err := information(ctx, s)
		if err != nil {
			return err
		}
		c.Spec.DatastoreReady = &ready
		write := s.Create
		if there {
			write = s.Update
		}
		if _, err = write(ctx, c); !errors.Is(err, datastore.ErrConflict) && !errors.Is(err, datastore.ErrExists) {
			return err
		}
	}
	return fmt.Errorf("write ClusterInformation %s: %w", clusterName, datastore.ErrConflict)
}

// export prints all objects of a store.
func (t *Tool) export() *cobra.Command {
	return t.Stored(&cobra.Command{
		Use: "export", Short: "Print all objects of a store that is locked, as manifests", Args: cobra.NoArgs,
		Long: `Print all objects of a store, of every kind and namespace, as import and apply take
them. The store must be locked, so that agents go on with the state that is printed.
Nothing is printed while an object cannot be used, or a change may yet be undone.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.With(cmd.Context(), t.exported)
		},
	})
}

func (t *Tool) exported(ctx context.Context, s datastore.Store) error {
	c, there, err := information(ctx, s)
	if err != nil {
		return err
	}
	if !there || c.Spec.DatastoreReady == nil || *c.Spec.DatastoreReady {
		fmt.Fprintln(t.Err, "the store is not locked: say margayctl datastore migrate lock first")
		return ErrTold
	}
	l, err := s.List(ctx, datastore.Scope{})
	if err != nil {
		return err
	}
	if !t.whole(l) {
		fmt.Fprintln(t.Err, "nothing is exported")
		return ErrTold
	}
	bare(l.Objects)
	separator := ""
	for _, o := range l.Objects {
		text, err := yaml.Marshal(o)
		if err == nil {
			_, err = fmt.Fprintf(t.Out, "%s%s", separator, text)
		}
		if err != nil {
			return fmt.Errorf("export %v: %w", datastore.KeyOf(o), err)
		}
		separator = "---\n"
	}
	return nil
}

// whole tells what keeps a listing from being all that a store is to hold.
func (t *Tool) whole(l *datastore.Listing) bool {
	ok := len(l.Refused) == 0
	for _, r := range l.Refused {
		fmt.Fprintf(t.Err, "%s cannot be used, mend or delete it: %v\n", r.Where, r.Err)
	}
	for _, o := range l.Objects {
		if key := datastore.KeyOf(o); key.Kind == v3.KindPendingChange {
			fmt.Fprintf(t.Err, "%v may be undone: confirm it, or wait\n", key)
			ok = false
		}
	}
	return ok
}

// imported is import.
func (t *Tool) imported() *cobra.Command {
	var m manifests
	cmd := t.Stored(&cobra.Command{
		Use: "import -f FILE", Short: "Fill a store that is empty with what export has printed", Args: cobra.NoArgs,
		Long: `Fill a store with what export has printed. It must be empty but for what agents have
said of their nodes and of the cluster. It is locked first, and stays so.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			documents, err := t.read(&m)
			if err != nil {
				return err
			}
			if err := t.judge(documents); err != nil {
				return err
			}
			return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error { return t.fill(ctx, s, documents) })
		},
	})
	m.flags(cmd)
	t.namespaced(cmd)
	return cmd
}

// fill writes objects into a store that has none.
func (t *Tool) fill(ctx context.Context, s datastore.Store, documents []document) error {
	l, err := s.List(ctx, datastore.Scope{})
	if err != nil {
		return err
	}
	for _, o := range l.Objects {
		if kind := datastore.KeyOf(o).Kind; kind != v3.KindNode && kind != v3.KindClusterInformation {
			fmt.Fprintf(t.Err, "the store is not empty: it has %v. Delete what is there, or have margayctl apply -f change it\n", datastore.KeyOf(o))
			return ErrTold
		}
	}
	if len(l.Refused) > 0 {
		fmt.Fprintf(t.Err, "the store is not empty: it has %s, which cannot be used: %v\n", l.Refused[0].Where, l.Refused[0].Err)
		return ErrTold
	}
	if err := setReady(ctx, s, false); err != nil {
		return err
	}
	y := t.tally("imported")
	for _, d := range documents {
		if c, ok := d.object.(*v3.ClusterInformation); ok {
			c.Spec.DatastoreReady = new(bool)
		}
		_, outcome, err := datastore.Apply(ctx, s, d.object)
		if y.told(datastore.KeyOf(d.object).Kind, d.name(), string(outcome), err); y.lost != nil {
			break
		}
	}
	return y.end(nil)
}
