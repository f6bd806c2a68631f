// Command cyclonus runs the case generator and the simulated cluster of Cyclonus,
// and prints what package truth reads: the objects of every step of every case,
// and who may then reach whom, by IPv4 and by IPv6.
//
//	go run . > ../cyclonus.json
//
// It is a module of its own, so that what it needs is nobody else's burden. Each
// case is generated around an IPv4 and around an IPv6 address; where that makes
// no difference to its policies it is written once. Both families are asked of
// either form: a policy about addresses of one says something about the other too.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/kube"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
)

const source = "made by running the case generator and the simulated cluster of Cyclonus v0.5.6, " +
	"github.com/mattfenwick/cyclonus, MIT License, Copyright (c) 2021 Matt Fenwick; make it anew with the program in cyclonus/"

// around is the pod whose addresses the cases about addresses are built around.
const around = "z/c"

func main() {
	logrus.SetLevel(logrus.ErrorLevel)
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cyclonus:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	w := newWorld()
	var forms [2][]*generator.TestCase
	for i, a := range w.pod(around).Addresses {
		forms[i] = generator.NewTestCaseGenerator(true, a, []string{"x", "y", "z"}, nil, nil).GenerateTestCases()
	}
	if len(forms[0]) != len(forms[1]) {
		return fmt.Errorf("compare cases: %d around IPv4, %d around IPv6", len(forms[0]), len(forms[1]))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"source\":%q,\n\"world\":%s,\n\"cases\":[", source, text(w))
	sep := "\n"
	for id := range forms[0] {
		cases := []kase{{ID: id + 1}}
		if !reflect.DeepEqual(forms[0][id], forms[1][id]) {
			cases = []kase{{ID: id + 1, Around: 4}, {ID: id + 1, Around: 6}}
		}
		for i, c := range cases {
			if err := c.play(w, forms[i][id]); err != nil {
				return fmt.Errorf("play case %d, %s: %w", c.ID, c.Name, err)
			}
			fmt.Fprintf(&b, "%s%s", sep, text(c))
			sep = ",\n"
		}
	}
	fmt.Fprintln(&b, "\n]}")
	_, err := out.Write(b.Bytes())
	return err
}

// text is v as JSON on one line.
func text(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // our own types, which can be encoded
	}
	return string(bytes.TrimSpace(b.Bytes()))
}

// kase is a case as package truth reads it.
type kase struct {
	ID     int    `json:"id"`               // its place in what Cyclonus generates, from 1
	Around int    `json:"around,omitempty"` // family of the address that its policies are about, if any are
	Name   string `json:"name"`
	Steps  []step `json:"steps"`
}

type step struct {
	Namespaces map[string]map[string]string `json:"namespaces,omitempty"` // labels, where they are not as in the world
	Pods       map[string]map[string]string `json:"pods,omitempty"`       // the same
	Policies   []any                        `json:"policies"`
	Tables     []table                      `json:"tables"`
}

// table is who reaches whom, alike for several families and ports. Rows are from
// whom, columns to whom, both in the order of the pods' names.
type table struct {
	Of   []string `json:"of"`
	Rows []string `json:"rows"`
}

// play takes a case through its steps, once with the IPv4 addresses of the pods
// and once with the others.
func (c *kase) play(w *world, from *generator.TestCase) error {
	c.Name = from.Description
	states := [2]*connectivity.TestCaseState{}
	for i := range states {
		s, err := w.state(i)
		if err != nil {
			return err
		}
		states[i] = s
	}
	for _, s := range from.Steps {
		var out step
		for i, state := range states {
			for _, a := range s.Actions {
				if err := apply(state, a); err != nil {
					return err
				}
			}
			w.settle(state, i)
			out.judge(state, s.Probe, 4+2*i)
		}
		if err := out.describe(w, states[0]); err != nil {
			return err
		}
		c.Steps = append(c.Steps, out)
	}
	return nil
}

