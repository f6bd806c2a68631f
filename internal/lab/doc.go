// Package lab raises nodes and pods in network namespaces from one YAML file:
// for the demo, the tests and the benchmarks.
//
//	pod namespace          node namespace                                 wire's namespace, if impaired
//	eth0 (TUN) ──────────── margay-forwarder ── margay0 (host port)
//	eth0 (veth) ──────────── p-NAME (AF_XDP) │
//	                         l-NAME (AF_XDP, shared with the kernel) ──── [pump] ──── the other node
//
// A node's kernel keeps its addresses on links, its ARP and its neighbour
// discovery; it forwards nothing. What reaches pods was carried by the
// forwarder, and the lab can prove it: see Witness.
//
// Pods are judged from their first packet on: by the profile of their namespace,
// which allows everything, until manifests of the topology or of Police say
// otherwise. Package policies calculates what follows for each node.
//
// Everything a lab makes is written down in a state file first, so that Down
// leaves nothing, also after a crash of whoever raised it.
package lab
