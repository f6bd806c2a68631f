package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/pending"
	"margay.dev/margay/datastore"
)

// changeTries bounds how often a change is made anew because somebody else has
// changed the object meanwhile.
const changeTries = 8

// patch changes fields of one object.
func (t *Tool) patch() *cobra.Command {
	var text, kind string
	var within time.Duration
	cmd := t.Stored(&cobra.Command{
		Use: "patch KIND NAME -p PATCH", Short: "Change fields of an object", Args: cobra.RangeArgs(1, 2), ValidArgsFunction: t.complete(1),
		Long: `Change an object, by a patch in JSON or YAML.

strategic and merge give fields to it (RFC 7386): what is null is taken out, a list
takes the place of the whole list. They are the same, as for all kinds without rules
of their own. json is a list of operations (RFC 6902), which are made in their order,
all or none: add, remove, replace, move, copy, and test, which fails where a value is
another.` + confirmHelp,
		Example: `  margayctl patch tier platform -p '{"spec":{"order":50}}'
  margayctl patch np web -n shop -t json -p '[{"op":"add","path":"/spec/ingress/0","value":{"action":"Log"}}]'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			edit, err := readPatch(kind, text)
			if err != nil {
				return err
			}
			return t.change(cmd, args, within, "patched", func(o v3.Object) (v3.Object, error) { return patched(o, edit) })
		},
	})
	t.namespaced(cmd)
	confirmable(cmd, &within)
	cmd.Flags().StringVarP(&text, "patch", "p", "", "what to change, as JSON or YAML")
	cmd.Flags().StringVarP(&kind, "type", "t", "strategic", "strategic, merge or json")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"strategic", "merge", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// readPatch reads a patch of some type: what it makes of an object's fields.
func readPatch(kind, text string) (edit func(fields any) (any, error), err error) {
	switch kind {
	case "json":
		patch, err := readOperations(text)
		return patch.apply, err
	case "strategic", "merge":
		var patch map[string]any
		if err := yaml.Unmarshal([]byte(text), &patch); err != nil || patch == nil {
			return nil, fmt.Errorf("patch is %q, want an object of fields in JSON or YAML", text)
		}
		return func(fields any) (any, error) { return merge(fields.(map[string]any), patch), nil }, nil
	}
	return nil, fmt.Errorf("type of patch is %q, want strategic, merge or json", kind)
}

// change writes what a function makes of the one object that a command line names,
// and again if somebody else was quicker.
func (t *Tool) change(cmd *cobra.Command, args []string, within time.Duration, past string, to func(v3.Object) (v3.Object, error)) error {
	_, keys, err := t.target(args)
	if err == nil && len(keys) != 1 {
		err = fmt.Errorf("%d objects are named, want one: KIND NAME", len(keys))
	}
	if err != nil {
		return err
	}
	return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error {
		var change *pending.Change
		begin := sync.OnceValue(func() (err error) {
			change, err = t.begin(ctx, s, within, keys)
			return err
		})
		if err := t.rewrite(ctx, s, keys[0], to, begin); err != nil {
			return err
		}
		if err := change.Made(ctx); err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "%v %s\nSuccessfully %s 1 '%s' resource(s)\n", keys[0], past, past, keys[0].Kind)
		return nil
	})
}

// rewrite puts what a function makes of an object in its place. It calls begin before each
// time it writes: what cannot be made needs no undoing.
func (t *Tool) rewrite(ctx context.Context, s datastore.Store, key datastore.Key, to func(v3.Object) (v3.Object, error), begin func() error) error {
	for range changeTries {
		o, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		if o, err = to(o); err == nil {
			o, err = datastore.Admit(o)
		}
		if err != nil {
			fmt.Fprintln(t.Err, about(key.String(), err))
			return ErrTold
		}
		if err := begin(); err != nil {
			return err
		}
		if _, err = s.Update(ctx, o); !errors.Is(err, datastore.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("%v: %w", key, datastore.ErrConflict)
}

// patched is an object as a patch has it. It stays the same object.
func patched(o v3.Object, edit func(fields any) (any, error)) (v3.Object, error) {
	key := datastore.KeyOf(o)
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var fields any
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	if fields, err = edit(fields); err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	if text, err = json.Marshal(fields); err != nil {
		return nil, err
	}
	after, err := v3.DecodeJSON(text)
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	if got := datastore.KeyOf(after); got != key {
		return nil, fmt.Errorf("patch: it would become %v: a patch keeps kind, namespace and name", got)
	}
	return after, nil
}

// merge is RFC 7386: fields of the patch take the place of those in into.
func merge(into, patch map[string]any) map[string]any {
	if into == nil {
		into = make(map[string]any)
	}
	for name, value := range patch {
		switch v := value.(type) {
		case nil:
			delete(into, name)
		case map[string]any:
			inner, _ := into[name].(map[string]any)
			into[name] = merge(inner, v)
		default:
			into[name] = value
		}
	}
	return into
}

// label changes labels of one object.
func (t *Tool) label() *cobra.Command {
	var overwrite, remove bool
	var within time.Duration
	cmd := t.Stored(&cobra.Command{
		Use: "label KIND NAME KEY=VALUE...", Short: "Change labels of an object", Args: cobra.MinimumNArgs(3), ValidArgsFunction: t.complete(1),
		Long:    "Give labels to an object, or take them away. Policies pick endpoints by these." + confirmHelp,
		Example: "  margayctl label node node-1 rack=a --overwrite\n  margayctl label node node-1 rack --remove",
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.change(cmd, args[:2], within, "labelled", func(o v3.Object) (v3.Object, error) {
				labels := o.GetLabels()
				if labels == nil {
					labels = make(map[string]string)
				}
				for _, arg := range args[2:] {
					if err := relabel(labels, arg, overwrite, remove); err != nil {
						return nil, err
					}
				}
				o.SetLabels(labels)
				return o, nil
			})
		},
	})
	t.namespaced(cmd)
	confirmable(cmd, &within)
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "also labels that have another value")
	cmd.Flags().BoolVar(&remove, "remove", false, "take labels away: name them without values")
	return cmd
}

// relabel makes one change of labels.
func relabel(labels map[string]string, arg string, overwrite, remove bool) error {
	key, value, valued := strings.Cut(arg, "=")
	before, there := labels[key]
	switch {
	case remove && valued:
		return fmt.Errorf("label %q has a value: leave it out to take the label away", arg)
	case remove && !there:
		return fmt.Errorf("there is no label %q to take away", key)
	case remove:
		delete(labels, key)
	case !valued:
		return fmt.Errorf("label %q has no value: write KEY=VALUE", arg)
	case there && before != value && !overwrite:
		return fmt.Errorf("label %s is %q: say --overwrite to change it to %q", key, before, value)
	default:
		labels[key] = value
	}
	return nil
}
