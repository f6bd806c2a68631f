package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// clusterType is what of ClusterInformation says who has made it.
const clusterType = "margay"

// key is that of what all of a cluster's agents know of it.
var key = datastore.Key{Kind: v3.KindClusterInformation, Name: v3.Default} // arch:var never changed

// Inform makes a cluster's information whole and gives it: the first agent creates it,
// with a new clusterGUID, or with guid where one is known; one that others have made
// gets what it lacks. Its version becomes this program's, unless that is "". Any
// number of agents may do so at once: they end with the same clusterGUID.
func Inform(ctx context.Context, store datastore.Store, guid, version string) (*v3.ClusterInformation, error) {
	for {
		o, err := store.Get(ctx, key)
		before, found := o.(*v3.ClusterInformation)
		if err != nil && !errors.Is(err, datastore.ErrNotFound) {
			return nil, fmt.Errorf("tell of the cluster: %w", err)
		}
		after := complete(before, guid, version)
		switch {
		case !found:
			o, err = store.Create(ctx, after)
		case reflect.DeepEqual(before.Spec, after.Spec):
			return before, nil
		default:
			o, err = store.Update(ctx, after)
		}
		switch {
		case err == nil:
			return o.(*v3.ClusterInformation), nil
		case ctx.Err() != nil, !errors.Is(err, datastore.ErrConflict) && !errors.Is(err, datastore.ErrExists) && !errors.Is(err, datastore.ErrNotFound):
			return nil, fmt.Errorf("tell of the cluster: %w", err)
		}
	}
}

// complete is the information with what it lacks; before is nil where there is none.
func complete(before *v3.ClusterInformation, guid, version string) *v3.ClusterInformation {
	after := &v3.ClusterInformation{}
	after.Name = v3.Default
	if before != nil {
		after = before.DeepCopy()
	} else {
		ready := true
		after.Spec.DatastoreReady, after.Spec.ClusterType = &ready, clusterType
	}
	if after.Spec.ClusterGUID == "" {
		after.Spec.ClusterGUID = guid
	}
	if after.Spec.ClusterGUID == "" {
		after.Spec.ClusterGUID = newGUID()
	}
	if version != "" {
		after.Spec.CalicoVersion = version
	}
	return after
}

// newGUID is random, of 128 bits, as Calico's are.
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, as it says
	return hex.EncodeToString(b[:])
}