func apply(s *connectivity.TestCaseState, a *generator.Action) error {
	switch {
	case a.CreatePolicy != nil:
		return s.CreatePolicy(a.CreatePolicy.Policy)
	case a.UpdatePolicy != nil:
		return s.UpdatePolicy(a.UpdatePolicy.Policy)
	case a.DeletePolicy != nil:
		return s.DeletePolicy(a.DeletePolicy.Namespace, a.DeletePolicy.Name)
	case a.ReadNetworkPolicies != nil:
		return s.ReadPolicies(a.ReadNetworkPolicies.Namespaces)
	case a.CreateNamespace != nil:
		return s.CreateNamespace(a.CreateNamespace.Namespace, a.CreateNamespace.Labels)
	case a.SetNamespaceLabels != nil:
		return s.SetNamespaceLabels(a.SetNamespaceLabels.Namespace, a.SetNamespaceLabels.Labels)
	case a.DeleteNamespace != nil:
		return s.DeleteNamespace(a.DeleteNamespace.Namespace)
	case a.CreatePod != nil:
		return s.CreatePod(a.CreatePod.Namespace, a.CreatePod.Pod, a.CreatePod.Labels)
	case a.SetPodLabels != nil:
		return s.SetPodLabels(a.SetPodLabels.Namespace, a.SetPodLabels.Pod, a.SetPodLabels.Labels)
	case a.DeletePod != nil:
		return s.DeletePod(a.DeletePod.Namespace, a.DeletePod.Pod)
	}
	return fmt.Errorf("action %+v is of a kind that we do not know", a)
}

// judge asks the simulated cluster what the step's probe must find in a family.
func (s *step) judge(state *connectivity.TestCaseState, what *generator.ProbeConfig, family int) {
	policies := matcher.BuildNetworkPolicies(true, state.Policies)
	found := probe.NewSimulatedRunner(policies, &probe.JobBuilder{TimeoutSeconds: 1}).RunProbeForConfig(what, state.Resources)
	verdicts := map[string]map[[2]string]byte{}
	for _, k := range found.Wrapped.Keys() {
		for _, r := range found.Get(k.From, k.To).JobResults {
			of := fmt.Sprintf("v%d %s/%d", family, r.Job.Protocol, r.Job.ResolvedPort)
			if verdicts[of] == nil {
				verdicts[of] = map[[2]string]byte{}
			}
			verdicts[of][[2]string{k.From, k.To}] = letter(r.Combined)
		}
	}
	names := state.Resources.SortedPodNames()
	for _, of := range slices.Sorted(maps.Keys(verdicts)) {
		s.add(of, rows(names, verdicts[of]))
	}
}

func letter(c probe.Connectivity) byte {
	switch c {
	case probe.ConnectivityAllowed:
		return '.'
	case probe.ConnectivityBlocked:
		return 'X'
	}
	panic(fmt.Sprintf("a simulated probe has come to %q", c))
}

// rows leave out what a pod has to say to itself: that never leaves it.
func rows(names []string, verdicts map[[2]string]byte) (out []string) {
	for _, from := range names {
		var row []byte
		for _, to := range names {
			if from == to {
				row = append(row, '-')
			} else {
				row = append(row, verdicts[[2]string{from, to}])
			}
		}
		out = append(out, string(row))
	}
	return out
}

// add writes a table down once for all that it is the same for.
func (s *step) add(of string, rows []string) {
	for i := range s.Tables {
		if slices.Equal(s.Tables[i].Rows, rows) {
			s.Tables[i].Of = append(s.Tables[i].Of, of)
			return
		}
	}
	s.Tables = append(s.Tables, table{Of: []string{of}, Rows: rows})
}

// describe writes down the objects, as far as the world has not said them.
func (s *step) describe(w *world, state *connectivity.TestCaseState) error {
	s.Namespaces = w.others(w.Namespaces, state.Resources.Namespaces)
	base, pods := map[string]map[string]string{}, map[string]map[string]string{}
	for _, p := range w.Pods {
		if p.Labels != nil {
			base[p.key()] = p.Labels
		}
	}
	for _, p := range state.Resources.Pods {
		pods[p.PodString().String()] = p.Labels
	}
	s.Pods = w.others(base, pods)
	for name := range base {
		if pods[name] == nil {
			return fmt.Errorf("pod %s was deleted, which package truth cannot say", name)
		}
	}
	s.Policies = []any{}
	for _, p := range state.Policies {
		s.Policies = append(s.Policies, manifest(p))
	}
	return nil
}

// others are the labels that differ from those of the world.
func (*world) others(base, now map[string]map[string]string) map[string]map[string]string {
	out := map[string]map[string]string{}
	for name, labels := range now {
		if !maps.Equal(labels, base[name]) {
			out[name] = labels
		}
	}
	return out
}

