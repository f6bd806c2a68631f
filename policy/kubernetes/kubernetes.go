// Package kubernetes turns what a Kubernetes cluster says of pods and of who may
// reach them into the resources of api/v3, which policy is calculated from.
//
//	NetworkPolicy                  NetworkPolicy of tier default, order 1000
//	StagedKubernetesNetworkPolicy  StagedNetworkPolicy, likewise
//	ClusterNetworkPolicy           GlobalNetworkPolicy of tier kube-admin or
//	                               kube-baseline, order its priority
//	Namespace, ServiceAccount      Profile, with labels that pods inherit
//	Pod                            WorkloadEndpoint
//
// A policy that was converted keeps its name and is told from policies of the same
// name by its Kind, which is one of those below and of no API: kind, namespace and
// name together identify a policy, and break ties of order.
//
// What a cluster's API server would have refused is met all the same, since it may
// have been an older one. A policy that does not say whom it is for is refused. Of
// any other, what cannot be converted never opens anything: a rule that allows is
// left out, one that denies or passes denies everything, and a Warning says so.
// What is converted keeps to none of the limits that api/v3 sets to the length of
// lists and selectors, because Kubernetes has others: it is not for validation. A
// policy's rules share lists, and nobody may write to them.
package kubernetes

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The kinds of policies that were converted. A staged one keeps the kind that
// api/v3 gives it.
const (
	KindNetworkPolicy        = "KubernetesNetworkPolicy"
	KindClusterNetworkPolicy = "KubernetesClusterNetworkPolicy"
)

// Order is the place in tier default of every Kubernetes NetworkPolicy.
const Order = 1000.0

// Warning is a part of an object that could not be converted.
type Warning struct {
	Path    string // the part, as spec.ingress[2]
	Instead string // what is in its place, as "is left out"
	Cause   error  // what was wrong, and what it should be
}

// What is in the place of a part that could not be converted.
const (
	leftOut   = "is left out"
	deniesAll = "denies everything"
)

// Error says all of it.
func (w Warning) Error() string { return fmt.Sprintf("%s %s: %v", w.Path, w.Instead, w.Cause) }

// Unwrap is the cause.
func (w Warning) Unwrap() error { return w.Cause }

// derivedMeta is the metadata of what was made from an object: the name is its own,
// and the UID another than the object's, since what is made is not the object.
func derivedMeta(of *metav1.ObjectMeta, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:              name,
		Namespace:         of.Namespace,
		UID:               derivedUID(of.UID),
		ResourceVersion:   of.ResourceVersion,
		CreationTimestamp: of.CreationTimestamp,
	}
}

// derivedUID gives a UUID another, and of that one the first again: each digit is
// taken from 15, but for the two that say which kind of UUID it is. Of what is no
// UUID it makes none.
func derivedUID(uid types.UID) types.UID {
	const form = "xxxxxxxx-xxxx-vxxx-vxxx-xxxxxxxxxxxx"
	if len(uid) != len(form) {
		return ""
	}
	out := []byte(strings.ToLower(string(uid)))
	for i := range out {
		digit := strings.IndexByte("0123456789abcdef", out[i])
		switch {
		case form[i] == '-' && out[i] != '-', form[i] != '-' && digit < 0:
			return ""
		case form[i] == 'x':
			out[i] = "fedcba9876543210"[digit]
		}
	}
	return types.UID(out)
}
