package stage

import (
	"context"
	"fmt"
	"strings"
	"time"

	"margay.dev/margay/internal/lab"
)

const node = "near"

// pairsTopology is a node with pairs of pods, which talk by so many workers.
func pairsTopology(pairs, workers int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pools: [10.78.0.0/16, \"fd78::/48\"]\nnodes: [{name: %s, workers: %d}]\npods:\n", node, workers)
	for i := range pairs {
		fmt.Fprintf(&b, "  - {name: a%d, node: %s, addresses: [10.78.1.%d, \"fd78:0:0:1::%x\"]}\n", i, node, i+1, i+1)
		fmt.Fprintf(&b, "  - {name: b%d, node: %s, addresses: [10.78.2.%d, \"fd78:0:0:2::%x\"]}\n", i, node, i+1, i+1)
	}
	return b.String()
}

// OursPairs is one forwarder, the real process, between pairs of pods (TUN), in a
// lab of that name. Closing one path closes all.
func OursPairs(ctx context.Context, name, forwarder string, pairs, workers int) (all []*Path, err error) {
	l, err := Raise(ctx, name, pairsTopology(pairs, workers), forwarder)
	if err != nil {
		return nil, err
	}
	for i := range pairs {
		p, err := LabPath(l, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i), node)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// LabPath is a path between two pods of a lab. CPU is that of the forwarders of
// the nodes given. Close takes the lab down; an error has done so.
func LabPath(l *lab.Lab, client, server string, nodes ...string) (*Path, error) {
	p := &Path{Close: func() { _ = l.Down() }} // a later run clears what is left
	var err error
	if p.Client, err = l.Namespace(client); err == nil {
		p.Server, err = l.Namespace(server)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	pod := l.Topology().Pod(server)
	p.V4, _ = pod.Addr(false)
	p.V6, _ = pod.Addr(true)
	p.CPU = func() (sum time.Duration, err error) {
		for _, n := range nodes {
			took, err := CPU(l.PID(n))
			if err != nil {
				return 0, err
			}
			sum += took
		}
		return sum, nil
	}
	return p, nil
}
