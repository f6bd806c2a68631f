package converge

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/api/v3/fabric"
	fields "margay.dev/margay/api/v3/felix"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/felix"
	"margay.dev/margay/control/network"
	"margay.dev/margay/datastore"
	"margay.dev/margay/policy"
	"margay.dev/margay/policy/kubernetes"
)

// world is what a store has told.
type world struct {
	objects map[datastore.Key]v3.Object
	kinds   map[string]int // how many of them are of each kind
	pools   map[string]netip.Prefix
	felix   map[string]*v3.FelixConfiguration
	own     map[datastore.Key]struct{} // host endpoints of this node
	ready   bool                       // the cluster's information does not say that the store is being mended
}

func newWorld() world {
	return world{objects: map[datastore.Key]v3.Object{}, kinds: map[string]int{}, pools: map[string]netip.Prefix{}, felix: map[string]*v3.FelixConfiguration{}, own: map[datastore.Key]struct{}{}, ready: true}
}

// upsert takes an object as it is now. One of which nothing has changed but what is
// reported of it changes nothing.
func (c *Core) upsert(key datastore.Key, o v3.Object) {
	old, had := c.objects[key]
	if c.objects[key] = o; !had {
		c.kinds[key.Kind]++
	}
	c.notes.refuse(key, nil)
	if had && old.GetUID() != o.GetUID() {
		c.notes.unreport(key)
	}
	if had && old.GetUID() == o.GetUID() && old.GetGeneration() == o.GetGeneration() && o.GetGeneration() > 0 && maps.Equal(old.GetLabels(), o.GetLabels()) {
		return
	}
	c.notes.read(key, nil)
	c.feed(key, o)
	c.dirty = true
}

// remove takes that there is no such object any more.
func (c *Core) remove(key datastore.Key) {
	if _, had := c.objects[key]; had {
		delete(c.objects, key)
		if c.kinds[key.Kind]--; c.kinds[key.Kind] == 0 {
			delete(c.kinds, key.Kind)
		}
	}
	c.notes.forget(key)
	c.dirty = true
	switch key.Kind {
	case v3.KindNode:
		c.network.RemoveNode(key.Name)
	case v3.KindIPPool:
		delete(c.pools, key.Name)
		c.setPools()
	case v3.KindFelixConfiguration:
		delete(c.felix, key.Name)
		c.reset()
	case v3.KindClusterInformation:
		c.ready = true
	case v3.KindWorkloadEndpoint:
		c.network.RemoveWorkload(attach.Key{Namespace: key.Namespace, Name: key.Name})
		c.guard.Delete(policy.Key(key))
	case v3.KindHostEndpoint:
		delete(c.own, key)
		c.hosts.Delete(key.Name)
		c.guard.Delete(policy.Key(key))
	case v3.KindProfile:
		c.guard.Delete(policy.Key(key))
		c.feedDefaultAllow()
	case v3.KindNetworkSet, v3.KindGlobalNetworkSet:
		c.guard.Delete(policy.Key(key))
		c.notes.place(key, "")
	default:
		c.guard.Delete(policy.Key(key))
	}
}

// refusing takes that an object cannot be used. What it was before stays in force.
func (c *Core) refusing(e *datastore.Event) {
	c.Log.Warn("an object cannot be used; if there was a former version of it, that stays in force", "object", e.Key, "where", e.Where, "error", e.Err)
	if e.Key != (datastore.Key{}) {
		c.notes.refuse(e.Key, []string{e.Err.Error()})
		c.dirty = true
	}
}

// feedAll tells guard and network of everything.
func (c *Core) feedAll() {
	c.feedDefaultAllow()
	for key, o := range c.objects {
		c.feed(key, o)
	}
	c.setPools()
}

