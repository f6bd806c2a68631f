package resources

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/pending"
	"margay.dev/margay/datastore"
)

// verb is what is said of create, apply and replace.
type verb struct {
	short, past string
	do          func(ctx context.Context, s datastore.Store, o v3.Object) (outcome string, err error)
}

// verbs are the ways to write an object.
func verbs() map[string]verb {
	return map[string]verb{
		"create": {"Add objects that are not there yet", "created", func(ctx context.Context, s datastore.Store, o v3.Object) (string, error) {
			_, err := s.Create(ctx, o)
			return "created", err
		}},
		"apply": {"Create objects, or change them to what manifests say", "applied", func(ctx context.Context, s datastore.Store, o v3.Object) (string, error) {
			_, outcome, err := datastore.Apply(ctx, s, o)
			return string(outcome), err
		}},
		"replace": {"Change objects that are there to what manifests say", "replaced", func(ctx context.Context, s datastore.Store, o v3.Object) (string, error) {
			_, err := s.Update(ctx, o)
			return "replaced", err
		}},
	}
}

// write is create, apply or replace.
func (t *Tool) write(name string) *cobra.Command {
	v := verbs()[name]
	var m manifests
	var within time.Duration
	var skip bool
	cmd := t.Stored(&cobra.Command{
		Use: name + " -f FILE", Short: v.short, Args: cobra.NoArgs,
		Long: v.short + `.

Manifests are YAML or JSON, with any number of objects, of the group
projectcalico.org/v3. All are judged before the first is written: if one is
wrong, nothing is. What the store then refuses is told, and the rest goes on.` + confirmHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			documents, err := t.read(&m)
			if err != nil {
				return err
			}
			if err := t.judge(documents); err != nil {
				return err
			}
			return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error {
				change, err := t.begin(ctx, s, within, keysOf(documents))
				if err != nil {
					return err
				}
				y := t.tally(v.past)
				for _, d := range documents {
					var outcome string
					err := change.Pending(ctx)
					if err == nil {
						outcome, err = v.do(ctx, s, d.object)
					}
					if skip && errors.Is(err, datastore.ErrExists) {
						fmt.Fprintf(t.Out, "%s is there already\n", d.name())
						continue
					}
					if y.told(datastore.KeyOf(d.object).Kind, d.name(), outcome, err); y.lost != nil {
						break
					}
				}
				return y.end(change.Made(ctx))
			})
		},
	})
	m.flags(cmd)
	t.namespaced(cmd)
	confirmable(cmd, &within)
	if name == "create" {
		cmd.Flags().BoolVar(&skip, "skip-exists", false, "what is there already is no error")
	}
	return cmd
}

// judge tells what is wrong with any document, and fails if anything is. It also
// tells what is right and may surprise.
func (t *Tool) judge(documents []document) error {
	wrong := 0
	seen := make(map[datastore.Key]string)
	for _, d := range documents {
		err := d.err
		if err == nil {
			_, err = datastore.Admit(d.object)
		}
		if err == nil {
			key := datastore.KeyOf(d.object)
			if before, ok := seen[key]; ok {
				err = fmt.Errorf("it is there twice: in %s, and in %s", before, d.where)
			}
			seen[key] = d.where
		}
		if err != nil {
			wrong++
			fmt.Fprintln(t.Err, about(d.name(), err))
			continue
		}
		for _, c := range caveats(d.object) {
			fmt.Fprintf(t.Err, "%s: note: %s\n", d.name(), c)
		}
	}
	if wrong > 0 {
		fmt.Fprintf(t.Err, "%d of %d objects are wrong; nothing was changed\n", wrong, len(documents))
		return ErrTold
	}
	return nil
}

func keysOf(documents []document) (keys []datastore.Key) {
	for _, d := range documents {
		keys = append(keys, datastore.KeyOf(d.object))
	}
	return keys
}

