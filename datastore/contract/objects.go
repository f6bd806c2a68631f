package contract

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// manifests has an object of each kind of policy, as people write them.
const manifests = `
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 350}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: security.web, namespace: shop, labels: {a: b}, annotations: {note: "é\u2028</script>"}}
spec:
  tier: security
  order: 10.5
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: "app == 'front'", nets: [10.0.0.0/8]}, destination: {ports: [80, "8080:8090"]}}
  - {action: Deny, source: {nets: ["fd00::/8"]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: all}
spec: {selector: all(), types: [Egress], egress: [{action: Pass}]}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: later, namespace: shop}
spec: {selector: all(), ingress: [{action: Log}]}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: later}
spec: {stagedAction: Delete}
---
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: later, namespace: shop}
spec: {podSelector: {matchLabels: {a: b}}}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: s, namespace: shop}
spec: {nets: [10.1.0.0/16, "fd01::/32"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: s}
spec: {nets: [10.1.0.0/16, "fd01::/32"]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.shop}
spec: {labelsToApply: {c: d}, ingress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: node-1.eth0}
spec: {node: node-1, interfaceName: eth0, expectedIPs: [10.0.0.1, "fd00::1"]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: node--1-k8s-web-eth0, namespace: shop}
spec: {orchestrator: k8s, node: node-1, pod: web, endpoint: eth0, ipNetworks: [10.2.0.1/32, "fd02::1/128"]}
`

// same reports whether two objects say the same, apart from what a store adds.
func same(t *testing.T, a, b v3.Object) bool {
	var texts [2]string
	for i, o := range []v3.Object{a, b} {
		o, err := datastore.Admit(o)
		if err != nil {
			t.Fatal(err)
		}
		o.SetUID("")
		o.SetResourceVersion("")
		o.SetGeneration(0)
		o.SetCreationTimestamp(metav1.Time{})
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
	}
	return texts[0] == texts[1]
}

// everyKind writes an object of each kind and reads it by every way.
func everyKind(t *testing.T, s Subject) {
	ctx := background(t)
	objects := must[[]v3.Object](t)(v3.DecodeAll([]byte(manifests)))
	for _, o := range objects {
		before := o.DeepCopyObject()
		made := object(t)(s.Store.Create(ctx, o))
		if text, _ := json.Marshal(before); string(text) != string(must[[]byte](t)(json.Marshal(o))) {
			t.Errorf("creating has changed %s", text)
		}
		if made.GetUID() == "" || made.GetResourceVersion() == "" || made.GetGeneration() != 1 || time.Since(made.GetCreationTimestamp().Time) > time.Hour {
			t.Errorf("%v begins as %+v", datastore.KeyOf(o), made)
		}
		for _, got := range []v3.Object{made, object(t)(s.Store.Get(ctx, datastore.KeyOf(made))), object(t)(s.Other().Get(ctx, datastore.KeyOf(made)))} {
			if !same(t, o, got) || got.GetUID() != made.GetUID() || got.GetResourceVersion() != made.GetResourceVersion() {
				t.Errorf("%v has become %+v", datastore.KeyOf(o), got)
			}
			if kind := got.GetObjectKind().GroupVersionKind(); kind != v3.GroupVersion().WithKind(datastore.KeyOf(o).Kind) {
				t.Errorf("%v says that it is a %v", datastore.KeyOf(o), kind)
			}
		}
	}
	l := listing(t)(s.Store.List(ctx, datastore.Scope{}))
	if len(l.Objects) != len(objects) || len(l.Refused) != 0 || l.Store == "" {
		t.Errorf("%d objects are listed, and %v refused, of %q; want %d", len(l.Objects), l.Refused, l.Store, len(objects))
	}
	if !slices.IsSortedFunc(l.Objects, func(a, b v3.Object) int { return datastore.KeyOf(a).Compare(datastore.KeyOf(b)) }) {
		t.Error("the list is in no order")
	}
}

// noForgery creates what claims to have been there before.
func noForgery(t *testing.T, s Subject) {
	o := tier("a", 1)
	o.UID, o.Generation, o.ResourceVersion = "mine", 17, "999999"
	o.CreationTimestamp = metav1.NewTime(time.Unix(1, 0))
	o.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Forged", LastTransitionTime: metav1.NewTime(time.Unix(1, 0))}}
	made := object(t)(s.Store.Create(background(t), o)).(*v3.Tier)
	if made.UID == "mine" || made.Generation != 1 || made.ResourceVersion == "999999" || made.CreationTimestamp.Unix() == 1 || made.Status.Conditions != nil {
		t.Errorf("believed: %+v", made)
	}
}

