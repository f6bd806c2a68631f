package resources

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// get shows objects.
func (t *Tool) get() *cobra.Command {
	var m manifests
	var output string
	var export bool
	cmd := t.Stored(&cobra.Command{
		Use: "get (KIND [NAME...] | -f FILE)", Short: "Show objects", ValidArgsFunction: t.complete(-1),
		Long: `Objects of a kind, those with some names, or those that manifests name.

KIND is singular, plural or short, in any case: networkpolicy, NetworkPolicies, np.
-o yaml and json print what can be applied again; with --export without what the
store alone says of it. -o custom-columns=NAME,ORDER is a table of these columns, of
those of -o wide. -o go-template=TEXT and go-template-file=FILE print what a template
of Go makes of a list: each object that is named, or one list for each kind, with its
objects in Items; join VALUES SEPARATOR is what there is beside Go's own functions.
What is stored and cannot be used is told.`,
		Example: `  margayctl get tiers
  margayctl get np -A -o wide
  margayctl get gnp deny-all -o yaml --export
  margayctl get nodes -o custom-columns=NAME,IPV4
  margayctl get gns -o go-template='{{range .}}{{range .Items}}{{.Name}} {{join .Spec.Nets " "}}{{"\n"}}{{end}}{{end}}'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			kinds, keys, err := t.wanted(&m, args)
			if err != nil {
				return err
			}
			f, err := readFormat(output, kinds)
			if err != nil {
				return err
			}
			return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error {
				objects, err := t.gather(ctx, s, kinds, keys)
				if export {
					bare(objects)
				}
				if err2 := t.print(f, listing{objects, kinds, len(keys)}); err2 != nil {
					return err2
				}
				return err
			})
		},
	})
	m.flags(cmd)
	t.namespaced(cmd)
	f := cmd.Flags()
	f.BoolVarP(&t.all, "all-namespaces", "A", false, "of all namespaces")
	f.StringVarP(&output, "output", "o", "ps", wantFormat)
	f.BoolVar(&export, "export", false, "without what the store alone says of objects")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return cmd
}

// wanted are the kinds, and the keys, that a command line or manifests name; no
// keys is all objects of the kinds.
func (t *Tool) wanted(m *manifests, args []string) (kinds []v3.Kind, keys []datastore.Key, err error) {
	switch {
	case len(args) > 0 && len(m.files) > 0:
		return nil, nil, errors.New("name objects, or manifests with -f, not both")
	case len(args) > 0:
		kind, keys, err := t.target(args)
		if len(keys) > 0 && t.all {
			return nil, nil, errors.New("an object is in one namespace: leave -A out, or the names")
		}
		return []v3.Kind{kind}, keys, err
	case len(m.files) == 0:
		return nil, nil, errors.New("say what to show: a kind as tiers, or manifests with -f")
	}
	documents, err := t.read(m)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range documents {
		if d.err != nil {
			return nil, nil, fmt.Errorf("%s: %w", d.where, d.err)
		}
		key := datastore.KeyOf(d.object)
		keys = append(keys, key)
		if kind, _ := v3.KindNamed(key.Kind); !slices.ContainsFunc(kinds, func(k v3.Kind) bool { return k.Name == kind.Name }) {
			kinds = append(kinds, kind)
		}
	}
	return kinds, keys, nil
}

// gather reads objects: what is not there, or cannot be used, is told and makes an
// error beside what is.
func (t *Tool) gather(ctx context.Context, s datastore.Store, kinds []v3.Kind, keys []datastore.Key) (objects []v3.Object, err error) {
	for _, key := range keys {
		switch o, fault := s.Get(ctx, key); {
		case errors.Is(fault, datastore.ErrUnavailable):
			return objects, fault
		case fault != nil:
			fmt.Fprintln(t.Err, about(key.String(), fault))
			err = ErrTold
		default:
			objects = append(objects, o)
		}
	}
	if len(keys) > 0 {
		return objects, err
	}
	for _, k := range kinds {
		l, fault := s.List(ctx, t.scope(k))
		if fault != nil {
			return objects, fault
		}
		objects = append(objects, l.Objects...)
		for _, r := range l.Refused {
			fmt.Fprintf(t.Err, "%s cannot be used: %v\n", r.Where, r.Err)
			err = ErrTold
		}
	}
	return objects, err
}

// scope is all of a kind that the command line asks for.
func (t *Tool) scope(k v3.Kind) datastore.Scope {
	scope := datastore.Scope{Kind: k.Name}
	if k.Namespaced && !t.all {
		scope.Namespace = t.namespace
	}
	return scope
}

// bare takes out of objects what the store alone says of them.
func bare(objects []v3.Object) {
	for i, o := range objects {
		o = o.DeepCopyObject().(v3.Object)
		o.SetUID("")
		o.SetResourceVersion("")
		o.SetGeneration(0)
		o.SetCreationTimestamp(metav1.Time{})
		o.SetManagedFields(nil)
		*o.Conditions() = nil
		objects[i] = o
	}
}
