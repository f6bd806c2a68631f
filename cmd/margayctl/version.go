//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/cmd/margayctl/resources"
	"margay.dev/margay/internal/render"
	"margay.dev/margay/internal/version"
)

// versionWait is how long the store has to tell of the cluster, unless --timeout says
// otherwise: one that is away keeps nobody from seeing the rest.
const versionWait = 5 * time.Second

// versions is what there is to tell; what does not answer is nil.
type versions struct {
	forwarder *dataplanev1.Status
	cluster   *v3.ClusterInformation
	fault     error // why the store tells nothing of the cluster
}

func (c *ctl) version() *cobra.Command {
	t := c.objects()
	var client bool
	cmd := &cobra.Command{
		Use: "version", Short: "Versions of margayctl, of the forwarder that runs, and of the cluster", Args: cobra.NoArgs,
		Long: `Versions of margayctl and of this node's forwarder, and what the store's
ClusterInformation says of the cluster: the version of its programs, its type, and the
id that tells it from all others. What does not answer is left out.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var v versions
			if !client {
				v = c.askVersions(cmd.Context(), t)
			}
			if c.format != render.Text {
				return c.versionDocument(v)
			}
			fmt.Fprintln(c.out, version.Line("margayctl"))
			if client {
				return nil
			}
			return c.versionText(v)
		},
	}
	t.Placed(cmd, versionWait)
	cmd.Flags().BoolVar(&client, "client", false, "of margayctl alone")
	return cmd
}

// askVersions asks forwarder and store; what goes wrong is told.
func (c *ctl) askVersions(ctx context.Context, t *resources.Tool) (v versions) {
	err := c.ask(ctx, func(ctx context.Context, i inspect) (err error) {
		v.forwarder, err = i.GetStatus(ctx, &dataplanev1.StatusRequest{})
		return err
	})
	if err != nil && !errors.Is(err, errNoForwarder) {
		fmt.Fprintf(c.errOut, "margayctl: %v\n", err)
	}
	if v.cluster, v.fault = t.Cluster(ctx); v.fault != nil && !errors.Is(v.fault, resources.ErrNoStore) {
		fmt.Fprintf(c.errOut, "margayctl: %v\n", v.fault)
	}
	return v
}

// versionText prints a line of each of them.
func (c *ctl) versionText(v versions) (err error) {
	if v.forwarder == nil {
		_, err = fmt.Fprintln(c.out, "margay-forwarder: none answers")
	} else {
		_, err = fmt.Fprintf(c.out, "margay-forwarder %s (contract %d)\n", v.forwarder.GetVersion(), v.forwarder.GetContract())
	}
	if err != nil {
		return err
	}
	switch {
	case errors.Is(v.fault, resources.ErrNoStore):
		_, err = fmt.Fprintf(c.out, "cluster: %v\n", v.fault)
	case v.fault != nil:
		_, err = fmt.Fprintln(c.out, "cluster: the store does not tell")
	case v.cluster == nil:
		_, err = fmt.Fprintln(c.out, "cluster: the store has no ClusterInformation yet")
	default:
		s := v.cluster.Spec
		_, err = fmt.Fprintf(c.out, "cluster %s (type %s, id %s)\n",
			cmp.Or(s.CalicoVersion, "unknown"), cmp.Or(s.ClusterType, "unknown"), cmp.Or(s.ClusterGUID, "unknown"))
	}
	return err
}

// versionDocument prints all that there is; forwarder and cluster are null where none
// answers, or was asked.
func (c *ctl) versionDocument(v versions) error {
	var forwarder, cluster any
	if s := v.forwarder; s != nil {
		forwarder = map[string]any{"version": s.GetVersion(), "contract": s.GetContract()}
	}
	if v.cluster != nil {
		s := v.cluster.Spec
		cluster = map[string]any{"version": s.CalicoVersion, "type": s.ClusterType, "guid": s.ClusterGUID}
	}
	doc, err := structpb.NewStruct(map[string]any{
		"margayctl": map[string]any{"version": version.Version(), "commit": version.Commit(), "contract": uint32(version.Contract)},
		"forwarder": forwarder, "cluster": cluster,
	})
	if err != nil {
		return fmt.Errorf("write versions: %w", err)
	}
	return render.Document(c.out, c.format, doc)
}
