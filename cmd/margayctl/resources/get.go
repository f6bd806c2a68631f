package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/render"
)

// formats are the words of -o; the first is what is printed without one.
var formats = [...]string{"ps", "table", "wide", "yaml", "json", "name"}

// get shows objects.
func (t *Tool) get() *cobra.Command {
	var m manifests
	var output string
	var export bool
	cmd := t.Stored(&cobra.Command{
		Use: "get (KIND [NAME...] | -f FILE)", Short: "Show objects", ValidArgsFunction: complete,
		Long: `Objects of a kind, those with some names, or those that manifests name.

KIND is singular, plural or short, in any case: networkpolicy, NetworkPolicies, np.
-o yaml and json print what can be applied again; with --export without what the
store alone says of it. What is stored and cannot be used is told.`,
		Example: "  margayctl get tiers\n  margayctl get np -A -o wide\n  margayctl get gnp deny-all -o yaml --export",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(formats[:], output) {
				return fmt.Errorf("output format is %q, want ps, wide, yaml, json or name", output)
			}
			kinds, keys, err := t.wanted(&m, args)
			if err != nil {
				return err
			}
			return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error {
				objects, err := t.gather(ctx, s, kinds, keys)
				if export {
					bare(objects)
				}
				if err2 := t.print(objects, kinds, len(keys) == 1, output); err2 != nil {
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
	f.StringVarP(&output, "output", "o", formats[0], "ps (a table), wide, yaml, json or name")
	f.BoolVar(&export, "export", false, "without what the store alone says of objects")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats[:], cobra.ShellCompDirectiveNoFileComp))
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
		scope := datastore.Scope{Kind: k.Name}
		if k.Namespaced && !t.all {
			scope.Namespace = t.namespace
		}
		l, fault := s.List(ctx, scope)
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

// print writes objects; one that was named stands by itself, others in a list.
func (t *Tool) print(objects []v3.Object, kinds []v3.Kind, single bool, output string) error {
	switch output {
	case "yaml", "json":
		return t.document(objects, kinds, single, output == "yaml")
	case "name":
		for _, o := range objects {
			key := datastore.KeyOf(o)
			fmt.Fprintf(t.Out, "%s/%s\n", key.Kind, key.Name)
		}
		return nil
	}
	for i, k := range kinds {
		if i > 0 {
			fmt.Fprintln(t.Out)
		}
		heads, cells := columns(k, output == "wide")
		if k.Namespaced && t.all {
			heads = append([]string{"NAMESPACE"}, heads...)
		}
		table := render.NewTable(heads...)
		for _, o := range objects {
			if datastore.KeyOf(o).Kind != k.Name {
				continue
			}
			row := cells(o)
			if k.Namespaced && t.all {
				row = append([]string{o.GetNamespace()}, row...)
			}
			table.Row(row...)
		}
		if err := table.Write(t.Out); err != nil {
			return err
		}
	}
	return nil
}

// list is what several objects are printed as.
type list struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Items      []v3.Object `json:"items"`
}

// document writes objects as they can be applied again.
func (t *Tool) document(objects []v3.Object, kinds []v3.Kind, single, asYAML bool) error {
	var what any
	switch {
	case single && len(objects) == 0:
		return nil
	case single:
		what = objects[0]
	case len(kinds) == 1:
		what = list{v3.Group + "/" + v3.Version, kinds[0].Name + "List", append([]v3.Object{}, objects...)}
	default:
		what = list{"v1", "List", append([]v3.Object{}, objects...)}
	}
	text, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	text = append(text, '\n')
	if asYAML {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return fmt.Errorf("write objects: %w", err)
		}
	}
	_, err = t.Out.Write(text)
	return err
}
