package resources

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/internal/render"
)

// node is the command for the machines of the cluster.
func (t *Tool) node() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "The machines of the cluster", Args: cobra.NoArgs}
	t.alone(cmd)
	cmd.AddCommand(t.Stored(&cobra.Command{
		Use: "status", Short: "Addresses of nodes, and what their agents say of them", Args: cobra.NoArgs,
		Long: `Nodes as they have registered themselves: the addresses by which others reach
them, and each condition that their agents have told, with its age.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.With(cmd.Context(), func(ctx context.Context, s datastore.Store) error {
				objects, err := t.gather(ctx, s, []v3.Kind{{Name: v3.KindNode}}, nil)
				if err != nil && objects == nil {
					return err
				}
				if err2 := t.nodes(objects); err2 != nil {
					return err2
				}
				return err
			})
		},
	}))
	return cmd
}

// nodes prints the table of node status.
func (t *Tool) nodes(objects []v3.Object) error {
	table := render.NewTable("NAME", "IPV4", "IPV6", "CONDITION", "STATUS", ">AGE", "REASON", "MESSAGE")
	for _, o := range objects {
		n := o.(*v3.Node)
		cells := []string{n.Name, address(n, false), address(n, true)}
		if len(n.Status.Conditions) == 0 {
			table.Row(cells...)
		}
		for i, c := range n.Status.Conditions {
			age := render.Duration(t.Now().Sub(c.LastTransitionTime.Time).Truncate(time.Second))
			row := append(cells, c.Type, string(c.Status), age, c.Reason, c.Message)
			if i == 0 {
				table.Row(row...)
				continue
			}
			row[0], row[1], row[2] = "", "", ""
			table.Continue(row...)
		}
	}
	return table.Write(t.Out)
}
