package resources

import (
	"context"
	"fmt"
	"slices"
	"strings"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// tiersLast are keys with those of tiers behind all others, so that policies that go
// with their tier go before it.
func tiersLast(keys []datastore.Key) []datastore.Key {
	out := slices.Clone(keys)
	slices.SortStableFunc(out, func(a, b datastore.Key) int {
		switch tier := (b.Kind == v3.KindTier); {
		case (a.Kind == v3.KindTier) == tier:
			return 0
		case tier:
			return -1
		}
		return 1
	})
	return out
}

// maxNamed is how many policies a message names.
const maxNamed = 3

// vacant fails for a tier that has policies. Without it they would be asked after all
// other tiers, and what they deny might be allowed before.
func vacant(ctx context.Context, s datastore.Store, key datastore.Key) error {
	builtIn := []string{v3.TierKubeAdmin, v3.TierDefault, v3.TierKubeBaseline} // and there without an object, too
	if key.Kind != v3.KindTier || slices.Contains(builtIn, key.Name) {
		return nil
	}
	var names []string
	for _, kind := range []string{v3.KindNetworkPolicy, v3.KindGlobalNetworkPolicy, v3.KindStagedNetworkPolicy, v3.KindStagedGlobalNetworkPolicy} {
		l, err := s.List(ctx, datastore.Scope{Kind: kind})
		if err != nil {
			return err
		}
		for _, o := range l.Objects {
			if tierOf(o) == key.Name {
				names = append(names, datastore.KeyOf(o).String())
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	text := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("%v has policies, which would be asked after all others without it: delete %s first", key, text)
}

// tierOf is the tier of a policy.
func tierOf(o v3.Object) string {
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		return o.Spec.Tier
	case *v3.GlobalNetworkPolicy:
		return o.Spec.Tier
	case *v3.StagedNetworkPolicy:
		return o.Spec.Tier
	case *v3.StagedGlobalNetworkPolicy:
		return o.Spec.Tier
	}
	return ""
}
