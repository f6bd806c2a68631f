package truth

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Apply puts a state in force and returns once it is; whatever was there before
// and is not in the state is gone then.
type Apply func(context.Context, State) error

// Ask finds out the answers to queries, with conversations that nobody has seen
// before.
type Ask func(context.Context, []Query) (Table, error)

// A Fault is a step of a case that came out otherwise than it must.
type Fault struct {
	Case *Case
	Step int // from 1
	*Difference
}

// Error tells which step, and draws what differs.
func (f *Fault) Error() string {
	around := ""
	if f.Case.Around != 0 {
		around = fmt.Sprintf(" (around IPv%d)", f.Case.Around)
	}
	return fmt.Sprintf("case %d%s, %s, step %d of %d: %v", f.Case.ID, around, f.Case.Name, f.Step, len(f.Case.Steps), f.Difference)
}

// Play takes whom apply and ask stand for through the case, step by step to its
// end, and returns what came out otherwise. An error is one of apply or ask.
func (c *Case) Play(ctx context.Context, apply Apply, ask Ask) (faults []*Fault, err error) {
	for i, s := range c.Steps {
		if err := apply(ctx, s.State); err != nil {
			return faults, fmt.Errorf("apply step %d of case %d, %s: %w", i+1, c.ID, c.Name, err)
		}
		got, err := ask(ctx, s.Want.Queries())
		if err != nil {
			return faults, fmt.Errorf("probe step %d of case %d, %s: %w", i+1, c.ID, c.Name, err)
		}
		if d := Compare(s.Want, got); d != nil {
			faults = append(faults, &Fault{c, i + 1, d})
		}
	}
	return faults, nil
}

// Manifests are all objects of the state as a user would write them, each a JSON
// document and thereby a YAML one: Namespaces, Pods with their ports and
// addresses, NetworkPolicies.
func (s State) Manifests() ([]json.RawMessage, error) {
	var out []json.RawMessage
	add := func(v any) error {
		b, err := json.Marshal(v)
		out = append(out, b)
		return err
	}
	type object map[string]any
	for _, name := range slices.Sorted(maps.Keys(s.Namespaces)) {
		err := add(object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name, "labels": s.Namespaces[name]}})
		if err != nil {
			return nil, err
		}
	}
	var ports []object
	for _, p := range s.ports {
		ports = append(ports, object{"name": p.Name, "containerPort": p.Number, "protocol": p.Protocol})
	}
	for _, p := range s.Pods {
		err := add(object{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": object{"namespace": p.Namespace, "name": p.Name, "labels": p.Labels},
			"spec":     object{"nodeName": p.Node, "containers": []object{{"name": "serve", "ports": ports}}},
			"status": object{
				"phase": "Running", "podIP": p.Addresses[0],
				"podIPs": []object{{"ip": p.Addresses[0]}, {"ip": p.Addresses[1]}},
			},
		})
		if err != nil {
			return nil, err
		}
	}
	return append(out, s.Policies...), nil
}
