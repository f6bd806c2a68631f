package policy

import (
	"errors"
	"fmt"
	"strings"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/node"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/policing"
)

// writer is the one writer of what packets are judged by, as the forwarder's
// plane is.
type writer struct {
	police *policing.Writer
	state  *desired.State
}

// newWriter makes one that judges by lists of so many rules; with none nobody has
// policy.
func newWriter(rules int) (*writer, error) {
	w := &writer{police: policing.New(), state: desired.Empty()}
	if rules == 0 {
		return w, nil
	}
	c, err := beginning(rules)
	if err != nil {
		return nil, err
	}
	changes, err := w.want(true, c...)
	if err != nil {
		return nil, err
	}
	return w, w.police.Join(w.state, changes)
}

// want changes the desired state.
func (w *writer) want(snapshot bool, chunks ...*pb.Chunk) (desired.SetChanges, error) {
	change := desired.NewChange()
	for _, c := range chunks {
		change.Add(c)
	}
	next, faults := w.state.Apply(change, snapshot)
	if faults != nil {
		return nil, fmt.Errorf("the state has faults: %s", strings.Join(faults, "; "))
	}
	w.state = next
	return change.Sets(), nil
}

// publish puts ports and their policy in force.
func (w *writer) publish(t *node.Tables) error {
	s := &node.State{HostPort: graph.NoPort}
	w.police.Begin()
	var errs []error
	for side := range 2 {
		p := node.Port{Flags: node.L2 | node.Owned | node.Workload, MTU: 1500, Main: uint16(side), MAC: routerMAC(side), Peer: hostMAC(side)}
		s.Ports = append(s.Ports, p)
		if e := w.state.Endpoints[fmt.Sprint("side", side)]; e != nil {
			j, err := w.police.Endpoint(e, uint32(side))
			s.Policy, errs = append(s.Policy, j), append(errs, err)
		}
	}
	t.Publish(s)
	return errors.Join(errs...)
}
