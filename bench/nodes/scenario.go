// Package nodes is the scenario "nodes-tcp": TCP between two pods on different
// nodes, by a forwarder on each and by the kernel's own routers.
//
//	client ── TUN ── forwarder ══ AF_XDP ── veth ── AF_XDP ══ forwarder ── TUN ── server
//	client ── veth ── kernel ────────────── veth ──────────────── kernel ── veth ── server
//
// Our uplink carries what a wire does: frames of at most 1,500 bytes with whole
// checksums, since AF_XDP takes no others; the sender cuts superpackets, the
// receiver coalesces frames. "kernel-frames" has the same of its uplink (offloads
// of transmission off, GRO on). "kernel-superpackets" has a veth as the kernel
// makes it, which superpackets cross whole: no wire does that, and two nodes of
// one machine do.
package nodes

import (
	"context"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
	"margay.dev/margay/bench/tcp"
)

// Scenario is nodes-tcp.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "nodes-tcp",
		About: "TCP between pods on two nodes (TUN, AF_XDP uplink), against the kernel's routers over such an uplink",
		Run:   run,
	}
}

func run(ctx context.Context, s *harness.Session) error {
	return tcp.Contest(ctx, s, contestants(s.Forwarder)...)
}

// contestants are all; ours is the first.
func contestants(forwarder string) []tcp.Contestant {
	return []tcp.Contestant{
		{Name: "ours", Raise: func(ctx context.Context) (*stage.Path, error) { return oursPath(ctx, forwarder) }},
		{Name: "kernel-frames", Raise: func(context.Context) (*stage.Path, error) { return stage.KernelAcross(true) }},
		{Name: "kernel-superpackets", Raise: func(context.Context) (*stage.Path, error) { return stage.KernelAcross(false) }},
	}
}

const topology = `
pools: [10.79.0.0/16, "fd79::/48"]
nodes: [{name: north}, {name: south}]
links:
  - name: uplink
    ends:
      - {node: north, addresses: [172.31.79.1/24, "fd31:79::1/64"]}
      - {node: south, addresses: [172.31.79.2/24, "fd31:79::2/64"]}
pods:
  - {name: client, node: north, addresses: [10.79.1.10, "fd79:0:0:1::10"]}
  - {name: server, node: south, addresses: [10.79.2.10, "fd79:0:0:2::10"]}
`

// oursPath is two forwarders, the real processes, each with one worker.
func oursPath(ctx context.Context, forwarder string) (*stage.Path, error) {
	l, err := stage.Raise(ctx, "nodes", topology, forwarder)
	if err != nil {
		return nil, err
	}
	return stage.LabPath(l, "client", "server", "north", "south")
}
