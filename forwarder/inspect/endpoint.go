package inspect

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
)

// errEnded is what is answered when the plane cannot be looked at any more.
var errEnded = status.Error(codes.Unavailable, "the forwarder is ending, or another process has taken its work over: ask again")

// find is the endpoint that is meant by a name, or says which there are.
func find(s *desired.State, name string) (*desired.Endpoint, error) {
	switch found := s.Find(name); {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		var ids []string
		for _, e := range found {
			ids = append(ids, e.ID)
		}
		return nil, status.Errorf(codes.InvalidArgument, "endpoint %.64q may be any of %s: say more of its id", name, few(ids))
	case len(s.Endpoints) == 0:
		return nil, status.Errorf(codes.NotFound, "no endpoint is called %.64q: there is none at all", name)
	}
	ids := slices.Sorted(maps.Keys(s.Endpoints))
	return nil, status.Errorf(codes.NotFound, "no endpoint is called %.64q; there are %s", name, few(ids))
}

// few is the first of many names.
func few(names []string) string {
	const most = 20
	if n := len(names) - most; n > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ")
}

// judged is what judges an endpoint's packets now; nil where nothing does.
func judged(l *plane.Live, e *desired.Endpoint) *judge.Endpoint {
	by := l.Tables.State().Policy
	if i, ok := l.Ports[e.Port]; ok && int(i) < len(by) {
		return by[i]
	}
	return nil
}

// closed tells of an endpoint whose policy could not be put in force.
func closed(l *plane.Live, e *desired.Endpoint) bool {
	return e.Policy == desired.PolicyEnforced && judged(l, e) == nil
}

// held is how many flows an endpoint is charged with.
func held(l *plane.Live, e *desired.Endpoint) uint64 {
	if i, ok := l.Ports[e.Port]; ok {
		return uint64(l.Tables.Court.Flows.Held(uint32(i)))
	}
	return 0
}
