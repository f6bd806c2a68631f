//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/policies"
	"margay.dev/margay/internal/render"
)

// policyTime is how long policy may take to be in force.
const policyTime = 30 * time.Second

func (p *program) applyCommand() *cobra.Command {
	var paths []string
	c := &cobra.Command{
		Use:   "apply -f FILE|FOLDER|-",
		Short: "Put policy in force: resources of Calico and of Kubernetes",
		Long: `apply puts the objects of manifests in force, each in the place of the one of its
kind and name, and returns when every worker of every node judges by them. If
anything is wrong with any of them, all that is wrong is said, and nothing changes.

Kinds are those of projectcalico.org/v3, and of Kubernetes NetworkPolicy,
ClusterNetworkPolicy, Namespace and ServiceAccount. Pods come from the topology,
with the namespace and the labels that it gives them.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			more, err := readAll(paths)
			if err != nil {
				return err
			}
			return p.police(c, more, "applied", func(m policies.Manifests) (policies.Manifests, error) { return m.With(more), nil })
		},
	}
	addFiles(c, &paths)
	_ = c.MarkFlagRequired("filename") // it is there
	return c
}

func (p *program) deleteCommand() *cobra.Command {
	var paths []string
	c := &cobra.Command{
		Use:   "delete -f FILE|FOLDER|- | KIND [NAMESPACE/]NAME",
		Short: "Take policy back that was applied",
		Args: func(c *cobra.Command, args []string) error {
			if named := len(args) == 2; len(args) != 0 && !named || named == (len(paths) > 0) {
				return errors.New("want -f with the manifests to take back, or a kind and a name, as: margay-lab delete NetworkPolicy shop/web")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			gone, err := readAll(paths)
			if err != nil {
				return err
			}
			return p.with(func(l *lab.Lab) error {
				if len(args) == 2 {
					m, err := l.Policies()
					if err == nil {
						gone, err = m.Find(args[0], args[1])
					}
					if err != nil {
						return err
					}
				}
				return p.policeLab(c, l, gone, "deleted", func(m policies.Manifests) (policies.Manifests, error) { return m.Without(gone) })
			})
		},
	}
	addFiles(c, &paths)
	return c
}

func addFiles(c *cobra.Command, paths *[]string) {
	c.Flags().StringArrayVarP(paths, "filename", "f", nil, "manifest, folder of manifests, or - for the input; may be given several times")
}

// readAll reads manifests; an object that is in two of them is a fault.
func readAll(paths []string) (out policies.Manifests, err error) {
	var faults []error
	for _, path := range paths {
		var m policies.Manifests
		if path == "-" {
			var b []byte
			if b, err = io.ReadAll(os.Stdin); err == nil {
				m, err = policies.Read(b)
			}
		} else {
			m, err = policies.ReadPath(path)
		}
		if err == nil {
			out, err = out.Add(m)
		}
		if err != nil {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if len(paths) > 0 && len(out) == 0 {
		return nil, errors.New("there is no object in what -f names")
	}
	return out, nil
}

// police changes the policy of the lab that is meant.
func (p *program) police(c *cobra.Command, about policies.Manifests, done string, change func(policies.Manifests) (policies.Manifests, error)) error {
	return p.with(func(l *lab.Lab) error { return p.policeLab(c, l, about, done, change) })
}

func (p *program) policeLab(c *cobra.Command, l *lab.Lab, about policies.Manifests, done string, change func(policies.Manifests) (policies.Manifests, error)) error {
	ctx, cancel := contextWithin(c.Context(), policyTime, "not every node judged by the policy")
	defer cancel()
	if err := l.Police(ctx, change); err != nil {
		return err
	}
	for _, m := range about {
		fmt.Fprintf(p.out, "%v %s\n", m, done)
	}
	for _, n := range l.Topology().Nodes {
		if !l.Running(n.Name) {
			fmt.Fprintf(p.errOut, "the forwarder of node %s does not run: it judges so from its start\n", n.Name)
		}
	}
	return nil
}

func (p *program) policiesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "policies",
		Short: "What is in force; with -o yaml as manifests, to apply them again",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return p.with(func(l *lab.Lab) error {
				m, err := l.Policies()
				if err != nil {
					return err
				}
				return p.showPolicies(m)
			})
		},
	}
}

func (p *program) showPolicies(m policies.Manifests) error {
	switch {
	case p.format == render.YAML:
		b, err := m.YAML()
		if err == nil {
			_, err = p.out.Write(b)
		}
		return err
	case p.format != render.Text:
		return p.document(m.Objects())
	case len(m) == 0:
		_, err := fmt.Fprintln(p.out, "nothing was applied: every pod may send and be sent everything")
		return err
	}
	t := render.NewTable("KIND", "NAMESPACE", "NAME", "API")
	for _, one := range m {
		t.Row(one.Kind, one.Namespace, one.Name, one.APIVersion)
	}
	return t.Write(p.out)
}
