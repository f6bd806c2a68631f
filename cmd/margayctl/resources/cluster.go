package resources

import (
	"context"
	"errors"
	"io/fs"
	"os"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/etcd"
)

// ErrNoStore says that nobody has named a store, and that there is none on this
// machine.
var ErrNoStore = errors.New("no store is named, and this machine has none")

// clusterName is the name of the one ClusterInformation.
const clusterName = "default"

// Cluster is what the store says of the cluster: nothing where it does not say it.
// It fails with ErrNoStore where it would only wait for a store that nobody has.
func (t *Tool) Cluster(ctx context.Context) (cluster *v3.ClusterInformation, err error) {
	cfg, err := t.where.resolve(t.Env)
	if err != nil {
		return nil, err
	}
	if cfg.Folder == nil && len(cfg.Etcd.Endpoints) == 0 {
		if _, err := os.Lstat(etcd.DefaultSocket); errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoStore
		}
	}
	err = t.With(ctx, func(ctx context.Context, s datastore.Store) error {
		c, there, err := information(ctx, s)
		if there {
			cluster = c
		}
		return err
	})
	return cluster, err
}
