//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/lab"
	"margay.dev/margay/internal/lab/impair"
	"margay.dev/margay/internal/render"
)

// askTime is how long a forwarder may take to answer.
const askTime = 5 * time.Second

// contextWithin ends after d, and says then what was not done.
func contextWithin(ctx context.Context, d time.Duration, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, errors.New(what+" within "+d.String()))
}

// state is what status prints.
type state struct {
	Lab   string      `json:"lab"`
	Dir   string      `json:"dir"`
	Store string      `json:"store"` // where its etcd answers
	Nodes []nodeState `json:"nodes"`
	Pods  []podState  `json:"pods"`
	Links []linkState `json:"links"`
}

type nodeState struct {
	Name       string   `json:"name"`
	Namespace  string   `json:"namespace"`
	PID        int      `json:"pid"`       // 0: no forwarder
	Agent      int      `json:"agent_pid"` // 0: no agent
	Workers    int      `json:"workers"`
	Generation uint64   `json:"generation"`
	Uptime     uint64   `json:"uptime_seconds"`
	Faults     []string `json:"faults"`
	Socket     string   `json:"socket"`
}

type podState struct {
	Name      string   `json:"name"`
	Node      string   `json:"node"`
	Namespace string   `json:"namespace"`
	Addresses []string `json:"addresses"`
	Port      lab.Port `json:"port"`
}

type linkState struct {
	Name     string         `json:"name"`
	Ends     []string       `json:"ends"`
	MTU      int            `json:"mtu"`
	Impaired *impair.Status `json:"impaired,omitempty"`
}

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "What is up, and how it does",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return p.with(func(l *lab.Lab) error { return p.showStatus(c.Context(), l) })
		},
	}
}

func (p *program) showStatus(ctx context.Context, l *lab.Lab) error {
	s := survey(ctx, l)
	if p.format != render.Text {
		return p.document(s)
	}
	nodes := render.NewTable("NODE", "FORWARDER", "AGENT", ">WORKERS", ">GENERATION", "UP", "NAMESPACE")
	for _, n := range s.Nodes {
		up := render.Duration(time.Duration(n.Uptime) * time.Second)
		nodes.Row(n.Name, runs(n.PID), runs(n.Agent), fmt.Sprint(n.Workers), fmt.Sprint(n.Generation), up, n.Namespace)
	}
	pods := render.NewTable("POD", "NODE", "PORT", ">RX", ">TX", "ADDRESSES", "NAMESPACE")
	for _, q := range s.Pods {
		port := strings.TrimSpace(q.Port.Kind + " " + q.Port.State)
		pods.Row(q.Name, q.Node, port, render.Count(q.Port.Rx), render.Count(q.Port.Tx), strings.Join(q.Addresses, " "), q.Namespace)
	}
	links := render.NewTable("LINK", "ENDS", ">MTU", "IMPAIRED")
	for _, k := range s.Links {
		ways := ""
		if k.Impaired != nil {
			ways = "there " + k.Impaired.AtoB.String() + "; back " + k.Impaired.BtoA.String()
		}
		links.Row(k.Name, strings.Join(k.Ends, " - "), fmt.Sprint(k.MTU), ways)
	}
	if err := p.tables(nodes, pods, links); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		for _, f := range n.Faults {
			fmt.Fprintf(p.out, "node %s: %s\n", n.Name, f)
		}
	}
	return nil
}

// runs is a process in a table.
func runs(pid int) string {
	if pid == 0 {
		return "stopped"
	}
	return fmt.Sprintf("pid %d", pid)
}

// survey asks everything that is up. Who does not answer is a fault of its node.
func survey(ctx context.Context, l *lab.Lab) state {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	t := l.Topology()
	s := state{Lab: t.Name, Dir: l.Dir(), Store: l.StoreEndpoint()}
	ports := map[string]lab.Port{}
	for _, n := range t.Nodes {
		s.Nodes = append(s.Nodes, ask(ctx, l, &n, ports))
	}
	for _, q := range t.Pods {
		out := podState{Name: q.Name, Node: q.Node, Namespace: t.NamespaceName(q.Name), Port: ports[q.Node+"/"+q.PortName()]}
		if out.Port.Kind == "" {
			out.Port = lab.Port{Kind: q.Port, State: "cut off"}
		}
		for _, a := range q.Addresses {
			out.Addresses = append(out.Addresses, a.String())
		}
		s.Pods = append(s.Pods, out)
	}
	for _, k := range t.Links {
		out := linkState{Name: k.Name, MTU: k.MTU}
		for _, e := range k.Ends {
			out.Ends = append(out.Ends, e.Node+":"+e.Device)
		}
		if k.Impairment != nil {
			if st, err := l.Impair(ctx, k.Name, nil, nil); err == nil {
				out.Impaired = &st
			}
		}
		s.Links = append(s.Links, out)
	}
	return s
}

func ask(ctx context.Context, l *lab.Lab, n *lab.Node, ports map[string]lab.Port) nodeState {
	out := nodeState{
		Name: n.Name, Namespace: l.Topology().NamespaceName(n.Name), PID: l.PID(n.Name), Agent: l.AgentPID(n.Name), Workers: n.Workers,
		Socket: l.Socket(n.Name), Faults: []string{},
	}
	if out.PID == 0 {
		return out
	}
	inspect, err := l.Inspect(n.Name)
	var st *v1.Status
	if err == nil {
		st, err = inspect.GetStatus(ctx, &v1.StatusRequest{})
	}
	var c lab.Counters
	if err == nil {
		out.Generation, out.Uptime = st.GetGeneration(), st.GetUptimeSeconds()
		for _, cond := range st.GetConditions() {
			out.Faults = append(out.Faults, cond.GetObject()+": "+cond.GetMessage())
		}
		c, err = l.Counters(ctx, n.Name)
	}
	if err != nil {
		out.Faults = append(out.Faults, err.Error())
	}
	for name, port := range c.Ports {
		ports[n.Name+"/"+name] = port
	}
	return out
}

// tables prints those that have rows, with an empty line between.
func (p *program) tables(list ...*render.Table) error {
	first := true
	for _, t := range list {
		if t.Len() == 0 {
			continue
		}
		if !first {
			fmt.Fprintln(p.out)
		}
		first = false
		if err := t.Write(p.out); err != nil {
			return err
		}
	}
	return nil
}

// document prints v as JSON or YAML.
func (p *program) document(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil && p.format == render.YAML {
		b, err = yaml.JSONToYAML(b)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, strings.TrimRight(string(b), "\n"))
	return err
}

// family reads which of the families a command means.
func family(six bool, l *lab.Lab, from, to string) (bool, error) {
	if six {
		return true, nil
	}
	a, b := l.Topology().Pod(from), l.Topology().Pod(to)
	if a == nil || b == nil {
		return false, nil // the lab says what is wrong
	}
	has := func(q *lab.Pod, six bool) bool { v, ok := q.Addr(six); return ok && v != netip.Addr{} }
	return !has(a, false) || !has(b, false), nil // IPv6 where there is nothing else
}