// createAndUpdate changes an object as it may be changed, and as it may not.
func createAndUpdate(t *testing.T, s Subject) {
	ctx := background(t)
	if _, err := s.Store.Update(ctx, set("x", "a", 1)); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("replaced what is not there: %v", err)
	}
	made := object(t)(s.Store.Create(ctx, set("x", "a", 1)))
	if _, err := s.Store.Create(ctx, set("x", "a", 2)); !errors.Is(err, datastore.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	next := set("x", "a", 2)
	next.SetResourceVersion(made.GetResourceVersion())
	second := object(t)(s.Store.Update(ctx, next))
	if second.GetGeneration() != 2 || second.GetUID() != made.GetUID() || !second.GetCreationTimestamp().Time.Equal(made.GetCreationTimestamp().Time) || second.GetResourceVersion() == made.GetResourceVersion() {
		t.Errorf("%+v\nwas replaced by\n%+v", made, second)
	}
	next = set("x", "a", 3)
	next.SetResourceVersion(made.GetResourceVersion())
	if _, err := s.Other().Update(ctx, next); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("replaced what was not read: %v", err)
	}
	next.SetResourceVersion("")
	next.SetUID(types.UID("another"))
	if _, err := s.Store.Update(ctx, next); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("replaced another object of that name: %v", err)
	}
	labelled := set("x", "a", 2)
	labelled.Labels = map[string]string{"a": "b"}
	third := object(t)(s.Other().Update(ctx, labelled))
	if third.GetGeneration() != 2 || third.GetResourceVersion() == second.GetResourceVersion() || third.GetUID() != made.GetUID() {
		t.Errorf("a label made %+v of %+v", third, second)
	}
	if again := object(t)(s.Store.Update(ctx, third)); again.GetResourceVersion() != third.GetResourceVersion() {
		t.Errorf("writing the same again made version %s of %s", again.GetResourceVersion(), third.GetResourceVersion())
	}
}

// ready is a condition.
func ready(reason string) []metav1.Condition {
	return []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: reason, Message: reason + "\n\"x\"", LastTransitionTime: metav1.NewTime(time.Unix(1e9, 0).UTC())}}
}

// status writes what became of an object, beside those who write what it is to be.
func status(t *testing.T, s Subject) {
	ctx := background(t)
	made := object(t)(s.Store.Create(ctx, tier("a", 1))).(*v3.Tier)
	told := made.DeepCopy()
	told.Status.Conditions = ready("InForce")
	told.Spec.Order = new(float64)
	told.Labels = map[string]string{"a": "b"}
	after := object(t)(s.Store.UpdateStatus(ctx, told)).(*v3.Tier)
	if len(after.Status.Conditions) != 1 || *after.Spec.Order != 1 || after.Labels != nil || after.Generation != 1 || after.ResourceVersion == made.ResourceVersion {
		t.Errorf("the status of %+v\nwas written as\n%+v", made, after)
	}
	if _, err := s.Store.UpdateStatus(ctx, told); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("wrote status to what was not read: %v", err)
	}
	if again := object(t)(s.Store.UpdateStatus(ctx, after)); again.GetResourceVersion() != after.ResourceVersion {
		t.Errorf("the same status made version %s of %s", again.GetResourceVersion(), after.ResourceVersion)
	}
	next := tier("a", 2)
	next.Status.Conditions = ready("Forged")
	changed := object(t)(s.Other().Update(ctx, next)).(*v3.Tier)
	if changed.Generation != 2 || len(changed.Status.Conditions) != 1 || changed.Status.Conditions[0].Reason != "InForce" {
		t.Errorf("replacing it made %+v", changed)
	}
	changed.ResourceVersion = ""
	changed.Status.Conditions = nil
	if bare := object(t)(s.Store.UpdateStatus(ctx, changed)).(*v3.Tier); bare.Status.Conditions != nil {
		t.Errorf("its status is still %+v", bare.Status)
	}
	if _, err := s.Store.UpdateStatus(ctx, tier("b", 2)); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("wrote status to nothing: %v", err)
	}
}