// manifest is what a user would write of a policy.
func manifest(p *netv1.NetworkPolicy) any {
	return map[string]any{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": map[string]string{"namespace": p.Namespace, "name": p.Name}, "spec": p.Spec,
	}
}

// world is what every case begins with, and the addresses of all pods, also of
// those that are made on the way, which have no labels here.
type world struct {
	Namespaces map[string]map[string]string `json:"namespaces"`
	Pods       []pod                        `json:"pods"`
	Ports      []port                       `json:"ports"` // of every pod
}

type pod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	Node      string            `json:"node"`
	Addresses []string          `json:"addresses"` // IPv4, IPv6
}

func (p *pod) key() string { return p.Namespace + "/" + p.Name }

type port struct {
	Protocol string `json:"protocol"`
	Number   int    `json:"number"`
	Name     string `json:"name"`
}

// newWorld is the world of Cyclonus with addresses of ours: of the pods on the
// node of the one that cases about addresses are built around (its last 8 bits
// free, with the last 4 free excepted), some are in the exception and some not.
func newWorld() *world {
	w := &world{Namespaces: map[string]map[string]string{}}
	low := [2]int{}
	for i, name := range []string{"x/a", "x/b", "y/b", "y/a", "z/a", "z/b", "z/c", "y/c", "x/c", "x/d", "y-2/a", "y-2/b", "w/a"} {
		ns, pd, _ := bytes.Cut([]byte(name), []byte("/"))
		node := i % 2
		at := 17 + low[node]%2 + 16*(low[node]/2) // two in each block of 16
		low[node]++
		p := pod{Namespace: string(ns), Name: string(pd), Node: [...]string{"west", "east"}[node], Addresses: []string{
			fmt.Sprintf("10.79.%d.%d", node+1, at), fmt.Sprintf("fd79:0:0:%d::%x", node+1, at),
		}}
		if i < 9 {
			p.Labels = map[string]string{"pod": p.Name}
			w.Namespaces[p.Namespace] = labelled(p.Namespace, map[string]string{"ns": p.Namespace})
		}
		w.Pods = append(w.Pods, p)
	}
	for _, n := range []int{80, 81} {
		for _, proto := range protocols() {
			c := probe.NewDefaultContainer(n, proto, false, "")
			w.Ports = append(w.Ports, port{Protocol: string(proto), Number: n, Name: c.PortName})
		}
	}
	return w
}

func protocols() []corev1.Protocol {
	return []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
}

func (w *world) pod(key string) *pod {
	for i := range w.Pods {
		if w.Pods[i].key() == key {
			return &w.Pods[i]
		}
	}
	panic("there is no pod " + key)
}

// state is Cyclonus' picture of the world, with the addresses of one family.
func (w *world) state(family int) (*connectivity.TestCaseState, error) {
	r := &probe.Resources{Namespaces: map[string]map[string]string{}}
	maps.Copy(r.Namespaces, w.Namespaces)
	for _, p := range w.Pods {
		if p.Labels != nil {
			d := probe.NewDefaultPod(p.Namespace, p.Name, []int{80, 81}, protocols(), false, "")
			d.IP, d.ServiceIP = p.Addresses[family], p.Addresses[family]
			r.Pods = append(r.Pods, d)
		}
	}
	m := kube.NewMockKubernetes(1)
	if err := r.CreateResourcesInKube(m); err != nil {
		return nil, err
	}
	return &connectivity.TestCaseState{Kubernetes: m, Resources: r, Policies: []*netv1.NetworkPolicy{}}, nil
}

// labelled adds the label that a real API server gives to every namespace.
func labelled(namespace string, labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	out[corev1.LabelMetadataName] = namespace
	return out
}

// settle adds what a real cluster gives to objects that an action has made or
// changed: the addresses of pods, the label of namespaces.
func (w *world) settle(s *connectivity.TestCaseState, family int) {
	spaces := map[string]map[string]string{}
	for name, labels := range s.Resources.Namespaces {
		spaces[name] = labelled(name, labels)
	}
	s.Resources.Namespaces = spaces
	for _, p := range s.Resources.Pods {
		p.IP = w.pod(p.PodString().String()).Addresses[family]
	}
}
