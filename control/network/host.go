package network

import (
	"maps"
	"slices"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/guard"
)

// hostPrefix stands before the name of a host endpoint in the name of what stands for
// it in the dataplane; its port stands behind.
const hostPrefix = "host/"

// SetHosts says which host endpoint each uplink has, by the uplink's device: it judges
// what the node forwards there.
func (n *Network) SetHosts(byDevice map[string]string) {
	if !maps.Equal(n.hosts, byDevice) {
		n.hosts, n.dirty.hosts = maps.Clone(byDevice), true
	}
}

// JudgeHost says what judges that; nil: nothing yet, and nothing is forwarded.
func (n *Network) JudgeHost(name string, by *guard.Stages) {
	if n.dirty.hosts = true; by == nil {
		delete(n.hostStages, name)
	} else {
		n.hostStages[name] = by
	}
}

// host brings the host endpoints of uplinks up to date.
func (f *flush) host() {
	d := &f.out.Delta
	want := map[string]*v1.Endpoint{}
	for _, u := range f.local.Uplinks {
		name, has := f.hosts[u.Device]
		if !has {
			continue
		}
		e := &v1.Endpoint{Id: hostPrefix + name + "/" + u.Port, Port: u.Port, Host: true}
		if s := f.hostStages[name]; s != nil {
			s.Judge(e)
		}
		want[e.Id] = e
	}
	for _, id := range slices.Sorted(maps.Keys(f.toldHosts)) {
		if want[id] == nil {
			tell(f.toldHosts, id, nil, &d.Set.Endpoints, &d.RemovedEndpoints)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		tell(f.toldHosts, id, want[id], &d.Set.Endpoints, &d.RemovedEndpoints)
	}
}