// deletion deletes what may be deleted.
func deletion(t *testing.T, s Subject) {
	ctx := background(t)
	key := setKey("x", "a")
	made := object(t)(s.Store.Create(ctx, set("x", "a", 1)))
	for name, only := range map[string]datastore.Precondition{
		"another uid":     {UID: "another"},
		"another version": {UID: string(made.GetUID()), ResourceVersion: "1"},
	} {
		if err := s.Store.Delete(ctx, key, only); !errors.Is(err, datastore.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Store.Delete(ctx, key, datastore.Precondition{UID: string(made.GetUID()), ResourceVersion: made.GetResourceVersion()}); err != nil {
		t.Error(err)
	}
	if _, err := s.Other().Get(ctx, key); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	if err := s.Store.Delete(ctx, key, datastore.Precondition{}); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	again := object(t)(s.Store.Create(ctx, set("x", "a", 1)))
	if again.GetUID() == made.GetUID() {
		t.Error("what was made anew has the uid of what was deleted")
	}
	if err := s.Store.Delete(ctx, key, datastore.Precondition{}); err != nil {
		t.Error(err)
	}
}

// invalid writes what no store keeps.
func invalid(t *testing.T, s Subject) {
	ctx := background(t)
	long := set("x", "a", 1)
	for range 5 {
		long.Spec.Nets = append(long.Spec.Nets, strings.Repeat("0", 1<<18)+"10.0.0.0/8")
	}
	spaced := tier("a", 1)
	spaced.Namespace = "x"
	for name, o := range map[string]v3.Object{
		"no name":                      set("x", "", 1),
		"a name of nobody":             set("x", "A b", 1),
		"a path for a name":            set("x", "../../a", 1),
		"a path for a namespace":       set("../x", "a", 1),
		"an address that is none":      &v3.NetworkSet{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a"}, Spec: v3.NetworkSetSpec{Nets: []string{"10.0.0.0/33"}}},
		"a namespace that is too much": spaced,
		"more than a store takes":      long,
	} {
		_, create := s.Store.Create(ctx, o)
		_, update := s.Store.Update(ctx, o)
		if !errors.Is(create, datastore.ErrInvalid) || !errors.Is(update, datastore.ErrInvalid) {
			t.Errorf("%s: created: %v; replaced: %v", name, create, update)
		}
	}
	for _, key := range []datastore.Key{{}, {Kind: "Nothing", Name: "a"}, {Kind: v3.KindTier, Namespace: "x", Name: "a"}, {Kind: v3.KindNetworkSet, Name: "a"}, {Kind: v3.KindTier, Name: "../a"}} {
		if _, err := s.Store.Get(ctx, key); !errors.Is(err, datastore.ErrInvalid) {
			t.Errorf("got %v: %v", key, err)
		}
		if err := s.Store.Delete(ctx, key, datastore.Precondition{}); !errors.Is(err, datastore.ErrInvalid) {
			t.Errorf("deleted %v: %v", key, err)
		}
	}
	if l := listing(t)(s.Store.List(ctx, datastore.Scope{})); len(l.Objects)+len(l.Refused) != 0 {
		t.Errorf("something is left: %+v", l)
	}
}

// apply applies.
func apply(t *testing.T, s Subject) {
	ctx := background(t)
	stale := set("x", "a", 3)
	for i, step := range []struct {
		o    v3.Object
		want datastore.Outcome
	}{
		{set("x", "a", 1), datastore.Created},
		{set("x", "a", 1), datastore.Unchanged},
		{set("x", "a", 2), datastore.Configured},
	} {
		got, outcome, err := datastore.Apply(ctx, s.Store, step.o)
		if err != nil || outcome != step.want || !same(t, got, step.o) {
			t.Errorf("step %d: %s, %v, want %s", i, outcome, err, step.want)
		}
		if i == 0 {
			stale.SetResourceVersion(got.GetResourceVersion())
		}
	}
	if _, _, err := datastore.Apply(ctx, s.Store, stale); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("applied over what was not read: %v", err)
	}
	stale.SetName("b")
	if _, _, err := datastore.Apply(ctx, s.Store, stale); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("applied over what was deleted: %v", err)
	}
}

// scopes lists by kind and namespace.
func scopes(t *testing.T, s Subject) {
	ctx := background(t)
	for _, o := range []v3.Object{set("x", "a", 1), set("x", "b", 1), set("xy", "a", 1), tier("a", 1), tier("x", 1)} {
		object(t)(s.Store.Create(ctx, o))
	}
	for name, tt := range map[string]struct {
		scope datastore.Scope
		want  string
	}{
		"all":                          {datastore.Scope{}, "NetworkSet x/a, NetworkSet x/b, NetworkSet xy/a, Tier a, Tier x"},
		"a kind":                       {datastore.Scope{Kind: v3.KindNetworkSet}, "NetworkSet x/a, NetworkSet x/b, NetworkSet xy/a"},
		"a kind without namespaces":    {datastore.Scope{Kind: v3.KindTier}, "Tier a, Tier x"},
		"a namespace":                  {datastore.Scope{Namespace: "x"}, "NetworkSet x/a, NetworkSet x/b"},
		"a kind in a namespace":        {datastore.Scope{Kind: v3.KindNetworkSet, Namespace: "xy"}, "NetworkSet xy/a"},
		"no namespace of such a kind":  {datastore.Scope{Kind: v3.KindTier, Namespace: "x"}, ""},
		"a kind that nothing is of":    {datastore.Scope{Kind: v3.KindProfile}, ""},
		"a kind that is the beginning": {datastore.Scope{Kind: "Net"}, ""},
	} {
		var keys []string
		for _, o := range listing(t)(s.Store.List(ctx, tt.scope)).Objects {
			keys = append(keys, datastore.KeyOf(o).String())
		}
		if got := strings.Join(keys, ", "); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