// remove is delete.
func (t *Tool) remove() *cobra.Command {
	var m manifests
	var within time.Duration
	var skip bool
	cmd := t.Stored(&cobra.Command{
		Use: "delete (-f FILE | KIND NAME...)", Short: "Delete objects", ValidArgsFunction: t.complete(-1),
		Long:    "Delete objects that manifests or the command line name. Of manifests only kind,\nnamespace and name count." + confirmHelp,
		Example: "  margayctl delete networkpolicy web -n shop\n  margayctl delete -f policies/",
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := t.doomed(&m, args)
			if err != nil {
				return err
			}
			return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error {
				change, err := t.begin(ctx, s, within, keys)
				if err != nil {
					return err
				}
				y := t.tally("deleted")
				for _, key := range tiersLast(keys) {
					err := change.Pending(ctx)
					if err == nil {
						err = vacant(ctx, s, key)
					}
					if err == nil {
						err = s.Delete(ctx, key, datastore.Precondition{})
					}
					if skip && errors.Is(err, datastore.ErrNotFound) {
						fmt.Fprintf(t.Out, "%v is not there\n", key)
						continue
					}
					if y.told(key.Kind, key.String(), "deleted", err); y.lost != nil {
						break
					}
				}
				return y.end(change.Made(ctx))
			})
		},
	})
	m.flags(cmd)
	t.namespaced(cmd)
	confirmable(cmd, &within)
	cmd.Flags().BoolVarP(&skip, "skip-not-exists", "s", false, "what is not there is no error")
	return cmd
}

// doomed are the keys of what is to be deleted.
func (t *Tool) doomed(m *manifests, args []string) ([]datastore.Key, error) {
	switch {
	case len(args) > 0 && len(m.files) > 0:
		return nil, errors.New("name objects, or manifests with -f, not both")
	case len(args) > 0:
		_, keys, err := t.target(args)
		if err == nil && len(keys) == 0 {
			err = fmt.Errorf("name what of kind %s to delete", args[0])
		}
		return keys, err
	}
	documents, err := t.read(m)
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		if d.err != nil {
			return nil, fmt.Errorf("%s: %w", d.where, d.err)
		}
	}
	return keysOf(documents), nil
}

// validate judges manifests without a store.
func (t *Tool) validate() *cobra.Command {
	var m manifests
	cmd := &cobra.Command{
		Use: "validate -f FILE", Short: "Say what is wrong with manifests, without a store", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			documents, err := t.read(&m)
			if err != nil {
				return err
			}
			if err := t.judge(documents); err != nil {
				return err
			}
			fmt.Fprintf(t.Out, "%d objects are valid\n", len(documents))
			return nil
		},
	}
	t.alone(cmd)
	m.flags(cmd)
	t.namespaced(cmd)
	return cmd
}

// confirmHelp says what --confirm-within does.
const confirmHelp = `

With --confirm-within the agents undo the change after that time, unless
margayctl confirm was called: who locks himself out is let in again.`

// confirmable gives a command the flag for changes that must be confirmed.
func confirmable(cmd *cobra.Command, within *time.Duration) {
	cmd.Flags().DurationVar(within, "confirm-within", 0, "undo the change after so long, a second to a day, unless it is confirmed")
}

// begin writes down how to undo a change that must be confirmed; one that need not
// be is nil.
func (t *Tool) begin(ctx context.Context, s datastore.Store, within time.Duration, keys []datastore.Key) (*pending.Change, error) {
	if within == 0 || len(keys) == 0 {
		return nil, nil
	}
	name := "change-" + t.Now().UTC().Format("20060102-150405.000")
	change, err := pending.Begin(ctx, s, name, within, keys)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(t.Out, "%s is undone in %v, unless you say: margayctl confirm %s\n", name, within, name)
	return change, nil
}

// confirm has a change stand.
func (t *Tool) confirm() *cobra.Command {
	return t.Stored(&cobra.Command{
		Use: "confirm [CHANGE]", Short: "Keep a change that was made with --confirm-within", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var name string
			if len(args) > 0 {
				name = args[0]
			}
			return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error {
				name, err := pending.Confirm(ctx, s, name)
				if err == nil {
					fmt.Fprintf(t.Out, "%s stands\n", name)
				}
				return err
			})
		},
	})
}
