// Package dataplane is a client of api/dataplane/v1: it keeps a dataplane, such
// as the forwarder, at a desired state that its caller hands over as snapshots
// and deltas.
//
//	caller ── SendSnapshot, SendDelta ──► queue ── chunks, commit ──► dataplane
//	   ▲                                    ▲                            │
//	   └── Delivery.Wait ◄── settled ───────┴──────── ack or refusal ◄───┘
//
// A Stream outlives its connection. It reconnects with growing pauses, sends
// what the dataplane had accepted as one snapshot, then what was not settled
// yet, each as a commit of its own; a caller notices nothing but the time it takes.
package dataplane
