package truth

import (
	"bytes"
	_ "embed" // the cases
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

//go:embed cyclonus.json
var cyclonus []byte

// A Suite is cases over one world.
type Suite struct {
	Source string // where the cases come from, and under which licence
	World  World
	Cases  []Case
}

// A World is what every case begins with.
type World struct {
	Namespaces map[string]map[string]string // labels
	Pods       []Pod                        // also those that cases make on the way: those have no Labels
	Ports      []Port                       // on which every pod serves
}

// A Pod is one that cases know.
type Pod struct {
	Namespace, Name string
	Labels          map[string]string
	Node            string
	Addresses       []netip.Addr // IPv4, IPv6
}

// Key is the name by which tables know the pod: x/a.
func (p Pod) Key() string { return p.Namespace + "/" + p.Name }

// Addr is the pod's address of a family.
func (p Pod) Addr(f Family) netip.Addr {
	if f == 4 {
		return p.Addresses[0]
	}
	return p.Addresses[1]
}

// A Port is one that pods serve on, by the name that policies may use for it.
type Port struct {
	Protocol string
	Number   uint16
	Name     string
}

// A Case is a story of some steps, each of which begins where the one before it
// ended; before the first, nothing but the World is there.
type Case struct {
	ID     int    // its place among those of Cyclonus, from 1
	Around Family // of the addresses that its policies name, where there is one form of the case for each family; or 0
	Name   string
	Steps  []Step
}

// A Step is objects, and what they must come to.
type Step struct {
	State
	Want Table
}

// A State is all objects that are there in a step.
type State struct {
	Namespaces map[string]map[string]string // labels
	Pods       []Pod                        // ordered by Key
	Policies   []json.RawMessage            // NetworkPolicies of networking.k8s.io/v1, as a user would write them
	ports      []Port
}

// Cyclonus is the suite that is made by running Cyclonus. Its cases number 230;
// those that name addresses are there in two forms.
func Cyclonus() (*Suite, error) {
	s, err := parse(cyclonus)
	if err != nil {
		return nil, fmt.Errorf("read the cases of Cyclonus: %w", err)
	}
	return s, nil
}

// What the file holds; the program that writes it says what it means.
type (
	suiteFile struct {
		Source string
		World  struct {
			Namespaces map[string]map[string]string
			Pods       []Pod
			Ports      []Port
		}
		Cases []struct {
			ID     int
			Around Family
			Name   string
			Steps  []stepFile
		}
	}
	stepFile struct {
		Namespaces, Pods map[string]map[string]string
		Policies         []json.RawMessage
		Tables           []struct{ Of, Rows []string }
	}
)

func parse(b []byte) (*Suite, error) {
	var file suiteFile
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, err
	}
	s := &Suite{Source: file.Source, World: World(file.World)}
	for _, p := range s.World.Pods {
		if len(p.Addresses) != 2 || !p.Addresses[0].Is4() || !p.Addresses[1].Is6() {
			return nil, fmt.Errorf("pod %s has addresses %v, want one of each family", p.Key(), p.Addresses)
		}
	}
	for _, from := range file.Cases {
		c := Case{ID: from.ID, Around: from.Around, Name: from.Name}
		for i := range from.Steps {
			step, err := from.Steps[i].read(s.World)
			if err != nil {
				return nil, fmt.Errorf("case %d, %s, step %d: %w", c.ID, c.Name, i+1, err)
			}
			c.Steps = append(c.Steps, step)
		}
		s.Cases = append(s.Cases, c)
	}
	return s, nil
}

func (f *stepFile) read(w World) (Step, error) {
	s := Step{Want: Table{}, State: State{Namespaces: maps.Clone(w.Namespaces), Policies: f.Policies, ports: w.Ports}}
	maps.Copy(s.Namespaces, f.Namespaces)
	known := 0
	for _, p := range w.Pods {
		if labels, ok := f.Pods[p.Key()]; ok {
			p.Labels = labels
			known++
		}
		if p.Labels != nil {
			s.Pods = append(s.Pods, p)
		}
	}
	if known != len(f.Pods) {
		return s, fmt.Errorf("of the pods %v the world knows %d", f.Pods, known)
	}
	slices.SortFunc(s.Pods, func(a, b Pod) int { return strings.Compare(a.Key(), b.Key()) })
	for _, t := range f.Tables {
		for _, of := range t.Of {
			if err := s.learn(of, t.Rows); err != nil {
				return s, fmt.Errorf("table %q: %w", of, err)
			}
		}
	}
	return s, nil
}

var errShape = errors.New("a row for each pod, and a letter for each pod in it, are expected")

// learn adds what a grid says to the step's table.
func (s *Step) learn(of string, rows []string) error {
	var q Query
	family, rest, _ := strings.Cut(of, " ")
	proto, port, _ := strings.Cut(rest, "/")
	if _, err := fmt.Sscanf(family+" "+port, "v%d %d", &q.Family, &q.Port); err != nil {
		return err
	}
	q.Protocol = proto
	if len(rows) != len(s.Pods) {
		return errShape
	}
	for i, row := range rows {
		if len(row) != len(s.Pods) {
			return errShape
		}
		for j := range row {
			switch v := Verdict(row[j]); {
			case (v == '-') != (i == j), i != j && v != Allowed && v != Refused:
				return fmt.Errorf("row %d is %q: letters are . and X, and - for a pod to itself", i, row)
			case i != j:
				q.From, q.To = s.Pods[i].Key(), s.Pods[j].Key()
				s.Want[q] = v
			}
		}
	}
	return nil
}
