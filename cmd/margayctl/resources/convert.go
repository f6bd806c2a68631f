package resources

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/policy/kubernetes"
)

// convert turns objects of Kubernetes into ours.
func (t *Tool) convert() *cobra.Command {
	var m manifests
	var output string
	cmd := &cobra.Command{
		Use: "convert -f FILE", Short: "Turn policies and namespaces of Kubernetes into resources of projectcalico.org/v3", Args: cobra.NoArgs,
		Long: `Print what manifests of Kubernetes mean as resources of projectcalico.org/v3, so
that they can be applied to a store: NetworkPolicy, ClusterNetworkPolicy,
Namespace and ServiceAccount, as profiles. Resources of projectcalico.org/v3 are printed as they
are, with what they leave out filled in. What of a rule cannot be converted is told,
with what stands in its place.`,
		RunE: func(*cobra.Command, []string) error {
			if output != "yaml" && output != "json" {
				return fmt.Errorf("output format is %q, want yaml or json", output)
			}
			documents, err := t.read(&m)
			if err != nil {
				return err
			}
			return t.converted(documents, output == "yaml")
		},
	}
	t.alone(cmd)
	m.flags(cmd)
	t.namespaced(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "yaml", "yaml or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"yaml", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// converted prints what documents mean, and tells which mean nothing.
func (t *Tool) converted(documents []document, asYAML bool) error {
	failed, printed := false, 0
	for _, d := range documents {
		o, warnings, err := t.meant(d)
		for _, w := range warnings {
			fmt.Fprintf(t.Err, "%s: %v\n", d.where, w)
		}
		if err == nil {
			t.place(o)
			o, err = datastore.Admit(o)
		}
		if err != nil {
			failed = true
			fmt.Fprintf(t.Err, "%s: %v\n", d.where, err)
			continue
		}
		text, err := json.MarshalIndent(o, "", "  ")
		if err != nil {
			return fmt.Errorf("write %s: %w", d.where, err)
		}
		text = append(text, '\n')
		if asYAML {
			if text, err = yaml.JSONToYAML(text); err != nil {
				return fmt.Errorf("write %s: %w", d.where, err)
			}
			if printed > 0 {
				fmt.Fprintln(t.Out, "---")
			}
		}
		printed++
		if _, err := t.Out.Write(text); err != nil {
			return err
		}
	}
	if failed {
		return ErrTold
	}
	return nil
}

// meant is the object that a document means, and what of it could not be said.
func (t *Tool) meant(d document) (v3.Object, []kubernetes.Warning, error) {
	var is metav1.TypeMeta
	if err := json.Unmarshal(d.text, &is); err != nil {
		return nil, nil, err
	}
	switch is.APIVersion + " " + is.Kind {
	case "networking.k8s.io/v1 NetworkPolicy":
		return meaning(d.text, t.namespace, kubernetes.NetworkPolicy)
	case "policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy":
		return meaning(d.text, "", kubernetes.ClusterNetworkPolicy)
	case "v1 Namespace":
		return meaning(d.text, "", func(space *corev1.Namespace) (*v3.Profile, []kubernetes.Warning, error) {
			metav1.SetMetaDataLabel(&space.ObjectMeta, corev1.LabelMetadataName, space.Name) // a cluster gives it to each
			return kubernetes.NamespaceProfile(space), nil, nil
		})
	case "v1 ServiceAccount":
		return meaning(d.text, t.namespace, func(account *corev1.ServiceAccount) (*v3.Profile, []kubernetes.Warning, error) {
			return kubernetes.ServiceAccountProfile(account), nil, nil
		})
	}
	if d.object != nil || is.APIVersion == v3.Group+"/"+v3.Version {
		return d.object, nil, d.err
	}
	return nil, nil, fmt.Errorf("%s %s cannot be converted: want a NetworkPolicy, ClusterNetworkPolicy, Namespace or ServiceAccount", is.APIVersion, is.Kind)
}

// meaning reads an object of Kubernetes strictly, and converts it.
func meaning[T any, PT interface {
	*T
	metav1.Object
}, O v3.Object](text []byte, namespace string, to func(PT) (O, []kubernetes.Warning, error)) (v3.Object, []kubernetes.Warning, error) {
	from := PT(new(T))
	if err := yaml.UnmarshalStrict(text, from); err != nil {
		return nil, nil, err
	}
	if from.GetNamespace() == "" {
		from.SetNamespace(namespace)
	}
	o, warnings, err := to(from)
	if err != nil {
		return nil, warnings, err
	}
	return o, warnings, nil
}
