package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/internal/lab/policies"
)

// policyFile, in a lab's folder, is what policy follows from beside the pods. A
// forwarder is sent that with every snapshot, whoever sends it.
const policyFile = "policies.yaml"

// driver makes what calculates the policy of the topology's pods.
func (t *Topology) driver() (*policies.Driver, error) {
	var nodes []string
	for _, n := range t.Nodes {
		nodes = append(nodes, n.Name)
	}
	return policies.New(nodes, t.pods())
}

// calculate says why manifests cannot be put in force.
func (t *Topology) calculate(m policies.Manifests) error {
	d, err := t.driver()
	if err == nil {
		_, err = d.Change(m)
	}
	return err
}

// readPolicies puts objects in the place of paths, which are relative to dir. If any
// is wrong, none are left for Validate to tell of once more.
func (t *Topology) readPolicies(dir string) error {
	var out []json.RawMessage
	var faults []error
	for i, text := range t.Policies {
		m, err := readPolicy(dir, text)
		if err != nil {
			faults = append(faults, fmt.Errorf("policies[%d]: %w", i, err))
		}
		for _, one := range m {
			out = append(out, one.JSON)
		}
	}
	if t.Policies = out; len(faults) > 0 {
		t.Policies = nil
	}
	return errors.Join(faults...)
}

func readPolicy(dir string, text json.RawMessage) (policies.Manifests, error) {
	var path string
	if json.Unmarshal(text, &path) != nil { // no path: an object
		return policies.Read(text)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return policies.ReadPath(path)
}

// manifests are the topology's own.
func (t *Topology) manifests() (out policies.Manifests, err error) {
	var faults []error
	for i, text := range t.Policies {
		m, err := policies.Read(text)
		if err == nil {
			out, err = out.Add(m)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("policies[%d]: %w", i, err))
		}
	}
	return out, errors.Join(faults...)
}

// Policies are the manifests in force.
func (l *Lab) Policies() (policies.Manifests, error) {
	b, err := l.written()
	if err != nil {
		return nil, err
	}
	m, err := policies.Read(b)
	if err != nil {
		return nil, fmt.Errorf("read the lab's policies: %w", err)
	}
	return m, nil
}

// written is the text of the manifests in force.
func (l *Lab) written() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(l.dir, policyFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // none: nothing was ever applied
		return nil, fmt.Errorf("read the lab's policies: %w", err)
	}
	return b, nil
}

// write writes down what is to be in force, whole or not at all.
func (l *Lab) write(m policies.Manifests) ([]byte, error) {
	b, err := m.YAML()
	if err == nil {
		err = replace(filepath.Join(l.dir, policyFile), b)
	}
	if err != nil {
		return nil, fmt.Errorf("write the lab's policies: %w", err)
	}
	return b, nil
}

// Police puts in force what change makes of the manifests in force, and returns
// once every worker of every node whose forwarder runs judges by that; the others do
// so from their start. If anything in it is wrong, all of that is said, and nothing
// has changed. Who holds streams to the forwarders in another process loses them. A
// lab with agents has its policy in its store.
func (l *Lab) Police(ctx context.Context, change func(policies.Manifests) (policies.Manifests, error)) error {
	if l.HasAgents() {
		return fmt.Errorf("the policy of lab %s is in its store: change it by margayctl apply or delete, at %s", l.Topology().Name, l.StoreEndpoint())
	}
	unlock, err := lock(l.base)
	if err != nil {
		return err
	}
	defer unlock()
	posts, err := l.police(ctx, change)
	for _, p := range posts {
		if werr := l.await(ctx, p); werr != nil {
			err = errors.Join(err, fmt.Errorf("change the policy of node %s: %w", p.node, werr))
		}
	}
	return err
}

