package converge

import (
	"maps"
	"slices"
	"strings"

	"margay.dev/margay/api/domain"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/domains"
	"margay.dev/margay/datastore"
)

// names is what a Core knows of the names of hosts that network sets have.
type names struct {
	wanted  map[string]struct{} // patterns that the keeper learns
	faults  map[string]string   // by pattern: why the keeper has not all of its addresses
	waiting []*domains.Batch    // that the guard was told, and no commit has brought into force
	anew    bool                // the guard was made anew, and asked for nothing yet
}

func newNames() names { return names{wanted: map[string]struct{}{}, faults: map[string]string{}} }

// learned has something when the keeper has learned something.
func (c *Core) learned() <-chan struct{} {
	if c.Names == nil {
		return nil
	}
	return c.Names.Ready()
}

// resolve tells the keeper which patterns are wanted, and the guard what their names
// have. It comes before the guard's Flush: so a policy that comes to ask for a name,
// and a guard that is made anew, bring the addresses with them, and no connection is
// cut meanwhile.
func (c *Core) resolve() {
	if c.Names == nil {
		return
	}
	n := &c.names
	fresh, gone := c.guard.Domains()
	if n.anew { // all that it wants is fresh, and it does not know what was wanted before
		for pattern := range n.wanted {
			if !slices.Contains(fresh, pattern) {
				gone = append(gone, pattern)
			}
		}
	}
	n.anew = false
	for _, pattern := range fresh {
		n.wanted[pattern] = struct{}{}
	}
	for _, pattern := range gone {
		delete(n.wanted, pattern)
		delete(n.faults, pattern)
	}
	if err := c.Names.Want(fresh, gone); err != nil {
		c.Log.Error("names of hosts have no addresses", "error", err)
	}
	batch := c.Names.Take()
	if batch == nil {
		return
	}
	n.waiting = append(n.waiting, batch)
	before := maps.Clone(n.faults)
	for _, change := range batch.Changes {
		c.guard.SetDomain(change.Pattern, change.Joined, change.Left)
		if n.faults[change.Pattern] = change.Fault; change.Fault == "" {
			delete(n.faults, change.Pattern)
		}
	}
	if !maps.Equal(before, n.faults) {
		c.noteAllNames()
	}
}

// namesInForce has the answers go on whose addresses are in force.
func (c *Core) namesInForce() {
	for _, b := range c.names.waiting {
		b.InForce()
	}
	c.names.waiting = nil
}

// noteAllNames notes for each network set which addresses its names lack.
func (c *Core) noteAllNames() {
	for key, o := range c.objects {
		c.noteNames(key, o)
	}
}

// noteNames notes which addresses the names of a network set lack, on this node; it
// does nothing for another object.
func (c *Core) noteNames(key datastore.Key, o v3.Object) {
	var texts, faults []string
	switch o := o.(type) {
	case *v3.NetworkSet:
		texts = o.Spec.AllowedEgressDomains
	case *v3.GlobalNetworkSet:
		texts = o.Spec.AllowedEgressDomains
	default:
		return
	}
	for _, text := range texts {
		p, err := domain.Parse(text)
		if fault := c.names.faults[p.String()]; err == nil && fault != "" && !slices.Contains(faults, fault) {
			faults = append(faults, fault)
		}
	}
	if fault := strings.Join(faults, "; "); fault != c.notes.unplaced[key] {
		c.notes.place(key, fault)
	}
}