// feed tells guard and network of an object.
func (c *Core) feed(key datastore.Key, o v3.Object) {
	switch o := o.(type) {
	case *v3.Node:
		if key.Name == c.Node {
			c.reset() // its labels say which settings hold
		}
		c.network.PutNode(key.Name, Addresses(&o.Spec))
	case *v3.IPPool:
		p, err := v3.ParseNet(o.Spec.CIDR) // one that a forwarder takes
		if err != nil || slices.Equal(o.Spec.AllowedUses, []fabric.PoolUse{fabric.UseLoadBalancer}) {
			delete(c.pools, key.Name)
		} else {
			c.pools[key.Name] = p
		}
		c.setPools()
	case *v3.FelixConfiguration:
		c.felix[key.Name] = o
		c.reset()
	case *v3.ClusterInformation:
		if key.Name == v3.Default {
			c.setReady(o.Spec.DatastoreReady == nil || *o.Spec.DatastoreReady)
		}
	case *v3.StagedKubernetesNetworkPolicy:
		converted, warnings, err := kubernetes.StagedNetworkPolicy(o)
		if err == nil {
			err = c.guard.Upsert(converted)
		}
		c.noteConversion(key, warnings, err)
	case *v3.PendingChange: // package pending heeds it
	case *v3.HostEndpoint:
		if delete(c.own, key); o.Spec.Node == c.Node {
			c.own[key] = struct{}{}
		}
		c.hosts.Put(key.Name, &o.Spec)
		c.feedPolicy(key, o)
	case *v3.WorkloadEndpoint:
		c.network.PutWorkload(attach.Key{Namespace: key.Namespace, Name: key.Name}, workloadOf(o))
		c.feedPolicy(key, o)
	case *v3.NetworkSet, *v3.GlobalNetworkSet:
		c.noteNames(key, o)
		c.feedPolicy(key, o)
	default:
		c.feedPolicy(key, o)
	}
}

// feedPolicy tells the guard of an object.
func (c *Core) feedPolicy(key datastore.Key, o v3.Object) {
	if err := c.guard.Upsert(o); err != nil {
		c.notes.read(key, []string{err.Error()})
	}
}

func (c *Core) noteConversion(key datastore.Key, warnings []kubernetes.Warning, err error) {
	var faults []string
	for _, w := range warnings {
		faults = append(faults, fmt.Sprint(w))
	}
	if err != nil {
		faults = append(faults, err.Error())
	}
	c.notes.read(key, faults)
}

// feedDefaultAllow puts the profile in force that nobody has to write, unless
// somebody has.
func (c *Core) feedDefaultAllow() {
	key := datastore.Key{Kind: v3.KindProfile, Name: v3.ProfileDefaultAllow}
	if c.objects[key] != nil {
		return
	}
	p := &v3.Profile{Spec: v3.ProfileSpec{Ingress: []v3.Rule{{Action: v3.Allow}}, Egress: []v3.Rule{{Action: v3.Allow}}}}
	p.Name = key.Name
	c.feedPolicy(key, p)
}

func (c *Core) setPools() { c.network.SetPools(slices.Collect(maps.Values(c.pools))) }

func (c *Core) setReady(ready bool) {
	if !ready && c.ready {
		c.Log.Warn("the store is being mended, says ClusterInformation default: nothing is changed until its datastoreReady is true")
	}
	c.ready = ready
}

// reset tells the network, and who judges the host, of the node anew, since it or its
// settings have changed.
func (c *Core) reset() {
	if c.local == nil {
		return
	}
	l := *c.local
	l.HostDenied = felix.Word(c.settings().DefaultEndpointToHostAction, "Drop", "Accept", "Return") == "Drop"
	c.network.SetLocal(l)
	c.setHosts()
}

// settings are those that hold on this node.
func (c *Core) settings() fields.Settings {
	var labels map[string]string
	if o := c.objects[datastore.Key{Kind: v3.KindNode, Name: c.Node}]; o != nil {
		labels = o.GetLabels()
	}
	return felix.Settings(c.Node, labels, c.Felix, slices.Collect(maps.Values(c.felix)))
}

// Addresses are those of a node by which others reach it, the best first, but for
// those that only the outside uses.
func Addresses(n *fabric.NodeSpec) (out []netip.Addr) {
	add := func(text string) {
		p, err := netip.ParsePrefix(text)
		a := p.Addr()
		if err != nil {
			a, err = netip.ParseAddr(text)
		}
		if a = a.Unmap(); err == nil && a.Zone() == "" && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	if n.BGP != nil {
		add(n.BGP.IPv4Address)
		add(n.BGP.IPv6Address)
	}
	for _, a := range n.Addresses {
		if a.Type != fabric.ExternalIP {
			add(a.Address)
		}
	}
	return out
}

// workloadOf is a workload endpoint as the network knows it: without what is no
// single address, of which policy tells.
func workloadOf(o *v3.WorkloadEndpoint) network.Workload {
	w := network.Workload{Node: o.Spec.Node}
	for _, text := range o.Spec.IPNetworks {
		if p, err := v3.ParseNet(text); err == nil && p.IsSingleIP() && !slices.Contains(w.Addresses, p) {
			w.Addresses = append(w.Addresses, p)
		}
	}
	if mac, err := net.ParseMAC(o.Spec.MAC); err == nil && len(mac) == 6 && mac[0]&1 == 0 {
		w.MAC = mac
	}
	return w
}