// police sends every node what differs.
func (l *Lab) police(ctx context.Context, change func(policies.Manifests) (policies.Manifests, error)) (posts []post, err error) {
	l.policing.Lock()
	defer l.policing.Unlock()
	if err := l.recall(); err != nil {
		return nil, err
	}
	before, err := l.Policies()
	if err != nil {
		return nil, err
	}
	after, err := change(before)
	if err != nil {
		return nil, err
	}
	updates, err := l.driver.Change(after)
	if err == nil {
		l.recalled, err = l.write(after)
	}
	if err != nil {
		l.driver = nil
		return nil, err
	}
	var errs []error
	for _, n := range l.Topology().Nodes {
		if !l.Running(n.Name) {
			delete(l.fed, n.Name)
			continue
		}
		p, err := l.send(ctx, n.Name, updates[n.Name])
		if err != nil {
			errs = append(errs, fmt.Errorf("change the policy of node %s: %w", n.Name, err))
			continue
		}
		posts = append(posts, p)
	}
	return posts, errors.Join(errs...)
}

// recall brings the driver to what is written down, which another process may have
// changed. Who was fed before needs a snapshot then. l.policing is held.
func (l *Lab) recall() error {
	text, err := l.written()
	if err != nil {
		return err
	}
	if l.driver != nil && bytes.Equal(text, l.recalled) {
		return nil
	}
	m, err := l.Policies()
	if err != nil {
		return err
	}
	d, err := l.Topology().driver()
	if err == nil {
		_, err = d.Change(m)
	}
	if err != nil {
		return fmt.Errorf("calculate the lab's policies: %w", err)
	}
	l.driver, l.recalled, l.fed = d, text, map[string]*dataplane.Stream{}
	return nil
}

// post is a commit on its way to a node's forwarder.
type post struct {
	*dataplane.Delivery
	node       string
	generation uint64 // of policy
}

// send sends a node what differs, step by step, or a snapshot where its stream has not sent what
// was before. l.policing is held.
func (l *Lab) send(ctx context.Context, node string, steps []policies.Update) (post, error) {
	s, err := l.connect(ctx, node)
	if err != nil {
		return post{}, err
	}
	state, err := l.bare(node)
	if err != nil {
		return post{}, err
	}
	p := post{node: node}
	if l.fed[node] == s {
		for _, u := range steps {
			p.generation = u.Generation
			if p.Delivery, err = s.SendDelta(ctx, u.Whole(state.Endpoints)); err != nil {
				delete(l.fed, node)
				return p, err
			}
		}
		return p, nil
	}
	p.generation = l.driver.Police(node, &state)
	if p.Delivery, err = s.SendSnapshot(ctx, state); err == nil {
		l.fed[node] = s
	}
	return p, err
}

// snapshot sends a node its whole state.
func (l *Lab) snapshot(ctx context.Context, node string) (post, error) {
	l.policing.Lock()
	defer l.policing.Unlock()
	if err := l.recall(); err != nil {
		return post{}, err
	}
	delete(l.fed, node)
	return l.send(ctx, node, nil)
}

// await waits until a commit is in force. What was refused the forwarder does not
// have: the next is a snapshot.
func (l *Lab) await(ctx context.Context, p post) error {
	err := p.Wait(ctx)
	l.policing.Lock()
	defer l.policing.Unlock()
	switch {
	case err != nil:
		delete(l.fed, p.node)
	case l.driver != nil:
		l.driver.Settled(p.node, p.generation)
	}
	return err
}

// Desired is the state that the node's forwarder is sent.
func (l *Lab) Desired(node string) (dataplane.State, error) {
	l.policing.Lock()
	defer l.policing.Unlock()
	if err := l.recall(); err != nil {
		return dataplane.State{}, err
	}
	s, err := l.bare(node)
	if err == nil {
		l.driver.Police(node, &s)
	}
	return s, err
}

// unjudged is what a pod is without policy: it sends and receives nothing.
func (p *Pod) unjudged(mac []byte) *v1.Endpoint {
	return &v1.Endpoint{Id: p.EndpointID(), Port: p.PortName(), Addresses: singles(p.Addresses), Mac: mac}
}

// EndpointID is what the pod is called in the contract.
func (p *Pod) EndpointID() string { return "pod/" + p.Name }
